"""Tests of Classify, Regress and MultiInference: responses and exact error messages."""

import re
from types import SimpleNamespace

import grpc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow.core.example import example_pb2
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    inference_pb2,
    input_pb2,
    model_pb2,
    regression_pb2,
)

from serving.classification import CLASSIFY, REGRESS, classify, multi_inference, regress
from serving.errors import RequestError
from serving.servable import Servable
from tests.serving import saved_models

INVALID = grpc.StatusCode.INVALID_ARGUMENT


@pytest.fixture(scope="module")
def tf1_model(tmp_path_factory):
    """Version 5: classes `small` and `large` have scores -x and x; regression is x + 5."""
    servable = Servable(
        "tf1_model", 5, saved_models.write_tf1(tmp_path_factory.mktemp("tf1_model"), 5)
    )
    yield servable
    servable.close()


def example(**features: float) -> example_pb2.Example:
    message = example_pb2.Example()
    for name, value in features.items():
        message.features.feature[name].float_list.value.append(value)
    return message


def examples_of(*values: float) -> input_pb2.Input:
    return input_pb2.Input(example_list={"examples": [example(x=value) for value in values]})


def spec(signature: str, name: str = "requested") -> model_pb2.ModelSpec:
    return model_pb2.ModelSpec(name=name, signature_name=signature)


def classification(signature: str, examples: input_pb2.Input):
    return classification_pb2.ClassificationRequest(model_spec=spec(signature), input=examples)


def regression(signature: str, examples: input_pb2.Input):
    return regression_pb2.RegressionRequest(model_spec=spec(signature), input=examples)


def multi_inference_of(
    examples: input_pb2.Input, **tasks: str
) -> inference_pb2.MultiInferenceRequest:
    request = inference_pb2.MultiInferenceRequest(input=examples)
    for signature, method in tasks.items():
        request.tasks.add(model_spec=spec(signature), method_name=method)
    return request


def expected_spec(signature: str) -> model_pb2.ModelSpec:
    return model_pb2.ModelSpec(name="requested", signature_name=signature, version={"value": 5})


def error_of(answer, servable, request, run=None) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(RequestError) as caught:
        answer(servable, request, run or servable.run)
    return caught.value.code, caught.value.message


def classes_of(result: classification_pb2.ClassificationResult) -> list[list[tuple[str, float]]]:
    return [[(c.label, c.score) for c in row.classes] for row in result.classifications]


def test_labels_and_scores(tf1_model):
    response = classify(tf1_model, classification("classify", examples_of(2, -0.5)), tf1_model.run)
    assert response.model_spec == expected_spec("classify")
    assert classes_of(response.result) == [
        [("small", -2), ("large", 2)],
        [("small", 0.5), ("large", -0.5)],
    ]


def test_scores_without_labels(tf1_model):
    response = classify(tf1_model, classification("scores_only", examples_of(3)), tf1_model.run)
    assert classes_of(response.result) == [[("", -3), ("", 3)]]


def test_regression(tf1_model):
    response = regress(tf1_model, regression("regress", examples_of(1, 2.5)), tf1_model.run)
    assert response.model_spec == expected_spec("regress")
    assert [row.value for row in response.result.regressions] == [6, 7.5]


def test_examples_override_the_context(tf1_model):
    examples = input_pb2.Input(
        example_list_with_context={
            "context": example(x=7, y=1),
            "examples": [example(), example(x=1), example(z=3)],
        }
    )
    response = regress(tf1_model, regression("regress", examples), tf1_model.run)
    assert [row.value for row in response.result.regressions] == [12, 6, 12]


def test_multi_inference(tf1_model):
    request = multi_inference_of(
        examples_of(1, 2), classify=CLASSIFY, regress=REGRESS, scores_only=CLASSIFY
    )
    response = multi_inference(tf1_model, request, tf1_model.run)
    assert [result.model_spec for result in response.results] == [
        expected_spec("classify"), expected_spec("regress"), expected_spec("scores_only")
    ]  # fmt: skip
    first, second, third = response.results
    assert classes_of(first.classification_result)[1] == [("small", -2), ("large", 2)]
    assert [row.value for row in second.regression_result.regressions] == [6, 7]
    assert classes_of(third.classification_result)[1] == [("", -2), ("", 2)]
    assert first.WhichOneof("result") == "classification_result"


@pytest.mark.parametrize(
    ("answer", "signature", "request_of"),
    [(classify, "classify", classification), (regress, "regress", regression)],
)
@pytest.mark.parametrize(
    "empty",
    [
        input_pb2.Input(),
        examples_of(),
        input_pb2.Input(example_list_with_context={"context": example(x=1)}),
    ],
)
def test_empty_inputs(answer, signature, request_of, empty, tf1_model):
    expected = INVALID, "Input is empty."
    assert error_of(answer, tf1_model, request_of(signature, empty)) == expected
    method = CLASSIFY if answer is classify else REGRESS
    assert (
        error_of(multi_inference, tf1_model, multi_inference_of(empty, **{signature: method}))
        == expected
    )


