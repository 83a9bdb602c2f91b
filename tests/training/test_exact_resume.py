"""Continued training equals uninterrupted training, bit for bit.

B batch, K captions an image, T time.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import config as framework

from caption_gan.config.adversarial import PolicyGradientConfig, SelfCriticalConfig, WGANGPConfig
from caption_gan.config.objective_config import ObjectiveConfig
from caption_gan.config.objectives import MaximumLikelihoodConfig
from caption_gan.config.run import MonitorConfig
from caption_gan.config.self_play import SelfPlayConfig
from caption_gan.distribution import precision
from caption_gan.training.callbacks import Unfreeze
from caption_gan.training.checkpoints import TrainingCheckpoint
from caption_gan.training.collapse_monitor import CollapseMonitor
from caption_gan.training.loop import train
from tests.captioners import GENERATORS, Pretrained, captioner

SHARED: dict[str, Any] = {"batch_size": 2, "critic_updates": 1, "critic_warmup_steps": 1}
STAGES: dict[str, ObjectiveConfig] = {
    "maximum_likelihood": MaximumLikelihoodConfig(scheduled_sampling=0.5, ema_momentum=0.9),
    "wgan_gp": WGANGPConfig(**SHARED),
    "mixed_float16": WGANGPConfig(**SHARED),
    "transformer": WGANGPConfig(**SHARED),
    "transformer with LoRA": PolicyGradientConfig(**SHARED, lora_rank=2),
    "gpt2": WGANGPConfig(**SHARED),
    "policy_gradient": PolicyGradientConfig(**SHARED),
    "self_critical": SelfCriticalConfig(**SHARED | {"captions": 2}),
    # The opponent changes after the stop.
    "self_play": SelfPlayConfig(batch_size=2, opponent_steps=3),
}
STEPS, STOPPED = 4, 2


@pytest.fixture(autouse=True, scope="module")
def _deterministic() -> Iterator[None]:
    tf.config.experimental.enable_op_determinism()
    yield
    framework.disable_op_determinism()


class Snapshot(keras.callbacks.Callback):
    """Copies the folder after a number of steps, as a power failure would leave it."""

    def __init__(self, directory: Path, steps: int, name: str = "killed"):
        super().__init__()
        self.directory = directory
        self.steps = steps
        self.name = name

    def on_train_batch_end(self, batch, logs=None):
        self.steps -= 1
        if not self.steps:
            shutil.copytree(self.directory, self.directory.with_name(self.name))


class Stage:
    """A stage in a new process: new objects, restored from the checkpoint."""

    def __init__(self, name: str, directory: Path, data: dict[str, tf.Tensor], seed: int):
        # Another seed, so that variables that are not restored differ.
        kind = name if name in GENERATORS else "transformer" if "transformer" in name else "gru"
        network = captioner(seed=seed, kind=kind)
        keras.utils.set_random_seed(1)
        config = STAGES[name]
        references = {}
        if config.has_rewards:
            references["references"] = data["token_ids"][..., 1:].numpy()
        with precision.using(name if name == "mixed_float16" else "float32"):
            self.model = config.load_trainer().from_config(
                network.copy().with_lora(config.lora_rank), config, STEPS, 5, **references
            )
        self.model.run_eagerly = True  # Tracing would take longer than all steps.
        self.health: list[tuple[int, float]] = []
        self.monitor = CollapseMonitor(
            # Healthy until the stop; the rollback happens after it.
            lambda: {"mbleu": float(self.monitor.step >= STOPPED)},
            MonitorConfig(every_steps=1),
            # Without the average, which then shows what a rollback would hide.
            [*self.model.weights, *self.model.optimizer.variables],
            lambda figures, step: self.health.append((step, figures["mbleu"])),
            pytest.fail,
        )
        self.variables = self.model.checkpoint_variables
        self.variables["collapse_monitor"] = self.monitor.state
        self.checkpoint = TrainingCheckpoint(directory, self.variables, minutes=0)
        self.done = self.checkpoint.restore()
        shuffled = tf.data.Dataset.from_tensor_slices(data).shuffle(8, seed=3)
        self.batches = shuffled.batch(2, drop_remainder=True)
        self.validation = tf.data.Dataset.from_tensor_slices(data).batch(2).take(1)
        self.logs: dict[int, dict[str, float]] = {}

    def train(self, *callbacks: keras.callbacks.Callback) -> "Stage":
        keep = keras.callbacks.LambdaCallback(on_epoch_end=self.logs.__setitem__)
        every = [self.monitor, keep, self.checkpoint, *callbacks]
        train(self.model, self.batches, self.validation, 1, every, self.done)
        return self

    @property
    def state(self) -> list[np.ndarray]:
        groups = self.variables.items()
        return [
            np.array(variable)
            for name, variables in groups
            if name != "metrics"  # Reset at the end of an epoch.
            for variable in variables
        ]

    def agrees_with(self, whole: "Stage") -> bool:
        """Returns whether state and logs equal those of the uninterrupted stage."""
        pairs = zip(whole.state, self.state, strict=True)
        same = all(one.tobytes() == other.tobytes() for one, other in pairs)
        return same and self.logs == whole.logs and self.health == whole.health[STOPPED:]


def stopped(name: str, path: Path, data: dict[str, tf.Tensor]) -> Stage:
    """Trains the whole stage and leaves a copy of its folder from the middle of it."""
    return Stage(name, path / "whole", data, seed=0).train(Snapshot(path / "whole", STOPPED))


@pytest.fixture(scope="module")
def whole(step_batch, tmp_path_factory) -> tuple[Stage, Path]:
    """Returns an uninterrupted maximum-likelihood stage and the copied folder."""
    path = tmp_path_factory.mktemp("runs")
    return stopped("maximum_likelihood", path, step_batch), path / "killed"


@pytest.mark.parametrize(
    "name",
    [
        "wgan_gp",
        pytest.param("mixed_float16", marks=pytest.mark.slow),
        pytest.param("transformer", marks=pytest.mark.slow),
        pytest.param("transformer with LoRA", marks=pytest.mark.slow),
        pytest.param("gpt2", marks=pytest.mark.slow),
        pytest.param("policy_gradient", marks=pytest.mark.slow),
        pytest.param("self_critical", marks=pytest.mark.slow),
    ],
)
def test_continued_equals_uninterrupted(name, step_batch, tmp_path):
    expected = stopped(name, tmp_path, step_batch)
    continued = Stage(name, tmp_path / "killed", step_batch, seed=9)
    assert continued.done == (0, STOPPED)
    assert continued.train().agrees_with(expected)
    assert int(expected.monitor.rollbacks) == 1


def test_self_play_continues_against_the_same_opponent(step_batch, tmp_path):
    expected = stopped("self_play", tmp_path, step_batch)
    for lost in (False, True):
        shutil.copytree(tmp_path / "killed", tmp_path / f"killed {lost}")
        continued = Stage("self_play", tmp_path / f"killed {lost}", step_batch, seed=9)
        if lost:
            continued.model.opponent.set_weights(captioner(seed=9).get_weights())
        assert continued.train().agrees_with(expected) != lost


def test_a_run_continues_before_and_after_its_encoder_is_unfrozen(step_batch, tmp_path):
    config = MaximumLikelihoodConfig(epochs=2, encoder_frozen_epochs=1, ema_momentum=0.9)

    def train_whole(name: str, seed: int, *more: keras.callbacks.Callback) -> list[Any]:
        """The final state, and the encoder's weight after each epoch."""
        network = captioner(seed=seed, encoder=Pretrained)
        model = config.load_trainer().from_config(network, config, 2 * STEPS, 5)
        model.run_eagerly = True
        keras.utils.set_random_seed(1)
        batches = tf.data.Dataset.from_tensor_slices(step_batch).shuffle(8, seed=3).batch(2)
        groups = model.checkpoint_variables
        checkpoint = TrainingCheckpoint(tmp_path / name, groups, minutes=0)
        done = checkpoint.restore()
        scales: list[float] = []
        every = [
            Unfreeze(network.encoder.fine_tuned, 1),
            keras.callbacks.LambdaCallback(
                on_epoch_end=lambda epoch, logs: scales.append(float(network.encoder.scale))
            ),
            checkpoint,
        ]
        validation = tf.data.Dataset.from_tensor_slices(step_batch).batch(2).take(1)
        train(model, batches, validation, 2, [*every, *more], done)
        del groups["metrics"]  # Reset at the end of an epoch.
        return [*(np.array(each).tobytes() for group in groups.values() for each in group), *scales]

    stops = {"killed while frozen": STOPPED, "killed later": STEPS + STOPPED}
    snapshots = (Snapshot(tmp_path / "whole", steps, name) for name, steps in stops.items())
    *state, first, second = train_whole("whole", 0, *snapshots)
    assert first == 1.0 != second
    for name, steps in stops.items():
        continued = train_whole(name, 9)
        assert continued == [*state, *([first, second] if steps < STEPS else [second])]


