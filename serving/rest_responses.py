"""Converts protos to JSON bodies of REST responses, by TensorFlow Serving's rules.

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

BYTES_SUFFIX = "_bytes"  # String outputs with this suffix are binary and encoded as base64.

_NOT_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def write_rows(outputs: Mapping[str, tensor_pb2.TensorProto]) -> bytes:
    """The response to a request with `instances`.

    Raises:
        RequestError: The outputs have no common batch dimension, or a type without a JSON form.
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
    """The response to a request with `inputs`.

    Raises:
        RequestError: An output has a type without a JSON form.
    """
    columns = {name: _nest(texts, shape, 0)[0] for name, texts, shape in _texts(outputs)}
    return _document("outputs", columns.popitem()[1] if len(columns) == 1 else _join(columns))


def _texts(
    outputs: Mapping[str, tensor_pb2.TensorProto],
) -> Iterator[tuple[str, list[str], tuple[int, ...]]]:
    """Yields the name, the JSON of each element [N] and the shape of each output."""
    if not outputs:
        raise invalid("Cannot convert empty tensor map to JSON")
    for name in sorted(outputs):
        array = read_tensor(outputs[name])
        texts = _elements(array, outputs[name].dtype, name.endswith(BYTES_SUFFIX))
        yield name, texts, array.shape


def _elements(array: np.ndarray, data_type: int, binary: bool) -> list[str]:
    """JSON of each element [N] of an array of any shape."""
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
    """Numbers [N] with six digits if these are exact, else with all digits of the type."""
    digits = 9 if values.dtype == np.float32 else 17
    numbers = values.tolist()
    short = [format(number, "g") for number in numbers]
    exact = np.array([float(text) for text in short], values.dtype) == values
    texts = [
        text if is_exact else format(number, f".{digits}g")
        for text, is_exact, number in zip(short, exact.tolist(), numbers, strict=True)
    ]
    # Floats without a fraction get ".0", so that readers do not take them for integers.
    return [
        text if "." in text or "e" in text else _NOT_FINITE.get(text, f"{text}.0") for text in texts
    ]


def _nest(texts: Sequence[str], shape: Sequence[int], outer_rank: int) -> list[str]:
    """Nests elements [N] into one JSON text per index of the first `outer_rank` dimensions."""
    for dimension in range(len(shape) - 1, outer_rank - 1, -1):
        size = shape[dimension]
        count = math.prod(shape[:dimension])
        texts = [f"[{', '.join(texts[n * size : (n + 1) * size])}]" for n in range(count)]
    return list(texts)


def _join(members: Mapping[str, str]) -> str:
    """A JSON object, from names and JSON values."""
    return f"{{{', '.join(f'{dump(name)}: {text}' for name, text in members.items())}}}"


def _document(key: str, text: str) -> bytes:
    return encode(f'{{\n    "{key}": {text}\n}}')


def write_classifications(result: classification_pb2.ClassificationResult) -> bytes:
    """Response to Classify: label and score of each class, for each example."""
    if not result.classifications:
        raise invalid("Cannot convert empty ClassificationResults to JSON")
    rows = []
    for classification in result.classifications:
        scores = np.array([item.score for item in classification.classes], np.float32)
        labels = [dump(item.label) for item in classification.classes]
        pairs = zip(labels, _decimals(scores), strict=True)
        rows.append(f"[{', '.join(f'[{label}, {score}]' for label, score in pairs)}]")
    return _document("results", f"[{', '.join(rows)}]")


def write_regressions(result: regression_pb2.RegressionResult) -> bytes:
    """Response to Regress: a value for each example."""
    if not result.regressions:
        raise invalid("Cannot convert empty RegressionResults to JSON")
    values = np.array([item.value for item in result.regressions], np.float32)
    return _document("results", f"[{', '.join(_decimals(values))}]")


def write_status(response: get_model_status_pb2.GetModelStatusResponse) -> bytes:
    """Response with the state of each version of a model."""
    for version in response.model_version_status:
        version.status.SetInParent()  # Included even if it is OK.
    return encode(json.dumps(_to_dict(response), indent=1))


def write_metadata(response: get_model_metadata_pb2.GetModelMetadataResponse) -> bytes:
    """Response with the signatures of a model."""
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
    """Response with an error."""
    return _document("error", dump(message))
