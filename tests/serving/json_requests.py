"""Reads the tensors of JSON request bodies, with a signature made for the test."""

import numpy as np
import pytest
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import predict_pb2

from serving.errors import RequestError
from serving.json_values import parse
from serving.rest_requests import fill_inputs
from serving.tensor_protos import read_tensor, write_tensor


def signature(**inputs: str) -> meta_graph_pb2.SignatureDef:
    """A signature with inputs of given types: x="FLOAT"."""
    made = meta_graph_pb2.SignatureDef()
    for name, kind in inputs.items():
        made.inputs[name].dtype = types_pb2.DataType.Value(f"DT_{kind}")
    return made


def proto(array: np.ndarray) -> tensor_pb2.TensorProto:
    made = tensor_pb2.TensorProto()
    write_tensor(array, made)
    return made


def read(body: bytes | str, **inputs: str) -> dict[str, np.ndarray]:
    request = predict_pb2.PredictRequest()
    document = parse(body if isinstance(body, bytes) else body.encode())
    as_rows = fill_inputs(document, signature(**inputs), request)
    assert as_rows == ("instances" in document)
    for name, tensor in request.inputs.items():
        assert tensor.dtype == types_pb2.DataType.Value(f"DT_{inputs[name]}")
    return {name: read_tensor(tensor) for name, tensor in request.inputs.items()}


def error_of(body: bytes | str, **inputs: str) -> RequestError:
    with pytest.raises(RequestError) as caught:
        read(body, **inputs)
    return caught.value
