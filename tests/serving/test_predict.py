"""Tests of Predict and GetModelMetadata: responses, exact error messages, and random requests."""

from types import SimpleNamespace

import grpc
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import get_model_metadata_pb2, model_pb2, predict_pb2

from serving.errors import RequestError
from serving.predict import check_metadata_fields, model_metadata, predict
from serving.servable import Servable
from tests.serving import saved_models

INVALID = grpc.StatusCode.INVALID_ARGUMENT


@pytest.fixture(scope="module")
def adder(tmp_path_factory):
    """Version 7: y = x + 7; `sum`: y = x + z + 7."""
    servable = Servable("adder", 7, saved_models.write_adder(tmp_path_factory.mktemp("adder"), 7))
    yield servable
    servable.close()


@pytest.fixture(scope="module")
def echo(tmp_path_factory):
    servable = Servable("echo", 3, saved_models.write_echo(tmp_path_factory.mktemp("echo"), 3))
    yield servable
    servable.close()


def request_of(inputs, signature="", outputs=()) -> predict_pb2.PredictRequest:
    request = predict_pb2.PredictRequest(output_filter=outputs)
    request.model_spec.name = "requested"
    request.model_spec.signature_name = signature
    for name, value in inputs.items():
        proto = value if isinstance(value, tensor_pb2.TensorProto) else tf.make_tensor_proto(value)
        request.inputs[name].CopyFrom(proto)
    return request


def error_of(servable, request, run=None) -> RequestError:
    with pytest.raises(RequestError) as caught:
        predict(servable, request, run or servable.run)
    return caught.value


X = np.array([1, 2], np.float32)


def test_outputs_and_the_model_spec_of_a_response(adder):
    response = predict(adder, request_of({"x": X}), adder.run)
    assert response.model_spec == model_pb2.ModelSpec(
        name="requested", signature_name="serving_default", version={"value": 7}
    )
    assert list(response.outputs["y"].float_val) == [8, 9]
    assert list(response.outputs["version"].int64_val) == [7, 7]
    assert set(response.outputs) == {"y", "version"}
    other = predict(adder, request_of({"x": X, "z": X}, "sum"), adder.run)
    assert other.model_spec.signature_name == "sum"
    assert list(other.outputs["y"].float_val) == [9, 11]


def test_only_outputs_of_the_filter_are_computed(adder):
    requested = []

    def run(signature, inputs, outputs):
        requested.extend(outputs)
        return adder.run(signature, inputs, outputs)

    response = predict(adder, request_of({"x": X}, outputs=["version"]), run)
    assert set(response.outputs) == {"version"} and requested == ["version"]


def test_an_unknown_signature(adder):
    error = error_of(adder, request_of({"x": X}, "other"))
    assert error.code is grpc.StatusCode.FAILED_PRECONDITION
    assert error.message == 'Serving signature key "other" not found.'


WRONG_REQUESTS = {
    "nothing": (
        ({}, ""),
        "input size does not match signature: 0!=1 len({}) != len({x}). "
        "Sent extra: {}. Missing but required: {x}.",
    ),
    "too much": (
        ({"x": X, "b": X, "a": X}, ""),
        "input size does not match signature: 3!=1 len({a,b,x}) != len({x}). "
        "Sent extra: {a,b}. Missing but required: {}.",
    ),
    "too little": (
        ({"y": X}, "sum"),
        "input size does not match signature: 1!=2 len({y}) != len({x,z}). "
        "Sent extra: {y}. Missing but required: {x,z}.",
    ),
    "another name": (
        ({"y": X}, ""),
        "Signature input alias: x(feed name: serving_default_x:0) not found in request and no "
        "default value provided. Inputs expected to be in the request {y}, or default input "
        "alias set: ",
    ),
    "bytes missing": (
        (
            {
                "x": X,
                "z": tensor_pb2.TensorProto(
                    dtype=types_pb2.DT_FLOAT,
                    tensor_shape={"dim": [{"size": 2}]},
                    tensor_content=bytes(7),
                ),
            },
            "sum",
        ),
        "tensor parsing error: z",
    ),
    "unknown type": (({"x": tensor_pb2.TensorProto(dtype=77)}, ""), "tensor parsing error: x"),
    "unknown output": (
        ({"x": X}, "", ["y", "w"]),
        "output tensor alias not found in signature: w "
        "Outputs expected to be in the set {version,y}.",
    ),
    "doubled output": (({"x": X}, "", ["y", "y"]), "duplicate output tensor alias: y"),
    "one type": (({"x": [1]}, ""), "Expects arg[0] to be float but int32 is provided"),
    "another type": (
        ({"x": X, "z": [b"1"]}, "sum"),
        "Expects arg[1] to be float but string is provided",
    ),
}


