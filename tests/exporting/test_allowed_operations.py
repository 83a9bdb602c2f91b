"""Operations that TensorFlow Serving lacks are found in signatures, nodes and nested functions."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_text as tf_text
from tensorflow.core.protobuf import saved_model_pb2

from caption_gan.errors import CaptionGANError
from caption_gan.exporting.allowed_operations import TEXT_OPERATIONS, check_operations
from caption_gan.text.tokenizer import Tokenizer
from caption_gan.text.vocabulary import write_vocabulary

WORDS = ["[PAD]", "[START]", "[END]", "[UNK]", "a", "dog", "##s"]
NUMBERS = tf.TensorSpec([None], tf.float32)
STRINGS = tf.TensorSpec([None], tf.string)


def export(folder, function, argument=NUMBERS, **tracked):
    module = tf.Module()
    for name, value in tracked.items():
        setattr(module, name, value)
    module.run = tf.function(function, input_signature=[argument])
    tf.saved_model.save(module, folder, signatures={"caption": module.run})
    return folder


def edit(folder, change):
    """Changes the first graph in the file of a SavedModel."""
    path = folder / "saved_model.pb"
    model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    change(model.meta_graphs[0])
    path.write_bytes(model.SerializeToString())


def function_named(meta_graph, part):
    functions = meta_graph.graph_def.library.function
    return next(function for function in functions if part in function.signature.name)


def error_of(folder, engine="2.20"):
    with pytest.raises(CaptionGANError) as caught:
        check_operations(folder, engine)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def python_identity(numbers):
    return tf.ensure_shape(tf.py_function(lambda x: x, [numbers], tf.float32), numbers.shape)


def nested(numbers):
    """Calls Python in a loop in a condition in a dataset transformation."""

    def loop(number):
        return tf.while_loop(lambda x: x < 0.0, lambda x: [python_identity(x)], [number])[0]

    def choose(number):
        return tf.cond(number < 1.0, lambda: loop(number), lambda: number)

    return tf.data.Dataset.from_tensor_slices(numbers).map(choose).batch(9).get_single_element()


def test_python_in_nested_functions_is_found_although_stripped_op_list_lacks_it(tmp_path):
    message = error_of(export(tmp_path, nested))
    assert "EagerPyFunc (needs Python) in function " in message
    function, callers = message.split("(needs Python) in ")[1].split(", called from ")
    assert "while_body" in function
    path = callers.split(". Use")[0].split(" > ")
    assert path[0] == "signature caption"
    assert any("Dataset_map_choose" in name for name in path)
    assert "cond_true" in path[-1]

    def check_stripped_op_list(meta_graph):
        listed = {operation.name for operation in meta_graph.meta_info_def.stripped_op_list.op}
        assert "StatefulPartitionedCall" in listed
        assert "EagerPyFunc" not in listed

    edit(tmp_path, check_stripped_op_list)


def test_numpy_functions_are_found(tmp_path):
    def doubled(numbers):
        return tf.ensure_shape(
            tf.numpy_function(np.square, [numbers], tf.float32, stateful=False), [None]
        )

    assert "PyFuncStateless (needs Python)" in error_of(export(tmp_path, doubled))


def test_python_generators_are_found(tmp_path):
    def counted(numbers):
        dataset = tf.data.Dataset.from_generator(
            lambda: range(3), output_signature=tf.TensorSpec([])
        )
        return numbers + dataset.reduce(0.0, lambda total, number: total + number)

    assert "PyFunc (needs Python)" in error_of(export(tmp_path, counted))


def test_jit_compiled_functions_are_found(tmp_path):
    message = error_of(export(tmp_path, tf.function(lambda x: x + 1.0, jit_compile=True)))
    assert "_XlaMustCompile (needs the XLA compiler or a TPU) in " in message
    assert "called from signature caption" in message


def test_functions_without_jit_compile_are_allowed(tmp_path):
    check_operations(export(tmp_path, tf.function(lambda x: x + 1.0, jit_compile=False)))


def test_the_operations_of_a_captioner_are_allowed(tmp_path):
    write_vocabulary(tmp_path / "vocabulary.txt", WORDS)
    word_pieces = Tokenizer(tmp_path / "vocabulary.txt", "wordpiece")

    def decode(index, image_bytes):
        image = tf.io.decode_image(image_bytes, channels=3, expand_animations=False)
        return index, tf.image.resize(image, [8, 8])

    def captioned(image_bytes):
        dataset = tf.data.Dataset.from_tensor_slices(image_bytes).enumerate()
        dataset = dataset.map(decode, num_parallel_calls=2).ignore_errors().batch(9)
        indices, pixels = dataset.get_single_element()
        drawn = tf.random.stateless_uniform([2, 6], [1, 2], 0, 7, tf.int32)
        features = tf.io.parse_example(image_bytes, {"image": tf.io.FixedLenFeature([], tf.string)})
        return {
            "caption": word_pieces.detokenize(drawn),
            "token_ids": word_pieces.tokenize(features["image"]),
            "brightness": tf.map_fn(tf.reduce_mean, pixels),
            "index": indices,
        }

    check_operations(export(tmp_path / "model", captioned, STRINGS, tokenizer=word_pieces), "2.13")


def trimmed(text):
    ragged = tf.strings.split(text)
    return tf_text.RoundRobinTrimmer(4).trim([ragged, ragged])[0].to_tensor()


TEXT_FUNCTIONS = {
    "TFText>RoundRobinTrim": trimmed,
    "TFText>Utf8Binarize": tf_text.utf8_binarize,
}


@pytest.mark.parametrize("operation", TEXT_FUNCTIONS)
def test_new_operations_of_tensorflow_text_need_a_new_release(tmp_path, operation):
    model = export(tmp_path, TEXT_FUNCTIONS[operation], STRINGS)
    check_operations(model, "2.20")
    message = error_of(model, "2.19")
    assert (
        f"{operation} (an operation of tensorflow-text, available from 2.20 on) in function"
        in message
    )


def test_old_operations_of_tensorflow_text_are_allowed(tmp_path):
    pieces = tf_text.FastWordpieceTokenizer(WORDS, unknown_token="[UNK]", no_pretokenization=True)

    def tokenized(text):
        words = tf_text.WhitespaceTokenizer().tokenize(tf_text.normalize_utf8(text))
        return pieces.tokenize(words).merge_dims(1, 2).to_tensor()

    check_operations(export(tmp_path, tokenized, STRINGS, pieces=pieces), "2.13")


def test_text_operations_are_those_that_tensorflow_text_registers():
    listing = """
