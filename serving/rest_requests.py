"""Converts JSON bodies of REST requests to protos, with TensorFlow Serving's rules and messages.

B batch.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from tensorflow.core.example import example_pb2, feature_pb2
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import (
    input_pb2,
    predict_pb2,
)

from serving.errors import RequestError, invalid
from serving.json_values import (
    INTEGER_RANGE,
    RepeatedKeys,
    flatten,
    is_base64,
    show,
    to_array,
    to_bytes,
    to_floats,
    type_text,
)
from serving.tensor_protos import write_tensor

ROWS, COLUMNS = "instances", "inputs"


def signature_name(document: Mapping[str, Any]) -> str:
    """The signature that a request names, or an empty string."""
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid(
            f"JSON Value: {show(document)} not formatted correctly. "
            "'signature_name' key must be a string value."
        )
    return _check_utf8(name)


def _check_utf8(name: str) -> str:
    """The name, if it is valid UTF-8, as protos require."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise invalid(f"JSON Value: {show(name)} is not valid UTF-8") from None
    return name


def fill_inputs(
    document: Mapping[str, Any],
    signature: meta_graph_pb2.SignatureDef,
    request: predict_pb2.PredictRequest,
) -> bool:
    """Adds the tensors of a document to a Predict request, with the types of the signature.

    Returns:
        Whether the document has rows (`instances`), so that the response must have rows too.

    Raises:
        RequestError: The tensors do not match the signature, or each other.
    """
    if not signature.inputs:
        name = request.model_spec.signature_name or "DEFAULT"
        raise invalid(f"Failed to get input map for signature: {name}")
    if ROWS in document and COLUMNS in document:
        raise invalid(
            f"JSON Value: {show(document)} Not formatted correctly expecting only one of "
            f"'{COLUMNS}' or '{ROWS}' keys to exist "
        )
    if ROWS in document:
        arrays = _rows(document, signature.inputs)
    elif COLUMNS in document:
        arrays = _columns(document[COLUMNS], signature.inputs)
    else:
        raise invalid(f"Missing '{COLUMNS}' or '{ROWS}' key")
    for name, array in arrays.items():
        write_tensor(array, request.inputs[name])
    return ROWS in document


def _columns(
    columns: Any, inputs: Mapping[str, meta_graph_pb2.TensorInfo]
) -> dict[str, np.ndarray]:
    if not _is_named(columns):
        if len(inputs) > 1:
            raise invalid(
                "inputs is a plain value/list, but expecting an object as multiple input tensors "
                "required as per tensorinfo_map"
            )
        columns = dict.fromkeys(inputs, columns)
    arrays = {}
    for name, info in inputs.items():
        if name not in columns:
            raise invalid(f"Missing named input: {name} in 'inputs' object.")
        values, shape = flatten(columns[name])
        arrays[name] = to_array(values, info.dtype).reshape(shape)
    return arrays


def _is_named(value: Any) -> bool:
    return isinstance(value, dict) and not is_base64(value)


def _rows(
    document: Mapping[str, Any], inputs: Mapping[str, meta_graph_pb2.TensorInfo]
) -> dict[str, np.ndarray]:
    rows = document[ROWS]
    if not isinstance(rows, list):
        raise invalid(f"JSON Value: {show(document)} Excepting '{ROWS}' to be an list/array")
    if not rows:
        raise invalid(f"JSON Value: {show(document)} No values in '{ROWS}' array")
    named = _is_named(rows[0])
    if not named and len(inputs) > 1:
        raise invalid(
            "instances is a plain list, but expecting list of objects as multiple input tensors "
            "required as per tensorinfo_map"
        )
    _check_rows(rows, named, inputs)
    arrays = {}
    for name, info in inputs.items():
        column = [row[name] for row in rows] if named else rows
        arrays[name] = _stack(column, info.dtype, f" key: {name}" if named else "")
    return arrays


def _check_rows(rows: Sequence[Any], named: bool, inputs: Iterable[str]) -> None:
    names = set(inputs)
    for number, row in enumerate(rows):
        if _is_named(row) != named:
            kinds = "object but got list" if named else "value/list but got object"
            raise invalid(f"Expecting {kinds} at item {number} of input list")
        if named and (row.keys() != names or isinstance(row, RepeatedKeys)):
            raise invalid(
                f"Failed to process element: {number} of '{ROWS}' list. JSON object: "
                f"{show(row)} keys must be equal to: {','.join(sorted(names))}"
            )


