"""Handles the requests of the gRPC and REST APIs: protos in, protos or RequestError out."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import grpc
import numpy as np
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_pb2,
    predict_pb2,
    regression_pb2,
    status_pb2,
)

from serving.batch_scheduler import BatchScheduler
from serving.classification import classify, multi_inference, regress
from serving.errors import RequestError, invalid
from serving.manager import ModelManager
from serving.monitoring import Monitoring
from serving.predict import DEFAULT, Run, check_metadata_fields, model_metadata, predict
from serving.servable import Servable

_Response = TypeVar("_Response")


@contextmanager
def _only_request_errors() -> Iterator[None]:
    """Turns any other exception into an INTERNAL error, and logs it."""
    try:
        yield
    except RequestError:
        raise
    except Exception as error:
        logging.getLogger(__name__).exception("A request failed unexpectedly")
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise RequestError(grpc.StatusCode.INTERNAL, reason) from error


class PredictionService:
    """Methods of TensorFlow Serving's PredictionService and ModelService.

    Each method takes a request and a timeout in seconds (None: no limit). All are thread-safe. They
    raise only RequestError: the request is wrong, the timeout is over, or the server or the model
    failed. GetModelMetadata and GetModelStatus ignore the timeout.

    Args:
        manager: Manager of the models.
        scheduler: Batches the inputs of concurrent calls; None for no batching.
        monitoring: Counts and times each inference.
        counts_requests: Whether to count and time requests. The REST API does so itself, because
            its requests may fail before.
    """

    def __init__(
        self,
        manager: ModelManager,
        scheduler: BatchScheduler | None,
        monitoring: Monitoring,
        counts_requests: bool = True,
    ):
        self._manager = manager
        self._scheduler = scheduler
        self._monitoring = monitoring
        self._counts_requests = counts_requests

    def predict(
        self, request: predict_pb2.PredictRequest, timeout: float | None = None
    ) -> predict_pb2.PredictResponse:
        return self._infer("Predict", predict, request, _model_spec(request), timeout)

    def classify(
        self, request: classification_pb2.ClassificationRequest, timeout: float | None = None
    ) -> classification_pb2.ClassificationResponse:
        return self._infer("Classify", classify, request, _model_spec(request), timeout)

    def regress(
        self, request: regression_pb2.RegressionRequest, timeout: float | None = None
    ) -> regression_pb2.RegressionResponse:
        return self._infer("Regress", regress, request, _model_spec(request), timeout)

    def multi_inference(
        self, request: inference_pb2.MultiInferenceRequest, timeout: float | None = None
    ) -> inference_pb2.MultiInferenceResponse:
        spec = request.tasks[0].model_spec if request.tasks else model_pb2.ModelSpec()
        return self._infer("MultiInference", multi_inference, request, spec, timeout)

    @_only_request_errors()
    def get_model_metadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest, timeout: float | None = None
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        spec = _required(_model_spec(request))
        check_metadata_fields(request.metadata_field)
        with self._manager.lease(spec) as servable:
            return model_metadata(servable)

    def is_known(self, model: str) -> bool:
        """Returns whether there is a model of this name."""
        return self._manager.is_known(model)

    @_only_request_errors()
    def signature(self, model_spec: model_pb2.ModelSpec, name: str) -> meta_graph_pb2.SignatureDef:
        """Returns a signature, from which the REST API reads the types of a request's inputs."""
        name = name or DEFAULT
        with self._manager.lease(model_spec) as servable:
            if name not in servable.signatures:
                raise invalid(f'Serving signature name: "{name}" not found in signature def')
            return servable.signatures[name]

    @_only_request_errors()
    def get_model_status(
        self, request: get_model_status_pb2.GetModelStatusRequest, timeout: float | None = None
    ) -> get_model_status_pb2.GetModelStatusResponse:
        versions = self._manager.status(_required(_model_spec(request)))
        return get_model_status_pb2.GetModelStatusResponse(model_version_status=versions)

    @_only_request_errors()
    def reload_config(
        self, request: model_management_pb2.ReloadConfigRequest, timeout: float | None = None
    ) -> model_management_pb2.ReloadConfigResponse:
        if not request.config.HasField("model_config_list"):
            raise invalid(
                "ServerModelConfig type not supported by HandleReloadConfigRequest. "
                "Only ModelConfigList is currently supported"
            )
        self._manager.reload(request.config, timeout)
        return model_management_pb2.ReloadConfigResponse(status=status_pb2.StatusProto())

    def _infer(
        self,
        method: str,
        infer: Callable[[Servable, Any, Run], _Response],
        request: Any,
        model_spec: model_pb2.ModelSpec | None,
        timeout: float | None,
    ) -> _Response:
        start = time.monotonic()
        deadline = None if timeout is None else start + timeout
        # Unknown models are counted under an empty name: invented names would fill the memory.
        model, status = "", grpc.StatusCode.OK
        try:
            with _only_request_errors(), self._manager.lease(_required(model_spec)) as servable:
                model = servable.name
                with self._monitoring.in_flight(model):
                    response = infer(servable, request, self._runner(servable, method, deadline))
                if examples := _example_count(request):
                    self._monitoring.record_examples(model, examples)
                return response
        except RequestError as error:
            status = error.code
            raise
        finally:
            if self._counts_requests:
                seconds = time.monotonic() - start
                self._monitoring.record_request(model, method, "GRPC", status.name, seconds)

    def _runner(self, servable: Servable, method: str, deadline: float | None) -> Run:
        def run(
            signature: str, inputs: Mapping[str, np.ndarray], outputs: Sequence[str]
        ) -> Mapping[str, np.ndarray]:
            start = time.monotonic()
            timeout = None if deadline is None else deadline - start
            if timeout is not None and timeout <= 0:
                raise RequestError(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
            if self._scheduler:
                computed = self._scheduler.run(servable, signature, inputs, outputs, timeout)
            else:
                computed = servable.run(signature, inputs, outputs, timeout)
            self._monitoring.record_runtime(servable.name, method, time.monotonic() - start)
            return computed

        return run


def _example_count(request: Any) -> int:
    """Returns the number of examples in a request; 0 for Predict, which has none."""
    if isinstance(request, predict_pb2.PredictRequest):
        return 0
    kind = request.input.WhichOneof("kind")
    return len(getattr(request.input, kind).examples) if kind else 0


def _model_spec(request: Any) -> model_pb2.ModelSpec | None:
    return request.model_spec if request.HasField("model_spec") else None


def _required(model_spec: model_pb2.ModelSpec | None) -> model_pb2.ModelSpec:
    if model_spec is None:
        raise invalid("Missing ModelSpec")
    return model_spec
