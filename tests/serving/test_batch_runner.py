"""Tests of BatchRunner: the inputs of a batch, and the outputs and errors of its calls."""

from typing import Any

import grpc
import numpy as np
import pytest

from serving.errors import RequestError
from tests.serving.scheduler_harness import LONG, Harness, double, error_of, result_of

FAILED_PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
INVALID_ARGUMENT = grpc.StatusCode.INVALID_ARGUMENT
SPLITTING: dict[str, Any] = {
    "enable_large_batch_splitting": True,
    "max_batch_size": 8,
    "max_execution_batch_size": 3,
    "batch_timeout_micros": 0,
}


def double_of_positive(name: str, x: np.ndarray) -> np.ndarray:
    if np.any(x < 0):
        raise RequestError(INVALID_ARGUMENT, f"negative: {x.min()}")
    return x + x


def test_batches_are_filled_up_to_an_allowed_size():
    with Harness(max_batch_size=8, allowed=[2, 4, 8], batch_timeout_micros=0) as harness:
        futures = harness.occupy_thread([5, 6], [7])
        harness.model.gate.set()
        assert [result_of(future) for future in futures] == [[0], [10, 12], [14]]
        assert result_of(harness.call([8, 9])) == [16, 18]
        assert harness.model.x == [[0, 0], [5, 6, 7, 5], [8, 9]]


def test_rows_of_different_shapes_are_padded():
    with Harness(max_batch_size=4, pad=True) as harness:
        tasks = [[[1, 2]]], [[[3], [4]], [[5], [6]]], [[[7, 8], [9, 10]]]
        futures = harness.call_in_turn(*tasks, outputs=["greatest"])
        assert [result_of(future, "greatest") for future in futures] == [[2], [4, 6], [10]]
        # Padded with each array's first element, as by TensorFlow Serving.
        assert harness.model.x == [
            [[[1, 2], [1, 1]], [[3, 3], [4, 3]], [[5, 3], [6, 3]], [[7, 8], [9, 10]]]
        ]


def test_rows_of_bytes_are_padded():
    with Harness(max_batch_size=2, pad=True) as harness:
        tasks = np.array([[b"a\0"]], object), np.array([[b"b", b"c"]], object)
        for future in harness.call_in_turn(*tasks):
            future.result(LONG)
        assert harness.model.x == [[[b"a\0", b"a\0"], [b"b", b"c"]]]


def test_empty_rows_cannot_be_padded_and_run_alone():
    with Harness(max_batch_size=2, pad=True) as harness:
        futures = harness.call_in_turn(np.zeros([1, 0]), [[1.0, 2.0]])
        assert [result_of(future) for future in futures] == [[[]], [[2, 4]]]


@pytest.mark.parametrize(
    ("x", "z", "expected"),
    [(3, None, 6), ([1, 2], 3, [5, 7]), ([1, 2], [3], [5, 7]), (np.zeros([0, 2]), None, [])],
)
def test_inputs_without_a_common_number_of_rows_are_not_batched(x, z, expected):
    with Harness(allowed=[1000]) as harness:
        assert result_of(harness.call(x, z=z, timeout=LONG)) == expected
        ((inputs, timeout),) = harness.model.calls
        np.testing.assert_array_equal(inputs["x"], x)
        assert timeout == LONG


def test_a_call_without_inputs_is_not_batched():
    with Harness(lambda name: np.array([1, 2])) as harness:
        assert harness.scheduler.run(harness.model, "double", {}, ["y"])["y"].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (np.float32(1), "Batched output tensor has 0 dimensions"),
        (np.array(1), "Batched output tensor has 0 dimensions"),
        (
            np.array([1]),
            "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension "
            "sizes of the input tensors",
        ),
    ],
)
def test_outputs_must_have_a_row_per_input_row(output, message):
    def compute(name: str, x: np.ndarray) -> np.ndarray:
        return x if name == "x" else output

    with Harness(compute, batch_timeout_micros=0) as harness:
        error = error_of(harness.call([1, 2], outputs=["x", "y"]))
        assert (error.code, error.message) == (FAILED_PRECONDITION, message)


def test_a_bad_input_fails_only_its_caller():
    with Harness(double_of_positive, max_batch_size=4, allowed=[2, 4]) as harness:
        futures = harness.call_in_turn([1], [-2], [-3], [4])
        assert [result_of(futures[0]), result_of(futures[3])] == [[2], [8]]
        messages = [error_of(future).message for future in futures[1:3]]
        assert messages == ["negative: -2", "negative: -3"]
        assert harness.model.x[0] == [1, -2, -3, 4]
        assert sorted(harness.model.x[1:]) == [[-3, -3], [-2, -2], [1, 1], [4, 4]]


def test_a_failing_batch_of_one_task_runs_once():
    with Harness(double_of_positive, batch_timeout_micros=0) as harness:
        assert error_of(harness.call([-1])).code is INVALID_ARGUMENT
        assert harness.model.x == [[-1]]


@pytest.mark.parametrize("tasks", [1, 3])
def test_exceptions_of_a_model_reach_the_callers_and_the_threads_go_on(tasks):
    def compute(name: str, x: np.ndarray) -> np.ndarray:
        return x // 0 if x.dtype == object else double(name, x)

    with Harness(compute, max_batch_size=tasks) as harness:
        for future in [harness.call(np.array([1], object)) for _ in range(tasks)]:
            with pytest.raises(ZeroDivisionError):
                future.result(LONG)
        assert result_of(harness.call([1] * tasks)) == [2] * tasks


def test_a_failing_part_fails_its_task():
    with Harness(double_of_positive, **SPLITTING) as harness:
        assert error_of(harness.call([1, 2, 3, -4, 5, 6, 7])).message == "negative: -4"
        assert sorted(harness.model.x) == [[-4, 5, 6], [1, 2, 3], [7]]


def test_parts_whose_outputs_differ_in_shape():
    with Harness(lambda name, x: np.zeros([len(x), x[0]]), **SPLITTING) as harness:
        error = error_of(harness.call([1, 1, 1, 2]))
        assert error.code is FAILED_PRECONDITION
        assert "split" in error.message
        assert result_of(harness.call([1, 1, 1, 1])) == [[0]] * 4