def lose_nothing(stage: Stage) -> None:
    pass


def lose_weights(stage: Stage) -> None:
    weight = stage.model.captioner.generator.weights[0]
    weight.assign(captioner(seed=9).generator.weights[0])


def lose_slots(stage: Stage) -> None:
    for variable in stage.model.optimizer.variables[1:]:
        variable.assign(keras.ops.zeros_like(variable))


def lose_schedule(stage: Stage) -> None:
    stage.model.optimizer.iterations.assign(0)


def lose_random_states(stage: Stage) -> None:
    stage.model.captioner.generator.output_dropout.seed_generator.state.assign([0, 0])


def lose_average(stage: Stage) -> None:
    weight, average = stage.model.average.pairs[0]
    average.assign(weight)


def lose_means(stage: Stage) -> None:
    stage.model.reset_metrics()


def lose_monitor(stage: Stage) -> None:
    stage.monitor.unhealthy.assign(0)


def lose_place(stage: Stage) -> None:
    stage.batches = stage.batches.skip(0).shuffle(4, seed=1)


@pytest.mark.parametrize(
    "lose",
    [
        *(lose_nothing, lose_weights, lose_slots, lose_schedule, lose_random_states),
        *(lose_average, lose_means, lose_monitor, lose_place),
    ],
)
def test_each_part_of_a_checkpoint_is_needed(lose, whole, step_batch, tmp_path):
    expected, killed = whole
    shutil.copytree(killed, tmp_path / "killed")
    continued = Stage("maximum_likelihood", tmp_path / "killed", step_batch, seed=9)
    lose(continued)
    assert continued.train().agrees_with(expected) == (lose is lose_nothing)
