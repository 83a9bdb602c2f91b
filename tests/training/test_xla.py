"""Steps compiled by XLA equal those of TensorFlow."""

import numpy as np
import pytest
import tensorflow as tf

from tests.distribution.test_precision import OBJECTIVES, build, weights

ADVERSARIAL = [pytest.param(name, marks=pytest.mark.slow) for name in list(OBJECTIVES)[1:]]


def uniform(shape, seed, minval=0.0, maxval=1.0, **_) -> tf.Tensor:
    """Returns digits of sines: not very random, but equal with and without XLA."""
    first, second = tf.unstack(tf.cast(seed, tf.float64))
    place = tf.cast(tf.range(tf.reduce_prod(shape)), tf.float64)
    digits = 1e4 * tf.sin(12.9898 * place + 78.233 * first + 37.719 * second + 1.0)
    drawn = tf.cast(digits - tf.floor(digits), tf.float32)
    return tf.reshape(minval + (maxval - minval) * drawn, shape)


def normal(shape, seed, **_) -> tf.Tensor:
    return tf.math.ndtri(uniform(shape, seed, minval=1e-3, maxval=0.999))


def categorical(logits: tf.Tensor, _: int, seed: tf.Tensor) -> tf.Tensor:
    drawn = uniform(tf.shape(logits), seed, minval=1e-6)
    return tf.argmax(logits - tf.math.log(-tf.math.log(drawn)), axis=-1)[:, None]


@pytest.fixture
def same_numbers(monkeypatch):
    """Replaces TensorFlow's random numbers, which XLA generates differently."""
    for function in (uniform, normal, categorical):
        monkeypatch.setattr(tf.random, f"stateless_{function.__name__}", function)


@pytest.mark.parametrize("name", ["maximum_likelihood", *ADVERSARIAL])
def test_the_same_steps(name, step_batch, same_numbers):
    batch = step_batch | {"token_ids": step_batch["token_ids"][..., :6]}

    def trained(xla: bool) -> tuple[list[float], np.ndarray]:
        """Figures of the last step, and by how much each weight changed."""
        model = build(name, "float32", batch)
        start = weights(model)
        model.run_eagerly = False
        model.compiles_with_xla = xla
        model.make_train_function()
        iterator = iter(tf.data.Dataset.from_tensors(batch).repeat())
        for _ in range(2):
            figures = model.train_function(iterator)
        changes = [after - before for after, before in zip(weights(model), start, strict=True)]
        return [float(value) for value in figures.values()], np.concatenate(
            [np.ravel(change) for change in changes]
        )

    (expected, changes), (found, compiled_changes) = trained(False), trained(True)
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-5)
    # Adam changes a weight by its learning rate even if its gradient is only rounding error.
    assert np.mean(abs(compiled_changes - changes)) < 0.01 * np.mean(abs(changes))
