"""Tests of PredictionService: leases, deadlines, metrics and unexpected errors."""

import threading
import time
from contextlib import contextmanager

import grpc
import numpy as np
import pytest
import tensorflow as tf
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

from serving.errors import RequestError
from serving.prediction_service import PredictionService
from serving.servable import Servable
from tests.serving import saved_models

INVALID = grpc.StatusCode.INVALID_ARGUMENT


class FakeManager:
    """Leases given servables after `delay` seconds, and counts the leases."""

    def __init__(self, *servables):
        self.servables = {servable.name: servable for servable in servables}
        self.delay = 0.0
        self.leases = 0
        self.config = None

    @contextmanager
    def lease(self, model_spec):
        time.sleep(self.delay)
        if model_spec.name not in self.servables:
            raise RequestError(grpc.StatusCode.NOT_FOUND, "Servable not found")
        self.leases += 1
        try:
            yield self.servables[model_spec.name]
        finally:
            self.leases -= 1

    def status(self, model_spec):
        state = get_model_status_pb2.ModelVersionStatus.AVAILABLE
        return [get_model_status_pb2.ModelVersionStatus(version=3, state=state)]

    def reload(self, config, timeout):
        self.config = config


class FakeMonitoring:
    def __init__(self):
        self.requests, self.runtimes, self.examples = [], [], []
        self.models_in_flight = []

    def record_request(self, model, method, entrypoint, status, seconds):
        assert seconds >= 0
        assert entrypoint == "GRPC"
        self.requests.append((model, method, status))

    def record_runtime(self, model, method, seconds):
        assert seconds > 0
        assert model in self.models_in_flight
        self.runtimes.append((model, method))

    def record_examples(self, model, count):
        self.examples.append((model, count))

    @contextmanager
    def in_flight(self, model):
        self.models_in_flight.append(model)
        try:
            yield
        finally:
            self.models_in_flight.remove(model)


@pytest.fixture(scope="module")
def servables(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    found = [
        Servable("adder", 3, saved_models.write_adder(folder / "adder", 3)),
        Servable("tf1", 3, saved_models.write_tf1(folder / "tf1", 3)),
        Servable("slow", 3, saved_models.write_slow(folder / "slow", 3)),
    ]
    yield found
    for servable in found:
        servable.close()


@pytest.fixture
def manager(servables):
    manager = FakeManager(*servables)
    yield manager
    assert manager.leases == 0


@pytest.fixture
def monitoring():
    return FakeMonitoring()


@pytest.fixture
def service(manager, monitoring):
    return PredictionService(manager, None, monitoring)


def request_of(model="adder", signature="", **inputs):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    for name, value in (inputs or {"x": [1.0]}).items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value, tf.float32))
    return request


def error_of(answer, *arguments) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(RequestError) as caught:
        answer(*arguments)
    return caught.value.code, caught.value.message


def test_an_inference_is_counted_and_timed(service, monitoring):
    assert list(service.predict(request_of()).outputs["y"].float_val) == [4]
    service.predict(request_of(signature="sum", x=[1.0], z=[1.0]))
    examples = {"example_list": {"examples": [{}]}}
    spec = model_pb2.ModelSpec(name="tf1", signature_name="regress")
    with pytest.raises(RequestError):
        service.regress(regression_pb2.RegressionRequest(model_spec=spec, input=examples))
    assert monitoring.requests == [
        ("adder", "Predict", "OK"), ("adder", "Predict", "OK"),
        ("tf1", "Regress", "INVALID_ARGUMENT"),
    ]  # fmt: skip
    assert monitoring.runtimes == [("adder", "Predict")] * 2
    assert not monitoring.examples


def test_classify_regress_and_multi_inference(service, monitoring):
    example = {"features": {"feature": {"x": {"float_list": {"value": [2]}}}}}
    examples = {"example_list": {"examples": [example]}}
    spec = model_pb2.ModelSpec(name="tf1", signature_name="classify")
    result = service.classify(
        classification_pb2.ClassificationRequest(model_spec=spec, input=examples)
    ).result
    assert result.classifications[0].classes[1].label == "large"
    task = inference_pb2.InferenceTask(model_spec=spec, method_name="tensorflow/serving/classify")
    spec.signature_name = "regress"
    response = service.regress(regression_pb2.RegressionRequest(model_spec=spec, input=examples))
    assert response.result.regressions[0].value == 5
    both = service.multi_inference(
        inference_pb2.MultiInferenceRequest(tasks=[task], input=examples)
    )
    assert both.results[0].classification_result == result
    assert monitoring.examples == [("tf1", 1)] * 3
    assert [method for _, method, _ in monitoring.requests] == [
        "Classify",
        "Regress",
        "MultiInference",
    ]


def test_the_batch_scheduler_runs_calls(manager, monitoring, servables):
    calls = []

    class FakeScheduler:
        def run(self, servable, signature, inputs, outputs, timeout):
            calls.append((servable.name, signature, timeout))
            return servable.run(signature, inputs, outputs, timeout)

    service = PredictionService(manager, FakeScheduler(), monitoring)
    assert list(service.predict(request_of(), 5).outputs["y"].float_val) == [4]
    service.predict(request_of())
    (first, second) = calls
    assert first[:2] == second[:2] == ("adder", "serving_default")
    assert 4 < first[2] < 5 and second[2] is None


