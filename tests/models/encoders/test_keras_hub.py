"""Encoders from presets of keras-hub: tokens, freezing, what a run keeps, and error messages."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from caption_gan.config.checks import check
from caption_gan.config.models import EncoderConfig
from caption_gan.config.run import Config
from caption_gan.errors import CaptionGANError
from caption_gan.models.encoders.encoder import build_encoder, restore_encoder, save_architecture

keras_hub = pytest.importorskip("keras_hub", reason="keras-hub is not installed (extra `hub`)")
models = keras_hub.models

SIZE, PATCH, DEPTH = 16, 8, 8
IMAGES = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3)).astype(np.float32)
SCALE, OFFSET = [0.01, 0.02, 0.03], [-1.0, -0.5, 0.5]
BLOCKS: dict[str, Any] = {"num_layers": 2, "num_heads": 2, "hidden_dim": DEPTH}
VISION: dict[str, Any] = {**BLOCKS, "intermediate_dim": 16, "patch_size": PATCH}
TEXT: dict[str, Any] = {
    **BLOCKS,
    "vocabulary_size": 9,
    "embedding_dim": DEPTH,
    "max_sequence_length": 4,
    "intermediate_dim": 16,
    "name": "text",
}
SQUARE = (SIZE, SIZE, 3)


def clip() -> keras.Model:
    return models.CLIPBackbone(
        models.CLIPVisionEncoder(**VISION, image_shape=SQUARE, name="vision"),
        models.CLIPTextEncoder(**TEXT),
        projection_dim=4,
    )


def siglip() -> keras.Model:
    return models.SigLIPBackbone(
        models.SigLIPVisionEncoder(**VISION, image_shape=SQUARE, name="vision"),
        models.SigLIPTextEncoder(**TEXT),
    )


def vit(image_shape: tuple[int, int, int] = SQUARE) -> keras.Model:
    return models.ViTBackbone(image_shape=image_shape, patch_size=PATCH, mlp_dim=16, **BLOCKS)


def dinov2() -> keras.Model:
    return models.DINOV2Backbone(
        **VISION, num_register_tokens=2, image_shape=SQUARE, position_embedding_shape=SQUARE
    )


def dinov3() -> keras.Model:
    return models.DINOV3Backbone(**VISION, num_register_tokens=4, image_shape=SQUARE)


def resnet() -> keras.Model:
    return models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64],
        stackwise_num_blocks=[1],
        stackwise_num_strides=[1],
        block_type="basic_block",
    )


# Name: what builds the backbone, tokens before those of patches, a layer between two blocks.
PRESETS: dict[str, tuple[Callable[[], keras.Model], int, str]] = {
    "clip": (clip, 1, "vision_encoder_block_0"),
    "siglip": (siglip, 0, "vision_encoder_block_0"),
    "vit": (vit, 1, "transformer_block_1"),
    "dinov2": (dinov2, 3, "layers_0"),
    "dinov3": (dinov3, 5, "layers_0"),
}
SECOND = ("vit", "dinov2", "dinov3")  # Run with --slow.


def save(backbone: keras.Model, folder: Path, image_size=(SIZE, SIZE)) -> Path:
    """A preset of random weights with its pre-processing."""
    rng = np.random.default_rng(1)
    for weight in backbone.weights:
        if weight.dtype == "float32":
            weight.assign(weight + rng.normal(0, 0.1, weight.shape))
    backbone.save_to_preset(folder)
    converter = keras_hub.layers.ImageConverter(
        image_size=image_size, scale=SCALE, offset=OFFSET, crop_to_aspect_ratio=True
    )
    converter.save_to_preset(folder)
    return folder


def config_of(folder: Path, **settings) -> EncoderConfig:
    return EncoderConfig(name="keras_hub", model=str(folder), **settings)


def tokens_of(backbone: keras.Model) -> np.ndarray:
    """Tokens [B, T, C] of `IMAGES` by keras-hub's own call of the backbone."""
    pixels = IMAGES * np.float32(SCALE) + np.float32(OFFSET)
    tower = getattr(backbone, "vision_encoder", backbone)
    if isinstance(tower, models.SigLIPVisionEncoder):
        tower = keras.Model(tower.inputs, tower.get_layer("vision_post_layer_norm").output)
    return np.array(tower({tower.inputs[0].name: pixels}))


