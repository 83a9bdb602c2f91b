"""The gRPC services: answers, status codes, deadlines, health, stopping."""

import socket
import threading
import time
from contextlib import contextmanager

import grpc
import numpy as np
import pytest
import tensorflow as tf
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)
from tensorflow_serving.config import model_server_config_pb2

from serving.errors import ServingError
from serving.grpc_api import MAX_MESSAGE_BYTES, QUEUE_PER_THREAD, start_grpc
from serving.manager import ModelManager
from serving.monitoring import Monitoring
from serving.prediction_service import PredictionService
from tests.serving import saved_models

UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
NAMES = ("adder", "echo", "tf1", "slow")


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    config = model_server_config_pb2.ModelServerConfig()
    for name in NAMES:
        getattr(saved_models, f"write_{name}")(folder / name, 3)
        config.model_config_list.config.add(
            name=name, base_path=str(folder / name), model_platform="tensorflow"
        )
    return config


@pytest.fixture(scope="module")
def api(config):
    manager = ModelManager(config)
    manager.start()
    yield PredictionService(manager, None, Monitoring())
    manager.stop()


@contextmanager
def serving(api, **options):
    server = start_grpc(api, **{"port": 0, "threads": 4} | options)
    try:
        yield server
    finally:
        server.stop(0)


@contextmanager
def channel_to(server, target=None):
    with grpc.insecure_channel(target or f"127.0.0.1:{server.port}", UNLIMITED) as channel:
        yield channel


@pytest.fixture(scope="module")
def channel(api):
    with serving(api) as server, channel_to(server) as channel:
        yield channel


@pytest.fixture(scope="module")
def stub(channel):
    return prediction_service_pb2_grpc.PredictionServiceStub(channel)


@pytest.fixture(scope="module")
def model_stub(channel):
    return model_service_pb2_grpc.ModelServiceStub(channel)


def request_of(model="adder", signature="", **inputs) -> predict_pb2.PredictRequest:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    for name, value in (inputs or {"x": [1.0]}).items():
        proto = tf.make_tensor_proto(value, None if model == "echo" else tf.float32)
        request.inputs[name].CopyFrom(proto)
    return request


def slow_request(seconds: float) -> predict_pb2.PredictRequest:
    return request_of("slow", seconds=[seconds])


def error_of(call, *arguments, **options) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments, **options)
    return caught.value.code(), caught.value.details()


def test_all_methods_of_the_prediction_service(stub):
    assert list(stub.Predict(request_of()).outputs["y"].float_val) == [4]
    example = {"features": {"feature": {"x": {"float_list": {"value": [2]}}}}}
    examples = {"example_list": {"examples": [example]}}
    spec = {"name": "tf1", "signature_name": "classify"}
    request = classification_pb2.ClassificationRequest(model_spec=spec, input=examples)
    (found,) = stub.Classify(request).result.classifications
    assert [(c.label, c.score) for c in found.classes] == [("small", -2), ("large", 2)]
    task = {"model_spec": spec, "method_name": "tensorflow/serving/classify"}
    request = inference_pb2.MultiInferenceRequest(tasks=[task], input=examples)
    assert stub.MultiInference(request).results[0].classification_result.classifications[0] == found
    spec["signature_name"] = "regress"
    request = regression_pb2.RegressionRequest(model_spec=spec, input=examples)
    assert stub.Regress(request).result.regressions[0].value == 5
    request = get_model_metadata_pb2.GetModelMetadataRequest(
        model_spec=spec, metadata_field=["signature_def"]
    )
    assert stub.GetModelMetadata(request).model_spec.version.value == 3


def test_all_methods_of_the_model_service(model_stub, config):
    request = get_model_status_pb2.GetModelStatusRequest(model_spec={"name": "adder"})
    (version,) = model_stub.GetModelStatus(request).model_version_status
    assert (version.version, version.state) == (3, 30)
    request = model_management_pb2.ReloadConfigRequest(config=config)
    assert model_stub.HandleReloadConfigRequest(request).status.error_code == 0


@pytest.mark.parametrize(
    ("request_", "code", "message"),
    [
        (predict_pb2.PredictRequest(), grpc.StatusCode.INVALID_ARGUMENT, "Missing ModelSpec"),
        (
            request_of("other"),
            grpc.StatusCode.NOT_FOUND,
            "Servable not found for request: Latest(other)",
        ),
        (
            request_of("adder", "other"),
            grpc.StatusCode.FAILED_PRECONDITION,
            'Serving signature key "other" not found.',
        ),
        (
            request_of(y=[1.0], x=[1.0]),
            grpc.StatusCode.INVALID_ARGUMENT,
            "input size does not match signature: 2!=1 len({x,y}) != len({x}). "
            "Sent extra: {y}. Missing but required: {}.",
        ),
    ],
)
def test_errors_reach_the_client(request_, code, message, stub):
    assert error_of(stub.Predict, request_) == (code, message)