REQUESTS = {
    "predict": predict_pb2.PredictRequest(),
    "classify": classification_pb2.ClassificationRequest(),
    "regress": regression_pb2.RegressionRequest(),
    "get_model_metadata": get_model_metadata_pb2.GetModelMetadataRequest(),
    "get_model_status": get_model_status_pb2.GetModelStatusRequest(),
}


@pytest.mark.parametrize("method", REQUESTS)
def test_a_request_without_a_model_spec(method, service):
    assert error_of(getattr(service, method), REQUESTS[method]) == (INVALID, "Missing ModelSpec")


def test_unknown_models_are_counted_under_an_empty_name(service, monitoring):
    for number in range(3):
        assert (
            error_of(service.predict, request_of(f"model{number}"))[0] is grpc.StatusCode.NOT_FOUND
        )
    error_of(service.multi_inference, inference_pb2.MultiInferenceRequest())
    assert set(monitoring.requests) == {
        ("", "Predict", "NOT_FOUND"),
        ("", "MultiInference", "NOT_FOUND"),
    }


def test_a_deadline_cancels_the_computation(service, monitoring):
    start = time.monotonic()
    code, _ = error_of(service.predict, request_of("slow", seconds=[60.0]), 0.3)
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert 0.2 < time.monotonic() - start < 5
    assert monitoring.requests == [("slow", "Predict", "DEADLINE_EXCEEDED")]
    assert not monitoring.runtimes


def test_nothing_is_computed_after_the_deadline(manager, monitoring):
    service = PredictionService(manager, None, monitoring)
    exceeded = grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"
    assert error_of(service.predict, request_of("slow", seconds=[60.0]), 0.0) == exceeded
    manager.delay = 0.2  # Another request may delay this one.
    assert error_of(service.predict, request_of(), 0.1) == exceeded
    assert service.predict(request_of(), 5).model_spec.version.value == 3


def test_an_unexpected_error_is_one_line_and_is_logged(manager, monitoring, caplog):
    class Broken:
        def run(self, *arguments):
            raise KeyError("first\n  second")

    service = PredictionService(manager, Broken(), monitoring)
    code, message = error_of(service.predict, request_of())
    assert code is grpc.StatusCode.INTERNAL
    assert message == r"KeyError: 'first\n second'"
    assert "KeyError" in caplog.text
    assert monitoring.requests == [("adder", "Predict", "INTERNAL")]


def test_an_unexpected_error_of_the_manager(manager, service):
    manager.status = None
    spec = model_pb2.ModelSpec(name="adder")
    request = get_model_status_pb2.GetModelStatusRequest(model_spec=spec)
    code, message = error_of(service.get_model_status, request)
    assert code is grpc.StatusCode.INTERNAL and message.startswith("TypeError: ")


def test_metadata(service):
    request = get_model_metadata_pb2.GetModelMetadataRequest(
        model_spec={"name": "adder"}, metadata_field=["signature_def"]
    )
    response = service.get_model_metadata(request)
    assert response.model_spec.version.value == 3 and "signature_def" in response.metadata
    # The fields are checked before the model is looked up.
    request.model_spec.name = "other"
    del request.metadata_field[:]
    assert error_of(service.get_model_metadata, request)[0] is INVALID
    request.metadata_field.append("signature_def")
    assert error_of(service.get_model_metadata, request)[0] is grpc.StatusCode.NOT_FOUND


def test_a_signature(service):
    spec = model_pb2.ModelSpec(name="adder")
    assert set(service.signature(spec, "").inputs) == {"x"}
    assert set(service.signature(spec, "sum").inputs) == {"x", "z"}
    assert error_of(service.signature, spec, "other") == (
        INVALID, 'Serving signature name: "other" not found in signature def'
    )  # fmt: skip


def test_status(service):
    request = get_model_status_pb2.GetModelStatusRequest(model_spec={"name": "adder"})
    (version,) = service.get_model_status(request).model_version_status
    assert (version.version, version.state) == (3, 30)


def test_reload_config(service, manager):
    request = model_management_pb2.ReloadConfigRequest()
    unsupported = (
        INVALID,
        "ServerModelConfig type not supported by HandleReloadConfigRequest. "
        "Only ModelConfigList is currently supported",
    )
    assert error_of(service.reload_config, request) == unsupported
    request.config.custom_model_config.SetInParent()
    assert error_of(service.reload_config, request) == unsupported
    assert manager.config is None
    request.config.model_config_list.config.add(name="adder", base_path="/models")
    response = service.reload_config(request)
    assert response.HasField("status") and response.status.error_code == 0
    assert manager.config == request.config


def test_concurrent_requests(service, monitoring):
    correct = []

    def ask(number: int) -> None:
        for step in range(20):
            x = np.array([number, step], np.float32)
            correct.append(service.predict(request_of(x=x)).outputs["y"].float_val == [*(x + 3)])

    threads = [threading.Thread(target=ask, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(correct) == len(monitoring.requests) == 160 and all(correct)
