"""Protos to bodies of REST answers, by TensorFlow Serving's rules.

B batch, N elements of a tensor.
"""

import base64
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from google.protobuf import json_format
from google.protobuf.message import Message
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    regression_pb2,
)

from serving.errors import invalid
from serving.json_values import FLOATS, INTEGERS, dump, encode
from serving.tensor_protos import read_tensor, type_name

BYTES_SUFFIX = "_bytes"  # Outputs of such names are binary.

_NOT_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def write_rows(outputs: Mapping[str, tensor_pb2.TensorProto]) -> bytes:
    """The answer to `instances`.

    Raises:
        RequestError: The outputs have no batch dimension in common, or a type that JSON has not.
    """
    columns, sizes = {}, {}
    for name, texts, shape in _texts(outputs):
        if not shape:
            raise invalid(f"Tensor name: {name} has no shape information ")
        columns[name], sizes[name] = _nest(texts, shape, 1), shape[0]  # [B] each.
    rows = next(iter(sizes.values()))
    for name, size in sizes.items():
        if size != rows:
            raise invalid(
                f"Tensor name: {name} has inconsistent batch size: {size} expecting: {rows}"
            )
    if len(columns) == 1:
        predictions = columns.popitem()[1]
    else:
        predictions = [
            _join(dict(zip(columns, row, strict=True)))
            for row in zip(*columns.values(), strict=True)
        ]
    return _document("predictions", f"[{', '.join(predictions)}]")


def write_columns(outputs: Mapping[str, tensor_pb2.TensorProto]) -> bytes:
    """The answer to `inputs`.

    Raises:
        RequestError: The outputs have a type that JSON has not.
    """
    columns = {name: _nest(texts, shape, 0)[0] for name, texts, shape in _texts(outputs)}
    return _document("outputs", columns.popitem()[1] if len(columns) == 1 else _join(columns))


def _texts(
    outputs: Mapping[str, tensor_pb2.TensorProto],
) -> Iterator[tuple[str, list[str], tuple[int, ...]]]:
    if not outputs:
        raise invalid("Cannot convert empty tensor map to JSON")
    for name in sorted(outputs):
        array = read_tensor(outputs[name])
        texts = _elements(array, outputs[name].dtype, name.endswith(BYTES_SUFFIX))
        yield name, texts, array.shape


def _elements(array: np.ndarray, data_type: int, binary: bool) -> list[str]:
    """The JSON of each element [N] of an array of any shape."""
    values = array.ravel()
    if data_type == types_pb2.DT_STRING and binary:
        return [f'{{"b64": "{base64.b64encode(value).decode()}"}}' for value in values]
    if data_type == types_pb2.DT_STRING:
        return [dump(value.decode("utf-8", "surrogateescape")) for value in values]
    if data_type == types_pb2.DT_BOOL:
        return ["true" if value else "false" for value in values.tolist()]
    if data_type in INTEGERS:
        return list(map(str, values.tolist()))
    if data_type in FLOATS:
        return _decimals(values)
    raise invalid(f"Failed to write JSON value for tensor type: {type_name(data_type)}")


def _decimals(values: np.ndarray) -> list[str]:
    """Six digits [N] where these are exact, otherwise as many as the type can tell apart."""
    digits = 9 if values.dtype == np.float32 else 17
    numbers = values.tolist()
    short = [format(number, "g") for number in numbers]
    exact = np.array([float(text) for text in short], values.dtype) == values
    texts = [
        text if kept else format(number, f".{digits}g")
        for text, kept, number in zip(short, exact.tolist(), numbers, strict=True)
    ]
    # A reader of the numbers is to see from each that it is no integer.
    return [
        text if "." in text or "e" in text else _NOT_FINITE.get(text, f"{text}.0") for text in texts
    ]


def _nest(texts: Sequence[str], shape: Sequence[int], kept: int) -> list[str]:
    """Elements [N] as JSON lists; of the leading `kept` dimensions one list of texts is left."""
    for dimension in range(len(shape) - 1, kept - 1, -1):
        size = shape[dimension]
        count = math.prod(shape[:dimension])
        texts = [f"[{', '.join(texts[n * size : (n + 1) * size])}]" for n in range(count)]
    return list(texts)


def _join(members: Mapping[str, str]) -> str:
    return f"{{{', '.join(f'{dump(name)}: {text}' for name, text in members.items())}}}"


def _document(key: str, text: str) -> bytes:
    return encode(f'{{\n    "{key}": {text}\n}}')


def write_classifications(result: classification_pb2.ClassificationResult) -> bytes:
    """Label and score of each class, for each example."""
    if not result.classifications:
        raise invalid("Cannot convert empty ClassificationResults to JSON")
    rows = []
    for classification in result.classifications:
        scores = np.array([found.score for found in classification.classes], np.float32)
        labels = [dump(found.label) for found in classification.classes]
        pairs = zip(labels, _decimals(scores), strict=True)
        rows.append(f"[{', '.join(f'[{label}, {score}]' for label, score in pairs)}]")
    return _document("results", f"[{', '.join(rows)}]")


def write_regressions(result: regression_pb2.RegressionResult) -> bytes:
    """A value for each example."""
    if not result.regressions:
        raise invalid("Cannot convert empty RegressionResults to JSON")
    values = np.array([found.value for found in result.regressions], np.float32)
    return _document("results", f"[{', '.join(_decimals(values))}]")


def write_status(response: get_model_status_pb2.GetModelStatusResponse) -> bytes:
    for found in response.model_version_status:
        found.status.SetInParent()  # Part of the answer where all is well, too.
    return encode(json.dumps(_to_dict(response), indent=1))


def write_metadata(response: get_model_metadata_pb2.GetModelMetadataResponse) -> bytes:
    signatures = get_model_metadata_pb2.SignatureDefMap()
    response.metadata["signature_def"].Unpack(signatures)
    document = {
        "model_spec": _to_dict(response.model_spec),
        "metadata": {"signature_def": _to_dict(signatures)},
    }
    return encode(json.dumps(document, indent=1, ensure_ascii=False))


def _to_dict(message: Message) -> dict[str, Any]:
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def write_error(message: str) -> bytes:
    return _document("error", dump(message))
