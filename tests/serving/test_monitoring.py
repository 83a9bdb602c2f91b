"""Tests of the metrics for Prometheus: names, counts, latencies and threads."""

import re
from bisect import bisect_left
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.monitoring import Monitoring

REQUESTS = ":tensorflow:serving:request_count"
REQUEST_LATENCY = ":tensorflow:serving:request_latency"
RUNTIME_LATENCY = ":tensorflow:serving:runtime_latency"
IN_FLIGHT = ":caption_gan:serving:requests_in_flight"
EXAMPLES = ":tensorflow:serving:request_example_count_total"
EXAMPLE_COUNTS = ":tensorflow:serving:request_example_counts"
BATCHES = ":tensorflow:serving:batching_session:wrapped_run_count"
QUEUING_LATENCY = ":tensorflow:serving:batching_session:queuing_latency"
WARM_UP_LATENCY = ":tensorflow:serving:model_warmup_latency"
ESCAPES = {r"\\": "\\", r"\"": '"', r"\n": "\n"}

SAMPLE = re.compile(r"(?P<name>[a-zA-Z_:][\w:]*)\{(?P<labels>.*)\} (?P<value>[^ ]+)\Z", re.ASCII)
LABEL = re.compile(r'(?P<name>[a-zA-Z_]\w*)="(?P<value>(?:[^"\\\n]|\\[\\"n])*)"(?:,|\Z)', re.ASCII)


def parse(text: str) -> tuple[dict[str, str], dict[tuple, float]]:
    """Parses Prometheus' text format to types by name and values by name and labels."""
    assert text.endswith("\n")
    types, values = {}, {}
    for line in text[:-1].split("\n"):
        if line.startswith("# TYPE "):
            name, metric_type = line.removeprefix("# TYPE ").split(" ")
            assert name not in types
            types[name] = metric_type
            continue
        sample = SAMPLE.match(line)
        assert sample, line
        place, labels = 0, []
        while place < len(sample["labels"]):
            label = LABEL.match(sample["labels"], place)
            assert label, line
            value = re.sub(r"\\.", lambda escape: ESCAPES[escape[0]], label["value"])
            labels.append((label["name"], value))
            place = label.end()
        # Samples follow the TYPE line of their metric.
        assert sample["name"].startswith(list(types)[-1])
        key = sample["name"], *labels
        assert key not in values
        values[key] = float(sample["value"])
    return types, values


def values(monitoring: Monitoring) -> dict[tuple, float]:
    return parse(monitoring.prometheus_text())[1]


def test_names_and_types_of_metrics():
    types, nothing = parse(Monitoring().prometheus_text())
    assert types == {
        REQUESTS: "counter",
        IN_FLIGHT: "gauge",
        REQUEST_LATENCY: "histogram",
        RUNTIME_LATENCY: "histogram",
        EXAMPLES: "counter",
        EXAMPLE_COUNTS: "histogram",
        BATCHES: "counter",
        QUEUING_LATENCY: "histogram",
        WARM_UP_LATENCY: "histogram",
    }
    assert not nothing


def test_requests_are_counted_and_successes_timed():
    monitoring = Monitoring()
    monitoring.record_request("m", "Predict", "GRPC", "OK", 15e-6)
    monitoring.record_request("m", "Predict", "GRPC", "OK", 1.0)
    monitoring.record_request("m", "Predict", "GRPC", "NOT_FOUND", 1.0)
    monitoring.record_request("m", "Predict", "REST", "OK", 40e-6)
    monitoring.record_request("", "Classify", "GRPC", "NOT_FOUND", 1.0)
    monitoring.record_runtime("m", "Classify", 5e-6)
    found = values(monitoring)
    counts = {key: value for key, value in found.items() if key[0] == REQUESTS}
    assert counts == {
        (REQUESTS, ("model_name", "m"), ("status", "OK")): 3,
        (REQUESTS, ("model_name", "m"), ("status", "NOT_FOUND")): 1,
        (REQUESTS, ("model_name", ""), ("status", "NOT_FOUND")): 1,
    }
    grpc = ("model_name", "m"), ("API", "Predict"), ("entrypoint", "GRPC")
    rest = ("model_name", "m"), ("API", "predict"), ("entrypoint", "REST")
    runtime = ("model_name", "m"), ("API", "Classify"), ("runtime", "TF1")
    sums = {key: value for key, value in found.items() if key[0].endswith("_sum")}
    assert sums == pytest.approx(
        {
            (f"{REQUEST_LATENCY}_sum", *grpc): 1_000_015,
            (f"{REQUEST_LATENCY}_sum", *rest): 40,
            (f"{RUNTIME_LATENCY}_sum", *runtime): 5,
        }
    )
    buckets = [value for key, value in found.items() if key[0] == f"{REQUEST_LATENCY}_bucket"]
    # Bounds are 10, 18, 32.4, 58.3 and so on; the twentieth is 708,235, the next 1,274,823.
    assert buckets == [0, *[1] * 19, *[2] * 14, 0, 0, 0, *[1] * 31]


