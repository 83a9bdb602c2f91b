"""Tests of loading and closing a Servable: session options, broken models and memory."""

import gc
import shutil
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf

from serving.servable import Servable
from tests.serving.manager_helpers import request_error, resident_megabytes
from tests.serving.saved_models import write_adder, write_tf1

DEFAULT, ONE = "serving_default", np.ones([1], np.float32)


@pytest.fixture(scope="module")
def adder(tmp_path_factory) -> Path:
    return write_adder(tmp_path_factory.mktemp("adder"), 7)


def test_session_options_are_used(adder):
    """The session lists three CPU devices."""
    config = tf.compat.v1.ConfigProto(device_count={"CPU": 3})
    servable = Servable("adder", 7, adder, config)
    assert len(servable._session.list_devices()) == 3
    servable.close()


def remove_variables(model: Path) -> None:
    shutil.rmtree(model / "variables")


def truncate_variables(model: Path) -> None:
    (data,) = (model / "variables").glob("*.data*")
    data.write_bytes(data.read_bytes()[:2])


def truncate_graph(model: Path) -> None:
    graph = model / "saved_model.pb"
    graph.write_bytes(graph.read_bytes()[:-100])


def rename_operation(model: Path) -> None:
    graph = model / "saved_model.pb"
    graph.write_bytes(graph.read_bytes().replace(b"ReadVariableOp", b"DeadVariableOp"))


def empty_graph(model: Path) -> None:
    (model / "saved_model.pb").write_bytes(b"")


@pytest.mark.parametrize(
    ("break_model", "named"),
    [
        (shutil.rmtree, "saved_model.pb"),
        (remove_variables, "variables/variables"),
        (truncate_variables, "Restore"),
        (truncate_graph, "saved_model.pb"),
        (rename_operation, "DeadVariableOp"),
        (empty_graph, "serve"),
    ],
)
def test_a_broken_model_is_a_one_line_error(adder, tmp_path, break_model, named):
    broken = shutil.copytree(adder, tmp_path / "7")
    break_model(broken)
    error = request_error(Servable, "adder", 7, broken)
    path, _, reason = error.message.partition(": ")
    assert path == str(broken)
    assert named in reason
    assert "\n" not in error.message


def test_the_error_names_a_missing_asset(tmp_path):
    broken = write_tf1(tmp_path, 3)
    (broken / "assets" / "words.txt").unlink()
    error = request_error(Servable, "tf1", 3, broken)
    assert error.code is grpc.StatusCode.NOT_FOUND
    assert "words.txt" in error.message


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_close_frees_variables_and_constants(tmp_path):
    """Memory grows by less than 40 MB over 20 loads of 8 MB, without garbage collection."""
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
            closed.append(servable)  # Memory is free although references remain.

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
