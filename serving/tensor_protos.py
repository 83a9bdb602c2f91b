"""Converts TensorProto to arrays and back like TensorFlow's C++; strings are `bytes` objects.

N elements, M values that a proto holds.
"""

import math
import re
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from tensorflow.core.framework import tensor_pb2, types_pb2

# If a proto holds fewer values than its shape has elements, the last value is repeated, so a few
# bytes can request any amount of memory. This limit allows constant batches of images.
MAX_REPEATED_BYTES = 1 << 26
MAX_DIMENSIONS = 64  # NumPy's limit.

_VARINT = re.compile(rb"[\x80-\xff]{0,4}[\x00-\x7f]")


class _Layout(NamedTuple):
    field: str  # Field of the values, if they are not in `tensor_content`.
    wire: Any  # Type of the numbers in that field.
    stored: Any  # Type to which they are truncated: half_val holds the bits of 16-bit floats.
    array: Any  # Type of the array, with the bytes of `stored`.
    default: Any = 0  # Value of the elements if the proto holds none.


def _plain(field: str, wire: Any, array: Any) -> _Layout:
    return _Layout(field, wire, array, array)


_LAYOUTS = {
    types_pb2.DT_FLOAT: _plain("float_val", np.float32, np.float32),
    types_pb2.DT_DOUBLE: _plain("double_val", np.float64, np.float64),
    types_pb2.DT_INT32: _plain("int_val", np.int32, np.int32),
    types_pb2.DT_UINT8: _plain("int_val", np.int32, np.uint8),
    types_pb2.DT_INT16: _plain("int_val", np.int32, np.int16),
    types_pb2.DT_INT8: _plain("int_val", np.int32, np.int8),
    types_pb2.DT_STRING: _Layout("string_val", object, object, object, b""),
    types_pb2.DT_COMPLEX64: _Layout("scomplex_val", np.float32, np.float32, np.complex64),
    types_pb2.DT_INT64: _plain("int64_val", np.int64, np.int64),
    types_pb2.DT_BOOL: _plain("bool_val", bool, bool),
    types_pb2.DT_BFLOAT16: _Layout("half_val", np.int32, np.uint16, ml_dtypes.bfloat16),
    types_pb2.DT_UINT16: _plain("int_val", np.int32, np.uint16),
    types_pb2.DT_COMPLEX128: _Layout("dcomplex_val", np.float64, np.float64, np.complex128),
    types_pb2.DT_HALF: _Layout("half_val", np.int32, np.uint16, np.float16),
    types_pb2.DT_UINT32: _plain("uint32_val", np.uint32, np.uint32),
    types_pb2.DT_UINT64: _plain("uint64_val", np.uint64, np.uint64),
}
_DATA_TYPES = {np.dtype(layout.array): number for number, layout in _LAYOUTS.items()}


def type_name(number: int) -> str:
    """Name of a data type in TensorFlow's error messages: `float` for DT_FLOAT."""
    return types_pb2.DataType.Name(number).removeprefix("DT_").lower()


def data_type(array: np.ndarray) -> int:
    """The data type (DT_...) of an array.

    Raises:
        ValueError: A proto cannot hold this type of array.
    """
    number = _DATA_TYPES.get(array.dtype)
    if number is None:
        raise ValueError(f"a tensor of type {array.dtype} cannot be sent")
    return number


def read_tensor(proto: tensor_pb2.TensorProto) -> np.ndarray:
    """Reads a proto, with memory for at most its bytes and `MAX_REPEATED_BYTES`.

    Returns:
        An array of the shape of the proto; it may be read-only.

    Raises:
        ValueError: The proto is inconsistent or too large, or its data type cannot be sent.
    """
    layout = _LAYOUTS.get(proto.dtype)
    if layout is None:
        raise ValueError(f"unknown type {proto.dtype}")
    unknown_rank, rank = proto.tensor_shape.unknown_rank, len(proto.tensor_shape.dim)
    if unknown_rank or rank > MAX_DIMENSIONS:
        raise ValueError(
            f"expected a shape of at most {MAX_DIMENSIONS} dimensions, got "
            + ("unknown rank" if unknown_rank else str(rank))
        )
    shape = [dimension.size for dimension in proto.tensor_shape.dim]
    if any(size < 0 for size in shape):
        raise ValueError(f"incomplete shape {shape}")
    count = math.prod(shape)
    if not count:
        return np.empty(shape, layout.array)
    if proto.tensor_content:
        return _read_content(proto.tensor_content, count, layout).reshape(shape)
    return _read_values(getattr(proto, layout.field), count, layout).reshape(shape)


def _read_content(content: bytes, count: int, layout: _Layout) -> np.ndarray:
    if layout.array is object:
        return _strings(_split_strings(content, count))
    if len(content) != count * np.dtype(layout.array).itemsize:
        raise ValueError(f"{len(content)} bytes for {count} elements")
    if layout.array is bool and content.translate(None, b"\0\1"):
        raise ValueError("expected booleans, got bytes other than 0 and 1")
    return np.frombuffer(content, layout.array)


def _strings(values: Sequence[bytes]) -> np.ndarray:
    array = np.empty(len(values), object)
    array[:] = values
    return array


def _split_strings(content: bytes, count: int) -> list[bytes]:
    """Splits the format of `Tensor::AsProtoTensorContent`: lengths as varints, then all strings."""
    lengths, offset = [], 0
    for _ in range(count):
        varint = _VARINT.match(content, offset)
        if not varint:
            raise ValueError(f"{len(content)} bytes for {count} strings")
        lengths.append(sum((byte & 127) << 7 * number for number, byte in enumerate(varint[0])))
        offset = varint.end()
    ends = list(accumulate(lengths, initial=offset))
    if ends[-1] != len(content):
        raise ValueError(f"{len(content)} bytes for {count} strings that end at {ends[-1]}")
    return [content[start:end] for start, end in pairwise(ends)]


def _read_values(values: Sequence[Any], count: int, layout: _Layout) -> np.ndarray:
    if layout.array is object:
        held = _strings(values[:count])  # [M]
    else:
        numbers = np.fromiter(values, layout.wire, len(values)).astype(layout.stored, copy=False)
        # A complex number consists of two numbers.
        size = np.dtype(layout.array).itemsize // numbers.itemsize
        held = numbers[: len(numbers) // size * size].view(layout.array)[:count]  # [M]
    if len(held) == count:
        return held
    if count * held.itemsize > MAX_REPEATED_BYTES:
        raise ValueError(f"{len(held)} values for {count} elements")
    filled = np.empty(count, held.dtype)  # [N]
    filled[: len(held)] = held
    filled[len(held) :] = held[-1] if len(held) else layout.default
    return filled


def write_tensor(array: np.ndarray | bytes, proto: tensor_pb2.TensorProto) -> None:
    """Fills a proto, in the fields that clients of TensorFlow Serving read, such as `float_val`.

    Args:
        array: Of any shape; or `bytes`, which is how a session returns a scalar string.
        proto: An empty proto.

    Raises:
        ValueError: A proto cannot hold this type of array.
    """
    array = np.asarray(array, object if isinstance(array, bytes) else None)
    number = data_type(array)
    proto.dtype = number
    proto.tensor_shape.SetInParent()  # A scalar has a shape too, without dimensions.
    for size in array.shape:
        proto.tensor_shape.dim.add().size = size
    layout = _LAYOUTS[number]
    values = array.ravel() if layout.array is object else array.ravel().view(layout.stored)
    getattr(proto, layout.field).extend(values.tolist())