def test_requests_without_a_method_are_counted_but_not_timed():
    monitoring = Monitoring()
    monitoring.record_request("m", "", "REST", "OK", 1.0)
    assert values(monitoring) == {(REQUESTS, ("model_name", "m"), ("status", "OK")): 1}


def test_examples_batches_and_warm_ups():
    monitoring = Monitoring()
    for count in (1, 3, 20_000):
        monitoring.record_examples("m", count)
    monitoring.record_batch()
    monitoring.record_queuing("pool", 1.0)
    monitoring.record_warm_up("/m/1", "OK", 15e-6)
    found = values(monitoring)
    assert (
        found[EXAMPLES, ("model", "m")] == found[f"{EXAMPLE_COUNTS}_sum", ("model", "m")] == 20_004
    )
    buckets = [value for key, value in found.items() if key[0] == f"{EXAMPLE_COUNTS}_bucket"]
    assert buckets == [1, 1, *[2] * 13, 3]  # Bounds are 1, 2, 4 and so on to 16,384.
    assert found[(BATCHES,)] == 1
    pool = ("thread_pool_name", "pool")
    assert found[f"{QUEUING_LATENCY}_bucket", pool, ("le", "100")] == 0
    assert found[f"{QUEUING_LATENCY}_bucket", pool, ("le", "1.09205e+06")] == 1
    warm_up = ("model_path", "/m/1"), ("status", "OK")
    assert found[f"{WARM_UP_LATENCY}_bucket", *warm_up, ("le", "18")] == 1


def test_bucket_bounds_have_six_digits():
    monitoring = Monitoring()
    monitoring.record_runtime("m", "Predict", 1.0)
    bounds = [key[-1][1] for key in values(monitoring) if key[0] == f"{RUNTIME_LATENCY}_bucket"]
    assert bounds[:6] == ["10", "18", "32.4", "58.32", "104.976", "188.957"]
    assert bounds[19] == "708235"
    assert bounds[-1] == "+Inf"
    assert len(bounds) == 34


@given(st.lists(st.floats(0, 1e5), min_size=1))
def test_buckets_are_cumulative(seconds):
    monitoring = Monitoring()
    for time in seconds:
        monitoring.record_runtime("m", "Predict", time)
    found = values(monitoring)
    *buckets, total, count = found.values()
    bounds = [10 * 1.8**power for power in range(33)]
    places = Counter(bisect_left(bounds, 1e6 * time) for time in seconds)
    assert buckets == [sum(places[lower] for lower in range(place + 1)) for place in range(34)]
    assert total == pytest.approx(1e6 * sum(seconds))
    assert count == buckets[-1] == len(seconds)


def test_requests_in_flight():
    monitoring = Monitoring()
    key = IN_FLIGHT, ("model_name", "m")
    with monitoring.in_flight("m"):
        with pytest.raises(ZeroDivisionError), monitoring.in_flight("m"):
            assert values(monitoring)[key] == 2
            raise ZeroDivisionError
        assert values(monitoring)[key] == 1
    assert values(monitoring)[key] == 0


@given(st.text())
def test_label_values_are_escaped(name):
    monitoring = Monitoring()
    monitoring.record_request(name, "Predict", "GRPC", "OK", 1.0)
    with monitoring.in_flight(name):
        for key in values(monitoring):
            assert key[1] == ("model_name", name)


def test_the_number_of_model_names_is_limited():
    monitoring = Monitoring()
    for number in range(1100):
        monitoring.record_request(f"m{number}", "Predict", "GRPC", "OK", 1.0)
        monitoring.record_runtime(f"m{number}", "Predict", 1.0)
        with monitoring.in_flight(f"m{number}"):
            pass
    monitoring.record_request("m7", "Predict", "GRPC", "OK", 1.0)
    found = values(monitoring)
    counts = {key[1][1]: value for key, value in found.items() if key[0] == REQUESTS}
    assert len(counts) == 1001
    assert counts[""] == 100
    assert counts["m7"] == 2
    assert len({key[1] for key in found}) == 1001


def test_concurrent_updates_are_counted():
    monitoring = Monitoring()

    def record(_: int) -> None:
        for _ in range(500):
            with monitoring.in_flight("m"):
                monitoring.record_request("m", "Predict", "GRPC", "OK", 0.5)
                monitoring.record_runtime("m", "Predict", 0.25)
        parse(monitoring.prometheus_text())

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(record, range(8)))
    found = values(monitoring)
    assert found[REQUESTS, ("model_name", "m"), ("status", "OK")] == 4000
    assert found[IN_FLIGHT, ("model_name", "m")] == 0
    sums = [value for key, value in found.items() if key[0].endswith("_sum")]
    assert sums == [2e9, 1e9]