def test_long_error_messages_are_cut(stub):
    code, message = error_of(stub.Predict, request_of("adder", "\u00e9\n" * 50_000))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert message.startswith('Serving signature key "\u00e9\n\u00e9')
    assert MAX_MESSAGE_BYTES - 2 < len(message.encode()) <= MAX_MESSAGE_BYTES


def test_a_hundred_megabytes_in_both_directions(stub):
    large = bytes(100_000_000)
    inputs = {
        "text": [large], "image_bytes": [b""], "floats": np.zeros([1, 1], np.float32),
        "integers": np.array([1], np.int64), "flags": [True], "matrix": np.zeros([1, 2, 3]),
    }  # fmt: skip
    request = request_of("echo", **inputs)
    request.output_filter.append("text")
    assert stub.Predict(request).outputs["text"].string_val[0] == large


def test_a_deadline_cancels_the_computation_and_frees_its_thread(api):
    with serving(api, threads=1) as server, channel_to(server) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        code, _ = error_of(stub.Predict, slow_request(60), timeout=0.5)
        assert code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert stub.Predict(request_of(), timeout=10).model_spec.version.value == 3


class Spy:
    """A prediction service that records timeouts and returns the answers of a function."""

    def __init__(self, answer=predict_pb2.PredictResponse):
        self.answer = answer
        self.timeouts = []

    def predict(self, request, timeout):
        self.timeouts.append(timeout)
        return self.answer()

    classify = regress = multi_inference = predict
    get_model_metadata = get_model_status = reload_config = predict


def test_the_remaining_time_is_passed_on():
    spy = Spy()
    with serving(spy) as server, channel_to(server) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        stub.Predict(request_of())
        stub.Predict(request_of(), timeout=50)
    assert spy.timeouts[0] is None
    assert 40 < spy.timeouts[1] < 51


@pytest.mark.parametrize("timeout", [None, 0.1], ids=["cancelled", "deadline"])
def test_requests_abandoned_while_waiting_are_not_computed(timeout):
    finish = threading.Event()
    started = threading.Event()

    def answer():
        started.set()
        finish.wait(10)
        return predict_pb2.PredictResponse()

    spy = Spy(answer)
    with serving(spy, threads=1) as server, channel_to(server) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        first = stub.Predict.future(request_of())
        assert started.wait(10)
        waiting = stub.Predict.future(request_of(), timeout=timeout)
        time.sleep(0.3)  # Until the server has received it.
        waiting.cancel()
        time.sleep(0.3)  # Until the server knows of the cancellation.
        finish.set()
        first.result()
        stub.Predict(request_of())
    assert len(spy.timeouts) == 2


def test_an_unexpected_exception_is_an_internal_error(channel, api, monkeypatch):
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    with monkeypatch.context() as patch:
        patch.setattr("serving.prediction_service.predict", lambda *_: 1 // 0)
        code, message = error_of(stub.Predict, request_of())
    assert code is grpc.StatusCode.INTERNAL
    assert message == "ZeroDivisionError: integer division or modulo by zero"
    assert stub.Predict(request_of()).model_spec.version.value == 3


METHODS = [
    f"/tensorflow.serving.{method}"
    for method in (
        "PredictionService/Predict",
        "PredictionService/Classify",
        "PredictionService/Regress",
        "PredictionService/MultiInference",
        "PredictionService/GetModelMetadata",
        "ModelService/GetModelStatus",
        "PredictionService/Other",
    )
]
VALID = [
    request_of().SerializeToString(),
    request_of("tf1", "regress").SerializeToString(),
    slow_request(0).SerializeToString(),
    get_model_status_pb2.GetModelStatusRequest(model_spec={"name": "adder"}).SerializeToString(),
]


@st.composite
def corrupted(draw) -> bytes:
    """A request with bytes changed, cut off or repeated; or arbitrary bytes."""
    if draw(st.booleans()):
        return draw(st.binary(max_size=60))
    data = bytearray(draw(st.sampled_from(VALID)))
    for _ in range(draw(st.integers(0, 3))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)))]) * draw(st.integers(1, 2))


@settings(max_examples=200, deadline=None)
@given(method=st.sampled_from(METHODS), data=corrupted())
def test_arbitrary_bytes_get_an_answer_or_an_error(channel, stub, method, data):
    try:
        channel.unary_unary(method)(data, timeout=10)
    except grpc.RpcError as error:
        assert error.code() in (
            grpc.StatusCode.INVALID_ARGUMENT,
            grpc.StatusCode.NOT_FOUND,
            grpc.StatusCode.FAILED_PRECONDITION,
            grpc.StatusCode.UNIMPLEMENTED,
            grpc.StatusCode.INTERNAL,  # The bytes are not a message of this type.
        ), (error.code(), error.details())
        if error.code() is grpc.StatusCode.INTERNAL:
            assert error.details() == "Exception deserializing request!"


