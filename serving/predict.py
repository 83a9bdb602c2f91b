"""Predict and GetModelMetadata on a loaded version, in TensorFlow Serving's words."""

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
SIGNATURES = "signature_def"  # The only metadata field that can be asked for.

# Computes outputs of a signature from its inputs: name of the signature, inputs, names of outputs.
Run = Callable[[str, Mapping[str, np.ndarray], Sequence[str]], Mapping[str, np.ndarray]]


def predict(
    servable: Servable, request: predict_pb2.PredictRequest, run: Run
) -> predict_pb2.PredictResponse:
    """Answers a request for outputs of one signature.

    Args:
        servable: What the request's model spec stands for.
        request: Its inputs are arrays of any shapes; without `output_filter` all outputs are meant.
        run: Computes on that servable.

    Returns:
        The outputs, with the signature and the version that they are of.

    Raises:
        RequestError: The request does not fit the signature, or `run` raised it.
    """
    name = signature_name(request.model_spec)
    signature = servable.signatures.get(name)
    if signature is None:
        raise RequestError(
            grpc.StatusCode.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.'
        )
    protos = _inputs(signature, request.inputs)
    inputs = {alias: _array(alias, proto) for alias, proto in protos.items()}
    outputs = _outputs(signature, request.output_filter)
    check_types(signature, {alias: proto.dtype for alias, proto in protos.items()})
    computed = run(name, inputs, outputs)
    response = predict_pb2.PredictResponse(model_spec=used_spec(servable, request.model_spec))
    for alias in outputs:
        write_tensor(computed[alias], response.outputs[alias])
    return response


def signature_name(model_spec: model_pb2.ModelSpec) -> str:
    return model_spec.signature_name or DEFAULT


def used_spec(servable: Servable, asked: model_pb2.ModelSpec) -> model_pb2.ModelSpec:
    """What an answer says of where it is from."""
    spec = model_pb2.ModelSpec(name=asked.name, signature_name=signature_name(asked))
    spec.version.value = servable.version
    return spec


def _inputs(
    signature: meta_graph_pb2.SignatureDef, given: Mapping[str, tensor_pb2.TensorProto]
) -> dict[str, tensor_pb2.TensorProto]:
    expected, defaults = signature.inputs, signature.defaults
    if len(given) > len(expected) or (len(given) < len(expected) and not defaults):
        raise invalid(
            f"input size does not match signature: {len(given)}!={len(expected)} "
            f"len({{{_set(given)}}}) != len({{{_set(expected)}}}). "
            f"Sent extra: {{{_set(set(given) - set(expected))}}}. "
            f"Missing but required: {{{_set(set(expected) - set(given))}}}."
        )
    inputs = {}
    for alias in sorted(expected):
        if alias in given:
            inputs[alias] = given[alias]
        elif alias in defaults:
            inputs[alias] = defaults[alias]
        else:
            raise invalid(
                f"Signature input alias: {alias}(feed name: {expected[alias].name}) not found in "
                f"request and no default value provided. Inputs expected to be in the request "
                f"{{{_set(given)}}}, or default input alias set: {_set(defaults)}"
            )
    if set(given) - set(inputs):
        raise invalid(
            f"Inputs contains invalid name. Used request inputs: "
            f"{_set(set(given) & set(inputs))}, request input: {_set(given)}"
        )
    return inputs


def _array(alias: str, proto: tensor_pb2.TensorProto) -> np.ndarray:
    try:
        return read_tensor(proto)
    except ValueError as error:
        raise invalid(f"tensor parsing error: {alias}") from error


def _outputs(signature: meta_graph_pb2.SignatureDef, chosen: Sequence[str]) -> list[str]:
    for place, alias in enumerate(chosen):
        if alias not in signature.outputs:
            raise invalid(
                f"output tensor alias not found in signature: {alias} "
                f"Outputs expected to be in the set {{{_set(signature.outputs)}}}."
            )
        if alias in chosen[:place]:
            raise invalid(f"duplicate output tensor alias: {alias}")
    return list(chosen) or list(signature.outputs)


def check_types(signature: meta_graph_pb2.SignatureDef, types: Mapping[str, int]) -> None:
    """Raises RequestError unless inputs have the types (DT_...) that a signature wants."""
    # A session numbers its arguments in the order of their tensors' names.
    arguments = sorted(signature.inputs.items(), key=lambda argument: argument[1].name)
    for number, (alias, info) in enumerate(arguments):
        if types[alias] != info.dtype:
            raise invalid(
                f"Expects arg[{number}] to be {type_name(info.dtype)} "
                f"but {type_name(types[alias])} is provided"
            )


def _set(names: Iterable[str]) -> str:
    return ",".join(sorted(names))


def check_metadata_fields(fields: Sequence[str]) -> None:
    """Raises RequestError unless metadata were asked for, and only what there is."""
    if not fields:
        raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
    for field in fields:
        if field != SIGNATURES:
            raise invalid(f"Metadata field {field} is not supported")


def model_metadata(servable: Servable) -> get_model_metadata_pb2.GetModelMetadataResponse:
    """Names, types and shapes of inputs and outputs of each signature."""
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    response.model_spec.name = servable.name
    response.model_spec.version.value = servable.version
    signatures = get_model_metadata_pb2.SignatureDefMap(signature_def=dict(servable.signatures))
    response.metadata[SIGNATURES].Pack(signatures)
    return response
