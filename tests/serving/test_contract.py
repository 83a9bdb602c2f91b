"""Tests of what clients of TensorFlow Serving rely on, against running servers.

They test the embedded server, and `tensorflow_model_server` if it is installed.
`python -m tests.serving.check_contract` tests any other server instead.
"""

import base64
import json
import shutil
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import grpc
import numpy as np
import ovmsclient
import pytest
import tensorflow as tf
from google.protobuf import text_format
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_pb2,
    predict_pb2,
    regression_pb2,
)
from tensorflow_serving.apis.get_model_metadata_pb2 import SignatureDefMap

from tests.serving.check_contract import METRICS, configuration, write_models
from tests.serving.server_processes import EMBEDDED, Server, serving

REAL = "tensorflow_model_server"
Code = grpc.StatusCode


@pytest.fixture(scope="module", params=["embedded", REAL])
def engine(request, tmp_path_factory):
    """A server, and the path of the models on it."""
    given = request.config.getoption("--engine")
    if given:
        if request.param == REAL:
            pytest.skip("--engine names another server")
        grpc_address, rest_address, server_path = given.split(",")
        yield SimpleNamespace(server=Server(grpc_address, rest_address), models=Path(server_path))
        return
    if request.param == REAL and not shutil.which(REAL):
        pytest.skip(f"{REAL} is not on the PATH")
    folder = tmp_path_factory.mktemp("contract")
    flags = write_models(folder, folder)
    program = [REAL] if request.param == REAL else EMBEDDED
    with serving(folder / "log.txt", *flags, program=program) as server:
        yield SimpleNamespace(server=server, models=folder)


@pytest.fixture(scope="module")
def stub(engine):
    return engine.server.prediction()


def predict_request(model="adder", signature="", version=None, label="", **inputs):
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = model, signature
    if version is not None:
        request.model_spec.version.value = version
    if label:
        request.model_spec.version_label = label
    for name, value in (inputs or {"x": np.array([0.5], np.float32)}).items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return request


def array(proto) -> np.ndarray:
    return tf.make_ndarray(proto)


def error_of(call, request, timeout=20) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as raised:
        call(request, timeout=timeout)
    return raised.value.code(), raised.value.details()


def rest(engine, path: str, document=None) -> tuple[int, dict]:
    body = None if document is None else json.dumps(document).encode()
    request = urllib.request.Request(engine.server.rest_address + path, body)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_predict(stub):
    answer = stub.Predict(predict_request(x=np.array([1, 2], np.float32)))
    assert array(answer.outputs["y"]).tolist() == [3, 4]  # Version 2, the newest.
    assert array(answer.outputs["version"]).tolist() == [2, 2]
    spec = answer.model_spec
    assert (spec.name, spec.signature_name, spec.version.value) == ("adder", "serving_default", 2)
    older = stub.Predict(predict_request(version=1, signature="sum", x=[1.0], z=[5.0]))
    assert array(older.outputs["y"]).tolist() == [7]
    assert (older.model_spec.signature_name, older.model_spec.version.value) == ("sum", 1)


def test_an_output_filter(stub):
    request = predict_request()
    request.output_filter.append("version")
    assert list(stub.Predict(request).outputs) == ["version"]


@pytest.mark.parametrize(
    ("request_", "code", "message"),
    [
        (
            predict_request("none"),
            Code.NOT_FOUND,
            "Servable not found for request: Latest(none)",
        ),
        (
            predict_request(version=9),
            Code.NOT_FOUND,
            "Servable not found for request: Specific(adder, 9)",
        ),
        (
            predict_request(label="none"),
            Code.INVALID_ARGUMENT,
            "Unrecognized servable version label: none",
        ),
        (predict_request(""), Code.INVALID_ARGUMENT, "ModelSpec has no name specified."),
        (predict_pb2.PredictRequest(), Code.INVALID_ARGUMENT, "Missing ModelSpec"),
        (
            predict_request(signature="none"),
            Code.FAILED_PRECONDITION,
            'Serving signature key "none" not found.',
        ),
        (
            predict_request(x=[1.0], w=[1.0]),
            Code.INVALID_ARGUMENT,
            "Sent extra: {w}. Missing but required: {}.",
        ),
        (
            predict_request(signature="sum"),
            Code.INVALID_ARGUMENT,
            "Sent extra: {}. Missing but required: {z}.",
        ),
        (predict_request(x=["text"]), Code.INVALID_ARGUMENT, "to be float but string is provided"),
        (
            predict_pb2.PredictRequest(
                model_spec={"name": "adder"},
                inputs=predict_request().inputs,
                output_filter=["none"],
            ),
            Code.INVALID_ARGUMENT,
            "output tensor alias not found in signature: none",
        ),
        (
            predict_pb2.PredictRequest(
                model_spec={"name": "adder"},
                inputs=predict_request().inputs,
                output_filter=["y", "y"],
            ),
            Code.INVALID_ARGUMENT,
            "duplicate output tensor alias: y",
        ),
    ],
)
def test_wrong_predict_requests(request_, code, message, stub):
    found, details = error_of(stub.Predict, request_)
    assert found == code
    assert message in details


