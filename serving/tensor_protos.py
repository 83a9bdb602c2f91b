"""TensorProto to arrays and back, as TensorFlow's C++ has it; strings are arrays of bytes objects.

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

# A proto may hold fewer values than its shape has elements; the last one then stands for the rest,
# so that a few bytes can ask for any amount of memory. Constant batches of images are within this.
MOST_REPEATED = 1 << 26  # Bytes.
MOST_DIMENSIONS = 64  # NumPy's limit.

_VARINT = re.compile(rb"[\x80-\xff]{0,4}[\x00-\x7f]")


class _Kind(NamedTuple):
    field: str  # Where values are, unless in `tensor_content`.
    wire: Any  # Type of that field's numbers.
    stored: Any  # What they are cut to: half_val has the bits of 16-bit floats, for example.
    array: Any  # Type of the array, which has the bytes of `stored`.
    absent: Any = 0


def _plain(field: str, wire: Any, array: Any) -> _Kind:
    return _Kind(field, wire, array, array)


_KINDS = {
    types_pb2.DT_FLOAT: _plain("float_val", np.float32, np.float32),
    types_pb2.DT_DOUBLE: _plain("double_val", np.float64, np.float64),
    types_pb2.DT_INT32: _plain("int_val", np.int32, np.int32),
    types_pb2.DT_UINT8: _plain("int_val", np.int32, np.uint8),
    types_pb2.DT_INT16: _plain("int_val", np.int32, np.int16),
    types_pb2.DT_INT8: _plain("int_val", np.int32, np.int8),
    types_pb2.DT_STRING: _Kind("string_val", object, object, object, b""),
    types_pb2.DT_COMPLEX64: _Kind("scomplex_val", np.float32, np.float32, np.complex64),
    types_pb2.DT_INT64: _plain("int64_val", np.int64, np.int64),
    types_pb2.DT_BOOL: _plain("bool_val", bool, bool),
    types_pb2.DT_BFLOAT16: _Kind("half_val", np.int32, np.uint16, ml_dtypes.bfloat16),
    types_pb2.DT_UINT16: _plain("int_val", np.int32, np.uint16),
    types_pb2.DT_COMPLEX128: _Kind("dcomplex_val", np.float64, np.float64, np.complex128),
    types_pb2.DT_HALF: _Kind("half_val", np.int32, np.uint16, np.float16),
    types_pb2.DT_UINT32: _plain("uint32_val", np.uint32, np.uint32),
    types_pb2.DT_UINT64: _plain("uint64_val", np.uint64, np.uint64),
}
_NUMBERS = {np.dtype(kind.array): number for number, kind in _KINDS.items()}


def type_name(number: int) -> str:
    """As TensorFlow's errors name it: `float` for DT_FLOAT."""
    return types_pb2.DataType.Name(number).removeprefix("DT_").lower()


def data_type(array: np.ndarray) -> int:
    """DT_... of an array.

    Raises:
        ValueError: There is none that a proto can hold.
    """
    number = _NUMBERS.get(array.dtype)
    if number is None:
        raise ValueError(f"a tensor of type {array.dtype} cannot be sent")
    return number


def read_tensor(proto: tensor_pb2.TensorProto) -> np.ndarray:
    """Never takes more memory than the proto's bytes and `MOST_REPEATED` account for.

    Returns:
        An array of the proto's shape, which may not be writable.

    Raises:
        ValueError: The proto contradicts itself, asks for too much, or has a type of which no
            tensors can be sent.
    """
    kind = _KINDS.get(proto.dtype)
    if kind is None:
        raise ValueError(f"unknown type {proto.dtype}")
    if proto.tensor_shape.unknown_rank or len(proto.tensor_shape.dim) > MOST_DIMENSIONS:
        raise ValueError(f"a shape of {len(proto.tensor_shape.dim)} dimensions, or of none known")
    shape = [dimension.size for dimension in proto.tensor_shape.dim]
    if any(size < 0 for size in shape):
        raise ValueError(f"incomplete shape {shape}")
    count = math.prod(shape)
    if not count:
        return np.empty(shape, kind.array)
    if proto.tensor_content:
        return _read_content(proto.tensor_content, count, kind).reshape(shape)
    return _read_values(getattr(proto, kind.field), count, kind).reshape(shape)


def _read_content(content: bytes, count: int, kind: _Kind) -> np.ndarray:
    if kind.array is object:
        return _strings(_split_strings(content, count))
    if len(content) != count * np.dtype(kind.array).itemsize:
        raise ValueError(f"{len(content)} bytes for {count} elements")
    if kind.array is bool and content.translate(None, b"\0\1"):
        raise ValueError("bytes that are neither true nor false")
    return np.frombuffer(content, kind.array)


def _strings(values: Sequence[bytes]) -> np.ndarray:
    array = np.empty(len(values), object)
    array[:] = values
    return array


def _split_strings(content: bytes, count: int) -> list[bytes]:
    """Lengths as varints, then all strings: what `Tensor::AsProtoTensorContent` writes."""
    lengths, place = [], 0
    for _ in range(count):
        varint = _VARINT.match(content, place)
        if not varint:
            raise ValueError(f"{len(content)} bytes for {count} strings")
        lengths.append(sum((byte & 127) << 7 * number for number, byte in enumerate(varint[0])))
        place = varint.end()
    ends = list(accumulate(lengths, initial=place))
    if ends[-1] != len(content):
        raise ValueError(f"{len(content)} bytes for {count} strings that end at {ends[-1]}")
    return [content[start:end] for start, end in pairwise(ends)]


def _read_values(values: Sequence[Any], count: int, kind: _Kind) -> np.ndarray:
    if kind.array is object:
        held = _strings(values[:count])  # [M]
    else:
        numbers = np.fromiter(values, kind.wire, len(values)).astype(kind.stored, copy=False)
        size = np.dtype(kind.array).itemsize // numbers.itemsize  # A complex number is of two.
        held = numbers[: len(numbers) // size * size].view(kind.array)[:count]  # [M]
    if len(held) == count:
        return held
    if count * held.itemsize > MOST_REPEATED:
        raise ValueError(f"{len(held)} values for {count} elements")
    filled = np.empty(count, held.dtype)  # [N]
    filled[: len(held)] = held
    filled[len(held) :] = held[-1] if len(held) else kind.absent
    return filled


def write_tensor(array: np.ndarray | bytes, proto: tensor_pb2.TensorProto) -> None:
    """Fills a proto; values go where clients of TensorFlow Serving look, `float_val` for example.

    Args:
        array: Of any shape; a session gives a scalar string as bytes.
        proto: An empty one.

    Raises:
        ValueError: No proto can hold the array's type.
    """
    array = np.asarray(array, object if isinstance(array, bytes) else None)
    number = data_type(array)
    proto.dtype = number
    proto.tensor_shape.SetInParent()  # A scalar's shape is there, and empty.
    for size in array.shape:
        proto.tensor_shape.dim.add().size = size
    kind = _KINDS[number]
    values = array.ravel() if kind.array is object else array.ravel().view(kind.stored)
    getattr(proto, kind.field).extend(values.tolist())
