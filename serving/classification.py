"""Classify, Regress and MultiInference on tf.train.Examples, with TensorFlow Serving's messages.

Like TensorFlow Serving by default, this module checks the inputs and outputs of a signature, not
its method name, which models of TensorFlow 2 do not set.

Shapes: B examples, C classes.
"""

from collections.abc import Iterable, Mapping, Sequence

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    inference_pb2,
    input_pb2,
    model_pb2,
    regression_pb2,
)

from serving.errors import RequestError, invalid
from serving.predict import Run, check_types, response_spec, signature_name
from serving.servable import Servable
from serving.tensor_protos import data_type

INPUTS = tf.saved_model.CLASSIFY_INPUTS  # Regression uses the same name.
CLASSES, SCORES = tf.saved_model.CLASSIFY_OUTPUT_CLASSES, tf.saved_model.CLASSIFY_OUTPUT_SCORES
OUTPUTS = tf.saved_model.REGRESS_OUTPUTS
CLASSIFY, REGRESS = tf.saved_model.CLASSIFY_METHOD_NAME, tf.saved_model.REGRESS_METHOD_NAME


def classify(
    servable: Servable, request: classification_pb2.ClassificationRequest, run: Run
) -> classification_pb2.ClassificationResponse:
    """Computes the classes of each example, each with a label, a score or both.

    Args:
        servable: Version that the request's model spec names.
        request: One or more examples.
        run: Computes outputs on the servable.

    Raises:
        RequestError: The signature does not classify, there is no example, outputs are not
            [B, C], or `run` failed.
    """
    signature = _signature(servable, request.model_spec, "No signature was found with the name: ")
    outputs = _classification_outputs(signature)
    examples = _examples(request.input, signature)
    computed = run(signature_name(request.model_spec), {INPUTS: examples}, outputs)
    return classification_pb2.ClassificationResponse(
        model_spec=response_spec(servable, request.model_spec),
        result=_classifications(computed, len(examples)),
    )


def regress(
    servable: Servable, request: regression_pb2.RegressionRequest, run: Run
) -> regression_pb2.RegressionResponse:
    """Computes a number for each example.

    Args:
        servable: Version that the request's model spec names.
        request: One or more examples.
        run: Computes outputs on the servable.

    Raises:
        RequestError: The signature is no regression, there is no example, the output is neither
            [B] nor [B, 1], or `run` failed.
    """
    signature = _signature(servable, request.model_spec, "No signature was found with the name: ")
    outputs = _regression_outputs(signature)
    examples = _examples(request.input, signature)
    computed = run(signature_name(request.model_spec), {INPUTS: examples}, outputs)
    return regression_pb2.RegressionResponse(
        model_spec=response_spec(servable, request.model_spec),
        result=_regressions(computed, len(examples)),
    )


def multi_inference(
    servable: Servable, request: inference_pb2.MultiInferenceRequest, run: Run
) -> inference_pb2.MultiInferenceResponse:
    """Runs several signatures of a model on the same examples.

    Each may have an input tensor of its own, as in models of TensorFlow 2.

    Args:
        servable: Version that the first task's model spec names.
        request: Each task has a signature and a method, classify or regress.
        run: Computes outputs on the servable.

    Raises:
        RequestError: The tasks differ in model, repeat a signature, or fail as in
            `classify` and `regress`.
    """
    signatures = _signatures(servable, request.tasks)
    examples = _examples(request.input, signatures[0][0])
    response = inference_pb2.MultiInferenceResponse()
    for task, (_, outputs) in zip(request.tasks, signatures, strict=True):
        computed = run(signature_name(task.model_spec), {INPUTS: examples}, outputs)
        result = response.results.add(model_spec=response_spec(servable, task.model_spec))
        if task.method_name == CLASSIFY:
            result.classification_result.MergeFrom(_classifications(computed, len(examples)))
        else:
            result.regression_result.MergeFrom(_regressions(computed, len(examples)))
    return response


def _signatures(
    servable: Servable, tasks: Sequence[inference_pb2.InferenceTask]
) -> list[tuple[meta_graph_pb2.SignatureDef, list[str]]]:
    """Returns each task's signature and the names of its outputs."""
    signatures: dict[str, tuple[meta_graph_pb2.SignatureDef, list[str]]] = {}
    for task in tasks:
        if not task.model_spec.name:
            raise invalid("Found ModelSpec with an empty model name.")
        if task.model_spec.name != tasks[0].model_spec.name:
            raise invalid(
                "All ModelSpecs in a MultiInferenceRequest must access the same model name."
            )
        name = signature_name(task.model_spec)
        if name in signatures:
            raise invalid(f"Duplicate evaluation of signature: {name}")
        signature = _signature(
            servable, task.model_spec, "Requested signature not found in model graph: "
        )
        if task.method_name == CLASSIFY:
            outputs = _classification_outputs(signature)
        elif task.method_name == REGRESS:
            outputs = _regression_outputs(signature)
        else:
            raise RequestError(
                grpc.StatusCode.UNIMPLEMENTED,
                f"Unsupported signature method_name: {task.method_name}",
            )
        signatures[name] = signature, outputs
    return list(signatures.values())