def test_classify_regress_and_multi_inference(stub):
    example = tf.train.Example()
    example.features.feature["x"].float_list.value.append(0.25)
    given = {"example_list": {"examples": [example]}}
    spec = model_pb2.ModelSpec(name="tf1", signature_name="classify")
    answer = stub.Classify(classification_pb2.ClassificationRequest(model_spec=spec, input=given))
    classes = answer.result.classifications[0].classes
    assert [(found.label, found.score) for found in classes] == [("small", -0.25), ("large", 0.25)]
    spec.signature_name = "regress"
    answer = stub.Regress(regression_pb2.RegressionRequest(model_spec=spec, input=given))
    assert [regression.value for regression in answer.result.regressions] == [3.25]
    tasks = [
        inference_pb2.InferenceTask(
            method_name=f"tensorflow/serving/{name}",
            model_spec={"name": "tf1", "signature_name": name},
        )
        for name in ("classify", "regress")
    ]
    answer = stub.MultiInference(inference_pb2.MultiInferenceRequest(tasks=tasks, input=given))
    assert answer.results[0].classification_result.classifications[0].classes[1].label == "large"
    assert answer.results[1].regression_result.regressions[0].value == 3.25


def test_metadata(stub):
    request = get_model_metadata_pb2.GetModelMetadataRequest(model_spec={"name": "adder"})
    assert error_of(stub.GetModelMetadata, request)[0] == Code.INVALID_ARGUMENT
    request.metadata_field.append("signature_def")
    answer = stub.GetModelMetadata(request)
    signatures = SignatureDefMap()
    assert answer.metadata["signature_def"].Unpack(signatures)
    assert set(signatures.signature_def["sum"].inputs) == {"x", "z"}
    request.metadata_field[0] = "weights"
    assert error_of(stub.GetModelMetadata, request) == (
        Code.INVALID_ARGUMENT,
        "Metadata field weights is not supported",
    )


def test_status_reload_and_labels(engine, stub):
    models = engine.server.models()
    status = get_model_status_pb2.GetModelStatusRequest(model_spec={"name": "adder"})
    states = models.GetModelStatus(status, timeout=20).model_version_status
    assert [(state.version, state.state) for state in states] == [(2, 30), (1, 30)]
    status.model_spec.name = "none"
    assert error_of(models.GetModelStatus, status)[0] == Code.NOT_FOUND
    labels = "version_labels { key: 'stable' value: 1 }"
    request = model_management_pb2.ReloadConfigRequest()
    text_format.Parse(configuration(engine.models, labels), request.config)
    assert models.HandleReloadConfigRequest(request, timeout=60).status.error_code == 0
    answer = stub.Predict(predict_request(label="stable"))
    assert answer.model_spec.version.value == 1
    assert rest(engine, "/v1/models/adder/labels/stable:predict", {"instances": [1]}) == (
        200,
        {"predictions": [{"y": 2.0, "version": 1}]},
    )
    request.config.model_config_list.config.add().CopyFrom(
        request.config.model_config_list.config[0]
    )
    code, message = error_of(models.HandleReloadConfigRequest, request, timeout=60)
    assert "Illegal to list model adder multiple times in config list" in message
    assert code == Code.INVALID_ARGUMENT
    assert stub.Predict(predict_request(label="stable")).model_spec.version.value == 1


def test_a_deadline_cancels_a_computation(stub):
    start = time.monotonic()
    code, _ = error_of(stub.Predict, predict_request("slow", seconds=[30.0]), timeout=0.5)
    assert code == Code.DEADLINE_EXCEEDED
    assert time.monotonic() - start < 10
    stub.Predict(predict_request("slow", seconds=[0.0]), timeout=20)


def test_a_large_message(stub):
    text = b"\xff" * 10_000_000
    request = echo_request(image_bytes=[text])
    assert array(stub.Predict(request).outputs["image_bytes"])[0] == text


def echo_request(**changed):
    values = {
        "text": [b"a"],
        "image_bytes": [b"\x00\xff"],
        "floats": np.array([[0.1, 2]], np.float32),
        "integers": np.array([2**53 + 1]),
        "flags": [True],
        "matrix": np.arange(6.0).reshape(1, 2, 3),
    }
    return predict_request("echo", **values | changed)


