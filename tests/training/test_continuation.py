"""Training that is continued equals training that never stopped, bit for bit.

B batch, K captions an image, T time.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import config as framework

from caption_gan.errors import CaptionGANError
from caption_gan.objectives import (
    MaximumLikelihoodConfig,
    MonitorConfig,
    PolicyGradientConfig,
    SelfCriticalConfig,
    WassersteinGANConfig,
)
from caption_gan.training.averaging import RunningAverage
from caption_gan.training.cider_reward import CiderReward
from caption_gan.training.collapse_monitor import CollapseMonitor
from caption_gan.training.continuation import Continuation
from caption_gan.training.loop import Position, train
from caption_gan.training.maximum_likelihood import MaximumLikelihood
from caption_gan.training.policy_gradient import PolicyGradient
from caption_gan.training.self_critical import SelfCritical
from caption_gan.training.wgan_gp import WassersteinGAN
from tests.captioners import captioner

SHARED: dict[str, Any] = {"batch_size": 2, "critic_updates": 1, "critic_warmup": 2}
OBJECTIVES = {
    "maximum_likelihood": (MaximumLikelihood, MaximumLikelihoodConfig(scheduled_sampling=0.5)),
    "wgan_gp": (WassersteinGAN, WassersteinGANConfig(**SHARED)),
    "policy_gradient": (PolicyGradient, PolicyGradientConfig(**SHARED)),
    "self_critical": (SelfCritical, SelfCriticalConfig(**SHARED | {"captions": 2})),
}
EPOCHS, STEPS = 3, 4
STOPPED = 6  # In the middle of the second epoch.


@pytest.fixture(autouse=True)
def _deterministic() -> Iterator[None]:
    tf.config.experimental.enable_op_determinism()
    yield
    framework.disable_op_determinism()


class Snapshot(keras.callbacks.Callback):
    """Copies the folder as it is after so many steps, as a failure of power would leave it."""

    def __init__(self, directory: Path, steps: int):
        super().__init__()
        self.directory = directory
        self.steps = steps

    def on_train_batch_end(self, batch, logs=None):
        self.steps -= 1
        if not self.steps:
            shutil.copytree(self.directory, self.directory.with_name("killed"))


class Stage:
    """A new process's view of a stage: new objects, then what the checkpoint holds."""

    def __init__(self, name: str, directory: Path, data: dict[str, tf.Tensor], seed: int):
        # A seed of its own, so that nothing agrees that is not restored.
        network = captioner(seed=seed)
        keras.utils.set_random_seed(1)
        objective, config = OBJECTIVES[name]
        rewards = {}
        if objective is SelfCritical:
            rewards["cider"] = CiderReward(data["token_ids"][..., 1:].numpy())
        self.model = objective.stage(network, config, EPOCHS * STEPS, 5, **rewards)
        average = network.copy()
        self.changing = [*average.weights]
        if critic_optimizer := getattr(self.model, "critic_optimizer", None):
            self.changing += critic_optimizer.variables
        self.health: list[tuple[int, float]] = []
        weights = [*self.model.weights, *self.model.optimizer.variables]
        self.monitor = CollapseMonitor(
            # It comes and goes, so that there is a way back.
            lambda: {"mbleu": float(self.model.optimizer.iterations.numpy() % 4 >= 2)},
            MonitorConfig(every=1, rollbacks=9),
            weights,
            lambda figures, step: self.health.append((step, figures["mbleu"])),
            pytest.fail,
        )
        self.changing += self.monitor.state
        self.continuation = Continuation(directory, self.model, self.changing, minutes=0)
        self.done = self.continuation.restore()
        shuffled = tf.data.Dataset.from_tensor_slices(data).shuffle(8, seed=3)
        self.batches = shuffled.batch(2, drop_remainder=True)
        self.validation = tf.data.Dataset.from_tensor_slices(data).batch(2).take(1)
        self.average = RunningAverage(network.weights, average.weights, 0.9)
        self.logs: dict[int, dict[str, float]] = {}

    def train(self, *callbacks: keras.callbacks.Callback) -> "Stage":
        keep = keras.callbacks.LambdaCallback(on_epoch_end=self.logs.__setitem__)
        every = [self.average, self.monitor, keep, self.continuation, *callbacks]
        train(self.model, self.batches, self.validation, EPOCHS, every, self.done)
        return self

    @property
    def state(self) -> list[np.ndarray]:
        variables = [*self.model.variables, *self.model.optimizer.variables, *self.changing]
        return [np.array(variable) for variable in variables]


def differing(one: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> int:
    return sum(a.tobytes() != b.tobytes() for a, b in zip(one, other, strict=True))


def stopped_and_not(name: str, path: Path, data: dict[str, tf.Tensor]) -> tuple[Stage, Stage]:
    """The stage as it ends, and continued from a copy of its folder in between."""
    whole = Stage(name, path / "whole", data, seed=0)
    whole.train(Snapshot(path / "whole", STOPPED))
    return whole, Stage(name, path / "killed", data, seed=9)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_continued_equals_uninterrupted(name, step_batch, tmp_path):
    whole, continued = stopped_and_not(name, tmp_path, step_batch)
    assert continued.done == Position(*divmod(STOPPED, STEPS))
    assert differing(whole.state, continued.state) > len(whole.model.weights) / 2
    continued.train()
    assert differing(whole.state, continued.state) == 0
    assert continued.logs == {epoch: whole.logs[epoch] for epoch in (1, 2)}
    assert continued.health == whole.health[STOPPED:]
    assert int(whole.monitor.rollbacks)