@pytest.mark.parametrize(
    "name", ["clip", "siglip", *(pytest.param(name, marks=pytest.mark.slow) for name in SECOND)]
)
def test_patches_are_regions_with_the_class_token_appended(name, tmp_path):
    build, leading, layer = PRESETS[name]
    backbone = build()
    config = config_of(save(backbone, tmp_path / "preset"), trainable=True, frozen_up_to=layer)
    tokens = tokens_of(backbone)
    patches = tokens[:, leading:]
    expected = patches
    if leading:
        expected = np.concatenate([patches, np.repeat(tokens[:, :1], 4, axis=1)], axis=-1)

    encoder = build_encoder(config)
    assert (encoder.grid, encoder.regions_shape) == ((2, 2), expected.shape[1:])
    assert encoder.cached_shape == tokens.shape[1:]
    np.testing.assert_allclose(encoder(IMAGES).features, expected, rtol=1e-4, atol=1e-5)
    assert not [each.path for each in encoder.trainable_variables if "embedding" in each.path]
    assert 0 < len(encoder.trainable_variables) < len(encoder.weights)

    # A run is captioned without the preset.
    save_architecture(encoder, tmp_path)
    encoder.save_weights(tmp_path / "best.weights.h5")
    shutil.rmtree(tmp_path / "preset")
    restored = restore_encoder(tmp_path, config)
    restored.load_weights(tmp_path / "best.weights.h5")
    np.testing.assert_array_equal(restored(IMAGES).features, encoder(IMAGES).features)
    assert restored.cache_key == encoder.cache_key
    assert len(restored.trainable_variables) == len(encoder.trainable_variables)


def test_feature_maps_of_a_convolutional_backbone(tmp_path):
    backbone = resnet()
    folder = save(backbone, tmp_path, image_size=(8, 24))
    encoder = build_encoder(config_of(folder))
    assert (encoder.image_height, encoder.image_width) == (8, 24)
    images = np.tile(IMAGES[:, :8], (1, 1, 2, 1))[:, :, :24]
    expected = np.array(backbone(images * np.float32(SCALE) + np.float32(OFFSET)))
    assert (encoder.grid, encoder.regions_shape[1]) == (expected.shape[1:3], expected.shape[3])
    features = np.reshape(encoder(images).features, expected.shape)
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5)
    larger = build_encoder(config_of(folder, image_height=32, image_width=16))
    assert (larger.image_height, larger.image_width) == (32, 16)
    assert larger.cache_key != encoder.cache_key


def test_an_earlier_layer_and_another_image_size(tmp_path):
    folder = save(dinov2(), tmp_path)
    first = build_encoder(config_of(folder, feature_layer="layers_0"))
    last = build_encoder(config_of(folder))
    assert len(first.weights) < len(last.weights)
    # Positions are interpolated.
    larger = build_encoder(config_of(folder, image_height=32, image_width=32))
    assert larger.grid == (4, 4)
    digests = {encoder.cache_key["model"] for encoder in (first, last)}
    assert len(digests) == 1
    assert first.cache_key != last.cache_key


def test_rows_and_columns_of_patches(tmp_path):
    folder = save(vit((2 * SIZE, SIZE, 3)), tmp_path, image_size=(2 * SIZE, SIZE))
    assert build_encoder(config_of(folder)).grid == (4, 2)


def gpt2() -> keras.Model:
    return models.GPT2Backbone(
        vocabulary_size=9, max_sequence_length=4, intermediate_dim=16, **BLOCKS
    )


def break_weights(folder: Path) -> None:
    """Settings of a wider network than the weights are of."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["config"]["mlp_dim"] = 24
    path.write_text(json.dumps(config))


MISTAKES: dict[str, tuple[Callable[[Path], Any], dict[str, Any], str]] = {
    "no folder": (lambda folder: None, {}, "gives no Backbone: .*local folder with config.json"),
    "text": (lambda folder: save(gpt2(), folder), {}, "a GPT2Backbone, which takes .*no image"),
    "no weights": (
        lambda folder: (save(vit(), folder) / "model.weights.h5").unlink(),
        {},
        "gives no Backbone: .*model.weights.h5",
    ),
    "other weights": (
        lambda folder: break_weights(save(vit(), folder)),
        {},
        r"gives no Backbone: .*Dense.*\(8, 24\).*\(8, 16\)",
    ),
    "no pre-processing": (
        lambda folder: (save(vit(), folder) / "image_converter.json").unlink(),
        {},
        "gives no ImageConverter: .*image_converter.json",
    ),
    "another size": (
        lambda folder: save(clip(), folder),
        {"image_height": 32, "image_width": 32},
        "are 32 and 32, but .* takes 16 and 16; omit them",
    ),
    "half a size": (lambda folder: save(vit(), folder), {"image_width": 32}, "give both, or none"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_preset_that_cannot_be_used_is_refused_in_one_line(mistake, tmp_path):
    make, settings, words = MISTAKES[mistake]
    make(tmp_path / "preset")
    with pytest.raises(CaptionGANError, match=rf"^[^\n]*({words})[^\n]*$"):
        build_encoder(config_of(tmp_path / "preset", **settings))


def test_a_missing_package_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "keras_hub", None)
    with pytest.raises(CaptionGANError, match=r"pip install -e '\.\[hub\]'"):
        build_encoder(config_of(tmp_path))


def test_a_preset_must_be_named():
    with pytest.raises(CaptionGANError, match=r"encoder\.model is not set"):
        check(Config(encoder=EncoderConfig(name="keras_hub")))
