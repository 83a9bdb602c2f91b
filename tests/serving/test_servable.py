"""Tests of Servable: kinds of SavedModels, values, errors, deadlines and memory."""

import inspect
import runpy
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_text
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from serving.errors import RequestError
from serving.servable import Servable
from tests.serving.manager_helpers import request_error, resident_megabytes
from tests.serving.saved_models import (
    write_adder,
    write_echo,
    write_keras,
    write_slow,
    write_tf1,
)

DEFAULT = "serving_default"
NONE, ONE = np.zeros([0], np.float32), np.ones([1], np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def adder(folder):
    return Servable("adder", 7, write_adder(folder / "adder", 7))


@pytest.fixture(scope="module")
def echo(folder):
    return Servable("echo", 1, write_echo(folder / "echo", 1))


@pytest.fixture(scope="module")
def tf1(folder):
    return Servable("tf1", 3, write_tf1(folder / "tf1", 3))


@pytest.fixture(scope="module")
def slow(folder):
    return Servable("slow", 1, write_slow(folder / "slow", 1))


def strings(*values: bytes) -> np.ndarray:
    return np.array(values, object)


def example(x: float) -> bytes:
    message = tf.train.Example()
    message.features.feature["x"].float_list.value.append(x)
    return message.SerializeToString()


def test_a_tf_module(adder):
    assert (adder.name, adder.version) == ("adder", 7)
    assert {DEFAULT, "sum"} <= set(adder.signatures)
    x = np.array([1, -2, 0.5], np.float32)
    found = adder.run(DEFAULT, {"x": x}, ["y", "version"])
    assert list(found) == ["y", "version"]
    assert found["y"].tolist() == [8, 5, 7.5]
    assert found["y"].dtype == np.float32
    assert found["version"].tolist() == [7, 7, 7]
    assert list(adder.run(DEFAULT, {"x": x}, ["version"])) == ["version"]
    assert adder.run("sum", {"x": x, "z": 2 * x}, ["y"])["y"].tolist() == [10, 1, 8.5]
    assert adder.run(DEFAULT, {"x": NONE}, ["y"])["y"].shape == (0,)


def test_a_keras_model(folder):
    servable = Servable("keras", 2, write_keras(folder / "keras", 2))
    rows = np.array([[1, 2, 3], [0, 0, -1]], np.float32)
    found = servable.run(DEFAULT, {"x": rows}, ["y"])["y"]
    np.testing.assert_allclose(found, [[12, 12], [-2, -2]])
    # `Session.run` would reject the shape; TensorFlow Serving leaves it to the model's operations.
    error = request_error(servable.run, DEFAULT, {"x": rows[0]}, ["y"])
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert "MatMul" in error.message  # The words depend on oneDNN; the operation does not.
    servable.close()


def test_a_tensorflow_1_model_with_a_table_from_an_asset(tf1):
    assert tf1.run(DEFAULT, {"x": ONE}, ["y"])["y"].tolist() == [4]
    words = strings(b"two", b"zero", b"nine")
    assert tf1.run("words", {"word": words}, ["number"])["number"].tolist() == [2, 0, -1]
    found = tf1.run("classify", {"inputs": strings(example(2.5))}, ["scores", "classes"])
    assert found["classes"].tolist() == [[b"small", b"large"]]
    assert found["scores"].tolist() == [[-2.5, 2.5]]
    assert tf1.signatures["classify"].method_name == "tensorflow/serving/classify"


def test_tensorflow_text_operations(tmp_path, monkeypatch):
    module = tf.Module()
    spec = tf.TensorSpec([None], tf.string, "text")
    module.lower = tf.function(
        lambda text: {"lower": tensorflow_text.case_fold_utf8(text)}, input_signature=[spec]
    )
    tf.saved_model.save(module, str(tmp_path / "1"), {DEFAULT: module.lower})
    servable = Servable("text", 1, tmp_path / "1")
    text = strings("GRÜẞE".encode())
    assert servable.run(DEFAULT, {"text": text}, ["lower"])["lower"].tolist() == [b"gr\xc3\xbcsse"]
    servable.close()
    # This process has imported tensorflow_text. Check that the module imports it, too.
    monkeypatch.setitem(sys.modules, "tensorflow_text", None)
    with pytest.raises(ImportError, match="tensorflow_text"):
        runpy.run_path(inspect.getfile(Servable))


def echoed(rows: int, **arrays: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "text": strings(*[b"t"] * rows),
        "image_bytes": strings(*[b"i"] * rows),
        "floats": np.zeros([rows, 1], np.float32),
        "integers": np.zeros([rows], np.int64),
        "flags": np.zeros([rows], bool),
        "matrix": np.zeros([rows, 2, 3]),
    } | arrays


@given(st.data())
@settings(deadline=None, max_examples=30)
def test_values_of_all_types_are_unchanged(echo, data):
    texts = data.draw(st.lists(st.binary(max_size=40), max_size=3))
    rows = len(texts)
    given_ = echoed(
        rows,
        text=np.array([*texts, b""], object)[:-1],
        floats=data.draw(npst.arrays(np.float32, st.tuples(st.just(rows), st.integers(0, 3)))),
        integers=data.draw(npst.arrays(np.int64, (rows,))),
        flags=data.draw(npst.arrays(bool, (rows,))),
        matrix=data.draw(npst.arrays(np.float64, (rows, 2, 3))),
    )
    found = echo.run(DEFAULT, given_, list(given_))
    for name, array in given_.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_shapes_other_than_the_signature_s_reach_the_model(echo, adder):
    """The signature has other ranks and sizes, but this model accepts these."""
    matrix = np.arange(3.0)
    assert echo.run(DEFAULT, echoed(1, matrix=matrix), ["matrix"])["matrix"].tolist() == [0, 1, 2]
    scalar = adder.run(DEFAULT, {"x": np.float32(1)}, ["y"])["y"]
    assert scalar == 8
    assert scalar.shape == ()
    strided = np.arange(6, dtype=np.float32)[::-2]
    assert adder.run(DEFAULT, {"x": strided}, ["y"])["y"].tolist() == [12, 10, 8]


def test_errors_of_tensorflow_keep_their_code_and_message(adder):
    error = request_error(adder.run, DEFAULT, {"x": np.ones([1])}, ["y"])
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert "float" in error.message and "double" in error.message
    error = request_error(adder.run, DEFAULT, {}, ["y"])
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert "serving_default_x" in error.message
    pair = {"x": np.ones([2], np.float32), "z": np.ones([3], np.float32)}
    error = request_error(adder.run, "sum", pair, ["y"])
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert "[2]" in error.message and "[3]" in error.message
    assert adder.run(DEFAULT, {"x": ONE}, ["y"])["y"].tolist() == [8]  # The servable still works.


def test_an_output_that_is_not_a_tensor(adder):
    initializer = "__saved_model_init_op"
    error = request_error(adder.run, initializer, {}, list(adder.signatures[initializer].outputs))
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert "was not found in the Graph" in error.message


def write_twins(folder: Path) -> Path:
    """Writes a model with two inputs that are the same tensor, and two such outputs."""
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None], "x")
        y = x + 1
        v1.saved_model.simple_save(session, str(folder), {"a": x, "b": x}, {"y": y, "z": y})
    return folder


