"""REST responses: JSON that reads back as the same tensors, in TensorFlow Serving's format.

B batch.
"""

import json

import grpc
import numpy as np
import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    regression_pb2,
)

from serving.errors import RequestError
from serving.rest_responses import (
    write_classifications,
    write_columns,
    write_error,
    write_metadata,
    write_regressions,
    write_rows,
    write_status,
)
from serving.tensor_protos import read_tensor
from tests.serving.json_requests import proto, read

NUMBERS = {
    "FLOAT": np.float32,
    "DOUBLE": np.float64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "UINT8": np.uint8,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "BOOL": np.bool_,
}
# Nested lists do not show the dimensions after one of size 0.
shapes = st.tuples(
    st.lists(st.integers(1, 3), max_size=3).map(tuple), st.sampled_from([(), (), (0,)])
).map(lambda parts: parts[0] + parts[1])


@st.composite
def tensors(draw) -> tuple[str, str, np.ndarray]:
    """A name, a type and an array."""
    kind = draw(st.sampled_from(["STRING", *NUMBERS]))
    if kind != "STRING":
        return "x", kind, draw(arrays.arrays(NUMBERS[kind], shapes))
    name, content = draw(
        st.sampled_from(
            [
                ("x_bytes", st.binary(max_size=9)),
                ("text", st.text(max_size=9).map(str.encode)),
                # Invalid UTF-8 under the name of a text: the bytes stay as they are.
                ("text", st.binary(max_size=9)),
            ]
        )
    )
    array = np.empty(draw(shapes), object)
    array.ravel()[:] = draw(st.lists(content, min_size=array.size, max_size=array.size))
    return name, kind, array


def same(found: np.ndarray, expected: np.ndarray) -> bool:
    if found.dtype != expected.dtype or found.shape != expected.shape:
        return False
    if expected.dtype.kind != "f":
        return bool(np.all(found == expected))
    signs = np.signbit(found) == np.signbit(expected)
    return bool(
        np.array_equal(found, expected, equal_nan=True) and np.all(signs | np.isnan(expected))
    )


@given(tensors())
def test_responses_read_back_as_the_same_tensors(tensor):
    name, kind, array = tensor
    answer = write_columns({name: proto(array)})
    found = read(answer.replace(b'"outputs"', b'"inputs"', 1), **{name: kind})
    assert same(found[name], array)


@given(st.lists(tensors(), min_size=1, max_size=3))
def test_rows_and_columns_agree(tensor_list):
    outputs, kinds = {}, {}
    for number, (name, kind, array) in enumerate(tensor_list):
        rows = np.empty((2, *array.shape), array.dtype)  # [B, ...]
        rows[:] = array
        outputs[f"{number}{name}"], kinds[f"{number}{name}"] = proto(rows), kind
    answer = write_rows(outputs)
    by_rows = read(answer.replace(b'"predictions"', b'"instances"', 1), **kinds)
    answer = write_columns(outputs)
    by_columns = read(answer.replace(b'"outputs"', b'"inputs"', 1), **kinds)
    for name, output in outputs.items():
        assert same(by_rows[name], read_tensor(output))
        assert same(by_columns[name], read_tensor(output))


@given(arrays.arrays(np.int32, arrays.array_shapes(max_dims=4, max_side=3)))
def test_lists_are_nested_like_those_of_numpy(array):
    assert json.loads(write_rows({"x": proto(array)})) == {"predictions": array.tolist()}
    assert json.loads(write_columns({"x": proto(array)})) == {"outputs": array.tolist()}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.float32(9000000), "9e+06"),
        (np.float32(999999), "999999.0"),
        (np.float32(0.5), "0.5"),
        (np.float32(0.00003), "3e-05"),
        (np.float32(555557.5), "555557.5"),
        (np.float32(0.2), "0.2"),
        (np.float32(1) / np.float32(3), "0.333333343"),
        (np.float32(16777217), "16777216.0"),
        (np.float32(-0.0), "-0.0"),
        (np.float64(0.2), "0.2"),
        (np.float64(1) / 3, "0.33333333333333331"),
        (np.float32("nan"), "NaN"),
        (np.float32("inf"), "Infinity"),
        (np.float64("-inf"), "-Infinity"),
        (np.int64(-(1 << 63)), "-9223372036854775808"),
        (np.uint64((1 << 64) - 1), "18446744073709551615"),
        (np.bool_(True), "true"),
        (np.bool_(False), "false"),
    ],
)
def test_numbers_have_the_format_of_tensorflow_serving(value, text):
    assert (
        write_columns({"x": proto(np.array(value))}) == b'{\n    "outputs": %s\n}' % text.encode()
    )


