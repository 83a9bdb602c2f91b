"""JSON values: how they become elements of tensors, and which are errors."""

import base64
import json

import grpc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import RequestError
from serving.json_values import MAX_QUOTED, parse
from tests.serving.json_requests import error_of, read

INVALID = grpc.StatusCode.INVALID_ARGUMENT
LONG = "x" * 10 * MAX_QUOTED


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        ("[1, 2.5, 3e0, -0.0]", "FLOAT", [1.0, 2.5, 3.0, -0.0]),
        ("[NaN]", "DOUBLE", pytest.approx([np.nan], nan_ok=True)),
        ("[Infinity, -Infinity]", "FLOAT", [np.inf, -np.inf]),
        ("[100000000000000000000]", "FLOAT", [np.float32(1e20)]),
        # Rounded: to the nearest float, or to infinity.
        ("[16777217, 1435774380]", "FLOAT", [16777216.0, 1435774336.0]),
        ("[123456789012]", "FLOAT", [123456790528.0]),
        ("[9007199254740993]", "DOUBLE", [9007199254740992.0]),
        ("[1e39, -1e39]", "FLOAT", [np.inf, -np.inf]),
        # With nine digits, this is slightly more than the largest float.
        ("[3.40282347e+38, 16777215]", "FLOAT", [np.finfo(np.float32).max, 16777215.0]),
        ("9007199254740991", "DOUBLE", 9007199254740991.0),
        ("[-128, 127]", "INT8", [-128, 127]),
        ("[-9223372036854775808]", "INT64", [-(1 << 63)]),
        ("[18446744073709551615]", "UINT64", [(1 << 64) - 1]),
        ("[[true], [false]]", "BOOL", [[True], [False]]),
        ('["a", {"b64": "aGk="}]', "STRING", [b"a", b"hi"]),
        ('{"b64": "aGk="}', "STRING", b"hi"),
        ('"\\ud83d\\ude00\\\\ud83d"', "STRING", "😀\\ud83d".encode()),
        ("[]", "DOUBLE", []),
        ("[[], []]", "STRING", [[], []]),
    ],
)
def test_values_become_elements(value, kind, expected):
    assert read(f'{{"inputs": {value}}}', x=kind)["x"].tolist() == expected


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        ('["x"]', "FLOAT", 'JSON Value: "x" Type: String is not of expected type: float'),
        ("[null]", "STRING", "JSON Value: null Type: Null is not of expected type: string"),
        ("[1, true]", "INT32", "JSON Value: true Type: True is not of expected type: int32"),
        ("[false]", "DOUBLE", "JSON Value: false Type: False is not of expected type: double"),
        ("[1]", "BOOL", "JSON Value: 1 Type: Number is not of expected type: bool"),
        ("[1.0]", "INT64", "JSON Value: 1.0 Type: Number is not of expected type: int64"),
        ("[NaN]", "INT8", "JSON Value: NaN Type: Number is not of expected type: int8"),
        (
            '[[1, {"b64": ""}]]',
            "DOUBLE",
            'JSON Value: {"b64": ""} Type: Object is not of expected type: double',
        ),
        ("[[1, 256]]", "UINT8", "JSON Value: 256 Type: Number is not of expected type: uint8"),
        ("-1", "UINT64", "JSON Value: -1 Type: Number is not of expected type: uint64"),
        ("[Infinity, -1e999]", "FLOAT", "JSON Parse error: Number too big to be stored in double."),
        ("9" * 400, "DOUBLE", "JSON Parse error: Number too big to be stored in double."),
        (
            '[{"b64": 1}]',
            "STRING",
            'JSON Value: {"b64": 1} not formatted correctly for base64 data',
        ),
        (
            '[{"b64": "", "b64": ""}]',
            "STRING",
            'JSON Value: {"b64": ""} not formatted correctly for base64 data',
        ),
        (
            f'["{LONG}"]',
            "INT32",
            f'JSON Value: "{LONG[: MAX_QUOTED - 1]}... Type: String is not of expected type: int32',
        ),
        (
            "[[1], 2]",
            "INT32",
            "JSON Value: 2 found at incorrect level: 2 in the JSON DOM. Expected at level: 2",
        ),
        (
            "[[1, 2], [3]]",
            "INT32",
            "Encountered list at unexpected size: 1 at level: 1 expected size: 2",
        ),
        ("[1, [2]]", "INT32", "Encountered list at unexpected level: 1 expected < 1"),
        ("[" * 65 + "]" * 65, "INT8", "Encountered 65 nested lists, expected <= 64"),
    ],
)
def test_wrong_values_are_errors(value, kind, text):
    error = error_of(f'{{"inputs": {value}}}', x=kind)
    assert (error.code, error.message) == (INVALID, text)