@pytest.mark.parametrize("case", WRONG_REQUESTS)
def test_wrong_requests(case, adder):
    arguments, message = WRONG_REQUESTS[case]
    error = error_of(adder, request_of(*arguments))
    assert (error.code, error.message) == (INVALID, message)


def test_wrong_types_have_the_error_of_a_session():
    """A session numbers its arguments by the names of tensors, not of the signature's inputs."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        first = tf.compat.v1.placeholder(tf.float32, [None], "zz")
        second = tf.compat.v1.placeholder(tf.bfloat16, [None], "aa")
        utils = tf.compat.v1.saved_model
        infos = {
            "a": utils.build_tensor_info(first),
            "b": utils.build_tensor_info(second),
        }
        signature = utils.build_signature_def(
            infos, {"c": infos["a"]}, "tensorflow/serving/predict"
        )
        fine = {"a": np.zeros(1, np.float32), "b": np.zeros(1, tf.bfloat16.as_numpy_dtype)}
        fetches = [tf.identity(first)._as_tf_output(), tf.identity(second)._as_tf_output()]
        for wrong in ({"a": np.zeros(1, np.int64)}, {"b": np.zeros(1, np.float16)}):
            given = fine | wrong
            feeds = {first._as_tf_output(): given["a"], second._as_tf_output(): given["b"]}
            with pytest.raises(tf.errors.InvalidArgumentError) as expected:
                session._call_tf_sessionrun(None, feeds, fetches, [], None)
            servable = SimpleNamespace(version=1, signatures={"serving_default": signature})
            error = error_of(servable, request_of(given), lambda *_: pytest.fail("was run"))
            assert error.code is INVALID
            assert error.message == expected.value.message


def with_defaults() -> SimpleNamespace:
    info = meta_graph_pb2.TensorInfo(name="t:0", dtype=types_pb2.DT_FLOAT)
    signature = meta_graph_pb2.SignatureDef(
        inputs={"a": info, "b": info, "c": info},
        outputs={"d": info},
        defaults={"b": tf.make_tensor_proto(X), "c": tf.make_tensor_proto(2 * X)},
    )
    return SimpleNamespace(version=1, signatures={"serving_default": signature})


def test_defaults_of_a_signature():
    seen = {}

    def run(signature, inputs, outputs):
        seen.update(inputs)
        return {"d": X}

    predict(with_defaults(), request_of({"a": 3 * X, "c": 4 * X}), run)
    assert {name: array.tolist() for name, array in seen.items()} == {
        "a": [3, 6], "b": [1, 2], "c": [4, 8]
    }  # fmt: skip
    assert error_of(with_defaults(), request_of({"b": X}), run).message == (
        "Signature input alias: a(feed name: t:0) not found in request and no default value "
        "provided. Inputs expected to be in the request {b}, or default input alias set: b,c"
    )
    assert error_of(with_defaults(), request_of({"a": X, "w": X}), run).message == (
        "Inputs contains invalid name. Used request inputs: a, request input: a,w"
    )
    assert (
        "3!=3" not in error_of(with_defaults(), request_of(dict.fromkeys("vwxy", X)), run).message
    )


def test_the_initializer_cannot_be_run(adder):
    error = error_of(adder, request_of({}, "__saved_model_init_op"))
    assert error.code is INVALID and "NoOp" in error.message


def test_a_shape_that_the_model_rejects(adder):
    error = error_of(adder, request_of({"x": X, "z": np.zeros(3, np.float32)}, "sum"))
    assert error.code is INVALID
    assert "[2]" in error.message and "[3]" in error.message


def test_a_failure_names_inputs_of_other_shapes_than_the_signature_declares(tmp_path):
    servable = Servable("keras", 1, saved_models.write_keras(tmp_path, 1))
    try:
        error = error_of(servable, request_of({"x": np.float32(1)}))
        fitting = error_of(servable, request_of({"x": np.zeros([1, 3], np.float32)}), _fail)
    finally:
        servable.close()
    assert error.code is INVALID
    assert error.message.endswith("x has shape [], expected [None, 3]")
    assert fitting.message == "failed"


def _fail(signature, inputs, outputs):
    raise RequestError(INVALID, "failed")


def test_other_shapes_than_declared_are_computed_if_the_model_can(adder):
    response = predict(adder, request_of({"x": np.float32(1)}), adder.run)
    assert tf.make_ndarray(response.outputs["y"]) == 8


ECHOED = {
    "text": np.array([b"", "\u00e9".encode(), b"\xff\0"], object),
    "image_bytes": np.array([b"1", b"2", b"3"], object),
    "floats": np.array([[1.5], [np.inf], [-0.0]], np.float32),
    "integers": np.array([-(1 << 63), 0, (1 << 63) - 1]),
    "flags": np.array([True, False, True]),
    "matrix": np.arange(18.0).reshape(3, 2, 3),
}


def test_values_of_all_types_are_unchanged(echo):
    response = predict(echo, request_of(ECHOED), echo.run)
    for name, expected in ECHOED.items():
        output = tf.make_ndarray(response.outputs[name])
        assert output.shape == expected.shape and output.tolist() == expected.tolist()


def test_an_empty_batch(echo):
    response = predict(echo, request_of({name: a[:0] for name, a in ECHOED.items()}), echo.run)
    assert tf.make_ndarray(response.outputs["matrix"]).shape == (0, 2, 3)


def test_scalars(tmp_path):
    module = tf.Module()
    specs = [tf.TensorSpec([], tf.string, "s"), tf.TensorSpec([], tf.float32, "f")]
    module.f = tf.function(lambda s, f: {"s": s + "!", "f": f + 1}, input_signature=specs)
    tf.saved_model.save(module, str(tmp_path / "1"), {"serving_default": module.f})
    servable = Servable("scalars", 1, tmp_path / "1")
    outputs = predict(servable, request_of({"s": b"a", "f": np.float32(1)}), servable.run).outputs
    assert list(outputs["s"].string_val) == [b"a!"] and list(outputs["f"].float_val) == [2]
    for output in outputs.values():
        assert output.HasField("tensor_shape") and not output.tensor_shape.dim
    servable.close()


def test_a_hundred_megabytes(echo):
    large = np.array([bytes(100_000_000)], object)
    inputs = {name: array[:1] for name, array in ECHOED.items()} | {"text": large}
    response = predict(echo, request_of(inputs, outputs=["text"]), echo.run)
    assert response.outputs["text"].string_val[0] == large[0]


def any_tensor() -> st.SearchStrategy[tensor_pb2.TensorProto]:
    sizes = st.one_of(st.integers(-2, 3), st.integers(-(1 << 63), (1 << 63) - 1))
    return st.builds(
        tensor_pb2.TensorProto,
        dtype=st.one_of(st.sampled_from([1, 2, 7, 9, 10]), st.integers(-5, 200)),
        tensor_shape=st.builds(
            lambda sizes: {"dim": [{"size": size} for size in sizes]}, st.lists(sizes, max_size=3)
        ),
        tensor_content=st.one_of(st.just(b""), st.binary(max_size=40)),
        float_val=st.lists(st.floats(width=32), max_size=3),
        double_val=st.lists(st.floats(), max_size=3),
        string_val=st.lists(st.binary(max_size=3), max_size=3),
        int64_val=st.lists(st.integers(-9, 9), max_size=3),
        bool_val=st.lists(st.booleans(), max_size=3),
        int_val=st.lists(st.integers(-9, 9), max_size=3),
    )


@settings(max_examples=300, deadline=None)
@given(
    replaced=st.dictionaries(st.sampled_from([*ECHOED, "other"]), any_tensor(), max_size=2),
    missing=st.one_of(st.just(()), st.sets(st.sampled_from(list(ECHOED)), max_size=2)),
    outputs=st.lists(st.sampled_from([*ECHOED, "other"]), max_size=2),
)
def test_any_request_succeeds_or_is_an_invalid_argument(echo, replaced, missing, outputs):
    inputs = {name: tf.make_tensor_proto(array) for name, array in ECHOED.items()} | replaced
    for name in missing:
        del inputs[name]
    try:
        response = predict(echo, request_of(inputs, outputs=outputs), echo.run)
    except RequestError as error:
        assert error.code is INVALID and error.message
        assert replaced or missing or "other" in outputs or len(set(outputs)) < len(outputs)
    else:
        assert set(response.outputs) == set(outputs or ECHOED)
        for name, proto in response.outputs.items():
            data_type = tf.as_dtype(inputs[name].dtype)
            expected = tf.io.parse_tensor(inputs[name].SerializeToString(), data_type)
            np.testing.assert_array_equal(tf.make_ndarray(proto), expected.numpy())


def test_metadata(adder):
    response = model_metadata(adder)
    assert (response.model_spec.name, response.model_spec.version.value) == ("adder", 7)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    assert dict(signatures.signature_def) == dict(adder.signatures)
    assert signatures.signature_def["sum"].inputs["z"].dtype == types_pb2.DT_FLOAT


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ([], "GetModelMetadataRequest must specify at least one metadata_field"),
        (["signature_def", "weights"], "Metadata field weights is not supported"),
    ],
)
def test_wrong_metadata_fields(fields, message):
    with pytest.raises(RequestError) as caught:
        check_metadata_fields(fields)
    assert (caught.value.code, caught.value.message) == (INVALID, message)