def test_several_outputs_are_named():
    outputs = {
        "score": proto(np.array([0.5, 2], np.float32)),
        "words": proto(np.array([[b'a "b"', b"\n"], [b"\xc3\xa9", b"/"]], object)),
        "image_bytes": proto(np.array([b"hello", b"\xff\x00"], object)),
    }
    assert json.loads(write_rows(outputs)) == {
        "predictions": [
            {"image_bytes": {"b64": "aGVsbG8="}, "score": 0.5, "words": ['a "b"', "\n"]},
            {"image_bytes": {"b64": "/wA="}, "score": 2.0, "words": ["é", "/"]},
        ]
    }
    assert json.loads(write_columns(outputs)) == {
        "outputs": {
            "image_bytes": [{"b64": "aGVsbG8="}, {"b64": "/wA="}],
            "score": [0.5, 2.0],
            "words": [['a "b"', "\n"], ["é", "/"]],
        }
    }
    # The order of outputs is fixed.
    assert list(json.loads(write_columns(outputs))["outputs"]) == sorted(outputs)


def test_empty_batches_give_empty_lists():
    empty = {"a": proto(np.zeros([0, 2], np.int32)), "b": proto(np.array([], object))}
    assert json.loads(write_rows(empty)) == {"predictions": []}
    assert json.loads(write_columns(empty)) == {"outputs": {"a": [], "b": []}}


def test_invalid_utf8_stays_as_it_is():
    assert b'"caf\xe9"' in write_columns({"x": proto(np.array([b"caf\xe9"], object))})
    assert write_error("no caf\udce9") == b'{\n    "error": "no caf\xe9"\n}'


@pytest.mark.parametrize(
    ("outputs", "text"),
    [
        ({}, "Cannot convert empty tensor map to JSON"),
        ({"x": np.array(1)}, "Tensor name: x has no shape information "),
        (
            {"a": np.zeros(2), "b": np.zeros(1)},
            "Tensor name: b has inconsistent batch size: 1 expecting: 2",
        ),
        ({"x": np.zeros(2, np.complex64)}, "Failed to write JSON value for tensor type: complex64"),
        ({"x": np.zeros(2, np.float16)}, "Failed to write JSON value for tensor type: half"),
    ],
)
def test_outputs_that_cannot_be_rows_are_errors(outputs, text):
    with pytest.raises(RequestError) as caught:
        write_rows({name: proto(array) for name, array in outputs.items()})
    assert caught.value.code == grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.message == text


def test_results_of_classification_and_regression():
    result = text_format.Parse(
        """classifications { classes { label: "car" score: 0.2 } classes { score: nan } }
           classifications { classes { label: "\\"é" score: 3 } }
           classifications { }""",
        classification_pb2.ClassificationResult(),
    )
    assert write_classifications(result).decode() == (
        '{\n    "results": [[["car", 0.2], ["", NaN]], [["\\"é", 3.0]], []]\n}'
    )
    values = text_format.Parse(
        "regressions { value: 0.2 } regressions { value: -inf } regressions { value: 1 }",
        regression_pb2.RegressionResult(),
    )
    assert write_regressions(values) == b'{\n    "results": [0.2, -Infinity, 1.0]\n}'
    with pytest.raises(RequestError, match="Cannot convert empty ClassificationResults to JSON"):
        write_classifications(classification_pb2.ClassificationResult())
    with pytest.raises(RequestError, match="Cannot convert empty RegressionResults to JSON"):
        write_regressions(regression_pb2.RegressionResult())


def test_the_status_of_versions():
    response = get_model_status_pb2.GetModelStatusResponse()
    response.model_version_status.add(version=1, state="AVAILABLE")
    failed = response.model_version_status.add(version=2, state="END")
    failed.status.error_code, failed.status.error_message = 5, "gone"
    good, bad = json.loads(write_status(response))["model_version_status"]
    assert good == {
        "version": "1",
        "state": "AVAILABLE",
        "status": {"error_code": "OK", "error_message": ""},
    }
    assert bad == {
        "version": "2",
        "state": "END",
        "status": {"error_code": "NOT_FOUND", "error_message": "gone"},
    }


def test_the_metadata_of_a_model():
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    response.model_spec.name = "adder"
    response.model_spec.version.value = 123
    signatures = text_format.Parse(
        """signature_def { key: "serving_default" value {
            inputs { key: "x" value {
              name: "x:0" dtype: DT_FLOAT tensor_shape { dim { size: -1 } } } }
            outputs { key: "y" value { name: "y:0" dtype: DT_STRING
              tensor_shape { unknown_rank: true } } }
            method_name: "tensorflow/serving/predict"
        } }""",
        get_model_metadata_pb2.SignatureDefMap(),
    )
    response.metadata["signature_def"].Pack(signatures)
    found = json.loads(write_metadata(response))
    assert found["model_spec"] == {"name": "adder", "signature_name": "", "version": "123"}
    shape = {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False}
    anything = {"dim": [], "unknown_rank": True}
    assert found["metadata"]["signature_def"]["signature_def"] == {
        "serving_default": {
            "inputs": {"x": {"name": "x:0", "dtype": "DT_FLOAT", "tensor_shape": shape}},
            "outputs": {"y": {"name": "y:0", "dtype": "DT_STRING", "tensor_shape": anything}},
            "method_name": "tensorflow/serving/predict",
            "defaults": {},
        }
    }
