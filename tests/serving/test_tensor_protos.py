"""TensorProtos, compared with what TensorFlow's C++ reads from the same bytes."""

import time
import tracemalloc

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from tensorflow.core.framework import tensor_pb2, types_pb2

from serving.tensor_protos import (
    MAX_REPEATED_BYTES,
    data_type,
    read_tensor,
    type_name,
    write_tensor,
)

TYPES = {
    types_pb2.DT_FLOAT: np.float32,
    types_pb2.DT_DOUBLE: np.float64,
    types_pb2.DT_INT32: np.int32,
    types_pb2.DT_UINT8: np.uint8,
    types_pb2.DT_INT16: np.int16,
    types_pb2.DT_INT8: np.int8,
    types_pb2.DT_STRING: object,
    types_pb2.DT_COMPLEX64: np.complex64,
    types_pb2.DT_INT64: np.int64,
    types_pb2.DT_BOOL: np.bool_,
    types_pb2.DT_BFLOAT16: ml_dtypes.bfloat16,
    types_pb2.DT_UINT16: np.uint16,
    types_pb2.DT_COMPLEX128: np.complex128,
    types_pb2.DT_HALF: np.float16,
    types_pb2.DT_UINT32: np.uint32,
    types_pb2.DT_UINT64: np.uint64,
}
SHAPES = arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)


def in_tensorflow(proto: tensor_pb2.TensorProto) -> np.ndarray | None:
    """The result of `Tensor::FromProto`; None if it is an error."""
    try:
        return tf.io.parse_tensor(proto.SerializeToString(), tf.as_dtype(proto.dtype)).numpy()
    except tf.errors.InvalidArgumentError:
        return None


def same(one, other) -> bool:
    one, other = np.asarray(one), np.asarray(other)
    if object in (one.dtype, other.dtype):  # TensorFlow returns a scalar as bytes.
        return one.shape == other.shape and one.tolist() == other.tolist()
    numbers = one == one  # All NaNs are equal.
    return (
        (one.dtype, one.shape) == (other.dtype, other.shape)
        and (numbers == (other == other)).all()
        and one[numbers].tobytes() == other[numbers].tobytes()
    )


def proto_of(data_type: int, shape, **fields) -> tensor_pb2.TensorProto:
    proto = tensor_pb2.TensorProto(dtype=data_type, **fields)
    for size in shape:
        proto.tensor_shape.dim.add(size=size)
    return proto


@st.composite
def any_array(draw) -> np.ndarray:
    array_type = draw(st.sampled_from(list(TYPES.values())))
    shape = draw(SHAPES)
    if array_type is object:
        return draw(arrays.arrays(object, shape, elements=st.binary(max_size=5)))
    size = int(np.prod(shape)) * np.dtype(array_type).itemsize
    bits = draw(st.binary(min_size=size, max_size=size))
    if array_type is np.bool_:
        return (np.frombuffer(bits, np.uint8) % 2 == 1).reshape(shape)
    return np.frombuffer(bits, array_type).reshape(shape)


@given(any_array())
def test_tensorflow_reads_written_tensors(array):
    proto = tensor_pb2.TensorProto()
    write_tensor(array, proto)
    assert not proto.tensor_content  # Clients read `float_val` and the like.
    assert same(in_tensorflow(proto), array)
    assert same(read_tensor(proto), array)


@given(any_array())
def test_tensors_of_clients_are_read(array):
    proto = tf.make_tensor_proto(array, tf.as_dtype(array.dtype), array.shape)
    assert same(read_tensor(proto), array)


@st.composite
def any_proto(draw) -> tensor_pb2.TensorProto:
    """A proto with too few values, too many, or bytes of a right or wrong length."""
    number = draw(st.sampled_from(list(TYPES)))
    proto = proto_of(number, draw(SHAPES))
    for name, values in draw(st.fixed_dictionaries({}, optional=FIELDS)).items():
        getattr(proto, name).extend(values)
    if draw(st.booleans()):
        item = 1 if TYPES[number] is object else np.dtype(TYPES[number]).itemsize
        count = int(np.prod([size.size for size in proto.tensor_shape.dim]))
        size = draw(st.sampled_from([count * item, count * item + 1, 3]))
        proto.tensor_content = draw(st.binary(min_size=size, max_size=size))
    return proto


