"""Weights in fewer bytes: what is rounded, how, and what a model reads."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from caption_gan.exporting.small_weights import SmallWeight, SmallWeights


def test_int8_has_a_scale_for_each_channel():
    weight = SmallWeight(np.array([[127, 0, -2], [-50.4, 0, 1]], np.float32), "int8")
    assert weight.stored.dtype == tf.int8
    # The longest axis has three channels, whose largest are 127, nothing and 2.
    np.testing.assert_array_equal(weight.stored, [[127, 0, -127], [-50, 0, 64]])
    np.testing.assert_allclose(weight.scale, [[1, 1, 2 / 127]])
    np.testing.assert_allclose(weight.read(), [[127, 0, -2], [-50, 0, 128 / 127]], rtol=1e-6)
    assert weight.size() == 6 + 3 * 4


@pytest.mark.parametrize(
    ("shape", "scales"),
    [((9, 4), (9, 1)), ((4, 9), (1, 9)), ((4, 4), (1, 4)), ((3, 3, 8, 1), (1, 1, 8, 1))],
)
def test_the_longest_axis_has_the_channels(shape, scales):
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    weight = SmallWeight(values, "int8")
    assert weight.scale.shape == scales
    half = 0.5001 * np.array(weight.scale)
    assert (np.abs(np.array(weight.read()) - values) <= half).all()


def test_float16_is_rounded_to_eleven_bits():
    weight = SmallWeight(np.array([[1 + 2**-10, 1 + 2**-12]], np.float32), "float16")
    assert weight.size() == 4
    np.testing.assert_array_equal(weight.read(), [[1 + 2**-10, 1]])


def test_a_model_reads_what_is_stored():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.layers.Input([3]), keras.layers.Dense(4)])
    bias = np.array([0.1, 0.2, 0.3, 0.4], np.float32)
    model.layers[0].bias.assign(bias)
    exact = model.layers[0].kernel.numpy()
    small = SmallWeights(model, "int8")
    # Vectors are not rounded; of the kernel the model's own is, too.
    np.testing.assert_array_equal(model.layers[0].bias, bias)
    assert not np.array_equal(model.layers[0].kernel, exact)
    inputs = tf.ones([2, 3])
    rounded = np.array(model(inputs))
    model.layers[0].kernel.assign(exact)
    with small.reading():
        stored = np.array(model(inputs))
    np.testing.assert_array_equal(stored, rounded)
    assert not np.array_equal(model(inputs), rounded)