def test_rest_rows_and_columns(engine):
    row = {
        "text": "é\n", "image_bytes": {"b64": base64.b64encode(b"\x00\xff").decode()},
        "floats": [0.1, 2.0], "integers": 2**53 + 1, "flags": True,
        "matrix": [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]],
    }  # fmt: skip
    assert rest(engine, "/v1/models/echo:predict", {"instances": [row, row]}) == (
        200,
        {"predictions": [row, row]},
    )
    columns = {name: [value] for name, value in row.items()}
    assert rest(engine, "/v1/models/echo/versions/1:predict", {"inputs": columns}) == (
        200,
        {"outputs": columns},
    )
    assert rest(
        engine, "/v1/models/tf1:classify",
        {"signature_name": "classify", "examples": [{"x": 0.25}]},
    ) == (200, {"results": [[["small", -0.25], ["large", 0.25]]]})  # fmt: skip
    assert rest(
        engine, "/v1/models/tf1:regress", {"signature_name": "regress", "examples": [{"x": 0.25}]}
    ) == (200, {"results": [3.25]})


def test_rest_status_and_metadata(engine):
    code, status = rest(engine, "/v1/models/adder/versions/1")
    (version,) = status["model_version_status"]
    assert (code, version["version"], version["state"]) == (200, "1", "AVAILABLE")
    assert version["status"] == {"error_code": "OK", "error_message": ""}
    code, metadata = rest(engine, "/v1/models/adder/metadata")
    assert metadata["model_spec"]["name"] == "adder"
    assert metadata["model_spec"]["version"] == "2"
    signatures = metadata["metadata"]["signature_def"]["signature_def"]
    assert signatures["serving_default"]["inputs"]["x"]["dtype"] == "DT_FLOAT"


@pytest.mark.parametrize(
    ("path", "document", "code", "message"),
    [
        ("/v1/models/none:predict", {"instances": [1]}, 404, "Servable not found for request"),
        ("/v1/models/none", None, 404, "none"),
        ("/v1/models/adder/versions/9:predict", {"instances": [1]}, 404, "Specific(adder, 9)"),
        ("/v1/models/adder:predict", {"instances": ["text"]}, 400, ""),
        ("/v1/models/adder:predict", {"instances": []}, 400, ""),
        ("/v1/models/adder:predict", {"other": [1]}, 400, ""),
        ("/v1/models/adder:predict", {"instances": [1], "signature_name": "none"}, 400, "none"),
        ("/v1/models/adder:nonsense", {"instances": [1]}, 400, "Malformed request"),
        ("/elsewhere", None, 404, ""),
    ],
)
def test_wrong_rest_requests(path, document, code, message, engine):
    found, answer = rest(engine, path, document)
    assert found == code
    assert list(answer) == ["error"]
    assert message in answer["error"]


def test_a_rest_body_that_is_not_json(engine):
    request = urllib.request.Request(
        engine.server.rest_address + "/v1/models/adder:predict", b'{"instances": [1'
    )
    with pytest.raises(urllib.error.HTTPError) as raised:
        urllib.request.urlopen(request, timeout=20)
    assert raised.value.code == 400
    assert "JSON Parse error" in json.load(raised.value)["error"]


def test_prometheus_metrics(engine, stub):
    stub.Predict(predict_request())
    address = engine.server.rest_address + METRICS
    with urllib.request.urlopen(address, timeout=20) as answer:
        text = answer.read().decode()
    assert ':tensorflow:serving:request_count{model_name="adder",status="OK"}' in text
    assert ":tensorflow:serving:request_latency_bucket" in text
    assert ":tensorflow:serving:runtime_latency_count" in text


def test_health(engine):
    stub = health_pb2_grpc.HealthStub(engine.server.channel())
    answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=20)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize("api", ["grpc", "rest"])
def test_a_third_party_client(api, engine):
    if api == "grpc":
        client = ovmsclient.make_grpc_client(engine.server.grpc_address)
    else:
        client = ovmsclient.make_http_client(engine.server.rest_address.removeprefix("http://"))
    assert client.get_model_status("adder", model_version=1)[1]["state"] == "AVAILABLE"
    metadata = client.get_model_metadata("adder", model_version=1)
    if api == "rest":  # The client expects camel case, which TensorFlow Serving does not write.
        metadata = metadata["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert metadata["inputs"]["x"]["dtype"] == "DT_FLOAT"
    answer = client.predict({"x": np.array([1.5], np.float32)}, "adder", model_version=1)
    assert answer["y"].tolist() == [2.5]
