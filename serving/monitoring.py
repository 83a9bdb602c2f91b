"""Metrics of a running server for Prometheus, with TensorFlow Serving's names.

`prometheus_client` cannot write these names: it appends `_total` to those of counters.
"""

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import accumulate

_Labels = tuple[str, ...]  # Names or values of labels.

# Names of metrics and of their labels.
_REQUESTS = ":tensorflow:serving:request_count", ("model_name", "status")
_IN_FLIGHT = ":caption_gan:serving:requests_in_flight", ("model_name",)
_REQUEST_LATENCY = ":tensorflow:serving:request_latency", ("model_name", "API", "entrypoint")
_RUNTIME_LATENCY = ":tensorflow:serving:runtime_latency", ("model_name", "API", "runtime")
_EXAMPLES = ":tensorflow:serving:request_example_count_total", ("model",)
_EXAMPLE_COUNTS = ":tensorflow:serving:request_example_counts", ("model",)
_BATCHES = ":tensorflow:serving:batching_session:wrapped_run_count", ()
_QUEUING_LATENCY = ":tensorflow:serving:batching_session:queuing_latency", ("thread_pool_name",)
_WARM_UP_LATENCY = ":tensorflow:serving:model_warmup_latency", ("model_path", "status")

# Upper bounds of the buckets, as in TensorFlow Serving. Times are in microseconds.
_LATENCIES = tuple(10 * 1.8**power for power in range(33))  # To 25 minutes.
_QUEUING_LATENCIES = tuple(100 * 1.2**power for power in range(52))  # To a second.
_COUNTS = tuple(2.0**power for power in range(15))
# Clients can add models with HandleReloadConfigRequest, so their names need a limit.
_MAX_MODELS = 1000


class _Histograms(dict[_Labels, list[float]]):
    """Counts by bucket, then the sum, by values of labels."""

    def __init__(self, bounds: tuple[float, ...]):
        super().__init__()
        self.bounds = bounds

    def add(self, labels: _Labels, value: float) -> None:
        histogram = self.setdefault(labels, [0] * (len(self.bounds) + 2))
        histogram[bisect_left(self.bounds, value)] += 1
        histogram[-1] += value


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
        self._request_latencies = _Histograms(_LATENCIES)
        self._runtime_latencies = _Histograms(_LATENCIES)
        self._examples: Counter[_Labels] = Counter()
        self._example_counts = _Histograms(_COUNTS)
        self._batches: Counter[_Labels] = Counter()
        self._queuing_latencies = _Histograms(_QUEUING_LATENCIES)
        self._warm_up_latencies = _Histograms(_LATENCIES)

    def record_request(
        self, model: str, method: str, entrypoint: str, status_name: str, seconds: float
    ) -> None:
        """Counts a request, and adds its latency if it succeeded.

        Args:
            model: Name of the model; empty if the request names an unknown one.
            method: `Predict`, for example; empty for requests that are not timed.
            entrypoint: `GRPC` or `REST`.
            status_name: Status code of gRPC, such as `OK` or `NOT_FOUND`.
            seconds: Time from the request's arrival to its response.
        """
        # For REST, TensorFlow Serving writes the method as in the URL, in lower case.
        api = method.lower() if entrypoint == "REST" else method
        with self._lock:
            model = self._limited_name(model)
            self._requests[model, status_name] += 1
            if status_name == "OK" and method:
                self._request_latencies.add((model, api, entrypoint), seconds * 1e6)

    def record_runtime(self, model: str, method: str, seconds: float) -> None:
        """Adds the time of a computation, including the wait for its batch."""
        with self._lock:
            labels = self._limited_name(model), method, "TF1"
            self._runtime_latencies.add(labels, seconds * 1e6)

    def record_examples(self, model: str, count: int) -> None:
        """Adds the tf.train.Examples of a request that succeeded."""
        with self._lock:
            labels = (self._limited_name(model),)
            self._examples[labels] += count
            self._example_counts.add(labels, count)

    def record_batch(self) -> None:
        """Counts a run of a batch."""
        with self._lock:
            self._batches[()] += 1

    def record_queuing(self, thread_pool_name: str, seconds: float) -> None:
        """Adds the time that a call waited for its batch."""
        with self._lock:
            self._queuing_latencies.add((thread_pool_name,), seconds * 1e6)

    def record_warm_up(self, path: str, status_name: str, seconds: float) -> None:
        """Adds the time of a version's warm-up requests."""
        with self._lock:
            self._warm_up_latencies.add((path, status_name), seconds * 1e6)

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
                *_values(*_EXAMPLES, "counter", self._examples),
                *_histograms(*_EXAMPLE_COUNTS, self._example_counts),
                *_values(*_BATCHES, "counter", self._batches),
                *_histograms(*_QUEUING_LATENCY, self._queuing_latencies),
                *_histograms(*_WARM_UP_LATENCY, self._warm_up_latencies),
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


def _histograms(name: str, labels: _Labels, histograms: _Histograms) -> Iterator[str]:
    yield f"# TYPE {name} histogram\n"
    # Written with six digits, as by TensorFlow Serving: dashboards query these strings.
    bounds = [*(f"{bound:g}" for bound in histograms.bounds), "+Inf"]
    for key, (*buckets, total) in sorted(histograms.items()):
        label_text = _label_text(labels, key)
        counts = list(accumulate(buckets))
        for bound, count in zip(bounds, counts, strict=True):
            yield f'{name}_bucket{{{label_text},le="{bound}"}} {count}\n'
        yield f"{name}_sum{{{label_text}}} {total}\n"
        yield f"{name}_count{{{label_text}}} {counts[-1]}\n"


def _label_text(labels: _Labels, values: _Labels) -> str:
    escaped = (
        value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"") for value in values
    )
    return ",".join(f'{label}="{value}"' for label, value in zip(labels, escaped, strict=True))