def test_one_tensor_under_two_names(tmp_path):
    twins = Servable("twins", 1, write_twins(tmp_path / "1"))
    assert twins.run(DEFAULT, {"a": ONE}, ["y", "z"]) == {"y": [2], "z": [2]}
    error = request_error(twins.run, DEFAULT, {"a": ONE, "b": 5 * ONE}, ["y"])
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert "not all different" in error.message
    twins.close()


def seconds(value: float) -> dict[str, np.ndarray]:
    return {"seconds": np.array([value], np.float32)}


def test_a_deadline_stops_the_computation(slow):
    start, used = time.monotonic(), time.process_time()
    error = request_error(slow.run, DEFAULT, seconds(60), ["version"], 0.3)
    assert error.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert 0.3 <= time.monotonic() - start < 5
    stopped = time.process_time()
    assert stopped - used > 0.1  # The computation ran.
    time.sleep(0.5)
    assert time.process_time() - stopped < 0.2  # It has stopped.
    assert slow.run(DEFAULT, seconds(0), ["version"], 30)["version"].tolist() == [1]


def test_a_deadline_applies_to_one_call(slow):
    with ThreadPoolExecutor() as pool:
        patient = pool.submit(slow.run, DEFAULT, seconds(0.6), ["version"], 30)
        hasty = pool.submit(slow.run, DEFAULT, seconds(60), ["version"], 0.2)
        assert isinstance(hasty.exception(), RequestError)
        assert patient.result()["version"].tolist() == [1]


@pytest.mark.parametrize("timeout", [0, -1, -1e300])
def test_a_passed_deadline(adder, timeout):
    error = request_error(adder.run, DEFAULT, {"x": ONE}, ["y"], timeout)
    assert error.code is grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize("timeout", [1e-9, 1e-3, 1.0, 1e300, float("inf")])
def test_deadlines_of_any_length(adder, timeout):
    try:
        assert adder.run(DEFAULT, {"x": ONE}, ["y"], timeout)["y"].tolist() == [8]
    except RequestError as error:
        assert timeout <= 1e-3
        assert error.code is grpc.StatusCode.DEADLINE_EXCEEDED


def test_concurrent_calls_get_their_own_outputs(adder):
    def call(number: int) -> bool:
        x = np.full([number % 5 + 1], number, np.float32)
        found = adder.run(DEFAULT, {"x": x}, ["y", "version"], 30 if number % 2 else None)
        return bool((found["y"] == number + 7).all() and found["y"].shape == x.shape)

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(call, range(2000)))


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_calls_do_not_leak_memory(echo):
    """Each call has inputs and outputs of 100 kB; some fail, some have a deadline."""
    arrays = echoed(1, floats=np.zeros([1, 25_000], np.float32), text=strings(bytes(100_000)))
    wrong = arrays | {"integers": np.zeros([1])}

    def call(times: int) -> None:
        for number in range(times):
            echo.run(DEFAULT, arrays, list(arrays), 30 if number % 2 else None)
            request_error(echo.run, DEFAULT, wrong, list(wrong))

    call(100)
    before = resident_megabytes()
    call(500)
    assert resident_megabytes() - before < 20
