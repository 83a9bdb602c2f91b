"""Encoders from `.keras` files: features, freezing, what a run keeps, and error messages."""

import dataclasses
import json
from pathlib import Path

import keras
import numpy as np
import pytest

from caption_gan.config.checks import check
from caption_gan.config.models import EncoderConfig
from caption_gan.config.run import Config
from caption_gan.distribution import precision
from caption_gan.errors import CaptionGANError
from caption_gan.models.captioner import Captioner
from caption_gan.models.encoders.encoder import (
    ARCHITECTURE_FILE,
    build_encoder,
    restore_encoder,
    save_architecture,
)
from caption_gan.models.generators.gru import GRUGenerator
from caption_gan.run import open_encoder

HEIGHT, WIDTH = 16, 24
IMAGES = np.random.default_rng(0).integers(0, 256, (2, HEIGHT, WIDTH, 3)).astype(np.float32)
SETTINGS = {"scale": 1 / 127.5, "offset": -1.0}


def network(height: int | None = HEIGHT, width: int | None = WIDTH, tail=None) -> keras.Model:
    """Convolutions with 4 x 4 pixels per region; `tail` maps their output to another one."""
    pixels = keras.Input((height, width, 3))
    cells = keras.layers.Conv2D(4, 4, 2, padding="same", name="stem")(pixels)
    cells = keras.layers.BatchNormalization(name="norm")(cells)
    cells = keras.layers.ReLU(name="middle")(cells)
    cells = keras.layers.Conv2D(5, 3, 2, padding="same", name="last")(cells)
    return keras.Model(pixels, tail(cells) if tail else cells, name="tiny")


def random_weights(model: keras.Model) -> keras.Model:
    rng = np.random.default_rng(1)
    model.set_weights([rng.uniform(0.1, 0.5, weight.shape) for weight in model.weights])
    return model


@pytest.fixture(scope="module")
def tiny() -> keras.Model:
    return random_weights(network())


