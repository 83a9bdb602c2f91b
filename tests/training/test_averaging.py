"""The exponential moving average of weights."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from caption_gan.training.averaging import RunningAverage


class Counting(keras.layers.Layer):
    """A layer with one weight, whose gradient is always -1."""

    def build(self, _):
        self.count = self.add_weight(shape=(2,), initializer="zeros")
        # As CLIP of keras-hub has them; it stays as it is.
        self.add_weight(name="positions", shape=(2,), dtype="int64", trainable=False)

    def call(self, inputs):
        return inputs - self.count


def train(momentum: float, steps: int) -> tuple[keras.Model, np.ndarray]:
    """Returns a model whose weight is t after t steps, and the average of the weight."""
    model, copy = (keras.Sequential([keras.layers.Input((2,)), Counting()]) for _ in range(2))
    model.compile(optimizer=keras.optimizers.SGD(2.0), loss=lambda _, y: y)
    average = RunningAverage(model, copy, momentum)
    x = np.zeros((1, 2), np.float32)
    for done in range(steps):
        model.train_on_batch(x, x)
        average.update(tf.constant(done + 1.0))
    return model, copy.get_weights()[0]


def test_first_averages_are_short():
    """Computed by hand: momenta 2/11, 3/12, 4/13; the average starts at zero."""
    model, average = train(0.999, 3)
    np.testing.assert_allclose(model.get_weights()[0], 3)
    first = 9 / 11 * 1
    second = first * 3 / 12 + 9 / 12 * 2
    np.testing.assert_allclose(average, second * 4 / 13 + 9 / 13 * 3, rtol=1e-5)


def test_later_averages_have_the_given_momentum():
    """The average of a weight that grows by 1 per step lags behind by m / (1 - m)."""
    model, average = train(0.8, 120)
    np.testing.assert_allclose(model.get_weights()[0] - average, 4, rtol=1e-3)


def test_no_momentum_copies_the_weights():
    model, average = train(0.0, 5)
    np.testing.assert_array_equal(average, model.get_weights()[0])


def test_another_network_is_refused():
    model = keras.Sequential([keras.layers.Input((2,)), Counting()])
    other = keras.Sequential([keras.layers.Input((2,))])
    with pytest.raises(ValueError, match="shorter"):
        RunningAverage(model, other, 0.9)