from tensorflow.core.framework import op_def_pb2
from tensorflow.python.client import pywrap_tf_session as session
def names():
    found = op_def_pb2.OpList.FromString(session.TF_GetBuffer(session.TF_GetAllOpList()))
    return {operation.name for operation in found.op}
before = names()
import tensorflow_text
print(*(names() - before))
"""
    done = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True)
    assert set(done.stdout.split()) == set(TEXT_OPERATIONS), done.stderr


@pytest.mark.parametrize("operation", ["MysteryOp", "XlaLaunch", "TwoFloatOutputs"])
def test_unknown_operations_are_found_in_functions(tmp_path, operation):
    def change(meta_graph):
        function_named(meta_graph, "square").node_def.add(name="mystery", op=operation)

    @tf.function
    def square(numbers):
        return numbers * numbers

    export(tmp_path, lambda numbers: square(numbers) + 1.0)
    check_operations(tmp_path)
    edit(tmp_path, change)
    assert f"{operation} (" in error_of(tmp_path)
    assert "in function __inference_square" in error_of(tmp_path)


def test_functions_that_no_signature_calls_and_lists_of_functions_are_found(tmp_path):
    def add_uncalled(meta_graph):
        uncalled = meta_graph.graph_def.library.function.add()
        uncalled.signature.name = "uncalled"
        uncalled.node_def.add(name="mystery", op="MysteryOp")

    def call_uncalled(meta_graph):
        caller = function_named(meta_graph, "signature_wrapper").node_def.add(name="c", op="Case")
        caller.attr["branches"].list.func.add(name="uncalled")

    export(tmp_path, tf.identity)
    edit(tmp_path, add_uncalled)
    assert "MysteryOp (not one of TensorFlow's own operations) in function uncalled, which no " in (
        error_of(tmp_path)
    )
    edit(tmp_path, call_uncalled)
    assert "in function uncalled, called from signature caption > function __inf" in error_of(
        tmp_path
    )


def test_graphs_of_tensorflow_1(tmp_path):
    def build(folder, double):
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            numbers = tf.compat.v1.placeholder(tf.float32, [None])
            doubled = double(numbers)
            doubled.set_shape([None])
            tf.compat.v1.saved_model.simple_save(
                session, str(folder), {"numbers": numbers}, {"doubled": doubled}
            )
        return folder

    check_operations(build(tmp_path / "plain", lambda x: x * 2.0))
    python = build(tmp_path / "python", lambda x: tf.compat.v1.py_func(np.square, [x], tf.float32))
    assert "PyFunc (needs Python) in node PyFunc, called from signature serving_default. " in (
        error_of(python)
    )


def test_a_function_called_by_its_name_is_not_an_operation(tmp_path):
    def call(meta_graph):
        square = function_named(meta_graph, "signature_wrapper").signature.name
        meta_graph.graph_def.node.add(name="direct", op=square)

    export(tmp_path, tf.identity)
    edit(tmp_path, call)
    check_operations(tmp_path)


def test_all_forbidden_operations_of_all_graphs_are_reported(tmp_path):
    def change(meta_graph):
        meta_graph.graph_def.node.add(name="first", op="FirstMystery")
        meta_graph.graph_def.node.add(name="second", op="SecondMystery")

    def append(path):
        model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
        model.meta_graphs.add().graph_def.node.add(name="third", op="ThirdMystery")
        path.write_bytes(model.SerializeToString())

    export(tmp_path, tf.identity)
    edit(tmp_path, change)
    append(tmp_path / "saved_model.pb")
    for operation in ("FirstMystery", "SecondMystery", "ThirdMystery"):
        assert operation in error_of(tmp_path)


@pytest.mark.parametrize("content", [None, b"", b"\x12\xff\x01", b"not a model"])
def test_unreadable_models(tmp_path, content):
    if content is not None:
        (tmp_path / "saved_model.pb").write_bytes(content)
    message = error_of(tmp_path)
    assert f"{tmp_path}/saved_model.pb" in message
    assert "cannot be read as a SavedModel" in message or "got one without" in message


@pytest.mark.parametrize("engine", ["2.21", "2.12", "3.1", "2", "2.20.0", "newest", "2.x", ""])
def test_unknown_releases(tmp_path, engine):
    message = error_of(tmp_path, engine)
    assert message.endswith(f"expected 2.13 to 2.20, got {engine!r}")
