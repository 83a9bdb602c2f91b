"""Tests of the warm-up requests in a model's folder."""

import shutil
from pathlib import Path

import grpc
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from serving.servable import Servable
from serving.warm_up import WARM_UP_FILE, load_and_warm_up
from tests.serving.manager_helpers import request_error
from tests.serving.saved_models import write_adder, write_broken, write_tf1, write_warm_up

DEFAULT = "serving_default"


@pytest.fixture(scope="module")
def adder(tmp_path_factory) -> Path:
    return write_adder(tmp_path_factory.mktemp("adder"), 7)


def example(x: float) -> bytes:
    message = tf.train.Example()
    message.features.feature["x"].float_list.value.append(x)
    return message.SerializeToString()


def warm_up_request(value: float | int, signature: str = "") -> predict_pb2.PredictRequest:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "adder"
    request.model_spec.signature_name = signature
    request.inputs["x"].CopyFrom(tf.make_tensor_proto([value]))
    return request


@pytest.fixture
def model(adder, tmp_path) -> Path:
    return shutil.copytree(adder, tmp_path / "7")


class RecordedRuns(list):
    """The calls of `Servable.run`, in order."""

    def __init__(self, monkeypatch):
        run = Servable.run

        def recorded(servable, signature, inputs, outputs, timeout=None):
            self.append((signature, {name: array.tolist() for name, array in inputs.items()}))
            return run(servable, signature, inputs, outputs, timeout)

        monkeypatch.setattr(Servable, "run", recorded)


def test_predict_requests_run_in_order(model, monkeypatch):
    runs = RecordedRuns(monkeypatch)
    write_warm_up(model, [warm_up_request(2.0), warm_up_request(3.0, DEFAULT)])
    servable = load_and_warm_up("adder", 7, model)
    assert runs == [(DEFAULT, {"x": [2.0]}), (DEFAULT, {"x": [3.0]})]
    servable.close()


def test_classify_regress_and_multi_inference_requests_run(tmp_path, monkeypatch):
    model = write_tf1(tmp_path, 3)
    (model / "assets.extra").mkdir()
    logs = [prediction_log_pb2.PredictionLog() for _ in range(4)]
    logs[0].classify_log.request.model_spec.signature_name = "classify"
    logs[0].classify_log.request.input.example_list.examples.add().ParseFromString(example(1))
    logs[1].regress_log.request.model_spec.signature_name = "regress"
    logs[1].regress_log.request.input.CopyFrom(logs[0].classify_log.request.input)
    task = logs[2].multi_inference_log.request.tasks.add(method_name="tensorflow/serving/regress")
    task.model_spec.name, task.model_spec.signature_name = "tf1", "regress"
    logs[2].multi_inference_log.request.input.CopyFrom(logs[0].classify_log.request.input)
    with tf.io.TFRecordWriter(str(model / WARM_UP_FILE)) as writer:
        for log in logs:  # The last log is empty and is ignored.
            writer.write(log.SerializeToString())
    runs = RecordedRuns(monkeypatch)
    load_and_warm_up("tf1", 3, model).close()
    assert runs == [(name, {"inputs": [example(1)]}) for name in ("classify", "regress", "regress")]


def test_a_failing_request_fails_the_load(model):
    write_warm_up(model, [warm_up_request(2.0), warm_up_request(3)])
    error = request_error(load_and_warm_up, "adder", 7, model)
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    expected = (
        f"{model / WARM_UP_FILE}, request 2: Expects arg[0] to be float but int32 is provided"
    )
    assert error.message == expected


def test_more_than_a_thousand_requests_fail_the_load(model, monkeypatch):
    runs = RecordedRuns(monkeypatch)
    write_warm_up(model, [warm_up_request(2.0)] * 1000)
    load_and_warm_up("adder", 7, model).close()
    assert len(runs) == 1000
    shutil.rmtree(model / "assets.extra")
    write_warm_up(model, [warm_up_request(2.0)] * 1001)
    error = request_error(load_and_warm_up, "adder", 7, model)
    assert "Number of warmup records exceeds the maximum (1000)" in error.message


def test_unreadable_requests_fail_the_load(model):
    (model / "assets.extra").mkdir()
    (model / WARM_UP_FILE).write_bytes(b"no records at all, but some text")
    error = request_error(load_and_warm_up, "adder", 7, model)
    assert "after request 0" in error.message
    with tf.io.TFRecordWriter(str(model / WARM_UP_FILE)) as writer:
        writer.write(b"no message")
    assert "after request 1" in request_error(load_and_warm_up, "adder", 7, model).message


def test_a_session_run_log_fails_the_load(model):
    (model / "assets.extra").mkdir()
    log = prediction_log_pb2.PredictionLog()
    log.session_run_log.SetInParent()
    with tf.io.TFRecordWriter(str(model / WARM_UP_FILE)) as writer:
        writer.write(log.SerializeToString())
    error = request_error(load_and_warm_up, "adder", 7, model)
    assert error.code is grpc.StatusCode.UNIMPLEMENTED
    assert "session_run_log" in error.message


def test_a_servable_whose_warm_up_fails_is_closed(model, monkeypatch, tmp_path):
    closed = []
    close = Servable.close

    def recorded(servable):
        closed.append(servable.path)
        close(servable)

    monkeypatch.setattr(Servable, "close", recorded)
    broken = write_broken(tmp_path, 1)
    request_error(load_and_warm_up, "broken", 1, broken)
    write_warm_up(model, [warm_up_request(3)])
    request_error(load_and_warm_up, "adder", 7, model)
    assert closed == [broken, model]


def test_requests_run_as_often_as_asked_and_are_timed(model, monkeypatch):
    runs, records = RecordedRuns(monkeypatch), []
    write_warm_up(model, [warm_up_request(2.0), warm_up_request(3.0)])

    def load(times: int) -> None:
        record = lambda *values: records.append(values)  # noqa: E731
        load_and_warm_up("adder", 7, model, warm_ups=times, record=record).close()

    load(2)
    assert [inputs["x"] for _, inputs in runs] == [[2.0], [2.0], [3.0], [3.0]]
    ((path, status, seconds),) = records
    assert (path, status) == (str(model), "OK")
    assert 0 < seconds < 60
    load(0)
    assert len(runs) == 4
    assert len(records) == 1