def test_a_missing_feature(tf1_model):
    examples = input_pb2.Input(example_list={"examples": [example()]})
    code, message = error_of(classify, tf1_model, classification("classify", examples))
    assert code is INVALID and re.search(r"\bx\b", message)


def test_an_unknown_signature(tf1_model):
    missing = INVALID, "No signature was found with the name: other"
    assert error_of(classify, tf1_model, classification("other", examples_of(1))) == missing
    assert error_of(regress, tf1_model, regression("other", examples_of(1))) == missing
    request = multi_inference_of(examples_of(1), other=CLASSIFY)
    assert error_of(multi_inference, tf1_model, request) == (
        INVALID, "Requested signature not found in model graph: other"
    )  # fmt: skip


def fake_servable(outputs, computed=None, inputs=("inputs",), data_type=types_pb2.DT_STRING):
    """Returns a servable with one signature, and a function that returns the computed outputs."""
    signature = meta_graph_pb2.SignatureDef(method_name="tensorflow/serving/predict")
    for name in inputs:
        signature.inputs[name].dtype = data_type
    for name in outputs:
        signature.outputs[name].name = f"{name}:0"
    servable = SimpleNamespace(version=5, signatures={"serving_default": signature})
    return servable, lambda name, inputs, outputs: {output: computed[output] for output in outputs}


LABELS = np.array([[b"a", b"\xff"]], object)
SCORES = np.array([[1, 2]], np.float32)


def test_a_signature_s_method_name_does_not_matter():
    servable, run = fake_servable(["classes", "scores"], {"classes": LABELS, "scores": SCORES})
    response = classify(servable, classification("", examples_of(1)), run)
    assert response.model_spec == expected_spec("serving_default")
    assert classes_of(response.result) == [[("a", 1), ("\ufffd", 2)]]
    servable, run = fake_servable(["classes"], {"classes": LABELS})
    response = classify(servable, classification("", examples_of(1)), run)
    assert classes_of(response.result) == [[("a", 0), ("\ufffd", 0)]]


CLASSIFY_SIGNATURES = [
    (dict(outputs=["classes"], inputs=["inputs", "more"]), "Expected one input Tensor."),
    (dict(outputs="abc"), "Expected one or two output Tensors, found 3"),
    (dict(outputs=[]), "Expected one or two output Tensors, found 0"),
    (
        dict(outputs=["classes"], inputs=["x"]),
        'No classification inputs found in SignatureDef: inputs {\n  key: "x"',
    ),
    (
        dict(outputs=["y"]),
        'Expected classification signature outputs to contain at least one of "classes" or '
        '"scores". Signature was: inputs {\n',
    ),
    (
        dict(outputs=["classes"], data_type=types_pb2.DT_FLOAT),
        "Expects arg[0] to be float but string is provided",
    ),
]
REGRESS_SIGNATURES = [
    (dict(outputs=["outputs"], inputs=["inputs", "more"]), "Expected one input Tensor."),
    (dict(outputs=["outputs", "more"]), "Expected one output Tensor."),
    (
        dict(outputs=["outputs"], inputs=["x"]),
        'No regression inputs found in SignatureDef: inputs {\n  key: "x"',
    ),
    (dict(outputs=["y"]), "No regression outputs found in SignatureDef: inputs {\n"),
    (
        dict(outputs=["outputs"], data_type=types_pb2.DT_INT64),
        "Expects arg[0] to be int64 but string is provided",
    ),
]


@pytest.mark.parametrize(
    ("answer", "request_of", "method", "arguments", "message"),
    [(classify, classification, CLASSIFY, *case) for case in CLASSIFY_SIGNATURES]
    + [(regress, regression, REGRESS, *case) for case in REGRESS_SIGNATURES],
)
def test_signatures_that_do_not_fit(answer, request_of, method, arguments, message):
    servable, _ = fake_servable(**arguments)

    def run(*_):
        pytest.fail("was run")

    requests = {
        answer: request_of("", examples_of(1)),
        multi_inference: multi_inference_of(examples_of(1), **{"": method}),
    }
    for each, request in requests.items():
        code, found = error_of(each, servable, request, run)
        assert code is INVALID and found.startswith(message)