@pytest.fixture(scope="module")
def file(tiny, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("networks") / "tiny.keras"
    tiny.save(path)
    return path


def config_of(path: Path, **settings) -> EncoderConfig:
    return EncoderConfig(name="keras_model", model=str(path), **{**SETTINGS, **settings})


def test_features_of_scaled_pixels(tiny, file):
    encoder = build_encoder(config_of(file))
    expected = np.array(tiny(IMAGES / 127.5 - 1))
    regions = encoder(IMAGES)
    assert regions.grid == encoder.grid == (4, 6)
    assert encoder.regions_shape == encoder.cached_shape == (24, 5)
    np.testing.assert_allclose(regions.features, expected.reshape(2, 24, 5), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(encoder(IMAGES.astype(np.uint8)).features, regions.features)
    assert encoder.trainable_variables == []


def test_features_without_rows_and_columns(tmp_path):
    model = random_weights(network(16, 16, keras.layers.Reshape((16, 5))))
    model.save(tmp_path / "tokens.keras")
    encoder = build_encoder(config_of(tmp_path / "tokens.keras"))
    images = IMAGES[:, :, :16]
    assert (encoder.regions_shape, encoder.grid) == ((16, 5), (4, 4))
    np.testing.assert_allclose(encoder(images).features, model(images / 127.5 - 1), rtol=1e-5)


def test_features_of_an_earlier_layer(tiny, file):
    encoder = build_encoder(config_of(file, feature_layer="middle"))
    assert (encoder.regions_shape, encoder.grid) == ((8 * 12, 4), (8, 12))
    middle = keras.Model(tiny.inputs[0], tiny.get_layer("middle").output)
    expected = np.array(middle(IMAGES / 127.5 - 1)).reshape(2, 96, 4)
    np.testing.assert_allclose(encoder(IMAGES).features, expected, rtol=1e-5, atol=1e-6)
    assert len(encoder.weights) == 6


def test_only_layers_after_the_frozen_ones_are_trained(file):
    whole = build_encoder(config_of(file, trainable=True))
    partly = build_encoder(config_of(file, trainable=True, frozen_up_to="middle"))
    assert whole.cached_shape is None and whole.cache_key == {}
    assert partly.cached_shape == (8 * 12, 4)
    assert {variable.path.split("/")[0] for variable in partly.pretrained_variables} == {"last"}
    assert len(whole.pretrained_variables) == 6
    np.testing.assert_array_equal(
        partly.after_cache(partly.before_cache(IMAGES)).features, whole(IMAGES).features
    )


def test_what_a_run_keeps_is_enough_without_the_file(file, tmp_path):
    path = tmp_path / "mine.keras"
    path.write_bytes(file.read_bytes())
    config = config_of(path, trainable=True, frozen_up_to="middle")
    original = build_encoder(config)
    original.weights[-1].assign_add([1, 2, 3, 4, 5])  # As if trained.
    save_architecture(original, tmp_path)
    original.save_weights(tmp_path / "best.weights.h5")
    path.unlink()
    restored = restore_encoder(tmp_path, config)
    assert not np.array_equal(restored(IMAGES).features, original(IMAGES).features)
    restored.load_weights(tmp_path / "best.weights.h5")
    np.testing.assert_array_equal(restored(IMAGES).features, original(IMAGES).features)
    assert restored.get_config() == original.get_config()
    assert restored.cache_key == original.cache_key
    assert len(restored.trainable_variables) == len(original.trainable_variables) == 2


def test_encoders_that_settings_rebuild_leave_no_file(tmp_path):
    config = EncoderConfig(width=2)
    save_architecture(build_encoder(config), tmp_path)
    assert not (tmp_path / ARCHITECTURE_FILE).exists()
    assert restore_encoder(tmp_path, config).image_height == 64


def test_a_copy_takes_the_precision_of_training(file):
    generator = GRUGenerator(9, 6, 8, 2, 2, 0.0)
    generator.build((None, 24, 5))
    captioner = Captioner(build_encoder(config_of(file)), generator)
    with precision.using("mixed_bfloat16"):
        copy = captioner.copy()
        features = copy.encoder(IMAGES).features
    assert features.dtype == "bfloat16"
    expected = captioner.encoder(IMAGES).features
    np.testing.assert_allclose(np.array(features, np.float32), expected, rtol=0.05, atol=0.05)


def test_the_cache_depends_on_the_file_and_on_what_is_read_from_it(tiny, file, tmp_path):
    keys = [
        build_encoder(config_of(file, **settings)).cache_key
        for settings in (
            {},
            {"offset": 0.0},
            {"feature_layer": "middle"},
            {"trainable": True, "frozen_up_to": "middle"},
        )
    ]
    other = keras.models.clone_model(tiny)
    other.save(tmp_path / "tiny.keras")
    keys.append(build_encoder(config_of(tmp_path / "tiny.keras")).cache_key)
    assert len({json.dumps(key) for key in keys}) == 5
    assert build_encoder(config_of(file)).cache_key == keys[0]


@pytest.mark.parametrize(
    ("own", "given", "taken"),
    [
        ((None, None), (None, None), (224, 224)),
        ((None, None), (32, 48), (32, 48)),
        ((16, None), (None, 24), (16, 24)),
        ((16, 24), (None, None), (16, 24)),
        ((16, 24), (16, 24), (16, 24)),
    ],
)
def test_images_have_the_size_of_the_input_or_of_the_settings(own, given, taken, tmp_path):
    network(*own).save(tmp_path / "tiny.keras")
    height, width = given
    settings = config_of(tmp_path / "tiny.keras", image_height=height, image_width=width)
    config, encoder = open_encoder(Config(encoder=settings))
    assert config.encoder == dataclasses.replace(
        settings, image_height=taken[0], image_width=taken[1]
    )
    assert encoder.grid == (-(-taken[0] // 4), -(-taken[1] // 4))


class Doubled(keras.layers.Layer):
    def call(self, inputs):
        return 2 * inputs


BAD_FILES = {
    "missing": (None, {}, "No such file"),
    "no archive": (b"<html>not found</html>", {}, "not a zip file"),
    "own layer": (lambda: network(tail=Doubled()), {}, "contains Doubled, .*code of your own"),
    "lambda": (
        lambda: network(tail=keras.layers.Lambda(lambda cells: 2 * cells)),
        {},
        "contains Lambda, .*without Lambda",
    ),
    "classifier": (
        lambda: network(tail=keras.layers.GlobalAveragePooling2D()),
        {},
        r"\(None, 5\); expected \[batch, rows, columns, depth\].*feature_layer",
    ),
    "no image": (
        lambda: keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]),
        {},
        r"inputs \[\(None, 4\)\]; expected .*one input \[batch, height, width, 3\]",
    ),
    "another size": (network, {"image_height": 32}, "image_height is 32, .*takes 16; omit"),
    "feature_layer": (network, {"feature_layer": "top"}, "'top' is no layer of tiny.*stem, norm"),
    "frozen_up_to": (
        network,
        {"frozen_up_to": "top", "trainable": True},
        "'top' is no layer before.*stem, norm",
    ),
}


@pytest.mark.parametrize("mistake", BAD_FILES)
def test_a_bad_file_is_refused_in_one_line(mistake, tmp_path):
    content, settings, words = BAD_FILES[mistake]
    path = tmp_path / "mine.keras"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        content().save(path)
    with pytest.raises(CaptionGANError, match=rf"^[^\n]*{words}[^\n]*$"):
        build_encoder(config_of(path, **settings))


def test_a_file_must_be_named():
    with pytest.raises(CaptionGANError, match=r"encoder\.model is not set"):
        check(Config(encoder=EncoderConfig(name="keras_model")))


@pytest.mark.slow
def test_real_network_tells_photographs_apart(real_data):
    path = real_data / "weights" / "efficientnet_lite2_no_top.keras"
    if not path.is_file():
        pytest.skip("no EfficientNet-Lite2 beside this checkout")
    encoder = build_encoder(
        EncoderConfig(name="keras_model", model=str(path), image_height=64, image_width=96)
    )
    assert (encoder.grid, encoder.regions_shape) == ((2, 3), (6, 1280))
    flat = np.full((64, 96, 3), 200, np.float32)
    noisy = np.random.default_rng(0).integers(0, 256, (64, 96, 3)).astype(np.float32)
    regions = np.array(encoder(np.stack([flat, noisy])).features)
    # Random weights would give features that hardly differ from image to image.
    assert np.abs(regions[0] - regions[1]).mean() > 0.05
    assert 0 <= regions.min() < regions.max() <= 6
