"""What is no model says why; what is closed leaves nothing."""

import gc
import shutil
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf

from serving.servable import Servable
from tests.serving.manager_helpers import request_error, resident_megabytes
from tests.serving.saved_models import write_adder, write_old

DEFAULT, ONE = "serving_default", np.ones([1], np.float32)


@pytest.fixture(scope="module")
def adder(tmp_path_factory) -> Path:
    return write_adder(tmp_path_factory.mktemp("adder"), 7)


def test_options_of_the_session_are_used(adder):
    """A session that counts three processors."""
    config = tf.compat.v1.ConfigProto(device_count={"CPU": 3})
    servable = Servable("adder", 7, adder, config)
    assert len(servable._session.list_devices()) == 3
    servable.close()


def take_variables(model: Path) -> None:
    shutil.rmtree(model / "variables")


def cut_variables(model: Path) -> None:
    (data,) = (model / "variables").glob("*.data*")
    data.write_bytes(data.read_bytes()[:2])


def cut_graph(model: Path) -> None:
    graph = model / "saved_model.pb"
    graph.write_bytes(graph.read_bytes()[:-100])


def rename_operation(model: Path) -> None:
    graph = model / "saved_model.pb"
    graph.write_bytes(graph.read_bytes().replace(b"ReadVariableOp", b"DeadVariableOp"))


def empty_graph(model: Path) -> None:
    (model / "saved_model.pb").write_bytes(b"")


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (shutil.rmtree, "saved_model.pb"),
        (take_variables, "variables/variables"),
        (cut_variables, "Restore"),
        (cut_graph, "saved_model.pb"),
        (rename_operation, "DeadVariableOp"),
        (empty_graph, "serve"),
    ],
)
def test_what_is_no_model_says_why_in_one_line(adder, tmp_path, spoil, named):
    spoiled = shutil.copytree(adder, tmp_path / "7")
    spoil(spoiled)
    error = request_error(Servable, "adder", 7, spoiled)
    path, _, reason = error.message.partition(": ")
    assert path == str(spoiled)
    assert named in reason
    assert "\n" not in error.message


def test_a_missing_asset_says_so(tmp_path):
    spoiled = write_old(tmp_path, 3)
    (spoiled / "assets" / "words.txt").unlink()
    error = request_error(Servable, "old", 3, spoiled)
    assert error.code is grpc.StatusCode.NOT_FOUND
    assert "words.txt" in error.message


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_closed_models_free_variables_and_constants(tmp_path):
    """Of 20 loads, with 8 MB each; nor do they wait for the collection of garbage."""
    v1 = tf.compat.v1
    numbers = np.random.default_rng(0).random([1000, 1000], np.float32)
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None], "x")
        variable = v1.get_variable("variable", initializer=tf.zeros([1000, 1000]))
        y = x + tf.reduce_sum(variable) + tf.reduce_sum(tf.constant(numbers))
        session.run(v1.global_variables_initializer())
        v1.saved_model.simple_save(session, str(tmp_path / "1"), {"x": x}, {"y": y})

    def load(times: int) -> None:
        for _ in range(times):
            servable = Servable("large", 1, tmp_path / "1")
            servable.run(DEFAULT, {"x": ONE}, ["y"], 30)
            servable.close()
            closed.append(servable)  # Whoever may still hold it.

    closed: list[Servable] = []
    gc.collect()
    gc.disable()
    try:
        load(5)
        before = resident_megabytes()
        load(20)
        assert resident_megabytes() - before < 40
    finally:
        gc.enable()