@pytest.mark.parametrize("kind", ["HALF", "BFLOAT16", "COMPLEX64", "UINT16"])
def test_types_without_a_json_form_are_errors(kind):
    error = error_of('{"inputs": [1.5]}', x=kind)
    assert error.code == grpc.StatusCode.UNIMPLEMENTED
    assert error.message == f"Conversion of JSON Value: 1.5 to type: {kind.lower()}"
    in_rows = error_of('{"instances": [1.5]}', x=kind)
    assert in_rows.code == INVALID
    assert in_rows.message.endswith(f"Error: UNIMPLEMENTED: {error.message}")


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "The document is empty"),
        (b" \n", "The document is empty"),
        (b"instances = [1, 2]", "Invalid value. at offset: 0"),
        (b'{"instances": [1, }', "Invalid value. at offset: 18"),
        ('{"é": "é" 1}'.encode(), "Expecting ',' delimiter. at offset: 12"),
        (b'{"inputs": "a', "Unterminated string starting at. at offset: 11"),
        (b'{"inputs": %s}' % (b"9" * 5000), "Number too big to be stored in double."),
        (b'{"inputs": "\\ud83d"}', "The surrogate pair in string is invalid. at offset: 12"),
        (
            b'{"inputs": "\\ud83d\\ude00\\ude00"}',
            "The surrogate pair in string is invalid. at offset: 24",
        ),
        (b"[" * 100_000, "Values are nested too deeply."),
        (b'{"a":' * 100_000, "Values are nested too deeply."),
    ],
)
def test_invalid_json_is_an_error(body, text):
    with pytest.raises(RequestError) as caught:
        parse(body)
    assert (caught.value.code, caught.value.message) == (INVALID, f"JSON Parse error: {text}")


def test_a_document_must_be_an_object():
    assert parse('\ufeff{"é": 1}'.encode()) == {"é": 1}
    for after in (b"", b"\n", b" 2", b"}"):
        assert parse(b'\n {"inputs": 1}' + after) == {"inputs": 1}  # Like TensorFlow Serving.
    for body in (b"[1]", b"null", b'"a"'):
        with pytest.raises(RequestError) as caught:
            parse(body)
        assert caught.value.message == f"JSON Value: {body.decode()} Is not object"


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_deeply_nested_values_are_errors(opening, closing):
    """At the largest depths that the parser accepts, later steps do not fail either."""

    def nested(depth: int) -> str:
        return opening * depth + "1" + closing * depth

    depth = 100
    with pytest.raises(RequestError, match="nested too deeply"):
        while True:
            parse(f'{{"inputs": {nested(depth)}}}'.encode())
            depth += 1
    assert depth < 10_000
    for accepted_depth in range(depth - 20, depth):
        value = nested(accepted_depth)
        for body in (
            f'{{"inputs": {value}}}',
            f'{{"inputs": [{value}]}}',
            f'{{"instances": [1, {value}]}}',
        ):
            assert error_of(body, x="INT32").code == INVALID


@given(st.binary(max_size=40))
def test_base64_with_and_without_padding_and_white_space(content):
    text = base64.b64encode(content).decode()
    broken = "\\n ".join(text[i : i + 3] for i in range(0, len(text), 3))
    for written in (text, text.rstrip("="), broken):
        body = f'{{"inputs": {{"b64": "{written}"}}}}'
        assert read(body, x="STRING")["x"].item() == content


@pytest.mark.parametrize("text", ["a", "ab=", "a===", "ab==cd==", "a-_b", "é===", "ab=c", "="])
def test_invalid_base64_is_an_error(text):
    body = json.dumps({"inputs": [{"b64": text}]})
    assert error_of(body, x="STRING").message == "Unable to base64 decode"


def test_invalid_utf8_is_passed_on():
    body = b'{"inputs": ["caf\xe9", "\xed\xa0\x80"]}'
    assert read(body, x="STRING")["x"].tolist() == [b"caf\xe9", b"\xed\xa0\x80"]
