"""Predict and GetModelMetadata on a loaded version, with TensorFlow Serving's error messages."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import get_model_metadata_pb2, model_pb2, predict_pb2

from serving.errors import RequestError, invalid
from serving.servable import Servable
from serving.tensor_protos import read_tensor, type_name, write_tensor

DEFAULT = tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY
SIGNATURES = "signature_def"  # The only supported metadata field.

# Takes a signature's name, its inputs and the names of outputs; returns the outputs.
Run = Callable[[str, Mapping[str, np.ndarray], Sequence[str]], Mapping[str, np.ndarray]]


def predict(
    servable: Servable, request: predict_pb2.PredictRequest, run: Run
) -> predict_pb2.PredictResponse:
    """Computes outputs of one signature.

    Args:
        servable: Version that the request's model spec names.
        request: Inputs may have any shape. An empty `output_filter` asks for all outputs.
        run: Computes outputs on the servable.

    Returns:
        The outputs, with the signature and the version that computed them.

    Raises:
        RequestError: The request does not match the signature, or `run` failed.
    """
    name = signature_name(request.model_spec)
    signature = servable.signatures.get(name)
    if signature is None:
        raise RequestError(
            grpc.StatusCode.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.'
        )
    protos = _inputs(signature, request.inputs)
    inputs = {alias: _array(alias, proto) for alias, proto in protos.items()}
    outputs = _output_names(signature, request.output_filter)
    check_types(signature, {alias: proto.dtype for alias, proto in protos.items()})
    try:
        computed = run(name, inputs, outputs)
    except RequestError as error:
        # Checked after a failure only: a model may take other shapes than it declares.
        shapes = "; ".join(_wrong_shapes(signature, inputs))
        raise RequestError(error.code, error.message + (shapes and f"\n{shapes}")) from error
    response = predict_pb2.PredictResponse(model_spec=response_spec(servable, request.model_spec))
    for alias in outputs:
        write_tensor(computed[alias], response.outputs[alias])
    return response


def signature_name(model_spec: model_pb2.ModelSpec) -> str:
    return model_spec.signature_name or DEFAULT


def response_spec(servable: Servable, requested: model_pb2.ModelSpec) -> model_pb2.ModelSpec:
    """Returns the model, signature and version that computed a response."""
    spec = model_pb2.ModelSpec(name=requested.name, signature_name=signature_name(requested))
    spec.version.value = servable.version
    return spec


def _inputs(
    signature: meta_graph_pb2.SignatureDef, sent: Mapping[str, tensor_pb2.TensorProto]
) -> dict[str, tensor_pb2.TensorProto]:
    expected, defaults = signature.inputs, signature.defaults
    if len(sent) > len(expected) or (len(sent) < len(expected) and not defaults):
        raise invalid(
            f"input size does not match signature: {len(sent)}!={len(expected)} "
            f"len({{{_listed(sent)}}}) != len({{{_listed(expected)}}}). "
            f"Sent extra: {{{_listed(set(sent) - set(expected))}}}. "
            f"Missing but required: {{{_listed(set(expected) - set(sent))}}}."
        )
    inputs = {}
    for alias in sorted(expected):
        if alias in sent:
            inputs[alias] = sent[alias]
        elif alias in defaults:
            inputs[alias] = defaults[alias]
        else:
            raise invalid(
                f"Signature input alias: {alias}(feed name: {expected[alias].name}) not found in "
                f"request and no default value provided. Inputs expected to be in the request "
                f"{{{_listed(sent)}}}, or default input alias set: {_listed(defaults)}"
            )
    if set(sent) - set(inputs):
        raise invalid(
            f"Inputs contains invalid name. Used request inputs: "
            f"{_listed(set(sent) & set(inputs))}, request input: {_listed(sent)}"
        )
    return inputs


def _array(alias: str, proto: tensor_pb2.TensorProto) -> np.ndarray:
    try:
        return read_tensor(proto)
    except ValueError as error:
        raise invalid(f"tensor parsing error: {alias}") from error


def _output_names(
    signature: meta_graph_pb2.SignatureDef, output_filter: Sequence[str]
) -> list[str]:
    for index, alias in enumerate(output_filter):
        if alias not in signature.outputs:
            raise invalid(
                f"output tensor alias not found in signature: {alias} "
                f"Outputs expected to be in the set {{{_listed(signature.outputs)}}}."
            )
        if alias in output_filter[:index]:
            raise invalid(f"duplicate output tensor alias: {alias}")
    return list(output_filter) or list(signature.outputs)


def check_types(signature: meta_graph_pb2.SignatureDef, types: Mapping[str, int]) -> None:
    """Checks the data types (DT_...) of a signature's inputs.

    Raises:
        RequestError: An input has another type.
    """
    # A session numbers its arguments by the names of their tensors, in alphabetical order.
    arguments = sorted(signature.inputs.items(), key=lambda argument: argument[1].name)
    for number, (alias, info) in enumerate(arguments):
        if types[alias] != info.dtype:
            raise invalid(
                f"Expects arg[{number}] to be {type_name(info.dtype)} "
                f"but {type_name(types[alias])} is provided"
            )


def _wrong_shapes(
    signature: meta_graph_pb2.SignatureDef, inputs: Mapping[str, np.ndarray]
) -> list[str]:
    """Describes the inputs whose shapes are not those that the signature declares."""
    declared = {
        alias: tf.TensorShape(info.tensor_shape) for alias, info in signature.inputs.items()
    }
    return [
        f"{alias} has shape {list(array.shape)}, expected {declared[alias].as_list()}"
        for alias, array in inputs.items()
        if not declared[alias].is_compatible_with(array.shape)
    ]


def _listed(names: Iterable[str]) -> str:
    return ",".join(sorted(names))


def check_metadata_fields(fields: Sequence[str]) -> None:
    """Checks the fields of a GetModelMetadataRequest.

    Raises:
        RequestError: There is no field, or one is not supported.
    """
    if not fields:
        raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
    for field in fields:
        if field != SIGNATURES:
            raise invalid(f"Metadata field {field} is not supported")


def model_metadata(servable: Servable) -> get_model_metadata_pb2.GetModelMetadataResponse:
    """Returns the names, types and shapes of the inputs and outputs of each signature."""
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    response.model_spec.name = servable.name
    response.model_spec.version.value = servable.version
    signatures = get_model_metadata_pb2.SignatureDefMap(signature_def=dict(servable.signatures))
    response.metadata[SIGNATURES].Pack(signatures)
    return response
