"""Fakes of PredictionService and Monitoring for tests of the REST API."""

import grpc
import numpy as np
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    predict_pb2,
    regression_pb2,
)

from serving.errors import RequestError
from serving.tensor_protos import read_tensor, write_tensor
from tests.serving.json_requests import signature

SIGNATURES = {
    "": signature(x="FLOAT"),
    "both": signature(x="FLOAT", z="FLOAT"),
    "text": signature(text="STRING"),
    "none": meta_graph_pb2.SignatureDef(),
}


class FakeApi:
    """Serves a model `m` whose outputs are twice its inputs; records model specs and timeouts."""

    def __init__(self):
        self.specs, self.timeouts = [], []
        self.fails: Exception | None = None

    def _record(self, spec, timeout):
        self.specs.append(spec)
        self.timeouts.append(timeout)
        if spec.name != "m":
            raise RequestError(
                grpc.StatusCode.NOT_FOUND,
                f"Servable not found for request: Latest({spec.name})",
            )
        if self.fails:
            raise self.fails

    def is_known(self, model):
        return model == "m"

    def signature(self, model_spec, name):
        assert name == model_spec.signature_name
        if name not in SIGNATURES:
            raise RequestError(grpc.StatusCode.INVALID_ARGUMENT, f'"{name}" not found')
        return SIGNATURES[name]

    def predict(self, request, timeout):
        self._record(request.model_spec, timeout)
        response = predict_pb2.PredictResponse()
        for name, tensor in request.inputs.items():
            array = read_tensor(tensor)
            write_tensor(np.asarray(array + array, array.dtype), response.outputs[name])
        return response

    def classify(self, request, timeout):
        self._record(request.model_spec, timeout)
        response = classification_pb2.ClassificationResponse()
        for found in request.input.example_list.examples:
            classes = response.result.classifications.add().classes
            classes.add(label="x", score=found.features.feature["x"].float_list.value[0])
        return response

    def regress(self, request, timeout):
        self._record(request.model_spec, timeout)
        response = regression_pb2.RegressionResponse()
        context = request.input.example_list_with_context.context.features.feature["x"]
        response.result.regressions.add(value=context.float_list.value[0])
        return response

    def get_model_status(self, request, timeout):
        self._record(request.model_spec, timeout)
        response = get_model_status_pb2.GetModelStatusResponse()
        response.model_version_status.add(version=1, state="AVAILABLE")
        return response

    def get_model_metadata(self, request, timeout):
        assert request.metadata_field == ["signature_def"]
        self._record(request.model_spec, timeout)
        response = get_model_metadata_pb2.GetModelMetadataResponse(model_spec=request.model_spec)
        signatures = get_model_metadata_pb2.SignatureDefMap(signature_def=SIGNATURES)
        response.metadata["signature_def"].Pack(signatures)
        return response


class FakeMonitoring:
    def record_request(self, *arguments):
        """Tests with models look at the counts."""

    def prometheus_text(self) -> str:
        return "# TYPE :tensorflow:serving:request_count counter\n"
