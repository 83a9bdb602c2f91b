"""Loads a version and runs its warm-up requests before it serves.

The first call of a graph is slow, so clients should not make it. A version that fails its warm-up
requests does not replace the one that serves.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import grpc
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from serving.classification import classify, multi_inference, regress
from serving.errors import RequestError, invalid
from serving.predict import predict
from serving.servable import Servable

WARM_UP_FILE = "assets.extra/tf_serving_warmup_requests"  # TFRecord of PredictionLog.
MAX_REQUESTS = 1000

# Takes the path of a version, the name of the status code and the seconds of its warm-up.
RecordWarmUp: TypeAlias = Callable[[str, str, float], object]


def ignore_warm_up(path: str, status_name: str, seconds: float) -> None:
    """Does not record a warm-up."""


_METHODS = {
    "predict_log": predict,
    "classify_log": classify,
    "regress_log": regress,
    "multi_inference_log": multi_inference,
}


def load_and_warm_up(
    name: str,
    version: int,
    path: Path,
    session_config: tf.compat.v1.ConfigProto | None = None,
    tags: Sequence[str] = (tf.saved_model.SERVING,),
    warm_ups: int = 1,
    record: RecordWarmUp = ignore_warm_up,
) -> Servable:
    """Loads a version and runs the warm-up requests in its folder, if there are any.

    Args:
        name: Name of the model.
        version: Number of the version.
        path: Folder of the SavedModel.
        session_config: Options of the session.
        tags: Tags of the graph to load.
        warm_ups: Number of times that each request is run.
        record: Called once if there are requests.

    Raises:
        RequestError: The version cannot be loaded; a request fails, cannot be read or is a
            session's log; or there are more than `MAX_REQUESTS`. The message is one line.
    """
    servable = Servable(name, version, path, session_config, tags)
    requests = path / WARM_UP_FILE
    try:
        if warm_ups and requests.is_file():
            start, status = time.monotonic(), grpc.StatusCode.OK
            try:
                _run_all(servable, requests, warm_ups)
            except RequestError as error:
                status = error.code
                raise
            finally:
                record(str(path), status.name, time.monotonic() - start)
    except BaseException:
        servable.close()
        raise
    return servable


def _run_all(servable: Servable, path: Path, warm_ups: int) -> None:
    count = 0
    try:
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            count += 1
            if count > MAX_REQUESTS:
                raise invalid(f"Number of warmup records exceeds the maximum ({MAX_REQUESTS})")
            log = prediction_log_pb2.PredictionLog.FromString(record)
            for _ in range(warm_ups):
                _run(servable, log)
    except RequestError as error:
        message = " ".join(error.message.split())
        raise RequestError(error.code, f"{path}, request {count}: {message}") from error
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise invalid(f"{path}, after request {count}: {reason}") from error


def _run(servable: Servable, log: prediction_log_pb2.PredictionLog) -> None:
    kind = log.WhichOneof("log_type")
    if kind == "session_run_log":
        message = f"Unsupported log_type for warmup: {kind}"
        raise RequestError(grpc.StatusCode.UNIMPLEMENTED, message)
    if kind in _METHODS:  # Logs of other types contain no request.
        _METHODS[kind](servable, getattr(log, kind).request, servable.run)
