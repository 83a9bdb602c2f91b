"""REST requests: tensors as rows and columns, examples, and error messages."""

import grpc
import pytest
from google.protobuf import text_format
from tensorflow_serving.apis import input_pb2

from serving.errors import RequestError
from serving.json_values import parse
from serving.rest_requests import fill_examples, signature_name
from tests.serving.json_requests import error_of, read

INVALID = grpc.StatusCode.INVALID_ARGUMENT
ONE = {"x": "INT32"}
TWO = {"x": "INT32", "y": "INT32"}


@pytest.mark.parametrize(
    ("body", "inputs", "expected"),
    [
        ('{"instances": [1, 2]}', ONE, {"x": [1, 2]}),
        ('{"instances": [[1], [2]]}', ONE, {"x": [[1], [2]]}),
        ('{"instances": [{"x": 1}, {"x": 2}]}', ONE, {"x": [1, 2]}),
        ('{"instances": [{"y": [3], "x": 1}]}', TWO, {"x": [1], "y": [[3]]}),
        ('{"instances": [{"b64": "aGk="}, "b"]}', {"x": "STRING"}, {"x": [b"hi", b"b"]}),
        ('{"instances": [{"x": {"b64": "aGk="}}]}', {"x": "STRING"}, {"x": [b"hi"]}),
        ('{"inputs": 3}', ONE, {"x": 3}),
        ('{"inputs": {"x": 3}}', ONE, {"x": 3}),
        ('{"inputs": {"y": [[4]], "x": [1, 2]}}', TWO, {"x": [1, 2], "y": [[4]]}),
        # In columns, names that the signature lacks are ignored.
        ('{"inputs": {"x": 1, "z": "?"}}', ONE, {"x": 1}),
        # The first of repeated keys counts.
        ('{"inputs": [1], "inputs": [2]}', ONE, {"x": [1]}),
        ('{"inputs": {"x": 1, "x": 2}}', ONE, {"x": 1}),
    ],
)
def test_tensors_come_as_rows_or_columns(body, inputs, expected):
    assert {name: array.tolist() for name, array in read(body, **inputs).items()} == expected


@pytest.mark.parametrize(
    ("body", "inputs", "text"),
    [
        ("{}", ONE, "Missing 'inputs' or 'instances' key"),
        (
            '{"inputs": 1, "instances": [1]}',
            ONE,
            'JSON Value: {"inputs": 1, "instances": [1]} Not formatted correctly expecting only '
            "one of 'inputs' or 'instances' keys to exist ",
        ),
        ('{"inputs": 1}', {}, "Failed to get input map for signature: DEFAULT"),
        (
            '{"instances": []}',
            ONE,
            "JSON Value: {\"instances\": []} No values in 'instances' array",
        ),
        (
            '{"instances": {"x": 1}}',
            ONE,
            'JSON Value: {"instances": {"x": 1}} Excepting \'instances\' to be an list/array',
        ),
        (
            '{"instances": [1]}',
            TWO,
            "instances is a plain list, but expecting list of objects as multiple input tensors "
            "required as per tensorinfo_map",
        ),
        (
            '{"inputs": [1]}',
            TWO,
            "inputs is a plain value/list, but expecting an object as multiple input tensors "
            "required as per tensorinfo_map",
        ),
        ('{"inputs": {"x": 1}}', TWO, "Missing named input: y in 'inputs' object."),
        (
            '{"instances": [{"x": 1, "y": 2}, {"x": 1}]}',
            TWO,
            "Failed to process element: 1 of 'instances' list. JSON object: {\"x\": 1} keys must "
            "be equal to: x,y",
        ),
        (
            '{"instances": [{"x": 1, "x": 2}]}',
            ONE,
            "Failed to process element: 0 of 'instances' list. JSON object: {\"x\": 1} keys must "
            "be equal to: x",
        ),
        (
            '{"instances": [{"x": 1}, [1]]}',
            ONE,
            "Expecting object but got list at item 1 of input list",
        ),
        (
            '{"instances": [[1], {"x": 1}]}',
            ONE,
            "Expecting value/list but got object at item 1 of input list",
        ),
        (
            '{"instances": [[1, 2], [3, 4, 5]]}',
            ONE,
            "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: Expecting "
            "tensor size: 2 but got: 3",
        ),
        (
            '{"instances": [1, [1]]}',
            ONE,
            "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: Expecting "
            "shape [] but got: [1]",
        ),
        (
            '{"instances": [{"x": [1, 2]}, {"x": [[3, 4]]}]}',
            ONE,
            "Failed to process element: 1 key: x of 'instances' list. Error: INVALID_ARGUMENT: "
            "Expecting shape [2] but got: [1,2]",
        ),
        (
            '{"instances": [[[1, 2], [3]]]}',
            ONE,
            "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: "
            "Encountered list at unexpected size: 1 at level: 1 expected size: 2",
        ),
        (
            '{"instances": [1, "a", "b"]}',
            ONE,
            "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: JSON "
            'Value: "a" Type: String is not of expected type: int32',
        ),
        (
            f'{{"instances": [{"[" * 64}1{"]" * 64}]}}',
            ONE,
            "Encountered 65 nested lists, expected <= 64",
        ),
    ],
)
def test_wrong_tensors_are_errors(body, inputs, text):
    error = error_of(body, **inputs)
    assert (error.code, error.message) == (INVALID, text)