FIELDS = {
    name: st.lists(values, max_size=5)
    for name, values in {
        "half_val": st.integers(0, (1 << 16) - 1),
        "float_val": st.floats(width=32),
        "double_val": st.floats(),
        "int_val": st.integers(-(1 << 31), (1 << 31) - 1),
        "string_val": st.binary(max_size=3),
        "scomplex_val": st.floats(width=32),
        "int64_val": st.integers(-(1 << 63), (1 << 63) - 1),
        "bool_val": st.booleans(),
        "dcomplex_val": st.floats(),
        "uint32_val": st.integers(0, (1 << 32) - 1),
        "uint64_val": st.integers(0, (1 << 64) - 1),
    }.items()
}


@settings(max_examples=400)
@given(any_proto())
def test_a_proto_is_read_or_is_an_error_as_in_tensorflow(proto):
    expected = in_tensorflow(proto)
    if expected is None:
        with pytest.raises(ValueError):
            read_tensor(proto)
    else:
        assert same(read_tensor(proto), expected)


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=4))
def test_strings_in_tensor_content(strings):
    """C++ clients may send lengths as varints, then the strings."""
    varints = b"".join(
        bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])
        for size in map(len, strings)
    )
    content = varints + b"".join(strings)
    proto = proto_of(types_pb2.DT_STRING, [len(strings)], tensor_content=content)
    assert read_tensor(proto).tolist() == in_tensorflow(proto).tolist() == strings
    for wrong in (content + b"x", content[:-1]):
        proto.tensor_content = wrong
        if wrong:
            with pytest.raises(ValueError):
                read_tensor(proto)


def test_the_last_value_is_repeated():
    proto = proto_of(types_pb2.DT_INT32, [2, 2], int_val=[5, 7])
    assert read_tensor(proto).tolist() == [[5, 7], [7, 7]]
    assert read_tensor(proto_of(types_pb2.DT_FLOAT, [3])).tolist() == [0, 0, 0]
    assert read_tensor(proto_of(types_pb2.DT_STRING, [2])).tolist() == [b"", b""]


HUGE = {
    "one value": proto_of(types_pb2.DT_FLOAT, [1 << 40], float_val=[1]),
    "just too many": proto_of(types_pb2.DT_FLOAT, [MAX_REPEATED_BYTES // 4 + 1], float_val=[1]),
    "no value": proto_of(types_pb2.DT_STRING, [1 << 20, 1 << 20]),
    "beyond 64 bits": proto_of(types_pb2.DT_INT64, [1 << 62] * 4),
    "empty and beyond": proto_of(types_pb2.DT_INT64, [0, 1 << 62, 1 << 62]),
    "short content": proto_of(types_pb2.DT_DOUBLE, [1 << 40], tensor_content=bytes(8)),
    "string content": proto_of(types_pb2.DT_STRING, [1 << 40], tensor_content=bytes(8)),
    "negative": proto_of(types_pb2.DT_FLOAT, [-1], float_val=[1]),
    "twice negative": proto_of(types_pb2.DT_FLOAT, [-1, -1], float_val=[1]),
    "many dimensions": proto_of(types_pb2.DT_FLOAT, [1] * 65, float_val=[1]),
    # Multiplying the sizes alone would take minutes.
    "a million dimensions": proto_of(types_pb2.DT_FLOAT, [1 << 62] * 1_000_000),
    "endless length": proto_of(types_pb2.DT_STRING, [1], tensor_content=b"\xff" * 100_000),
    "unknown type": proto_of(999, [1]),
    "no type": proto_of(types_pb2.DT_INVALID, [1], float_val=[1]),
    "resource": proto_of(types_pb2.DT_RESOURCE, [1]),
    "variant": proto_of(types_pb2.DT_VARIANT, [1]),
    "reference": proto_of(types_pb2.DT_FLOAT_REF, [1], float_val=[1]),
}


@pytest.mark.parametrize("name", HUGE)
def test_a_wrong_proto_costs_no_time_or_memory(name):
    tracemalloc.start()
    try:
        start = time.monotonic()
        with pytest.raises(ValueError):
            read_tensor(HUGE[name])
        assert time.monotonic() - start < 1
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_an_unknown_rank_is_an_error():
    proto = tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT, float_val=[1])
    proto.tensor_shape.unknown_rank = True
    with pytest.raises(ValueError):
        read_tensor(proto)


def test_a_constant_batch_of_images_is_read():
    proto = tf.make_tensor_proto(0.5, tf.float32, [32, 224, 224, 3])
    assert proto.ByteSize() < 100
    found = read_tensor(proto)
    assert found.shape == (32, 224, 224, 3) and (found == 0.5).all()


def test_names_of_data_types():
    assert data_type(np.zeros(1, np.float16)) == types_pb2.DT_HALF
    assert type_name(types_pb2.DT_HALF) == "half"
    with pytest.raises(ValueError, match="datetime64"):
        data_type(np.zeros(1, "M8[s]"))
