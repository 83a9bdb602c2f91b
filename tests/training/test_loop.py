"""The training loop does what Keras's does, from the first step on or from a later one."""

import contextlib
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from caption_gan.config.adversarial import WGANGPConfig
from caption_gan.config.objectives import MaximumLikelihoodConfig
from caption_gan.training.loop import Position, train
from caption_gan.training.objectives.trainer import Trainer
from tests.captioners import captioner

STEPS = 3


class Record(keras.callbacks.Callback):
    """Notes what is called, with what."""

    def __init__(self):
        super().__init__()
        self.calls: list[tuple[Any, ...]] = []

    def __getattribute__(self, name: str):
        if not name.startswith("on_"):
            return super().__getattribute__(name)
        return lambda *given, **named: self.calls.append((name, *given, *named.values()))


class Line(Trainer):
    """A trainer that Keras can fit too."""

    def __init__(self):
        super().__init__(captioner=None, config=None, steps=1, seed=0)
        self.dense = keras.layers.Dense(1)

    def build(self, input_shape):
        self.dense.build(input_shape)

    def call(self, x):
        return self.dense(x)

    def compile(self, **options):
        keras.Model.compile(self, **options)


@pytest.fixture
def trained() -> Any:
    """Calls a function with a new model, its batches and a record; returns the record's calls."""

    def call(function: Any) -> list[tuple[Any, ...]]:
        keras.utils.set_random_seed(0)
        model = Line()
        model.build((None, 2))
        model.compile(optimizer="sgd", loss="mse")
        x = np.arange(12, dtype=np.float32).reshape(6, 2) / 12
        record = Record()
        function(model, tf.data.Dataset.from_tensor_slices((x, x[:, :1])).batch(2), record)
        return record.calls

    return call


def test_as_keras_does(trained):
    ours = trained(
        lambda model, batches, record: train(model, batches, batches, 2, [record], Position())
    )
    theirs = trained(
        lambda model, batches, record: model.fit(
            batches, validation_data=batches, epochs=2, verbose=0, callbacks=[record], shuffle=False
        )
    )
    # The end of training, whose figures Keras repeats.
    assert [call[:2] for call in ours[:-1]] == [call[:2] for call in theirs[:-1]]
    ends = [
        [call[2] for call in calls if call[0] in ("on_epoch_end", "on_train_batch_end")]
        for calls in (ours, theirs)
    ]
    assert [list(logs) for logs in ends[0]] == [list(logs) for logs in ends[1]]
    for ours_now, theirs_now in zip(*ends, strict=True):
        assert ours_now == pytest.approx(theirs_now, rel=1e-6)


def test_from_a_later_step(trained):
    calls = trained(
        lambda model, batches, record: train(model, batches, batches, 2, [record], Position(1, 2))
    )
    names = [(call[0], call[1]) for call in calls if call[0].startswith("on_train_batch")]
    assert names == [("on_train_batch_begin", 2), ("on_train_batch_end", 2)]
    assert [call[1] for call in calls if call[0].startswith("on_epoch")] == [1, 1]


@pytest.mark.parametrize("fails", [False, True])
def test_the_graph_optimizer_is_off_in_training_steps_only(fails):
    seen = []

    class Step(Line):
        def train_step(self, batch):
            seen.append(optimizer_is_off())
            if fails:
                raise InterruptedError
            return {"loss": tf.reduce_sum(batch)}

    model = Step()
    model.compile(optimizer="sgd", loss="mse")
    model.make_train_function()
    with pytest.raises(InterruptedError) if fails else contextlib.nullcontext():
        model.train_function(iter(tf.data.Dataset.from_tensors(tf.ones([2]))))
    assert seen == [True]
    assert not optimizer_is_off()


def optimizer_is_off() -> bool:
    return tf.config.optimizer.get_experimental_options().get("disable_meta_optimizer", False)


OBJECTIVES = {
    "maximum_likelihood": MaximumLikelihoodConfig(scheduled_sampling=0.5, ema_momentum=0.9),
    # The generator's training begins within an execution.
    "wgan_gp": WGANGPConfig(batch_size=2, critic_updates=1, critic_warmup_steps=1),
}


@pytest.mark.parametrize(
    "name", ["maximum_likelihood", pytest.param("wgan_gp", marks=pytest.mark.slow)]
)
def test_several_steps_in_one_execution_are_those_steps(name, step_batch):
    config = OBJECTIVES[name]
    data = tf.data.Dataset.from_tensor_slices(step_batch).repeat().batch(2).take(5)

    def course(together: int, done: tuple[int, int] = (0, 0)) -> tuple[list[np.ndarray], list[Any]]:
        model = config.load_trainer().from_config(
            captioner(), config, 5, 5, steps_per_execution=together
        )
        record, logs = Record(), []
        figures = keras.callbacks.LambdaCallback(on_epoch_end=lambda _, now: logs.append(now))
        train(model, data, data.take(1), 1, [record, figures], Position(*done))
        state = [np.array(variable) for variable in [*model.weights, *model.kept_captioner.weights]]
        seen = [call[1] for call in record.calls if call[0].startswith("on_train_batch")]
        return state + [np.array(list(figures.values())) for figures in logs], seen

    expected, seen = course(1)
    assert seen == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    found, seen = course(3)
    assert seen == [0, 2, 3, 4]
    # TensorFlow adds up an adversarial step's sums in another order in a loop.
    tolerance = 0.0 if name == "maximum_likelihood" else 1e-4
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance / 100)
    _, seen = course(3, (0, 1))
    assert seen == [1, 2, 3, 4]
