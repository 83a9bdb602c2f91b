"""Encoders: what regions are, what training changes, what a user's mistake is answered with."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from caption_gan.config import EncoderConfig
from caption_gan.errors import CaptionGANError
from caption_gan.models.encoder import ApplicationsEncoder, ConvolutionalEncoder, build_encoder

SIZE = 32  # The smallest that MobileNetV2 takes.


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


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory) -> Path:
    """Weights of a random MobileNetV2 whose batch statistics are not the initial ones."""
    keras.utils.set_random_seed(0)
    network = keras.applications.MobileNetV2(
        include_top=False, weights=None, input_shape=(SIZE, SIZE, 3)
    )
    rng = np.random.default_rng(0)
    for weight in network.weights:
        if "moving_mean" in weight.path:
            weight.assign(rng.normal(0, 0.1, weight.shape))
    path = tmp_path_factory.mktemp("weights") / "mobilenet.weights.h5"
    network.save_weights(path)
    return path


@pytest.fixture(scope="module")
def mobilenet(weights_file) -> ApplicationsEncoder:
    """A backbone from the file, fine-tuned."""
    return build_encoder(
        EncoderConfig(
            name="keras_applications",
            backbone="MobileNetV2",
            image_height=SIZE,
            image_width=SIZE,
            weights=str(weights_file),
            trainable=True,
        )
    )


@pytest.mark.parametrize(("height", "width"), [(33, 50), (8, 8), (40, 71)])
def test_regions_of_odd_sizes(height, width):
    encoder = ConvolutionalEncoder(height, width, 2)
    regions = encoder(images(2, height, width))
    rows, columns = encoder.grid
    assert regions.shape == (2, *encoder.regions_shape)
    assert rows * columns == encoder.regions_shape[0]
    # A cell of the grid is as high as it is wide, or attention would be drawn in the wrong place.
    assert abs(height / rows - width / columns) < 4


def test_regions_are_in_reading_order():
    """Attention is drawn over the image by `grid`, row by row."""
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
            score = tf.reduce_sum(encoder(pixels)[0, row * columns + column] ** 2)
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
    inference = np.array(convolutional(batch, training=False))
    assert before
    for old, new in zip(before, batch_statistics(convolutional), strict=True):
        np.testing.assert_array_equal(old, new)
    training = np.array(convolutional(batch, training=True))
    assert np.abs(training - inference).mean() > 0.01
    changed = [
        not np.array_equal(old, new)
        for old, new in zip(before, batch_statistics(convolutional), strict=True)
    ]
    assert all(changed)


def test_an_image_does_not_depend_on_its_neighbours(convolutional):
    batch = images(3, 40, 56)
    together = convolutional(batch, training=False)
    alone = convolutional(batch[1:2], training=False)
    np.testing.assert_allclose(alone[0], together[1], rtol=1e-4, atol=1e-4)


def test_convolutional_config_round_trip(convolutional):
    twin = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(convolutional))
    assert (twin.image_height, twin.image_width, twin.width) == (40, 56, 4)
    assert (twin.grid, twin.regions_shape) == (convolutional.grid, convolutional.regions_shape)
    if not twin.built:
        twin.build((None, 40, 56, 3))
    twin.set_weights(convolutional.get_weights())
    batch = images(1, 40, 56)
    np.testing.assert_array_equal(twin(batch), convolutional(batch))


def test_settings_choose_the_convolutional_encoder():
    encoder = build_encoder(EncoderConfig(image_height=16, image_width=24, width=2))
    assert isinstance(encoder, ConvolutionalEncoder)
    assert encoder.trainable_variables
    assert encoder(images(1, 16, 24)).shape == (1, *encoder.regions_shape)


def test_weights_from_a_file_and_the_backbones_own_preprocessing(mobilenet, weights_file):
    network = keras.applications.MobileNetV2(
        include_top=False, weights=None, input_shape=(SIZE, SIZE, 3)
    )
    network.load_weights(weights_file)
    batch = images(2, SIZE, SIZE)
    scaled = keras.applications.mobilenet_v2.preprocess_input(batch.copy())
    assert scaled.min() == -1
    assert scaled.max() == 1
    expected = np.array(network(scaled, training=False))
    regions = mobilenet(batch)
    assert regions.shape == (2, *mobilenet.regions_shape)
    assert mobilenet.grid == expected.shape[1:3]
    np.testing.assert_allclose(regions, expected.reshape(regions.shape), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(mobilenet(batch.astype(np.uint8)), regions)


def test_fine_tuning_leaves_batch_statistics_alone(mobilenet):
    batch = images(2, SIZE, SIZE)
    before = batch_statistics(mobilenet)
    assert before
    assert mobilenet.trainable_variables
    np.testing.assert_array_equal(mobilenet(batch, training=True), mobilenet(batch))
    for old, new in zip(before, batch_statistics(mobilenet), strict=True):
        np.testing.assert_array_equal(old, new)


def test_frozen_backbone_and_its_config_round_trip(mobilenet):
    config = EncoderConfig(
        name="keras_applications",
        backbone="MobileNetV2",
        image_height=SIZE,
        image_width=SIZE,
        weights="none",
    )
    frozen = build_encoder(config)
    assert frozen.trainable_variables == []
    assert frozen.weights
    twin = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(frozen))
    assert (twin.backbone, twin.image_height, twin.image_width) == ("MobileNetV2", SIZE, SIZE)
    assert twin.trainable_variables == []
    twin.set_weights(mobilenet.get_weights())
    batch = images(1, SIZE, SIZE)
    np.testing.assert_array_equal(twin(batch), mobilenet(batch))


def test_unknown_backbone_is_answered_with_the_known_ones():
    with pytest.raises(CaptionGANError) as caught:
        ApplicationsEncoder("MobileNet9", SIZE, SIZE)
    message = str(caught.value)
    assert "\n" not in message
    assert "'MobileNet9'" in message
    for name in ("MobileNetV2", "ResNet50", "EfficientNetV2B0", "ConvNeXtTiny", "DenseNet121"):
        assert name in message
    assert "imagenet_utils" not in message


# Keras warns of every layer that it finds no weights for before it gives up.
@pytest.mark.filterwarnings("ignore:Skipping nested container")
@pytest.mark.parametrize("mistake", ["missing", "another network", "no weights file", "a folder"])
def test_weights_that_cannot_be_loaded(mistake, tmp_path):
    path = tmp_path / "mine.weights.h5"
    if mistake == "another network":
        other = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(2)])
        other.save_weights(path)
    elif mistake == "no weights file":
        path.write_text("<html>not found</html>")
    elif mistake == "a folder":
        path.mkdir()
    with pytest.raises(CaptionGANError) as caught:
        ApplicationsEncoder("MobileNetV2", SIZE, SIZE, weights=str(path))
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    assert "MobileNetV2" in message
    assert "include_top=False" in message


def test_image_too_small_for_the_backbone():
    with pytest.raises(CaptionGANError, match="16x16") as caught:
        ApplicationsEncoder("MobileNetV2", 16, 16)
    assert "\n" not in str(caught.value)


def test_real_weights_tell_photographs_apart(real_data):
    files = sorted((real_data / "weights").glob("mobilenet_v2*no_top*"))
    if not files:
        pytest.skip("no weights of MobileNetV2 beside this checkout")
    encoder = ApplicationsEncoder("MobileNetV2", 64, 64, weights=str(files[0]))
    flat, noisy = np.full((64, 64, 3), 200, np.float32), images(1, 64, 64)[0]
    regions = np.array(encoder(np.stack([flat, noisy])))
    # Random weights would give features that hardly differ from image to image.
    assert np.abs(regions[0] - regions[1]).mean() > 0.1
    assert regions.min() >= 0
    assert regions.max() <= 6