def _signature(
    servable: Servable, model_spec: model_pb2.ModelSpec, missing: str
) -> meta_graph_pb2.SignatureDef:
    name = signature_name(model_spec)
    signature = servable.signatures.get(name)
    if signature is None:
        raise invalid(missing + name)
    return signature


def _classification_outputs(signature: meta_graph_pb2.SignatureDef) -> list[str]:
    if len(signature.inputs) != 1:
        raise invalid("Expected one input Tensor.")
    if len(signature.outputs) not in (1, 2):
        raise invalid(f"Expected one or two output Tensors, found {len(signature.outputs)}")
    if INPUTS not in signature.inputs:
        raise invalid(f"No classification inputs found in SignatureDef: {signature}")
    outputs = [name for name in (CLASSES, SCORES) if name in signature.outputs]
    if not outputs:
        raise invalid(
            f'Expected classification signature outputs to contain at least one of "{CLASSES}" '
            f'or "{SCORES}". Signature was: {signature}'
        )
    return outputs


def _regression_outputs(signature: meta_graph_pb2.SignatureDef) -> list[str]:
    if len(signature.inputs) != 1:
        raise invalid("Expected one input Tensor.")
    if len(signature.outputs) != 1:
        raise invalid("Expected one output Tensor.")
    if INPUTS not in signature.inputs:
        raise invalid(f"No regression inputs found in SignatureDef: {signature}")
    if OUTPUTS not in signature.outputs:
        raise invalid(f"No regression outputs found in SignatureDef: {signature}")
    return [OUTPUTS]


def _examples(request: input_pb2.Input, signature: meta_graph_pb2.SignatureDef) -> np.ndarray:
    """Returns serialized examples [B].

    Each begins with the context: parsing concatenated protos merges them.
    """
    kind = request.WhichOneof("kind")
    examples = getattr(request, kind).examples if kind else []
    if not examples:
        raise invalid("Input is empty.")
    context = request.example_list_with_context.context.SerializeToString()
    serialized = np.empty(len(examples), object)  # [B]
    serialized[:] = [context + example.SerializeToString() for example in examples]
    check_types(signature, {INPUTS: types_pb2.DT_STRING})
    return serialized


def _classifications(
    computed: Mapping[str, np.ndarray], count: int
) -> classification_pb2.ClassificationResult:
    for name, array in computed.items():
        expected = types_pb2.DT_STRING if name == CLASSES else types_pb2.DT_FLOAT
        if array.ndim != 2:
            raise invalid(
                "Expected Tensor shape: [batch_size num_classes] but got "
                f"[{','.join(map(str, array.shape))}]"
            )
        if data_type(array) != expected:
            raise invalid(
                f"Expected {name} Tensor of {types_pb2.DataType.Name(expected)}. "
                f"Got: {types_pb2.DataType.Name(data_type(array))}"
            )
        if len(array) != count:
            raise invalid(f"Expected {name} output batch size of {count}. Got: {len(array)}")
    classes, scores = computed.get(CLASSES), computed.get(SCORES)
    if classes is not None and scores is not None and classes.shape != scores.shape:
        raise invalid(
            "Tensors class and score should match in dim_size(1). "
            f"Got {classes.shape[1]} vs. {scores.shape[1]}"
        )
    result = classification_pb2.ClassificationResult()
    for row in range(count):
        row_labels = () if classes is None else classes[row]
        row_scores = () if scores is None else scores[row]
        result.classifications.add().classes.extend(_classes(row_labels, row_scores))
    return result


def _classes(
    labels: Sequence[bytes], scores: Sequence[float]
) -> Iterable[classification_pb2.Class]:
    for index in range(max(len(labels), len(scores))):
        result = classification_pb2.Class()
        if len(labels):
            result.label = labels[index].decode(errors="replace")
        if len(scores):
            result.score = scores[index]
        yield result


def _regressions(computed: Mapping[str, np.ndarray], count: int) -> regression_pb2.RegressionResult:
    array = computed[OUTPUTS]
    if array.ndim != 1 and not (array.ndim == 2 and array.shape[1] == 1):
        raise invalid(
            "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got "
            f"[{','.join(map(str, array.shape))}]"
        )
    if len(array) != count:
        raise invalid(f"Input batch size did not match output batch size: {count} vs. {len(array)}")
    if data_type(array) != types_pb2.DT_FLOAT:
        raise invalid(
            f"Expected output Tensor of DT_FLOAT.  Got: {types_pb2.DataType.Name(data_type(array))}"
        )
    result = regression_pb2.RegressionResult()
    for value in array.ravel().tolist():
        result.regressions.add(value=value)
    return result
