"""A run that is killed several times ends bit-identical to an uninterrupted one."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from caption_gan.config.run import Config
from caption_gan.run import RunDirectory
from tests.programs import SMALL
from tests.test_adversarial_programs import ADVERSARIAL

STAGES = {
    "maximum_likelihood": ["--maximum_likelihood.ema_momentum=0.9", "--logging.histograms=true"],
    "by length": [
        "--maximum_likelihood.length_buckets=2",
        "--maximum_likelihood.scheduled_sampling=0.5",
        "--data.memory_limit_gib=0",
    ],
    "wgan_gp": ["--wgan_gp.hard_negatives=true"],
    "wgan_gp, other settings": [
        "--wgan_gp.constraint=one_sided_gradient_penalty",
        "--wgan_gp.critic_loss=relativistic",
        "--wgan_gp.train_encoder=true",
    ],
    "policy_gradient": ["--policy_gradient.constraint=spectral_norm"],
    "self_critical": [],
    "self_play": ["--self_play.train_encoder=true"],
    "self_critical, with a critic": ["--self_critical.rewards={critic: 0.5, cider: 0.5}"],
}


def command(run: RunDirectory, cache: Path, name: str) -> list[str]:
    objective = name.partition(",")[0]
    stages = ["maximum_likelihood"]
    if objective in ("wgan_gp", "policy_gradient", "self_critical", "self_play"):
        stages.append(objective)
    return [
        *(sys.executable, "-m", "caption_gan.fit", *SMALL, *ADVERSARIAL, *STAGES[name]),
        *(f"--stages=[{','.join(stages)}]", f"--data.cache={cache}", f"--run_dir={run.path}"),
        *("--maximum_likelihood.epochs=2", "--generator.dropout=0.3", "--generator.noise_size=4"),
        *("--monitor.every_steps=3", "--checkpoint_minutes=0.0000001"),
    ]


def start(arguments: list[str], log: Path) -> subprocess.Popen:
    environment = os.environ | {
        "TF_DETERMINISTIC_OPS": "1",
        "PATH": str(Path(sys.executable).parent),  # Without Java.
    }
    return subprocess.Popen(arguments, stdout=log.open("w"), stderr=log.open("a"), env=environment)


def checkpoints(run: RunDirectory) -> list[str]:
    return sorted(
        str(path.relative_to(run.checkpoints)) for path in run.checkpoints.glob("*/epoch-*")
    )


def killed_and_continued(arguments: list[str], run: RunDirectory, log: Path, kills: int) -> None:
    """Kills the program `kills` times, each after a few more steps at a random point of a step."""
    for _ in range(kills):
        process = start(arguments, log)
        before, steps = checkpoints(run), random.randrange(1, 5)
        while process.poll() is None:
            now = checkpoints(run)
            if now != before:
                before, steps = now, steps - 1
                if not steps:
                    time.sleep(random.random() / 10)
                    process.send_signal(signal.SIGKILL)
            time.sleep(0.002)
        assert process.returncode in (0, -signal.SIGKILL), log.read_text()
    assert start(arguments, log).wait() == 0, log.read_text()


def state(run: RunDirectory) -> dict[str, np.ndarray]:
    """Returns all variables of the newest checkpoint of each stage."""
    found = {}
    for stage in sorted(path for path in run.checkpoints.iterdir() if path.is_dir()):
        reader = tf.train.load_checkpoint(str(max(stage.iterdir()) / "state"))
        for name in reader.get_variable_to_shape_map():
            if not name.startswith("_CHECKPOINTABLE"):
                found[f"{stage.name} {name}"] = reader.get_tensor(name)
    return found


def logged(run: RunDirectory) -> dict[tuple[str, str, int], bytes]:
    """What TensorBoard shows: the last value of each step."""
    shown = {}
    for file in sorted(
        run.logs.rglob("events.out.tfevents.*"), key=lambda path: path.stat().st_mtime
    ):
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            for value in event.summary.value:
                folder = str(file.parent.relative_to(run.logs))
                shown[folder, value.tag, event.step] = value.tensor.SerializeToString()
    return shown


def history(run: RunDirectory) -> dict[str, list[dict[str, float]]]:
    curves = json.loads(run.history.read_text())
    for epochs in curves.values():
        for figures in epochs:
            del figures["seconds"]
    return curves


def test_a_stage_is_done_once_the_next_one_has_started(tmp_path):
    """A killed stage does not restart from the weights that it kept."""
    run = RunDirectory(tmp_path)
    config = Config(stages=["maximum_likelihood", "wgan_gp", "policy_gradient"])
    assert (run.stages_done(config), run.kept_weights(config, 0)) == (0, None)
    (run.stage_checkpoints(config, 0) / "epoch-00001-step-00000000").mkdir(parents=True)
    run.stage_checkpoints(config, 1).mkdir()  # And killed.
    assert run.stages_done(config) == 0
    (run.stage_checkpoints(config, 1) / "epoch-00000-step-00000000").mkdir()
    assert run.stages_done(config) == 1
    names = [run.stage_name(config, number) for number in range(3)]
    for name in (names[0], names[2]):
        run.stage_weights(name).touch()
    assert run.kept_weights(config, 1) == run.stage_weights(names[0])
    assert run.kept_weights(config, 2) == run.stage_weights(names[0])
    assert run.kept_weights(config, 3) == run.stage_weights(names[2])


@pytest.mark.slow
@pytest.mark.parametrize("name", STAGES)
def test_killed_runs_end_with_the_same_weights(name, tmp_path):
    whole, killed = RunDirectory(tmp_path / "whole"), RunDirectory(tmp_path / "killed")
    cache, log = tmp_path / "cache", tmp_path / "log"
    assert start(command(whole, cache, name), log).wait() == 0, log.read_text()
    killed_and_continued(command(killed, cache, name), killed, log, kills=2)

    expected, actual = state(whole), state(killed)
    assert expected.keys() == actual.keys()
    different = [key for key in expected if expected[key].tobytes() != actual[key].tobytes()]
    assert not different
    assert history(whole) == history(killed)
    for points in killed.read_step_curves().values():
        reached = [point["epoch"] for point in points]
        assert reached == sorted(set(reached))
        assert reached[-1] == round(reached[-1])
    assert logged(whole) == logged(killed)
    before, after = (json.loads(run.metrics.read_text()) for run in (whole, killed))
    del before["history"], after["history"]
    assert before == after
    assert whole.captions.read_bytes() == killed.captions.read_bytes()
    assert not list(killed.path.rglob(".writing-*"))
