"""Parses JSON into arrays, by TensorFlow Serving's rules.

N elements of a tensor. Text is UTF-8; invalid bytes are passed on unchanged, as in TensorFlow
Serving.
"""

import binascii
import json
import re
from collections.abc import Sequence
from itertools import chain
from typing import Any

import grpc
import numpy as np
from tensorflow.core.framework import types_pb2

from serving.errors import RequestError, invalid
from serving.tensor_protos import MAX_DIMENSIONS, type_name

MAX_QUOTED = 200  # Characters of a value in an error message: it may contain a whole image.

INTEGERS: dict[int, Any] = {
    types_pb2.DT_INT8: np.int8,
    types_pb2.DT_INT16: np.int16,
    types_pb2.DT_INT32: np.int32,
    types_pb2.DT_INT64: np.int64,
    types_pb2.DT_UINT8: np.uint8,
    types_pb2.DT_UINT32: np.uint32,
    types_pb2.DT_UINT64: np.uint64,
}
FLOATS: dict[int, Any] = {types_pb2.DT_FLOAT: np.float32, types_pb2.DT_DOUBLE: np.float64}
# TensorFlow Serving's parser keeps integers in this range and converts others to doubles.
INTEGER_RANGE = range(-(1 << 63), 1 << 64)
# Matches all escapes, so that the group `half` only finds surrogates without their other half.
_ESCAPE = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    r"|(?P<half>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)


class _Literal(float):
    """NaN or Infinity in the text; a number that is too large also becomes an infinite float."""


