"""Figures of a running server for Prometheus, with TensorFlow Serving's names.

`prometheus_client` cannot write them: it appends `_total` to the names of counters.
"""

import threading
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import accumulate

_Labels = tuple[str, ...]  # Their values.

# Names of figures and of their labels.
_REQUESTS = ":tensorflow:serving:request_count", ("model_name", "status")
_IN_FLIGHT = ":caption_gan:serving:requests_in_flight", ("model_name",)
_REQUEST_LATENCY = ":tensorflow:serving:request_latency", ("model_name", "API", "entrypoint")
_RUNTIME_LATENCY = ":tensorflow:serving:runtime_latency", ("model_name", "API", "runtime")

# 10 microseconds to 25 minutes.
_LIMITS = tuple(10 * 1.8**number for number in range(33))
# Names come from clients that reload the configuration, too.
_MOST_MODELS = 1000


class _Histogram:
    def __init__(self) -> None:
        self.counts = [0] * (len(_LIMITS) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(_LIMITS, value)] += 1
        self.sum += value


class Monitoring:
    """Counts and times requests of each model; many threads may tell it at once.

    Of a model without a name are those requests for which there is no model, and those of models
    that came after the first 1,000.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._models: set[str] = set()
        self._requests: Counter[_Labels] = Counter()
        self._in_flight: Counter[_Labels] = Counter()
        self._request_latencies: dict[_Labels, _Histogram] = defaultdict(_Histogram)
        self._runtime_latencies: dict[_Labels, _Histogram] = defaultdict(_Histogram)

    def request(
        self, model: str, method: str, entrypoint: str, status_name: str, seconds: float
    ) -> None:
        """Counts an answered request, and its time if it was a success.

        Args:
            model: Name of the model that answered, empty if there is none of the name asked for.
            method: `Predict`, for example.
            entrypoint: `GRPC` or `REST`.
            status_name: Of gRPC: `OK`, `NOT_FOUND` and so on.
            seconds: From its arrival to its answer.
        """
        # TensorFlow Serving writes what it found in the URL.
        api = method.lower() if entrypoint == "REST" else method
        with self._lock:
            model = self._known(model)
            self._requests[model, status_name] += 1
            if status_name == "OK":
                self._request_latencies[model, api, entrypoint].add(seconds * 1e6)

    def runtime(self, model: str, method: str, seconds: float) -> None:
        """Adds the time of a computation, waiting for a batch included."""
        with self._lock:
            self._runtime_latencies[self._known(model), method, "TF1"].add(seconds * 1e6)

    @contextmanager
    def in_flight(self, model: str) -> Iterator[None]:
        """Counts a request as long as it is being answered."""
        with self._lock:
            model = self._known(model)
            self._in_flight[(model,)] += 1
        try:
            yield
        finally:
            with self._lock:
                self._in_flight[(model,)] -= 1

    def text(self) -> str:
        """All figures as Prometheus reads them; times are in microseconds."""
        with self._lock:
            lines = [
                *_values(*_REQUESTS, "counter", self._requests),
                *_values(*_IN_FLIGHT, "gauge", self._in_flight),
                *_histograms(*_REQUEST_LATENCY, self._request_latencies),
                *_histograms(*_RUNTIME_LATENCY, self._runtime_latencies),
            ]
        return "".join(lines)

    def _known(self, model: str) -> str:
        if model in self._models or len(self._models) < _MOST_MODELS:
            self._models.add(model)
            return model
        return ""


def _values(name: str, labels: _Labels, kind: str, values: Mapping[_Labels, int]) -> Iterator[str]:
    yield f"# TYPE {name} {kind}\n"
    for key, value in sorted(values.items()):
        yield f"{name}{{{_written(labels, key)}}} {value}\n"


def _histograms(
    name: str, labels: _Labels, histograms: Mapping[_Labels, _Histogram]
) -> Iterator[str]:
    yield f"# TYPE {name} histogram\n"
    # As TensorFlow Serving writes them; dashboards have these texts.
    limits = [*(f"{limit:g}" for limit in _LIMITS), "+Inf"]
    for key, histogram in sorted(histograms.items()):
        written = _written(labels, key)
        counts = list(accumulate(histogram.counts))
        for limit, count in zip(limits, counts, strict=True):
            yield f'{name}_bucket{{{written},le="{limit}"}} {count}\n'
        yield f"{name}_sum{{{written}}} {histogram.sum}\n"
        yield f"{name}_count{{{written}}} {counts[-1]}\n"


def _written(labels: _Labels, values: _Labels) -> str:
    escaped = (
        value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"") for value in values
    )
    return ",".join(f'{label}="{value}"' for label, value in zip(labels, escaped, strict=True))
