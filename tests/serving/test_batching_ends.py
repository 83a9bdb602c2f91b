"""Callers that give up, a scheduler that closes, models that are gone."""

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
from tests.serving.batched import LONG, Model, Trial, answer, refusal
from tests.serving.managed import until

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
DEADLINE_EXCEEDED = grpc.StatusCode.DEADLINE_EXCEEDED


def test_whoever_waits_too_long_is_not_computed():
    with Trial(batch_timeout_micros=0) as trial:
        (first,) = trial.hold_back()
        late = trial.call([1], timeout=0.05)
        in_time = trial.call([2], timeout=LONG)
        error = refusal(late)
        assert (error.code, error.message) == (DEADLINE_EXCEEDED, "Deadline Exceeded")
        trial.model.gate.set()
        assert answer(first) == [0]
        assert answer(in_time) == [4]
        assert trial.model.x == [[0], [2]]


def test_whoever_left_is_not_computed_though_the_clock_says_there_is_time(monkeypatch):
    monkeypatch.setattr("serving.batching.time", SimpleNamespace(monotonic=lambda: 0.0))
    with Trial(batch_timeout_micros=0) as trial:
        (first,) = trial.hold_back()
        assert refusal(trial.call([1], timeout=0.05)).code is DEADLINE_EXCEEDED
        trial.model.gate.set()
        assert answer(first) == [0]
        until(lambda: not trial.waiting())
        assert answer(trial.call([2])) == [4]
        assert trial.model.x == [[0], [2]]


def test_a_batch_of_which_nothing_is_wanted_any_more_is_not_computed():
    with Trial(batch_timeout_micros=100_000) as trial:
        for timeout in (0.01, 0, -1):
            assert refusal(trial.call([1], timeout=timeout)).code is DEADLINE_EXCEEDED
        until(lambda: not trial.waiting())
        assert trial.model.calls == []


@pytest.mark.parametrize(
    ("timeouts", "expected"),
    [([20, 10, 15], 20), ([5, None, 10], None), ([math.inf, 1], None), ([1e12, 1], 1e12)],
)
def test_the_latest_deadline_is_the_batch_s(timeouts, expected):
    with Trial(max_batch_size=len(timeouts)) as trial:
        for future in [trial.call([1], timeout=timeout) for timeout in timeouts]:
            assert answer(future) == [2]
        ((_, timeout),) = trial.model.calls
        if expected is None:
            assert timeout is None
        else:
            assert expected * 0.8 < timeout <= expected


def test_who_gives_up_leaves_but_the_last_stays_while_it_is_computed():
    # Otherwise nobody would keep the servable open.
    with Trial(max_batch_size=3) as trial:
        trial.model.gate.clear()
        futures = [trial.call([number], timeout=number / 10) for number in (3, 1, 2)]
        assert trial.model.running.acquire(timeout=LONG)
        for future in futures[1:]:
            assert refusal(future).code is DEADLINE_EXCEEDED
        time.sleep(0.3)
        assert not futures[0].done()
        trial.model.gate.set()
        assert answer(futures[0]) == [6]


def test_a_task_whose_batch_failed_too_late_is_not_computed_again():
    def compute(name, x):
        time.sleep(0.2)
        raise RequestError(DEADLINE_EXCEEDED, "of the model")

    with Trial(compute, max_batch_size=2) as trial:
        for future in [trial.call([1], timeout=0.1) for _ in range(2)]:
            assert refusal(future).message == "Deadline Exceeded"
        assert trial.model.rows == [2]


def test_a_task_of_which_a_part_failed_stays_until_the_others_are_done():
    others = threading.Event()

    def compute(name: str, x: np.ndarray) -> np.ndarray:
        if x[0] < 0:
            raise RequestError(grpc.StatusCode.ABORTED, "failed")
        assert others.wait(LONG)
        return x

    with Trial(
        compute,
        enable_large_batch_splitting=True,
        max_batch_size=2,
        max_execution_batch_size=1,
        num_batch_threads=2,
    ) as trial:
        future = trial.call([-1, 1])
        for _ in range(2):
            assert trial.model.running.acquire(timeout=LONG)
        time.sleep(0.1)
        assert not future.done()
        others.set()
        assert refusal(future).message == "failed"


def test_closing_finishes_what_was_begun():
    with Trial(thread_pool_name="finishing", batch_timeout_micros=0) as trial:
        futures = trial.hold_back([1], [2.5])
        closing = trial.callers.submit(trial.batching.close)
        until(lambda: refusal(trial.call([3], timeout=0.01)).code is UNAVAILABLE)
        assert not closing.done()
        trial.model.gate.set()
        closing.result(LONG)
        assert [answer(future) for future in futures] == [[0], [2], [5]]
        assert not [thread for thread in threading.enumerate() if "finishing" in thread.name]
        assert refusal(trial.call([3])).message == "The batch scheduler is closed"
        assert trial.model.x == [[0], [1], [2.5]]


def test_closing_does_not_wait_for_batches_to_fill():
    with Trial(num_batch_threads=3) as trial:
        futures = trial.call_in_turn([1], [2.5])
        start = time.monotonic()
        trial.batching.close()
        assert [answer(future) for future in futures] == [[2], [5]]
        assert time.monotonic() - start < LONG / 2


def test_nothing_of_a_model_that_is_gone_is_held():
    with Trial(num_batch_threads=4, max_batch_size=2, batch_timeout_micros=100) as trial:
        gone = []
        gc.disable()  # Nothing waits for a collection, either.
        try:
            for number in range(1000):
                model = Model()
                gone.append(weakref.ref(model))
                inputs = {"x": np.array([number])}
                trial.batching.run(model, "double", inputs, ["y"])
                del model
            until(lambda: not any(reference() for reference in gone))
        finally:
            gc.enable()
        assert trial.waiting() == []
