"""Metrics of a running server for Prometheus, with TensorFlow Serving's names.

`prometheus_client` cannot write these names: it appends `_total` to those of counters.
"""

import threading
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import accumulate

_Labels = tuple[str, ...]  # Names or values of labels.

# Names of metrics and of their labels.
_REQUESTS = ":tensorflow:serving:request_count", ("model_name", "status")
_IN_FLIGHT = ":caption_gan:serving:requests_in_flight", ("model_name",)
_REQUEST_LATENCY = ":tensorflow:serving:request_latency", ("model_name", "API", "entrypoint")
_RUNTIME_LATENCY = ":tensorflow:serving:runtime_latency", ("model_name", "API", "runtime")

# Upper bounds of the buckets in microseconds: 10 microseconds to 25 minutes.
_BOUNDS = tuple(10 * 1.8**power for power in range(33))
# Clients can add models with HandleReloadConfigRequest, so their names need a limit.
_MAX_MODELS = 1000


class _Histogram:
    def __init__(self) -> None:
        self.counts = [0] * (len(_BOUNDS) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(_BOUNDS, value)] += 1
        self.sum += value


class Monitoring:
    """Counts and times the requests of each model. All methods are thread-safe.

    The empty model name stands for requests to unknown models, and for all models after the first
    1,000.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._models: set[str] = set()
        self._requests: Counter[_Labels] = Counter()
        self._in_flight: Counter[_Labels] = Counter()
        self._request_latencies: dict[_Labels, _Histogram] = defaultdict(_Histogram)
        self._runtime_latencies: dict[_Labels, _Histogram] = defaultdict(_Histogram)

    def record_request(
        self, model: str, method: str, entrypoint: str, status_name: str, seconds: float
    ) -> None:
        """Counts a request, and adds its latency if it succeeded.

        Args:
            model: Name of the model; empty if the request names an unknown one.
            method: `Predict`, for example.
            entrypoint: `GRPC` or `REST`.
            status_name: Status code of gRPC, such as `OK` or `NOT_FOUND`.
            seconds: Time from the request's arrival to its response.
        """
        # For REST, TensorFlow Serving writes the method as in the URL, in lower case.
        api = method.lower() if entrypoint == "REST" else method
        with self._lock:
            model = self._limited_name(model)
            self._requests[model, status_name] += 1
            if status_name == "OK":
                self._request_latencies[model, api, entrypoint].add(seconds * 1e6)

    def record_runtime(self, model: str, method: str, seconds: float) -> None:
        """Adds the time of a computation, including the wait for its batch."""
        with self._lock:
            self._runtime_latencies[self._limited_name(model), method, "TF1"].add(seconds * 1e6)

    @contextmanager
    def in_flight(self, model: str) -> Iterator[None]:
        """Counts a request as in flight within the context."""
        with self._lock:
            model = self._limited_name(model)
            self._in_flight[(model,)] += 1
        try:
            yield
        finally:
            with self._lock:
                self._in_flight[(model,)] -= 1

    def prometheus_text(self) -> str:
        """Returns all metrics in Prometheus' text format; times are in microseconds."""
        with self._lock:
            lines = [
                *_values(*_REQUESTS, "counter", self._requests),
                *_values(*_IN_FLIGHT, "gauge", self._in_flight),
                *_histograms(*_REQUEST_LATENCY, self._request_latencies),
                *_histograms(*_RUNTIME_LATENCY, self._runtime_latencies),
            ]
        return "".join(lines)

    def _limited_name(self, model: str) -> str:
        if model in self._models or len(self._models) < _MAX_MODELS:
            self._models.add(model)
            return model
        return ""


def _values(
    name: str, labels: _Labels, metric_type: str, values: Mapping[_Labels, int]
) -> Iterator[str]:
    yield f"# TYPE {name} {metric_type}\n"
    for key, value in sorted(values.items()):
        yield f"{name}{{{_label_text(labels, key)}}} {value}\n"


def _histograms(
    name: str, labels: _Labels, histograms: Mapping[_Labels, _Histogram]
) -> Iterator[str]:
    yield f"# TYPE {name} histogram\n"
    # Written with six digits, as by TensorFlow Serving: dashboards query these strings.
    bounds = [*(f"{bound:g}" for bound in _BOUNDS), "+Inf"]
    for key, histogram in sorted(histograms.items()):
        label_text = _label_text(labels, key)
        counts = list(accumulate(histogram.counts))
        for bound, count in zip(bounds, counts, strict=True):
            yield f'{name}_bucket{{{label_text},le="{bound}"}} {count}\n'
        yield f"{name}_sum{{{label_text}}} {histogram.sum}\n"
        yield f"{name}_count{{{label_text}}} {counts[-1]}\n"


def _label_text(labels: _Labels, values: _Labels) -> str:
    escaped = (
        value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"") for value in values
    )
    return ",".join(f'{label}="{value}"' for label, value in zip(labels, escaped, strict=True))
