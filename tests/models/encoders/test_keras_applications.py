"""Backbones of `keras.applications`: weights, frozen layers, and error messages."""

from pathlib import Path

import keras
import numpy as np
import pytest

from caption_gan.config.checks import check
from caption_gan.config.models import EncoderConfig
from caption_gan.config.run import Config
from caption_gan.errors import CaptionGANError
from caption_gan.models.encoders.encoder import build_encoder
from caption_gan.models.encoders.keras_applications import ApplicationsEncoder

SIZE = 32  # The smallest that MobileNetV2 takes.


def images(count: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3)).astype(np.float32)


def batch_statistics(model: keras.Model) -> list[np.ndarray]:
    return [np.array(weight) for weight in model.weights if "moving" in weight.path]


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
    regions = mobilenet(batch).features
    assert regions.shape == (2, *mobilenet.regions_shape)
    assert mobilenet.grid == expected.shape[1:3]
    np.testing.assert_allclose(regions, expected.reshape(regions.shape), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(mobilenet(batch.astype(np.uint8)).features, regions)


def test_fine_tuning_does_not_change_batch_statistics(mobilenet):
    batch = images(2, SIZE, SIZE)
    before = batch_statistics(mobilenet)
    assert before
    assert mobilenet.trainable_variables
    np.testing.assert_array_equal(
        mobilenet(batch, training=True).features, mobilenet(batch).features
    )
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
    np.testing.assert_array_equal(twin(batch).features, mobilenet(batch).features)


def test_layers_after_the_frozen_ones_are_fine_tuned(mobilenet, weights_file):
    config = EncoderConfig(
        name="keras_applications",
        backbone="MobileNetV2",
        image_height=SIZE,
        image_width=SIZE,
        weights=str(weights_file),
        trainable=True,
        frozen_up_to="block_12_add",
    )
    partly = build_encoder(config)
    batch = images(2, SIZE, SIZE)
    cached = partly.before_cache(batch)
    assert cached.shape[1:] == partly.cached_shape == (2 * 2, 96)
    np.testing.assert_allclose(
        partly(batch).features, mobilenet(batch).features, rtol=1e-4, atol=1e-5
    )
    np.testing.assert_array_equal(partly.after_cache(cached).features, partly(batch).features)
    trained = {variable.path.split("/")[0] for variable in partly.pretrained_variables}
    assert "block_13_expand" in trained and "Conv_1" in trained
    assert not {name for name in trained if name.startswith("block_12")}
    assert len(partly.weights) == len(mobilenet.weights)

    for variable in partly.pretrained_variables:
        variable.assign(variable + 0.01)
    np.testing.assert_array_equal(partly.before_cache(batch), cached)
    assert np.abs(partly(batch).features - mobilenet(batch).features).max() > 1e-3
    twin = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(partly))
    twin.set_weights(partly.get_weights())
    np.testing.assert_array_equal(twin(batch).features, partly(batch).features)
    assert len(twin.trainable_variables) == len(partly.trainable_variables)


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        ("block_99_add", "its layers are .*block_1_expand"),
        ("out_relu", "no layer before the last"),
        ("block_12_expand", "beside another path"),
    ],
)
def test_invalid_frozen_up_to_is_refused(layer, words):
    with pytest.raises(CaptionGANError, match=rf"^[^\n]*'{layer}'[^\n]*{words}[^\n]*$"):
        ApplicationsEncoder("MobileNetV2", SIZE, SIZE, frozen_up_to=layer)


def test_frozen_up_to_needs_fine_tuning():
    encoder = EncoderConfig(name="keras_applications", frozen_up_to="block_12_add")
    with pytest.raises(CaptionGANError, match=r"encoder\.trainable is false"):
        check(Config(encoder=encoder))


def test_an_unknown_backbone_is_refused_with_a_list():
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
def test_invalid_weights_are_refused(mistake, tmp_path):
    path = tmp_path / "mine.weights.h5"
    if mistake == "another network":
        other = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(2)])
        other.save_weights(path)
    elif mistake == "no weights file":
        path.write_text("<html>not found</html>")
    elif mistake == "a folder":
        path.mkdir()
    with pytest.raises(CaptionGANError) as caught:
        ApplicationsEncoder("MobileNetV2", SIZE, SIZE, pretrained=str(path))
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    assert "MobileNetV2" in message
    assert "include_top=False" in message


def test_too_small_images_are_refused():
    with pytest.raises(CaptionGANError, match="16x16") as caught:
        ApplicationsEncoder("MobileNetV2", 16, 16)
    assert "\n" not in str(caught.value)


def test_real_weights_tell_photographs_apart(real_data):
    files = sorted((real_data / "weights").glob("mobilenet_v2*no_top*"))
    if not files:
        pytest.skip("no weights of MobileNetV2 beside this checkout")
    encoder = ApplicationsEncoder("MobileNetV2", 64, 64, pretrained=str(files[0]))
    flat, noisy = np.full((64, 64, 3), 200, np.float32), images(1, 64, 64)[0]
    regions = np.array(encoder(np.stack([flat, noisy])).features)
    # Random weights would give features that hardly differ from image to image.
    assert np.abs(regions[0] - regions[1]).mean() > 0.1
    assert regions.min() >= 0
    assert regions.max() <= 6
