"""Saving of models: round trips through `get_config` and through `.keras` files.

B batch, K captions per image, T time, R regions, D region depth, Z noise.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from caption_gan.models.captioner import Captioner
from caption_gan.models.critics.next_token import NextTokenCritic
from caption_gan.models.encoders.convolutional import ConvolutionalEncoder, SelfAttention
from caption_gan.models.encoders.encoder import Regions
from caption_gan.models.encoders.keras_applications import ApplicationsEncoder
from caption_gan.models.encoders.precomputed import PrecomputedEncoder
from caption_gan.models.generators.attention import RegionAttention
from caption_gan.models.generators.generator import Generator
from caption_gan.models.generators.gru import GRUGenerator
from caption_gan.models.generators.gru_cell import GRUCell
from caption_gan.models.generators.relative_positions import RelativePositionBias
from caption_gan.models.generators.token_attention import TokenAttention
from caption_gan.models.generators.transformer import TransformerGenerator
from caption_gan.models.generators.transformer_blocks import Normalization, TransformerBlock
from caption_gan.text.embeddings import WordEmbedding
from tests.captioners import GENERATORS

SIZE = 32
RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.uniform(0, 255, (2, SIZE, SIZE, 3)).astype(np.float32)
FEATURES = RANDOM.normal(size=(2, 4, 5)).astype(np.float32)
TOKEN_IDS = RANDOM.integers(0, 9, (2, 3, 4)).astype(np.int32)
NOISE = RANDOM.normal(size=(2, 3, 2)).astype(np.float32)


def generator(depth: int = 5, regions: int = 4) -> GRUGenerator:
    model = GRUGenerator(9, 6, 8, 2, 2, 0.1)
    model.build((None, regions, depth))
    return model


def transformer() -> TransformerGenerator:
    model = TransformerGenerator(9, 6, 8, 2, 2, 3, 2, 0.1)
    model.build((None, 4, 5))
    return model


def gpt2(kind: str) -> Generator:
    model = GENERATORS[kind](
        vocabulary_size=9,
        embedding_size=8,
        hidden_size=8,
        attention_heads=2,
        noise_size=2,
        dropout=0.1,
    )
    model.build((None, 4, 5))
    return model


def encoder() -> ConvolutionalEncoder:
    model = ConvolutionalEncoder(SIZE, SIZE, 2)
    model.build((None, SIZE, SIZE, 3))
    return model


def critic_scores(critic: NextTokenCritic) -> tf.Tensor:
    return critic.score_tokens(tf.constant(TOKEN_IDS), critic.encode(Regions(FEATURES)))


def attended(layer: RegionAttention) -> tf.Tensor:
    return layer(FEATURES[..., :4], layer.project(FEATURES))[0]


def built(layer: keras.layers.Layer, *shapes: tuple) -> keras.layers.Layer:
    layer.build(*shapes)
    return layer


# Name: a function that builds the layer, one that computes outputs, and whether `.keras` files
# hold it.
CASES: dict[str, tuple[Callable[[], Any], Callable[[Any], tf.Tensor], bool]] = {
    "convolutional encoder": (encoder, lambda model: model(IMAGES).features, True),
    "keras.applications encoder": (
        lambda: ApplicationsEncoder("MobileNetV2", SIZE, SIZE, None, "block_12_add"),
        lambda model: model(IMAGES).features,
        True,
    ),
    "generator": (generator, lambda model: model(FEATURES, TOKEN_IDS, NOISE), True),
    "Transformer": (transformer, lambda model: model(FEATURES, TOKEN_IDS, NOISE), True),
    "GPT-2 behind a prefix": (
        lambda: gpt2("gpt2"),
        lambda model: model(FEATURES, TOKEN_IDS, NOISE),
        True,
    ),
    "GPT-2 with cross-attention": (
        lambda: gpt2("gpt2_cross_attention"),
        lambda model: model(FEATURES, TOKEN_IDS, NOISE),
        True,
    ),
    "captioner": (
        lambda: Captioner(encoder(), generator(depth=4, regions=16)),
        lambda model: model(IMAGES, TOKEN_IDS, NOISE),
        True,
    ),
    "critic": (lambda: NextTokenCritic(generator()), critic_scores, False),
    "critic with a Transformer": (lambda: NextTokenCritic(transformer()), critic_scores, False),
    "critic with GPT-2": (lambda: NextTokenCritic(gpt2("gpt2")), critic_scores, False),
    "word embedding": (
        lambda: built(WordEmbedding(9, 6)),
        lambda layer: layer.logits(layer(TOKEN_IDS)),
        False,
    ),
    "region attention": (
        lambda: built(RegionAttention(4, 2), (None, None, 4), (None, 4, 5)),
        attended,
        False,
    ),
    "region attention without biases": (
        lambda: built(RegionAttention(4, 2, False), (None, None, 4), (None, 4, 5)),
        attended,
        False,
    ),
    "token attention": (
        lambda: built(TokenAttention(4, 2, False), (None, None, 4)),
        lambda layer: layer(FEATURES[..., :4], tf.zeros([2, 4, 4]))[0],
        False,
    ),
    "position bias": (
        lambda: built(RelativePositionBias(2)),
        lambda layer: layer(length=4),
        False,
    ),
    "RMS norm": (
        lambda: built(Normalization("rms"), (None, None, 5)),
        lambda layer: layer(FEATURES),
        False,
    ),
    "Transformer block": (
        lambda: built(
            TransformerBlock(4, 2, 8, 0.1, "rms", False, True), (None, None, 4), (None, 4, 5)
        ),
        lambda layer: layer(
            FEATURES[..., :4], layer.region_attention.project(FEATURES), tf.zeros([2, 4, 4])
        )[0],
        False,
    ),
    "self-attention": (
        lambda: built(SelfAttention(5, 1), (None, 4, 5)),
        lambda layer: layer(FEATURES),
        False,
    ),
    "GRU cell": (
        lambda: built(GRUCell(3), (None, 5)),
        lambda layer: layer(FEATURES[:, 0], FEATURES[:, 1, :3])[0],
        False,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_config_and_file_give_equal_outputs(name, tmp_path):
    build, outputs, in_files = CASES[name]
    keras.utils.set_random_seed(1)
    original = build()
    expected = np.array(outputs(original))
    config = original.get_config()
    serialized = keras.saving.serialize_keras_object(original)
    rebuilt = keras.saving.deserialize_keras_object(serialized)
    assert rebuilt.get_config() == config
    if not rebuilt.built:
        outputs(rebuilt)
    rebuilt.set_weights(original.get_weights())
    np.testing.assert_array_equal(outputs(rebuilt), expected)
    if in_files:
        original.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        np.testing.assert_array_equal(outputs(loaded), expected)


def test_a_precomputed_encoder_is_rebuilt_from_its_config(tmp_path):
    np.save(tmp_path / "a.npy", FEATURES[0])
    original = PrecomputedEncoder(str(tmp_path))
    serialized = keras.saving.serialize_keras_object(original)
    rebuilt = keras.saving.deserialize_keras_object(serialized)
    assert rebuilt.get_config() == original.get_config()
    np.testing.assert_array_equal(rebuilt.read("a.png"), original.read("a.png"))
