"""From a request to its answer: leases, time, figures, and defects that nobody expected."""

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


class Models:
    """Stands for a manager; whoever asks waits."""

    def __init__(self, *servables):
        self.servables = {servable.name: servable for servable in servables}
        self.wait = 0.0
        self.leases = 0
        self.config = None

    @contextmanager
    def lease(self, model_spec):
        time.sleep(self.wait)
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

    def reload(self, config):
        self.config = config


class Figures:
    def __init__(self):
        self.requests, self.runtimes = [], []
        self.inside = []

    def request(self, model, method, entrypoint, status, seconds):
        assert seconds >= 0
        assert entrypoint == "GRPC"
        self.requests.append((model, method, status))

    def runtime(self, model, method, seconds):
        assert seconds > 0
        assert model in self.inside
        self.runtimes.append((model, method))

    @contextmanager
    def in_flight(self, model):
        self.inside.append(model)
        try:
            yield
        finally:
            self.inside.remove(model)


@pytest.fixture(scope="module")
def servables(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    found = [
        Servable("adder", 3, saved_models.write_adder(folder / "adder", 3)),
        Servable("old", 3, saved_models.write_old(folder / "old", 3)),
        Servable("slow", 3, saved_models.write_slow(folder / "slow", 3)),
    ]
    yield found
    for servable in found:
        servable.close()


@pytest.fixture
def manager(servables):
    manager = Models(*servables)
    yield manager
    assert manager.leases == 0


@pytest.fixture
def figures():
    return Figures()


@pytest.fixture
def api(manager, figures):
    return PredictionService(manager, None, figures, "GRPC")


def request_of(model="adder", signature="", **inputs):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    for name, value in (inputs or {"x": [1.0]}).items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value, tf.float32))
    return request


def refusal(answer, *arguments) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(RequestError) as caught:
        answer(*arguments)
    return caught.value.code, caught.value.message


def test_an_inference_is_answered_and_counted(api, figures):
    assert list(api.predict(request_of()).outputs["y"].float_val) == [4]
    api.predict(request_of(signature="sum", x=[1.0], z=[1.0]))
    examples = {"example_list": {"examples": [{}]}}
    spec = model_pb2.ModelSpec(name="old", signature_name="regress")
    with pytest.raises(RequestError):
        api.regress(regression_pb2.RegressionRequest(model_spec=spec, input=examples))
    assert figures.requests == [
        ("adder", "Predict", "OK"), ("adder", "Predict", "OK"),
        ("old", "Regress", "INVALID_ARGUMENT"),
    ]  # fmt: skip
    assert figures.runtimes == [("adder", "Predict")] * 2


def test_every_kind_of_inference(api, figures):
    example = {"features": {"feature": {"x": {"float_list": {"value": [2]}}}}}
    examples = {"example_list": {"examples": [example]}}
    spec = model_pb2.ModelSpec(name="old", signature_name="classify")
    result = api.classify(
        classification_pb2.ClassificationRequest(model_spec=spec, input=examples)
    ).result
    assert result.classifications[0].classes[1].label == "large"
    task = inference_pb2.InferenceTask(model_spec=spec, method_name="tensorflow/serving/classify")
    spec.signature_name = "regress"
    response = api.regress(regression_pb2.RegressionRequest(model_spec=spec, input=examples))
    assert response.result.regressions[0].value == 5
    both = api.multi_inference(inference_pb2.MultiInferenceRequest(tasks=[task], input=examples))
    assert both.results[0].classification_result == result
    assert [method for _, method, _ in figures.requests] == [
        "Classify",
        "Regress",
        "MultiInference",
    ]


def test_a_batcher_computes_where_there_is_one(manager, figures, servables):
    calls = []

    class Batching:
        def run(self, servable, signature, inputs, outputs, timeout):
            calls.append((servable.name, signature, timeout))
            return servable.run(signature, inputs, outputs, timeout)

    api = PredictionService(manager, Batching(), figures, "GRPC")
    assert list(api.predict(request_of(), 5).outputs["y"].float_val) == [4]
    api.predict(request_of())
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
def test_a_request_that_names_no_model(method, api):
    assert refusal(getattr(api, method), REQUESTS[method]) == (INVALID, "Missing ModelSpec")


