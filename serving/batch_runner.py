"""Runs several calls as one batch: concatenates their inputs and splits the outputs.

Inputs and outputs are arrays [B, ...], where B is the number of rows of a call or of a batch.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple, Protocol

import grpc
import numpy as np

from serving.errors import RequestError

Arrays = Mapping[str, np.ndarray]


class Runnable(Protocol):
    """The part of `Servable` that batching uses."""

    def run(
        self,
        signature: str,
        inputs: Arrays,
        outputs: Sequence[str],
        timeout: float | None = None,
    ) -> dict[str, np.ndarray]: ...


class BatchKey(NamedTuple):
    """What calls must have in common to share a batch."""

    servable: Runnable
    signature: str
    outputs: tuple[str, ...]
    rows: tuple[Any, ...]  # Name, data type and row shape of each input.


class BatchRunner:
    """Runs calls with the same key as one batch.

    Args:
        allowed_rows: Allowed batch sizes, increasing. A batch is filled up to the next one. Empty:
            any size is allowed.
        pads_rows: Whether to pad rows of different shapes, which must have the same rank.
    """

    def __init__(self, allowed_rows: Sequence[int], pads_rows: bool):
        self._allowed_rows = tuple(allowed_rows)
        self._pads_rows = pads_rows

    def key(
        self, servable: Runnable, signature: str, inputs: Arrays, outputs: Sequence[str]
    ) -> BatchKey:
        rows = (
            (name, array.dtype, array.ndim if self._pads_rows else array.shape[1:])
            for name, array in sorted(inputs.items())
        )
        return BatchKey(servable, signature, tuple(outputs), tuple(rows))

    def run(
        self, key: BatchKey, calls: Sequence[Arrays], timeout: float | None
    ) -> list[dict[str, np.ndarray]]:
        """Returns the outputs of each call, computed in one batch.

        Raises:
            RequestError: Outputs do not have a row per input row, or the servable failed.
        """
        ends = list(accumulate(map(common_rows, calls), initial=0))
        rows = next((size for size in self._allowed_rows if size >= ends[-1]), ends[-1])
        inputs = {name: self._batched([call[name] for call in calls], rows) for name in calls[0]}
        computed = key.servable.run(key.signature, inputs, key.outputs, timeout)
        for array in computed.values():
            _check_rows(array, rows)
        return [
            {name: array[start:end] for name, array in computed.items()}
            for start, end in pairwise(ends)
        ]

    def _batched(self, arrays: list[np.ndarray], rows: int) -> np.ndarray:
        """Concatenates arrays to [rows, ...], filled up with copies of the first row."""
        if self._pads_rows:
            arrays = _with_padded_rows(arrays)
        missing = rows - sum(map(len, arrays))
        if missing:
            arrays = [*arrays, np.broadcast_to(arrays[0][:1], (missing, *arrays[0].shape[1:]))]
        return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def common_rows(inputs: Arrays) -> int:
    """Returns the number of rows of all inputs; 0 if they differ or an input is a scalar."""
    sizes = {len(array) if array.ndim else 0 for array in inputs.values()}
    return sizes.pop() if len(sizes) == 1 else 0


def concatenated(parts: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Returns the outputs of a split call, concatenated.

    Raises:
        RequestError: The outputs of the parts differ in row shape.
    """
    if len(parts) == 1:
        return parts[0]
    try:
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    except ValueError as error:
        raise RequestError(
            grpc.StatusCode.FAILED_PRECONDITION,
            "The parts of a request that was split have outputs of different shapes",
        ) from error


def _with_padded_rows(arrays: list[np.ndarray]) -> list[np.ndarray]:
    """Pads the rows of all arrays to the largest shape, each with its array's first element."""
    shape = tuple(map(max, zip(*(array.shape[1:] for array in arrays), strict=True)))
    return [array if array.shape[1:] == shape else _padded(array, shape) for array in arrays]


def _padded(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    padded = np.empty((len(array), *shape), array.dtype)
    # An empty array raises ValueError here; the scheduler then runs each call alone.
    padded[...] = array[(slice(1),) * array.ndim]
    padded[tuple(map(slice, array.shape))] = array
    return padded


def _check_rows(array: np.ndarray, rows: int) -> None:
    if np.ndim(array) == 0:
        message = "Batched output tensor has 0 dimensions"
    elif len(array) != rows:
        message = (
            "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension "
            "sizes of the input tensors"
        )
    else:
        return
    raise RequestError(grpc.StatusCode.FAILED_PRECONDITION, message)
