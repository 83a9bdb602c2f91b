"""A Transformer decoder whose blocks attend to the image's regions.

B batch, K captions per image, M captions of all images (B K), T time, V vocabulary, R regions,
D region depth, H hidden, E embedding, Z noise, N heads, S size of a head (H / N).

With teacher forcing all tokens are read at once. Decoding reads one token at a time and keeps the
keys and values of those before it.

The noise z and the mean of the regions form a vector that is added to every token, so that neither
fades in long captions. Positions are relative: each block adds to its scores a number that depends
on the distance of two tokens, so that there is no longest caption.
"""

import functools
from typing import NamedTuple

import keras
import tensorflow as tf

from caption_gan.config.models import GeneratorConfig
from caption_gan.distribution import replicas
from caption_gan.models.encoders.encoder import Regions
from caption_gan.models.generators.attention import KeysValues, masked_mean
from caption_gan.models.generators.generator import Generator
from caption_gan.models.generators.lora import enable_lora
from caption_gan.models.generators.relative_positions import RelativePositionBias
from caption_gan.models.generators.token_attention import TokenCache
from caption_gan.models.generators.transformer_blocks import (
    Normalization,
    TransformerBlock,
    read_token,
)
from caption_gan.models.rematerialization import rematerialized


class TransformerMemory(NamedTuple):
    """What the generator keeps of an image."""

    keys_values: tuple[KeysValues, ...]  # Of each block.
    summary: tf.Tensor  # [B, H]
    # The same for all images. Transposed once per batch: it costs as much as a step's product.
    output_weights: tf.Tensor  # [E, V]


class TransformerState(NamedTuple):
    """What the generator keeps of captions so far."""

    time: tf.Tensor  # [B, K], number of tokens so far, equal for all captions.
    condition: tf.Tensor  # [B, K, H], what is added to every token.
    caches: tuple[TokenCache, ...]  # [B, K, N, T, S] each, of each block.


