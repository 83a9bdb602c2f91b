"""The protobuf messages of a Predict call, for clients without TensorFlow.

`tensorflow_serving.apis` imports all of TensorFlow: four seconds and two gigabytes. A client needs
few fields, so they are declared here, with the field numbers of TensorFlow Serving's .proto files.
Protobuf's default pool, which `import tensorflow` fills, does not accept a second declaration of a
name; these messages have a separate pool and can be imported before TensorFlow, after it or without
it. Protobuf skips fields that are not declared.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PREDICT = "/tensorflow.serving.PredictionService/Predict"

# On the wire an enum is an int32, and a map is a repeated message of key and value.
_DECLARATIONS = """
message Dimension { int64 size = 1; }
message Shape { repeated Dimension dim = 2; }
message TensorProto {
  int32 dtype = 1;
  Shape tensor_shape = 2;
  bytes tensor_content = 4;
  repeated float float_val = 5;
  repeated bytes string_val = 8;
  repeated int64 int64_val = 10;
}
message NamedTensor { string key = 1; TensorProto value = 2; }
message ModelSpec { string name = 1; string signature_name = 3; }
message PredictRequest { ModelSpec model_spec = 1; repeated NamedTensor inputs = 2; }
message PredictResponse { repeated NamedTensor outputs = 1; }
"""
_FLOAT, _STRING, _INT64 = 1, 7, 9  # DT_FLOAT, DT_STRING and DT_INT64 of DataType.
_DATA_TYPES = {float: _FLOAT, bytes: _STRING, int: _INT64}
_FIELDS = {_FLOAT: "float_val", _STRING: "string_val", _INT64: "int64_val"}
_ARRAY_TYPES = {_FLOAT: np.float32, _INT64: np.int64}


def _declare(declarations: str) -> dict[str, Any]:
    """Message classes by full name, from declarations in the syntax of .proto files."""
    field_type = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="predict", package="serving", syntax="proto3")
    for message, body in re.findall(r"message (\w+) {(.*?)}", declarations, re.DOTALL):
        fields = file.message_type.add(name=message).field
        for repeated, kind, name, number in re.findall(r"(repeated )?(\w+) (\w+) = (\d+);", body):
            field = fields.add(name=name, number=int(number))
            field.label = field_type.LABEL_REPEATED if repeated else field_type.LABEL_OPTIONAL
            if kind[0].isupper():
                field.type, field.type_name = field_type.TYPE_MESSAGE, f".serving.{kind}"
            else:
                field.type = field_type.Type.Value(f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClassesForFiles([file.name], pool)


_CLASSES = _declare(_DECLARATIONS)
TensorProto = _CLASSES["serving.TensorProto"]
PredictRequest = _CLASSES["serving.PredictRequest"]
PredictResponse = _CLASSES["serving.PredictResponse"]


def to_tensor(values: Sequence[bytes] | Sequence[float] | Sequence[int]):
    """A `TensorProto` of shape [B].

    Args:
        values: At least one; all bytes, all float (sent with 32 bits) or all int (64 bits).
    """
    data_type = _DATA_TYPES[type(values[0])]
    tensor = TensorProto(dtype=data_type)
    tensor.tensor_shape.dim.add(size=len(values))
    getattr(tensor, _FIELDS[data_type]).extend(values)
    return tensor


def to_array(tensor) -> np.ndarray:
    """The array in a `TensorProto`: float32, int64, or objects of type `str`.

    Raises:
        ValueError: The tensor has another type, or the number of values does not match its shape.
    """
    if tensor.dtype not in _FIELDS:
        raise ValueError(f"unexpected tensor of TensorFlow's data type {tensor.dtype}")
    dtype = _ARRAY_TYPES.get(tensor.dtype, object)
    shape = [dimension.size for dimension in tensor.tensor_shape.dim]
    if tensor.tensor_content:
        return np.frombuffer(tensor.tensor_content, dtype).reshape(shape)
    values = list(getattr(tensor, _FIELDS[tensor.dtype]))
    if tensor.dtype == _STRING:
        values = [value.decode(errors="replace") for value in values]
    return np.array(values, dtype).reshape(shape)