class RepeatedKeys(dict):
    """An object in which a key occurs more than once; the first value counts."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    return members if len(members) == len(pairs) else RepeatedKeys(reversed(pairs))


_SPACE = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_Literal)
dump = json.JSONEncoder(ensure_ascii=False).encode


def parse(body: bytes) -> dict[str, Any]:
    """Parses the body of a request, and ignores text after the document.

    Raises:
        RequestError: The body is not a JSON object.
    """
    if not body.strip():
        raise invalid("JSON Parse error: The document is empty")
    text = body.decode("utf-8-sig", "surrogateescape")
    escapes = _ESCAPE.finditer(text) if "\\u" in text else ()
    half = next((escape.start() for escape in escapes if escape["half"]), None)
    if half is not None:
        raise _parse_error("The surrogate pair in string is invalid", text, half)
    try:
        document, _ = _DECODER.raw_decode(text, _SPACE.match(text).end())  # type: ignore[union-attr]
    except json.JSONDecodeError as error:
        reason = "Invalid value" if error.msg == "Expecting value" else error.msg
        raise _parse_error(reason, text, error.pos) from None
    except RecursionError:
        raise invalid("JSON Parse error: Values are nested too deeply.") from None
    except ValueError:  # Python limits the digits of an integer.
        raise _too_big() from None
    if not isinstance(document, dict):
        raise invalid(f"JSON Value: {show(document)} Is not object")
    return document


def show(value: Any) -> str:
    """JSON of a value for an error message, shortened."""
    try:
        text = dump(value)
    except RecursionError:
        return "..."
    return text if len(text) <= MAX_QUOTED else text[:MAX_QUOTED] + "..."


def type_text(value: Any) -> str:
    """Name of a JSON type in error messages."""
    if value is None:
        return "Null"
    if isinstance(value, bool):
        return str(value)
    names = {dict: "Object", list: "Array", str: "String"}
    return next((name for kind, name in names.items() if isinstance(value, kind)), "Number")


def _parse_error(reason: str, text: str, place: int) -> RequestError:
    offset = len(encode(text[:place]))
    return invalid(f"JSON Parse error: {reason}. at offset: {offset}")


def _too_big() -> RequestError:
    return invalid("JSON Parse error: Number too big to be stored in double.")


def encode(text: str) -> bytes:
    """UTF-8, with invalid bytes restored that decoding has escaped."""
    return text.encode("utf-8", "surrogateescape")


def is_base64(value: Any) -> bool:
    """Whether a value has the form {"b64": "..."}."""
    return type(value) is dict and value.keys() == {"b64"} and isinstance(value["b64"], str)


def flatten(value: Any) -> tuple[list[Any], list[int]]:
    """The leaves [N] of nested lists, and the shape of the lists.

    Raises:
        RequestError: The lists are ragged or nested too deeply.
    """
    rank, first = 0, value
    while isinstance(first, list):
        rank += 1
        first = first[0] if first else None
    if rank > MAX_DIMENSIONS:
        raise invalid(f"Encountered {rank} nested lists, expected <= {MAX_DIMENSIONS}")
    values, shape = [value], []
    for level in range(rank):
        shape.append(len(values[0]))
        for item in values:
            if not isinstance(item, list):
                raise invalid(
                    f"JSON Value: {show(item)} found at incorrect level: {level + 1} in the JSON "
                    f"DOM. Expected at level: {rank}"
                )
            if len(item) != shape[level]:
                raise invalid(
                    f"Encountered list at unexpected size: {len(item)} at level: {level} "
                    f"expected size: {shape[level]}"
                )
        values = list(chain.from_iterable(values))
    if any(isinstance(leaf, list) for leaf in values):
        raise invalid(f"Encountered list at unexpected level: {rank} expected < {rank}")
    return values, shape


def to_array(values: Sequence[Any], data_type: int) -> np.ndarray:
    """An array [N] of leaves.

    Raises:
        RequestError: A leaf has the wrong type or would lose precision.
    """
    if data_type == types_pb2.DT_STRING:
        strings = np.empty(len(values), object)
        strings[:] = [to_bytes(value) for value in values]
        return strings
    if data_type == types_pb2.DT_BOOL:
        _check_types(values, data_type, {bool})
        return np.array(values, bool)
    if data_type in INTEGERS:
        return _integers(values, data_type)
    if data_type in FLOATS:
        return to_floats(values, data_type)
    raise RequestError(
        grpc.StatusCode.UNIMPLEMENTED,
        f"Conversion of JSON Value: {show(next(iter(values), None))} "
        f"to type: {type_name(data_type)}",
    )


def _check_types(values: Sequence[Any], data_type: int, allowed: set[type]) -> set[type]:
    types = set(map(type, values))
    if not types <= allowed:
        wrong = next(value for value in values if type(value) not in allowed)
        raise _type_error(wrong, data_type)
    return types


def _type_error(value: Any, data_type: int) -> RequestError:
    return invalid(
        f"JSON Value: {show(value)} Type: {type_text(value)} "
        f"is not of expected type: {type_name(data_type)}"
    )


def _integers(values: Sequence[Any], data_type: int) -> np.ndarray:
    _check_types(values, data_type, {int})
    try:
        return np.array(values, INTEGERS[data_type])
    except OverflowError:
        limits = np.iinfo(INTEGERS[data_type])
        wrong = next(value for value in values if not limits.min <= value <= limits.max)
        raise _type_error(wrong, data_type) from None


def to_floats(values: Sequence[Any], data_type: int) -> np.ndarray:
    """An array [N] of numbers as DT_FLOAT or DT_DOUBLE, rounded as in TensorFlow Serving.

    Numbers too large for DT_FLOAT become infinite.

    Raises:
        RequestError: A leaf is not a number or is too large for DT_DOUBLE.
    """
    _check_types(values, data_type, {int, float, _Literal})
    try:
        doubles = np.array(values, np.float64)
    except OverflowError:
        raise _too_big() from None
    for index in np.flatnonzero(np.isinf(doubles)).tolist():
        if type(values[index]) is not _Literal:
            raise _too_big()
    with np.errstate(over="ignore"):
        return doubles.astype(FLOATS[data_type])


def to_bytes(value: Any) -> bytes:
    """The bytes of a string or of {"b64": "..."}.

    Raises:
        RequestError: The value is neither, or is not valid base64.
    """
    if isinstance(value, str):
        return encode(value)
    if not isinstance(value, dict):
        raise _type_error(value, types_pb2.DT_STRING)
    if not is_base64(value):
        raise invalid(f"JSON Value: {show(value)} not formatted correctly for base64 data")
    try:
        digits = b"".join(value["b64"].encode("ascii").split())
        if not digits.endswith(b"="):  # Padding is optional.
            digits += b"=" * (-len(digits) % 4)
        return binascii.a2b_base64(digits, strict_mode=True)
    except ValueError:
        raise invalid("Unable to base64 decode") from None