def test_names_that_are_made_up_are_not_counted_each(api, figures):
    for number in range(3):
        assert refusal(api.predict, request_of(f"model{number}"))[0] is grpc.StatusCode.NOT_FOUND
    refusal(api.multi_inference, inference_pb2.MultiInferenceRequest())
    assert set(figures.requests) == {
        ("", "Predict", "NOT_FOUND"),
        ("", "MultiInference", "NOT_FOUND"),
    }


def test_a_deadline_ends_the_computation(api, figures):
    start = time.monotonic()
    code, _ = refusal(api.predict, request_of("slow", seconds=[60.0]), 0.3)
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert 0.2 < time.monotonic() - start < 5
    assert figures.requests == [("slow", "Predict", "DEADLINE_EXCEEDED")]
    assert not figures.runtimes


def test_nothing_is_computed_after_the_deadline(manager, figures):
    api = PredictionService(manager, None, figures, "GRPC")
    late = grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"
    assert refusal(api.predict, request_of("slow", seconds=[60.0]), 0.0) == late
    manager.wait = 0.2  # As another request may make this one wait.
    assert refusal(api.predict, request_of(), 0.1) == late
    assert api.predict(request_of(), 5).model_spec.version.value == 3


def test_a_defect_is_one_line_and_is_logged(manager, figures, caplog):
    class Broken:
        def run(self, *arguments):
            raise KeyError("first\n  second")

    api = PredictionService(manager, Broken(), figures, "GRPC")
    code, message = refusal(api.predict, request_of())
    assert code is grpc.StatusCode.INTERNAL
    assert message == r"KeyError: 'first\n second'"
    assert "KeyError" in caplog.text
    assert figures.requests == [("adder", "Predict", "INTERNAL")]


def test_a_defect_elsewhere(manager, api):
    manager.status = None
    spec = model_pb2.ModelSpec(name="adder")
    request = get_model_status_pb2.GetModelStatusRequest(model_spec=spec)
    code, message = refusal(api.get_model_status, request)
    assert code is grpc.StatusCode.INTERNAL and message.startswith("TypeError: ")


def test_metadata(api):
    request = get_model_metadata_pb2.GetModelMetadataRequest(
        model_spec={"name": "adder"}, metadata_field=["signature_def"]
    )
    response = api.get_model_metadata(request)
    assert response.model_spec.version.value == 3 and "signature_def" in response.metadata
    # What is wrong in itself is told before anything is looked up.
    request.model_spec.name = "other"
    del request.metadata_field[:]
    assert refusal(api.get_model_metadata, request)[0] is INVALID
    request.metadata_field.append("signature_def")
    assert refusal(api.get_model_metadata, request)[0] is grpc.StatusCode.NOT_FOUND


def test_a_signature(api):
    spec = model_pb2.ModelSpec(name="adder")
    assert set(api.signature(spec, "").inputs) == {"x"}
    assert set(api.signature(spec, "sum").inputs) == {"x", "z"}
    assert refusal(api.signature, spec, "other") == (
        INVALID, 'Serving signature name: "other" not found in signature def'
    )  # fmt: skip


def test_status(api):
    request = get_model_status_pb2.GetModelStatusRequest(model_spec={"name": "adder"})
    (version,) = api.get_model_status(request).model_version_status
    assert (version.version, version.state) == (3, 30)


def test_reloading(api, manager):
    request = model_management_pb2.ReloadConfigRequest()
    unsupported = (
        INVALID,
        "ServerModelConfig type not supported by HandleReloadConfigRequest. "
        "Only ModelConfigList is currently supported",
    )
    assert refusal(api.reload_config, request) == unsupported
    request.config.custom_model_config.SetInParent()
    assert refusal(api.reload_config, request) == unsupported
    assert manager.config is None
    request.config.model_config_list.config.add(name="adder", base_path="/models")
    response = api.reload_config(request)
    assert response.HasField("status") and response.status.error_code == 0
    assert manager.config == request.config


def test_many_threads_at_once(api, figures):
    answers = []

    def ask(number: int) -> None:
        for step in range(20):
            x = np.array([number, step], np.float32)
            answers.append(api.predict(request_of(x=x)).outputs["y"].float_val == [*(x + 3)])

    threads = [threading.Thread(target=ask, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == len(figures.requests) == 160 and all(answers)
