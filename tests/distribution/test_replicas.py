"""Several replicas compute the step that one device computes on the whole batch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from caption_gan.distribution import replicas, strategies
from caption_gan.errors import CaptionGANError
from tests.distribution.replicated import OBJECTIVES
from tests.test_several_workers import free_ports

PROGRAM = Path(__file__).with_name("replicated.py")
# Muon amplifies small directions of a gradient, which depend on rounding.
TOLERANCE = {"muon": 1e-2, "mixed_float16": 1e-2}


def start(strategy: str, path: Path, names: list[str], devices: int = 1, **environment: str):
    """Trains in a new process; returns the process and the file of its results."""
    process = subprocess.Popen(
        [sys.executable, PROGRAM, strategy, path, str(devices), *names],
        env=os.environ | {"PYTHONPATH": str(PROGRAM.parents[2])} | environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    return process, path


def results(*started: tuple[subprocess.Popen, Path]) -> list[dict[str, np.ndarray]]:
    for process, _ in started:
        _, errors = process.communicate(timeout=1500)
        assert process.returncode == 0, errors
    return [dict(np.load(path)) for _, path in started]


def differing(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> list[str]:
    """Returns the names of the variables and metrics that differ."""
    assert one.keys() == other.keys()
    return [
        name
        for name in one
        if not np.allclose(one[name], other[name], 1e-5, TOLERANCE.get(name.split("/")[0], 1e-6))
    ]


def workers(path: Path, names: list[str]) -> list[dict[str, np.ndarray]]:
    cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(2)]}
    started = []
    for index in range(2):
        task = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})
        started.append(start("multi_worker", path / f"{index}.npz", names, TF_CONFIG=task))
    return results(*started)


@pytest.mark.slow
def test_two_workers_equal_one_device(tmp_path):
    names = ["maximum_likelihood"]
    (expected,) = results(start("one_device", tmp_path / "one.npz", names))
    for found in workers(tmp_path, names):
        assert differing(expected, found) == []
    # The comparison detects a small difference.
    expected["maximum_likelihood/loss"] += 1e-4
    assert differing(expected, found) == ["maximum_likelihood/loss"]


@pytest.mark.slow
def test_all_objectives(tmp_path):
    names = list(OBJECTIVES)
    (expected,) = results(start("one_device", tmp_path / "one.npz", names))
    (mirrored,) = results(start("mirrored", tmp_path / "mirrored.npz", names, devices=2))
    for found in (mirrored, *workers(tmp_path, names)):
        assert differing(expected, found) == []


@pytest.mark.parametrize(("count", "updates"), [(1, 1), (2, 1), (1, 3), (2, 3), (4, 2)])
def test_each_replica_has_rows_of_each_update(count, updates):
    batch = tf.reshape(tf.range(24 * 2), [24, 2])
    parts = np.array(replicas.shard(batch, count, updates))
    assert parts.shape == (count, 24 // count, 2)
    for update, rows in enumerate(np.split(np.array(batch), updates)):
        each = 24 // count // updates
        sharded = parts[:, update * each : (update + 1) * each]
        np.testing.assert_array_equal(sharded.reshape(-1, 2), rows)


@pytest.mark.parametrize("strategy", ["one_device", "mirrored", "multi_worker"])
@pytest.mark.parametrize("job", ["worker", "chief"])
def test_one_device_trains_without_a_strategy(strategy, job, monkeypatch, capsys):
    cluster = {job: ["127.0.0.1:1"], "evaluator": ["127.0.0.1:2"], "ps": []}
    config = {"cluster": cluster, "task": {"type": job, "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    with strategies.using(strategy):
        assert not tf.distribute.has_strategy()
        assert strategies.is_chief()
        assert strategies.from_chief(lambda: {"CIDEr": 0.1}) == {"CIDEr": 0.1}
    assert ("training on one device" in capsys.readouterr().err) == (strategy != "one_device")


def test_training_within_a_strategy_of_the_user_is_refused():
    with (
        tf.distribute.OneDeviceStrategy("/cpu:0").scope(),
        pytest.raises(CaptionGANError, match="strategy's scope"),
        strategies.using("one_device"),
    ):
        pytest.fail("nothing may begin")


def test_one_replica_changes_nothing():
    value = tf.constant([1.0, 2.0])
    assert replicas.mean(value) is value
    assert replicas.all_gather(value, 2) is value
    assert replicas.local_rows(value, 2) is value
    assert replicas.per_replica_seed(value) is value


def test_dropout_equals_keras_dropout():
    values = tf.ones([100, 100])
    layer = replicas.Dropout(0.25, seed=1)
    dropped = np.array(layer(values, training=True))
    assert set(np.unique(dropped)) == {0.0, np.float32(1 / 0.75)}
    assert (dropped == 0).mean() == pytest.approx(0.25, abs=0.02)
    assert not np.array_equal(dropped, layer(values, training=True))
    assert np.array_equal(layer(values), values)