def test_the_signature_name():
    assert signature_name({"inputs": 1}) == ""
    assert signature_name({"signature_name": "é"}) == "é"
    for body, reason in (
        (b'{"signature_name": 1}', "'signature_name' key must be a string value."),
        (b'{"signature_name": "\xff"}', "is not valid UTF-8"),
    ):
        with pytest.raises(RequestError, match=reason) as caught:
            signature_name(parse(body))
        assert caught.value.code == INVALID


def examples(body: bytes) -> input_pb2.Input:
    target = input_pb2.Input()
    fill_examples(parse(body), target)
    return target


def test_features_of_examples_have_three_kinds():
    found = examples(
        b"""{"examples": [
            {"names": ["foo", {"b64": "/w=="}], "ratings": [8.0, NaN, -Infinity, 1e39], "age": 20},
            {"names": "baz", "flags": [1, true, false], "none": [], "large": 36893488147419103232}
        ]}"""
    )
    expected = text_format.Parse(
        """example_list {
          examples { features {
            feature { key: "names" value { bytes_list { value: "foo" value: "\\377" } } }
            feature { key: "ratings" value { float_list {
              value: 8 value: nan value: -inf value: inf } } }
            feature { key: "age" value { int64_list { value: 20 } } }
          } }
          examples { features {
            feature { key: "names" value { bytes_list { value: "baz" } } }
            feature { key: "flags" value { int64_list { value: 1 value: 1 value: 0 } } }
            feature { key: "none" value { } }
            feature { key: "large" value { float_list { value: 36893488147419103232 } } }
          } }
        }""",
        input_pb2.Input(),
    )
    # Compared as text, because NaN makes a message differ from itself.
    assert text_format.MessageToString(found) == text_format.MessageToString(expected)


def test_examples_may_have_a_context():
    found = examples(b'{"context": {"query": "pizza"}, "examples": [{"x": 1}]}')
    expected = text_format.Parse(
        """example_list_with_context {
          context { features {
            feature { key: "query" value { bytes_list { value: "pizza" } } } } }
          examples { features { feature { key: "x" value { int64_list { value: 1 } } } } }
        }""",
        input_pb2.Input(),
    )
    assert found == expected
    empty = examples(b'{"context": {}, "examples": [{}]}')
    assert empty.WhichOneof("kind") == "example_list_with_context"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (
            b"{}",
            "JSON Value: {} When method is classify, key 'examples' is expected and was not found",
        ),
        (
            b'{"examples": {"x": 1}}',
            'JSON Value: {"examples": {"x": 1}} Expecting \'examples\' value to be an list/array',
        ),
        (b'{"examples": []}', "JSON Value: {\"examples\": []} 'examples' value is an empty array"),
        (b'{"examples": [[1]]}', "Example must be JSON object but got JSON Array"),
        (b'{"context": 1, "examples": []}', "Example must be JSON object but got JSON Number"),
        (
            b'{"examples": [{"x": [1, null]}]}',
            "Feature: x has element with unexpected JSON type: Null",
        ),
        (
            b'{"examples": [{"x": [[1]]}]}',
            "Feature: x has element with unexpected JSON type: Array",
        ),
        (
            b'{"examples": [{"x": {"y": 1}}]}',
            "Feature: x has element with unexpected JSON type: Object",
        ),
        (
            b'{"examples": [{"x": [1, 1.0]}]}',
            "Unexpected element type in feature: x expecting type: int64",
        ),
        (
            b'{"examples": [{"x": ["a", true]}]}',
            "Unexpected element type in feature: x expecting type: bytes",
        ),
        (
            b'{"examples": [{"x": 9223372036854775808}]}',
            "Feature: x has uint64 element. Only int64 is supported.",
        ),
        (b'{"examples": [{"x": {"b64": "!"}}]}', "Unable to base64 decode"),
        (b'{"examples": [{"x": 1, "x": 2}]}', 'JSON Value: {"x": 1} has a feature twice'),
        (b'{"examples": [{"\xff": 1}]}', 'JSON Value: "\udcff" is not valid UTF-8'),
    ],
)
def test_wrong_examples_are_errors(body, text):
    with pytest.raises(RequestError) as caught:
        examples(body)
    assert (caught.value.code, caught.value.message) == (INVALID, text)