def _stack(elements: Sequence[Any], data_type: int, key: str) -> np.ndarray:
    """An array [B, ...] of elements, which must have equal shapes."""
    try:
        values, shape = flatten(elements)
        return to_array(values, data_type).reshape(shape)
    except RequestError as error:
        raise _element_error(elements, data_type, key) or error from None


def _element_error(elements: Sequence[Any], data_type: int, key: str) -> RequestError | None:
    """The error of the first element that is wrong or differs in shape from element 0."""
    expected: list[int] = []
    for number, element in enumerate(elements):
        try:
            values, shape = flatten(element)
            to_array(values, data_type)
            expected = expected if number else shape
            if shape != expected:
                raise _shape_error(expected, shape)
        except RequestError as error:
            return invalid(
                f"Failed to process element: {number}{key} of '{ROWS}' list. "
                f"Error: {error.code.name}: {error.message}"
            )
    return None


def _shape_error(expected: Sequence[int], found: Sequence[int]) -> RequestError:
    if math.prod(expected) != math.prod(found):
        return invalid(f"Expecting tensor size: {math.prod(expected)} but got: {math.prod(found)}")
    shapes = [",".join(map(str, shape)) for shape in (expected, found)]
    return invalid(f"Expecting shape [{shapes[0]}] but got: [{shapes[1]}]")


def fill_examples(document: Mapping[str, Any], target: input_pb2.Input) -> None:
    """Adds the examples of a document, and their context, to a Classify or Regress request.

    Raises:
        RequestError: An example is not the JSON form of a tf.train.Example.
    """
    examples = target.example_list.examples
    if "context" in document:
        target.example_list_with_context.context.CopyFrom(_example(document["context"]))
        examples = target.example_list_with_context.examples
    if "examples" not in document:
        raise invalid(
            f"JSON Value: {show(document)} When method is classify, key 'examples' is expected "
            "and was not found"
        )
    rows = document["examples"]
    if not isinstance(rows, list):
        raise invalid(
            f"JSON Value: {show(document)} Expecting 'examples' value to be an list/array"
        )
    if not rows:
        raise invalid(f"JSON Value: {show(document)} 'examples' value is an empty array")
    examples.extend(_example(row) for row in rows)


def _example(row: Any) -> example_pb2.Example:
    if not isinstance(row, dict):
        raise invalid(f"Example must be JSON object but got JSON {type_text(row)}")
    if isinstance(row, RepeatedKeys):
        raise invalid(f"JSON Value: {show(row)} has a feature twice")
    example = example_pb2.Example()
    for name, value in row.items():
        values = value if isinstance(value, list) else [value]
        _fill_feature(name, values, example.features.feature[_check_utf8(name)])
    return example


def _fill_feature(name: str, values: Sequence[Any], feature: feature_pb2.Feature) -> None:
    kinds = [_kind(name, value) for value in values]
    if len(set(kinds)) > 1:
        raise invalid(f"Unexpected element type in feature: {name} expecting type: {kinds[0]}")
    if "bytes" in kinds:
        feature.bytes_list.value.extend(to_bytes(value) for value in values)
    elif "float" in kinds:
        feature.float_list.value.extend(to_floats(values, types_pb2.DT_FLOAT).tolist())
    elif kinds:
        feature.int64_list.value.extend(int(value) for value in values)


def _kind(name: str, value: Any) -> str:
    """The kind of feature that holds such a value: `bytes`, `float` or `int64`."""
    if isinstance(value, str) or is_base64(value):
        return "bytes"
    if isinstance(value, float):
        return "float"
    if not isinstance(value, int):
        raise invalid(f"Feature: {name} has element with unexpected JSON type: {type_text(value)}")
    if value not in INTEGER_RANGE:
        return "float"
    if value >= 1 << 63:
        raise invalid(f"Feature: {name} has uint64 element. Only int64 is supported.")
    return "int64"
