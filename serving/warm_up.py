"""Requests that came with a model are answered before it serves, so that no caller waits for what
a first call builds, and a model that cannot answer them does not replace one that can."""

from pathlib import Path

import grpc
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from serving.classification import classify, multi_inference, regress
from serving.errors import RequestError, invalid
from serving.predict import predict
from serving.servable import Servable

FILE = "assets.extra/tf_serving_warmup_requests"  # TFRecord of PredictionLog.
MOST = 1000

_METHODS = {
    "predict_log": predict,
    "classify_log": classify,
    "regress_log": regress,
    "multi_inference_log": multi_inference,
}


def load_and_warm_up(
    name: str, version: int, path: Path, session_config: tf.compat.v1.ConfigProto | None = None
) -> Servable:
    """Loads a version and answers the requests that are in its folder, if there are any.

    Args:
        name: The model's.
        version: Its number.
        path: Folder of the SavedModel.
        session_config: Options of the session.

    Raises:
        RequestError: It cannot be loaded, or a request failed, is not readable or of a session, or
            there are more than `MOST`; the message is one line.
    """
    servable = Servable(name, version, path, session_config)
    requests = path / FILE
    try:
        if requests.is_file():
            _answer_all(servable, requests)
    except BaseException:
        servable.close()
        raise
    return servable


def _answer_all(servable: Servable, path: Path) -> None:
    count = 0
    try:
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            count += 1
            if count > MOST:
                raise invalid(f"Number of warmup records exceeds the maximum ({MOST})")
            _answer(servable, prediction_log_pb2.PredictionLog.FromString(record))
    except RequestError as error:
        message = " ".join(error.message.split())
        raise RequestError(error.code, f"{path}, request {count}: {message}") from error
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise invalid(f"{path}, after request {count}: {reason}") from error


def _answer(servable: Servable, log: prediction_log_pb2.PredictionLog) -> None:
    kind = log.WhichOneof("log_type")
    if kind == "session_run_log":
        message = f"Unsupported log_type for warmup: {kind}"
        raise RequestError(grpc.StatusCode.UNIMPLEMENTED, message)
    if kind in _METHODS:  # Other logs are no requests, and passed over.
        _METHODS[kind](servable, getattr(log, kind).request, servable.run)
