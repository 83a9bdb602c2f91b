"""Tests of BatchScheduler: deadlines, closing and references to models."""

import gc
import math
import threading
import time
import weakref
from types import SimpleNamespace

import grpc
import numpy as np
import pytest

from serving.errors import RequestError
from tests.serving.manager_helpers import wait_until
from tests.serving.scheduler_harness import LONG, FakeModel, Harness, error_of, result_of

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
DEADLINE_EXCEEDED = grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_task_past_its_deadline_does_not_run():
    with Harness(batch_timeout_micros=0) as harness:
        (first,) = harness.occupy_thread()
        late = harness.call([1], timeout=0.05)
        in_time = harness.call([2], timeout=LONG)
        error = error_of(late)
        assert (error.code, error.message) == (DEADLINE_EXCEEDED, "Deadline Exceeded")
        harness.model.gate.set()
        assert result_of(first) == [0]
        assert result_of(in_time) == [4]
        assert harness.model.x == [[0], [2]]


def test_a_task_whose_caller_has_left_does_not_run(monkeypatch):
    monkeypatch.setattr("serving.batch_scheduler.time", SimpleNamespace(monotonic=lambda: 0.0))
    with Harness(batch_timeout_micros=0) as harness:
        (first,) = harness.occupy_thread()
        assert error_of(harness.call([1], timeout=0.05)).code is DEADLINE_EXCEEDED
        harness.model.gate.set()
        assert result_of(first) == [0]
        wait_until(lambda: not harness.queued_rows())
        assert result_of(harness.call([2])) == [4]
        assert harness.model.x == [[0], [2]]


def test_a_batch_without_waiting_callers_does_not_run():
    with Harness(batch_timeout_micros=100_000) as harness:
        for timeout in (0.01, 0, -1):
            assert error_of(harness.call([1], timeout=timeout)).code is DEADLINE_EXCEEDED
        wait_until(lambda: not harness.queued_rows())
        assert harness.model.calls == []


@pytest.mark.parametrize(
    ("timeouts", "expected"),
    [([20, 10, 15], 20), ([5, None, 10], None), ([math.inf, 1], None), ([1e12, 1], 1e12)],
)
def test_a_batch_has_the_latest_deadline_of_its_tasks(timeouts, expected):
    with Harness(max_batch_size=len(timeouts)) as harness:
        for future in [harness.call([1], timeout=timeout) for timeout in timeouts]:
            assert result_of(future) == [2]
        ((_, timeout),) = harness.model.calls
        if expected is None:
            assert timeout is None
        else:
            assert expected * 0.8 < timeout <= expected


def test_one_caller_stays_past_its_deadline_while_the_batch_runs():
    # Its lease keeps the servable open.
    with Harness(max_batch_size=3) as harness:
        harness.model.gate.clear()
        futures = [harness.call([number], timeout=number / 10) for number in (3, 1, 2)]
        assert harness.model.running.acquire(timeout=LONG)
        for future in futures[1:]:
            assert error_of(future).code is DEADLINE_EXCEEDED
        time.sleep(0.3)
        assert not futures[0].done()
        harness.model.gate.set()
        assert result_of(futures[0]) == [6]


def test_a_failed_batch_is_not_retried_past_the_deadline():
    def compute(name, x):
        time.sleep(0.2)
        raise RequestError(DEADLINE_EXCEEDED, "of the model")

    with Harness(compute, max_batch_size=2) as harness:
        for future in [harness.call([1], timeout=0.1) for _ in range(2)]:
            assert error_of(future).message == "Deadline Exceeded"
        assert harness.model.rows == [2]


def test_a_failed_part_waits_for_the_other_parts():
    others = threading.Event()

    def compute(name: str, x: np.ndarray) -> np.ndarray:
        if x[0] < 0:
            raise RequestError(grpc.StatusCode.ABORTED, "failed")
        assert others.wait(LONG)
        return x

    with Harness(
        compute,
        enable_large_batch_splitting=True,
        max_batch_size=2,
        max_execution_batch_size=1,
        num_batch_threads=2,
    ) as harness:
        future = harness.call([-1, 1])
        for _ in range(2):
            assert harness.model.running.acquire(timeout=LONG)
        time.sleep(0.1)
        assert not future.done()
        others.set()
        assert error_of(future).message == "failed"


def test_close_runs_the_queued_batches():
    with Harness(thread_pool_name="finishing", batch_timeout_micros=0) as harness:
        futures = harness.occupy_thread([1], [2.5])
        closing = harness.callers.submit(harness.scheduler.close)
        wait_until(lambda: error_of(harness.call([3], timeout=0.01)).code is UNAVAILABLE)
        assert not closing.done()
        harness.model.gate.set()
        closing.result(LONG)
        assert [result_of(future) for future in futures] == [[0], [2], [5]]
        assert not [thread for thread in threading.enumerate() if "finishing" in thread.name]
        assert error_of(harness.call([3])).message == "The batch scheduler is closed"
        assert harness.model.x == [[0], [1], [2.5]]


def test_close_does_not_wait_for_batches_to_fill():
    with Harness(num_batch_threads=3) as harness:
        futures = harness.call_in_turn([1], [2.5])
        start = time.monotonic()
        harness.scheduler.close()
        assert [result_of(future) for future in futures] == [[2], [5]]
        assert time.monotonic() - start < LONG / 2


def test_the_scheduler_holds_no_reference_to_an_unused_model():
    with Harness(num_batch_threads=4, max_batch_size=2, batch_timeout_micros=100) as harness:
        references = []
        gc.disable()  # Models must be freed without garbage collection, too.
        try:
            for number in range(1000):
                model = FakeModel()
                references.append(weakref.ref(model))
                inputs = {"x": np.array([number])}
                harness.scheduler.run(model, "double", inputs, ["y"])
                del model
            wait_until(lambda: not any(reference() for reference in references))
        finally:
            gc.enable()
        assert harness.queued_rows() == []
