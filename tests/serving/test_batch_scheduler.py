"""Tests of BatchScheduler: which calls share a batch, when it runs, and what each gets."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.serving.manager_helpers import wait_until
from tests.serving.scheduler_harness import LONG, FakeModel, Harness, double, error_of, result_of

INVALID_ARGUMENT = grpc.StatusCode.INVALID_ARGUMENT
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


def test_a_full_batch_runs_at_once():
    with Harness(max_batch_size=4) as harness:
        futures = [harness.call(x) for x in ([1], [2, 3], [4])]
        assert [result_of(future) for future in futures] == [[2], [4, 6], [8]]
        assert harness.model.rows == [4]


def test_batches_and_waits_are_measured():
    with Harness(max_batch_size=2, thread_pool_name="pool") as harness:
        futures = [harness.call([number]) for number in range(4)]
        for future in futures:
            result_of(future)
        text = harness.monitoring.prometheus_text()
    assert ":tensorflow:serving:batching_session:wrapped_run_count{} 2\n" in text
    waits = ':tensorflow:serving:batching_session:queuing_latency_count{thread_pool_name="pool"} 4'
    assert waits in text.splitlines()


def test_a_partial_batch_waits_for_its_timeout():
    with Harness(batch_timeout_micros=100_000) as harness:
        start = time.monotonic()
        assert result_of(harness.call([1])) == [2]
        assert 0.1 <= time.monotonic() - start < LONG / 2


def test_a_due_batch_takes_tasks_until_a_thread_is_free():
    with Harness(max_batch_size=4, batch_timeout_micros=0) as harness:
        futures = harness.occupy_thread([1], [2, 3], [4], [5])
        assert harness.queued_rows() == [4, 1]
        harness.model.gate.set()
        assert [result_of(future) for future in futures] == [[0], [2], [4, 6], [8], [10]]
        assert harness.model.x == [[0], [1, 2, 3, 4], [5]]


def test_a_task_that_does_not_fit_starts_a_new_batch():
    with Harness(max_batch_size=4) as harness:
        (first,) = harness.call_in_turn([1, 2, 3])
        second = harness.call([4, 5])
        assert result_of(first) == [2, 4, 6]
        assert harness.queued_rows() == [2]
        assert result_of(harness.call([6, 7])) == [12, 14]
        assert result_of(second) == [8, 10]
        assert harness.model.rows == [3, 4]


def test_one_batch_runs_per_thread():
    with Harness(max_batch_size=1, num_batch_threads=3) as harness:
        harness.model.gate.clear()
        futures = [harness.call([number]) for number in range(4)]
        for _ in range(3):
            assert harness.model.running.acquire(timeout=LONG)
        assert not harness.model.running.acquire(timeout=0.05)
        harness.model.gate.set()
        assert [result_of(future) for future in futures] == [[0], [2], [4], [6]]


def test_a_later_batch_does_not_delay_a_due_one():
    with Harness(batch_timeout_micros=500_000) as harness:
        start = time.monotonic()
        (first,) = harness.call_in_turn([1])
        time.sleep(0.45)
        second = harness.call([1.5])
        assert result_of(first) == [2]
        assert time.monotonic() - start < 0.9
        assert result_of(second) == [3]


def test_queues_take_turns():
    with Harness(max_batch_size=1, batch_timeout_micros=0) as harness:
        futures = harness.occupy_thread([1], [2], [3], [0.5])
        harness.model.gate.set()
        for future in futures:
            future.result(LONG)
        assert harness.model.x == [[0], [1], [0.5], [2], [3]]


def test_only_calls_with_the_same_key_share_a_batch():
    other = FakeModel()
    calls: list[dict[str, Any]] = [
        {"x": [[1]]},
        {"x": [[1.0]]},
        {"x": [[1, 2]]},
        {"x": [1]},
        {"x": [[1]], "z": [[5]]},
        {"x": [[1]], "signature": "another"},
        {"x": [[1]], "outputs": ("greatest",)},
        {"x": [[1]], "outputs": ("y", "greatest")},
        {"x": [[1]], "model": other},
    ]
    with Harness(max_batch_size=2) as harness:
        futures = [harness.call(**call) for call in calls]
        wait_until(lambda: harness.queued_rows() == [1] * len(calls))
        futures += [harness.call(**call) for call in calls]
        for future, call in zip(futures, calls * 2, strict=True):
            assert list(future.result(LONG)) == list(call.get("outputs", ("y",)))
        assert result_of(futures[4]) == [[7]]
        assert harness.model.rows == [2] * (len(calls) - 1)
        assert other.rows == [2]


def test_a_full_queue_rejects_calls_and_other_queues_accept_them():
    with Harness(max_batch_size=2, max_enqueued_batches=2, batch_timeout_micros=0) as harness:
        futures = harness.occupy_thread([1, 2], [3])
        error = error_of(harness.call([4, 5]))
        assert error.code is UNAVAILABLE
        assert error.message == (
            "The batch scheduling queue to which this task was submitted is full; currently 2 "
            "batches enqueued and max_enqueued_batches is 2"
        )
        futures += harness.call_in_turn([6])  # Fits into the second batch.
        assert error_of(harness.call([7])).code is UNAVAILABLE
        futures += harness.call_in_turn([[8], [9]])
        assert harness.queued_rows() == [2, 2, 2]
        harness.model.gate.set()
        answers = [result_of(future) for future in futures]
        assert answers == [[0], [2, 4], [6], [12], [[16], [18]]]
        assert result_of(harness.call([4, 5])) == [8, 10]


def test_a_task_larger_than_a_batch_is_rejected():
    with Harness(max_batch_size=3) as harness:
        error = error_of(harness.call([1, 2, 3, 4]))
        assert error.code is INVALID_ARGUMENT
        assert error.message == "Task size 4 is larger than maximum input batch size 3"
        assert result_of(harness.call([1, 2, 3])) == [2, 4, 6]


def test_a_large_task_is_split():
    with Harness(
        enable_large_batch_splitting=True,
        max_batch_size=8,
        max_execution_batch_size=3,
        max_enqueued_batches=3,
        batch_timeout_micros=0,
    ) as harness:
        futures = harness.occupy_thread([1, 2], [3, 4, 5, 6, 7])
        assert harness.queued_rows() == [3, 3, 1]
        assert error_of(harness.call([8, 9, 10])).code is UNAVAILABLE
        futures += harness.call_in_turn([8, 9])
        harness.model.gate.set()
        answers = [result_of(future) for future in futures]
        assert answers == [[0], [2, 4], [6, 8, 10, 12, 14], [16, 18]]
        assert harness.model.x == [[0], [1, 2, 3], [4, 5, 6], [7, 8, 9]]
        error = error_of(harness.call(range(9)))
        assert error.message == "Task size 9 is larger than maximum input batch size 8"


def test_parts_of_a_task_run_concurrently():
    with Harness(
        enable_large_batch_splitting=True,
        max_batch_size=3,
        max_execution_batch_size=1,
        num_batch_threads=3,
    ) as harness:
        harness.model.gate.clear()
        future = harness.call([1, 2, 3])
        for _ in range(3):
            assert harness.model.running.acquire(timeout=LONG)
        harness.model.gate.set()
        assert result_of(future) == [2, 4, 6]


INPUTS = {
    "integers": lambda rows, width: np.arange(rows * width).reshape(rows, width),
    "floats": lambda rows, width: np.linspace(-1, 1, rows * width, dtype="f").reshape(rows, width),
    "bytes": lambda rows, width: np.array([[b"%d\0" % row] * width for row in range(rows)], object),
    "images": lambda rows, width: np.ones([rows, width, 2], np.uint8),
}
TASKS = st.tuples(
    st.sampled_from(sorted(INPUTS)),
    st.integers(1, 4),  # Rows.
    st.integers(1, 2),  # Width.
    st.sampled_from([["y"], ["greatest"], ["greatest", "y"]]),
    st.integers(0, 100),  # Added to the inputs.
)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), tasks=st.lists(TASKS, min_size=1, max_size=24))
def test_batched_outputs_equal_those_of_separate_calls(data, tasks):
    rows = data.draw(st.integers(1, 6), "rows of a batch")
    splits = data.draw(st.booleans(), "splits")
    pad = data.draw(st.booleans(), "pad")
    sizes = data.draw(st.lists(st.integers(1, rows)), "allowed sizes")
    allowed = sorted({*sizes, rows}) if sizes else []

    def caller(task) -> None:
        call, size, width, outputs, added = task
        x = INPUTS[call](size if splits else min(size, rows), width)
        if call != "bytes":
            x = x + x.dtype.type(added)
        if pad:
            outputs = ["greatest"]  # Padding does not change the maximum.
        start.wait(LONG)
        computed = harness.scheduler.run(harness.model, "double", {"x": x}, outputs, LONG)
        assert list(computed) == outputs
        for name in outputs:
            np.testing.assert_array_equal(computed[name], double(name, x), strict=True)

    start = threading.Barrier(len(tasks))
    with Harness(
        allowed=allowed,
        pad=pad,
        max_batch_size=max(rows, 4) if splits else rows,
        max_execution_batch_size=rows,
        enable_large_batch_splitting=splits,
        max_enqueued_batches=1000,
        num_batch_threads=data.draw(st.integers(1, 3), "threads"),
        batch_timeout_micros=data.draw(st.sampled_from([0, 300, 2000]), "timeout"),
    ) as harness:
        for future in [harness.callers.submit(caller, task) for task in tasks]:
            future.result(LONG)
        for size in harness.model.rows:
            assert size <= rows
            assert not allowed or size in allowed


@pytest.mark.slow
def test_batching_costs_less_than_a_tenth_of_the_throughput():
    seconds, batch = 0.02, 16

    def compute(name: str, x: np.ndarray) -> np.ndarray:
        time.sleep(seconds)  # The run time does not depend on the batch size, as on a GPU.
        return x

    def client() -> int:
        count, inputs = 0, {"x": np.zeros([1, 512], np.float32)}
        while time.monotonic() < end:
            harness.scheduler.run(harness.model, "double", inputs, ["y"], LONG)
            count += 1
        return count

    with Harness(compute, max_batch_size=batch, batch_timeout_micros=2000) as harness:
        end = time.monotonic() + 3
        with ThreadPoolExecutor(32) as clients:
            futures = [clients.submit(client) for _ in range(32)]
            count = sum(future.result() for future in futures)
    assert count / 3 > 0.9 * batch / seconds
