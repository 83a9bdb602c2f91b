"""The convolutional encoder: its regions, and what training changes."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from caption_gan.config.models import EncoderConfig
from caption_gan.models.encoders.convolutional import (
    ConvolutionalEncoder,
    SelfAttention,
    waves_over_grid,
)
from caption_gan.models.encoders.encoder import build_encoder


def images(count: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3)).astype(np.float32)


def batch_statistics(model: keras.Model) -> list[np.ndarray]:
    return [np.array(weight) for weight in model.weights if "moving" in weight.path]


@pytest.fixture(scope="module")
def convolutional() -> ConvolutionalEncoder:
    keras.utils.set_random_seed(0)
    encoder = ConvolutionalEncoder(40, 56, 4)
    encoder.build((None, 40, 56, 3))
    return encoder


@pytest.mark.parametrize(("height", "width"), [(33, 50), (8, 8), (40, 71)])
def test_regions_of_odd_sizes(height, width):
    encoder = ConvolutionalEncoder(height, width, 2)
    regions = encoder(images(2, height, width)).features
    rows, columns = encoder.grid
    assert regions.shape == (2, *encoder.regions_shape)
    assert rows * columns == encoder.regions_shape[0]
    # Cells are square; otherwise attention maps would be misplaced.
    assert abs(height / rows - width / columns) < 4


def test_regions_are_in_reading_order():
    """Attention maps rely on the order of `grid`, row by row."""
    keras.utils.set_random_seed(0)
    encoder = ConvolutionalEncoder(40, 56, 4)
    encoder.mixers = []  # Self-attention lets each region depend on all pixels.
    encoder.build((None, 40, 56, 3))
    rows, columns = encoder.grid
    pixels = tf.constant(images(1, 40, 56))

    def centre(row: int, column: int) -> np.ndarray:
        """Where the pixels are that this region depends on most: (y, x)."""
        with tf.GradientTape() as tape:
            tape.watch(pixels)
            score = tf.reduce_sum(encoder(pixels).features[0, row * columns + column] ** 2)
        weight = np.abs(np.array(tape.gradient(score, pixels))[0]).sum(axis=-1)  # [H, W]
        indices = np.indices(weight.shape)
        return (indices * weight).sum(axis=(1, 2)) / weight.sum()

    last_row, last_column = rows - 1, columns - 1
    top_left, top_right = centre(0, 0), centre(0, last_column)
    bottom_left, bottom_right = centre(last_row, 0), centre(last_row, last_column)
    assert max(top_left[0], top_right[0]) < 20 < min(bottom_left[0], bottom_right[0])
    assert max(top_left[1], bottom_left[1]) < 28 < min(top_right[1], bottom_right[1])


def test_training_flag_reaches_batch_normalisation(convolutional):
    batch = images(3, 40, 56)
    before = batch_statistics(convolutional)
    inference = np.array(convolutional(batch, training=False).features)
    assert before
    for old, new in zip(before, batch_statistics(convolutional), strict=True):
        np.testing.assert_array_equal(old, new)
    training = np.array(convolutional(batch, training=True).features)
    assert np.abs(training - inference).mean() > 0.01
    changed = [
        not np.array_equal(old, new)
        for old, new in zip(before, batch_statistics(convolutional), strict=True)
    ]
    assert all(changed)


def test_an_image_does_not_depend_on_its_neighbours(convolutional):
    batch = images(3, 40, 56)
    together = convolutional(batch, training=False).features
    alone = convolutional(batch[1:2], training=False).features
    np.testing.assert_allclose(alone[0], together[1], rtol=1e-4, atol=1e-4)


def test_convolutional_config_round_trip(convolutional):
    twin = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(convolutional))
    assert (twin.image_height, twin.image_width, twin.width) == (40, 56, 4)
    assert (twin.grid, twin.regions_shape) == (convolutional.grid, convolutional.regions_shape)
    if not twin.built:
        twin.build((None, 40, 56, 3))
    twin.set_weights(convolutional.get_weights())
    batch = images(1, 40, 56)
    np.testing.assert_array_equal(twin(batch).features, convolutional(batch).features)


def test_settings_choose_the_convolutional_encoder():
    encoder = build_encoder(EncoderConfig(image_height=16, image_width=24, width=2))
    assert isinstance(encoder, ConvolutionalEncoder)
    assert encoder.trainable_variables
    assert encoder(images(1, 16, 24)).features.shape == (1, *encoder.regions_shape)


def test_initial_positions_are_waves_down_and_across():
    rows, columns, depth = 3, 5, 8
    grid = waves_over_grid(rows, columns, depth).reshape(rows, columns, depth)
    down, across = np.split(grid, 2, axis=-1)
    np.testing.assert_array_equal(down, np.repeat(down[:, :1], columns, axis=1))
    np.testing.assert_array_equal(across, np.repeat(across[:1], rows, axis=0))
    # The first sine is a quarter of a wave, computed by hand; the last cosine changes sign from
    # each column to the next.
    np.testing.assert_allclose(across[0, :, 0], np.sin(np.pi / 2 * np.arange(5) / 4))
    np.testing.assert_allclose(across[0, :, -1], np.cos(2.5 * np.pi * np.arange(5) / 4))
    assert (np.diff(down[:, 0, 0]) > 0).all()
    flat = grid.reshape(-1, depth)
    assert len(np.unique(flat.round(6), axis=0)) == rows * columns


def test_self_attention_lets_every_region_see_every_other():
    mixer = SelfAttention(8, heads=2)
    mixer.build((None, 6, 8))
    regions = np.random.default_rng(0).normal(size=(1, 6, 8)).astype(np.float32)
    mixed = np.array(mixer(regions))
    order = [3, 0, 5, 1, 4, 2]
    np.testing.assert_allclose(mixer(regions[:, order]), mixed[:, order], rtol=1e-4, atol=1e-5)
    changed = regions.copy()
    changed[0, 5] *= -1  # Not an addition: normalisation would remove it.
    assert (np.abs(np.array(mixer(changed)) - mixed).max(axis=-1) > 1e-4).all()