@pytest.mark.parametrize(
    ("computed", "message"),
    [
        (
            dict(scores=SCORES[0]),
            "Expected Tensor shape: [batch_size num_classes] but got [2]",
        ),
        (
            dict(classes=LABELS, scores=SCORES[None]),
            "Expected Tensor shape: [batch_size num_classes] but got [1,1,2]",
        ),
        (dict(classes=SCORES), "Expected classes Tensor of DT_STRING. Got: DT_FLOAT"),
        (dict(scores=LABELS), "Expected scores Tensor of DT_FLOAT. Got: DT_STRING"),
        (
            dict(scores=SCORES.astype(np.float64)),
            "Expected scores Tensor of DT_FLOAT. Got: DT_DOUBLE",
        ),
        (dict(classes=LABELS[:0]), "Expected classes output batch size of 1. Got: 0"),
        (
            dict(classes=LABELS, scores=np.repeat(SCORES, 2, axis=0)),
            "Expected scores output batch size of 1. Got: 2",
        ),
        (
            dict(classes=LABELS, scores=SCORES[:, :1]),
            "Tensors class and score should match in dim_size(1). Got 2 vs. 1",
        ),
    ],
)
def test_wrong_outputs_of_a_classification(computed, message):
    servable, run = fake_servable(list(computed), computed)
    assert error_of(classify, servable, classification("", examples_of(1)), run) == (
        INVALID,
        message,
    )


@pytest.mark.parametrize(
    ("shape", "data_type", "message"),
    [
        (
            [2, 2],
            np.float32,
            "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] "
            "but got [2,2]",
        ),
        (
            [],
            np.float32,
            "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got []",
        ),
        ([3], np.float32, "Input batch size did not match output batch size: 2 vs. 3"),
        ([2, 1], np.int64, "Expected output Tensor of DT_FLOAT.  Got: DT_INT64"),
    ],
)
def test_wrong_outputs_of_a_regression(shape, data_type, message):
    servable, run = fake_servable(["outputs"], {"outputs": np.zeros(shape, data_type)})
    assert error_of(regress, servable, regression("", examples_of(1, 2)), run) == (INVALID, message)


@pytest.mark.parametrize("shape", [[2], [2, 1]])
def test_regression_outputs_of_both_shapes(shape):
    servable, run = fake_servable(
        ["outputs"], {"outputs": np.array([3, 4], np.float32).reshape(shape)}
    )
    response = regress(servable, regression("", examples_of(1, 2)), run)
    assert [row.value for row in response.result.regressions] == [3, 4]


def test_wrong_tasks(tf1_model):
    request = multi_inference_of(examples_of(1), classify=CLASSIFY, regress=REGRESS)
    request.tasks[1].model_spec.name = ""
    assert error_of(multi_inference, tf1_model, request) == (
        INVALID, "Found ModelSpec with an empty model name."
    )  # fmt: skip
    request.tasks[1].model_spec.name = "another"
    assert error_of(multi_inference, tf1_model, request) == (
        INVALID, "All ModelSpecs in a MultiInferenceRequest must access the same model name."
    )  # fmt: skip
    request.tasks[1].model_spec.CopyFrom(request.tasks[0].model_spec)
    assert error_of(multi_inference, tf1_model, request) == (
        INVALID, "Duplicate evaluation of signature: classify"
    )  # fmt: skip
    request = multi_inference_of(examples_of(1), classify="a/b")
    assert error_of(multi_inference, tf1_model, request) == (
        grpc.StatusCode.UNIMPLEMENTED, "Unsupported signature method_name: a/b"
    )  # fmt: skip


def test_signatures_of_tensorflow_2_have_inputs_of_their_own(tmp_path):
    servable = Servable("tf2", 5, saved_models.write_example_reader(tmp_path, 5))
    names = ("classify", "regress")
    assert len({servable.signatures[name].inputs["inputs"].name for name in names}) == 2
    request = multi_inference_of(examples_of(1, 2), classify=CLASSIFY, regress=REGRESS)
    first, second = multi_inference(servable, request, servable.run).results
    servable.close()
    assert classes_of(first.classification_result) == [[("", -1), ("", 1)], [("", -2), ("", 2)]]
    assert [row.value for row in second.regression_result.regressions] == [6, 7]


@settings(max_examples=100, deadline=None)
@given(
    values=st.lists(st.floats(-1000, 1000, width=32), max_size=4),
    junk=st.lists(st.dictionaries(st.text(max_size=3), st.binary(max_size=5)), max_size=2),
    signature=st.sampled_from(["classify", "scores_only", "regress", "words", "", "other"]),
    method=st.sampled_from([CLASSIFY, REGRESS]),
)
def test_any_request_succeeds_or_is_an_invalid_argument(tf1_model, values, junk, signature, method):
    examples = examples_of(*values)
    for features in junk:
        message = examples.example_list.examples.add()
        for name, value in features.items():
            message.features.feature[name].bytes_list.value.append(value)
    answer, request_of = (classify, classification) if method == CLASSIFY else (regress, regression)
    try:
        result = answer(tf1_model, request_of(signature, examples), tf1_model.run).result
    except RequestError as error:
        assert error.code is INVALID and error.message
        fits = (
            signature == "regress"
            if method == REGRESS
            else signature in ("classify", "scores_only")
        )
        assert junk or not values or not fits
    else:
        found = (
            [row.classes[1].score for row in result.classifications]
            if method == CLASSIFY
            else [row.value for row in result.regressions]
        )
        amount = 0 if method == CLASSIFY else 5
        assert found == [np.float32(value) + np.float32(amount) for value in values]