def test_parse_errors_are_not_logged(channel, caplog):
    call = channel.unary_unary(METHODS[0])
    assert error_of(call, b"\xff") == (
        grpc.StatusCode.INTERNAL, "Exception deserializing request!"
    )  # fmt: skip
    assert not caplog.text


def test_the_server_still_answers(stub):
    assert stub.Predict(request_of()).model_spec.version.value == 3


def test_a_port_is_not_shared(api):
    with serving(api) as server:
        with pytest.raises(ServingError, match=rf"Cannot listen on 0\.0\.0\.0:{server.port}: "):
            start_grpc(api, port=server.port, threads=1)
        with socket.create_server(("0.0.0.0", 0)) as other:
            port = other.getsockname()[1]
            with pytest.raises(ServingError, match=rf"Cannot listen on 0\.0\.0\.0:{port}: "):
                start_grpc(api, port=port, threads=1)


def test_a_unix_socket_with_and_without_a_port(api, tmp_path):
    path = tmp_path / "grpc"
    for port in (0, None):
        with serving(api, port=port, socket_path=str(path)) as server:
            assert bool(server.port) == (port is not None)
            with channel_to(server, f"unix:{path}") as channel:
                stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
                assert stub.Predict(request_of()).model_spec.version.value == 3
    with pytest.raises(ServingError, match="Cannot listen on unix:/nowhere/socket: "):
        start_grpc(api, port=0, socket_path="/nowhere/socket", threads=1)


def test_health(api):
    check = health_pb2.HealthCheckRequest
    with serving(api, with_health=True) as server, channel_to(server) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for service in ("", "ModelService", "PredictionService"):
            assert stub.Check(check(service=service)).status == 1
        for service in ("other", "tensorflow.serving.PredictionService"):
            code, _ = error_of(stub.Check, check(service=service))
            assert code is grpc.StatusCode.NOT_FOUND
    with serving(api) as server, channel_to(server) as channel:
        code, _ = error_of(health_pb2_grpc.HealthStub(channel).Check, check())
        assert code is grpc.StatusCode.UNIMPLEMENTED


def test_status_and_health_are_answered_while_all_threads_compute(api):
    """Their threads are not those of the requests, which are refused if too many wait."""
    with (
        serving(api, with_health=True, threads=1) as server,
        channel_to(server) as channel,
    ):
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        health_stub = health_pb2_grpc.HealthStub(channel)
        models = model_service_pb2_grpc.ModelServiceStub(channel)
        status = get_model_status_pb2.GetModelStatusRequest(model_spec={"name": "adder"})
        computing = stub.Predict.future(slow_request(1.5), timeout=30)
        time.sleep(0.3)
        waiting = [
            stub.Predict.future(request_of(), timeout=30) for _ in range(QUEUE_PER_THREAD + 1)
        ]
        time.sleep(0.2)
        assert health_stub.Check(health_pb2.HealthCheckRequest()).status == 1
        assert models.GetModelStatus(status).model_version_status[0].version == 3
        assert not computing.done()
        assert error_of(stub.Predict, request_of()) == (
            grpc.StatusCode.RESOURCE_EXHAUSTED, "Server Threadpool Exhausted"
        )  # fmt: skip
        refused = [call for call in waiting if call.exception()]
        assert len(refused) == 1
        assert computing.result()


def test_stopping_finishes_requests_in_flight_and_refuses_new_ones(api):
    with serving(api, with_health=True, threads=1) as server, channel_to(server) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        health_stub = health_pb2_grpc.HealthStub(channel)
        watch = health_stub.Watch(health_pb2.HealthCheckRequest())
        watched = [next(watch).status]
        watcher = threading.Thread(
            target=lambda: watched.extend(found.status for found in watch), daemon=True
        )
        watcher.start()
        running = stub.Predict.future(slow_request(0.7))
        waiting = stub.Predict.future(request_of())  # Waits for the only thread.
        time.sleep(0.3)
        start = time.monotonic()
        stopping = threading.Thread(target=server.stop, args=[30])
        stopping.start()
        time.sleep(0.1)
        assert error_of(stub.Predict, request_of())[0] is grpc.StatusCode.UNAVAILABLE
        assert running.result().model_spec.version.value == 3
        assert waiting.result().model_spec.version.value == 3
        stopping.join()
        assert time.monotonic() - start < 10  # It does not wait for watchers.
        watcher.join(10)
        serving_status = health_pb2.HealthCheckResponse
        assert watched == [serving_status.SERVING, serving_status.NOT_SERVING]


def test_stopping_aborts_requests_after_the_grace_period(api):
    with serving(api) as server, channel_to(server) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        running = stub.Predict.future(slow_request(2), timeout=60)
        time.sleep(0.3)
        start = time.monotonic()
        server.stop(0.2)
        assert time.monotonic() - start < 1.5
        assert running.exception().code() in (
            grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE
        )  # fmt: skip