@keras.saving.register_keras_serializable(package="caption_gan")
class TransformerGenerator(Generator):
    """Predicts the next token with a Transformer decoder.

    The attention weights that it returns are means over blocks and heads.

    Args:
        vocabulary_size: V.
        embedding_size: E.
        hidden_size: H.
        block_count: Number of blocks.
        attention_heads: Number of heads of each attention; must divide `hidden_size`.
        feed_forward_factor: Width of the blocks' feed-forward layers as a multiple of H.
        noise_size: Z; noise is added to every token.
        dropout: Dropout rate of word embeddings, regions, the blocks' layers and output features.
        rematerialize: Whether the gradient of whole captions computes the blocks again instead of
            keeping what they computed.
        lora_rank: See `lora.enable_lora`; 0 leaves it out.
    """

    def __init__(
        self,
        vocabulary_size: int,
        embedding_size: int,
        hidden_size: int,
        block_count: int,
        attention_heads: int,
        feed_forward_factor: int,
        noise_size: int,
        dropout: float,
        rematerialize: bool = False,
        lora_rank: int = 0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.vocabulary_size = vocabulary_size
        self.embedding_size = embedding_size
        self.hidden_size = hidden_size
        self.block_count = block_count
        self.attention_heads = attention_heads
        self.feed_forward_factor = feed_forward_factor
        self.noise_size = noise_size
        self.dropout = dropout
        self.rematerialize = rematerialize
        self.lora_rank = lora_rank

        self.embedding = self.new_embedding()
        self.region_projection = keras.layers.Dense(hidden_size, name="region_projection")
        self.region_norm = Normalization("layer", name="region_norm")
        self.condition_projection = keras.layers.Dense(hidden_size, name="condition_projection")
        self.input_projection = keras.layers.Dense(hidden_size, name="input_projection")
        # One table for all blocks, as in T5.
        self.position_bias = RelativePositionBias(attention_heads, name="position_bias")
        self.blocks = [
            TransformerBlock(
                hidden_size,
                attention_heads,
                feed_forward_factor * hidden_size,
                dropout,
                name=f"block_{index}",
            )
            for index in range(block_count)
        ]
        self.output_norm = Normalization("layer", name="output_norm")
        self.output_projection = keras.layers.Dense(embedding_size, name="output_projection")
        self.input_dropout = replicas.Dropout(dropout, name="input_dropout")
        self.region_dropout = replicas.Dropout(dropout, name="region_dropout")
        self.output_dropout = replicas.Dropout(dropout, name="output_dropout")

    @classmethod
    def from_settings(cls, config: GeneratorConfig, vocabulary_size: int) -> "TransformerGenerator":
        """Creates the generator without its weights; see `build_generator`."""
        return cls(
            vocabulary_size,
            config.embedding_size,
            config.hidden_size,
            config.layers,
            config.attention_heads,
            config.feed_forward_factor,
            config.noise_size,
            config.dropout,
            config.rematerialize,
            name="generator",
        )

    def build(self, regions_shape):
        """Builds every layer for regions of shape [B, R, D]."""
        hidden = self.hidden_size
        self.regions_shape = tuple(regions_shape[1:])
        projected = (None, regions_shape[1], hidden)
        self.embedding.build((None, None))
        self.region_projection.build(regions_shape)
        self.region_norm.build(projected)
        self.condition_projection.build((None, None, hidden + self.noise_size))
        self.input_projection.build((None, None, self.embedding_size))
        self.position_bias.build()
        for block in self.blocks:
            block.build((None, None, hidden), projected)
        self.output_norm.build((None, None, hidden))
        self.output_projection.build((None, None, hidden))
        self.built = True
        if self.lora_rank:
            enable_lora(self, self.lora_rank)

    @property
    def lora_layers(self) -> list[keras.layers.Dense]:
        """All projections of the blocks."""
        return [layer for block in self.blocks for layer in block.projections]

    def encode(self, regions: Regions, training: bool = False) -> TransformerMemory:
        """Encodes regions [B, R, D] once for any number of captions and words."""
        features = self.region_norm(self.region_projection(regions.features))  # [B, R, H]
        features = self.region_dropout(features, training=training)
        return TransformerMemory(
            tuple(block.region_attention.project(features, regions.mask) for block in self.blocks),
            masked_mean(features, regions.mask),
            self.embedding.output_weights(features.dtype),
        )

    def initial_state(
        self, memory: TransformerMemory, noise: tf.Tensor, length: int
    ) -> TransformerState:
        """State before the first token: empty caches; see `Generator`."""
        condition = self._condition(memory, noise)
        captions = tf.shape(noise)[:2]
        size = self.hidden_size // self.attention_heads
        empty = tf.zeros(
            [*tf.unstack(captions), self.attention_heads, length, size], condition.dtype
        )
        return TransformerState(
            tf.zeros(captions, tf.int32),
            condition,
            tuple(TokenCache(empty, empty) for _ in self.blocks),
        )

    def predict_features(
        self,
        embeddings: tf.Tensor,
        memory: TransformerMemory,
        noise: tf.Tensor,
        training: bool = False,
    ) -> tf.Tensor:
        """Reads captions [B, K, T, E] and predicts features of the same shape; see `Generator`."""
        batch, captions, time, _ = tf.unstack(tf.shape(embeddings))
        tokens = tf.reshape(embeddings, [batch, captions * time, self.embedding_size])
        tokens = self._project_tokens(self.input_dropout(tokens, training=training))
        condition = tf.repeat(self._condition(memory, noise), time, axis=1)  # [B, K T, H]
        hidden = tokens + condition
        bias = self.position_bias(length=embeddings.shape[2])  # [N, T, T]
        for block, keys_values in zip(self.blocks, memory.keys_values, strict=True):
            run = functools.partial(rematerialized, block) if self.rematerialize else block
            hidden, _, _ = run(hidden, keys_values, bias, training=training)
        hidden = self.output_dropout(self.output_norm(hidden), training=training)
        return tf.reshape(self.output_projection(hidden), tf.shape(embeddings))

    def decode_step_embedded(
        self, embeddings: tf.Tensor, state: TransformerState, memory: TransformerMemory
    ) -> tuple[tf.Tensor, TransformerState, tf.Tensor]:
        """Reads one token of each caption and scores the next; see `Generator`."""
        batch, captions, _ = tf.unstack(tf.shape(embeddings))
        length = state.caches[0].keys.shape[3]
        time = tf.maximum(tf.reduce_max(state.time), 0)  # Negative if there are no captions.
        bias = self.position_bias(length=length, time=time)  # [N, 1, T]
        hidden = self._project_tokens(embeddings) + state.condition  # [B, K, H]
        hidden, caches, attention = read_token(
            self.blocks, hidden, memory.keys_values, bias, state.caches, time
        )
        features = self.output_projection(self.output_norm(hidden))  # [B, K, E]
        flat_features = tf.reshape(features, [-1, self.embedding_size])
        logits = tf.cast(tf.matmul(flat_features, memory.output_weights), self.variable_dtype)
        logits = tf.reshape(logits, [batch, captions, self.vocabulary_size])
        return logits, TransformerState(state.time + 1, state.condition, caches), attention

    def _condition(self, memory: TransformerMemory, noise: tf.Tensor) -> tf.Tensor:
        """What is added to every token of a caption, [B, K, H]."""
        summary = tf.repeat(memory.summary[:, None], tf.shape(noise)[1], axis=1)  # [B, K, H]
        inputs = tf.concat([summary, tf.cast(noise, summary.dtype)], axis=-1)  # [B, K, H + Z]
        return self.condition_projection(inputs)

    def _project_tokens(self, embeddings: tf.Tensor) -> tf.Tensor:
        """Word embeddings [B, L, E] to inputs [B, L, H] of the first block."""
        # Embeddings have length 1; without the factor, the condition would drown them.
        return self.input_projection(self.embedding_size**0.5 * embeddings)

    def get_config(self):
        return {
            **super().get_config(),
            "vocabulary_size": self.vocabulary_size,
            "embedding_size": self.embedding_size,
            "hidden_size": self.hidden_size,
            "block_count": self.block_count,
            "attention_heads": self.attention_heads,
            "feed_forward_factor": self.feed_forward_factor,
            "noise_size": self.noise_size,
            "dropout": self.dropout,
            "rematerialize": self.rematerialize,
            "lora_rank": self.lora_rank,
        }
