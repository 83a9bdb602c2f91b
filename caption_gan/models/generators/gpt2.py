"""GPT-2 as a generator: the image is a prefix of its captions, or its blocks attend to the regions.

B batch, K captions per image, M captions of all images (B K), T time, V vocabulary, R regions,
D region depth, H hidden (and size of embeddings), Z noise, P length of the prefix, N heads, S size
of a head (H / N).

The prefix consists of vectors that a small network makes of the mean of the regions (Mokady et al.,
"ClipCap", 2021). Its keys and values are computed once per image; the K captions share them. With
cross-attention there is no prefix (P = 0), and the blocks start as those of GPT-2 (see
`GatedTransformerBlock`). The noise z adds a vector to every token, which is zero before training.
"""

import functools
from typing import Literal, NamedTuple

import keras
import tensorflow as tf

from caption_gan.config.models import GeneratorConfig
from caption_gan.distribution import replicas
from caption_gan.models.encoders.encoder import Regions
from caption_gan.models.generators.attention import KeysValues, masked_mean
from caption_gan.models.generators.generator import Generator
from caption_gan.models.generators.lora import enable_lora
from caption_gan.models.generators.token_attention import TokenCache
from caption_gan.models.generators.transformer_blocks import (
    GatedTransformerBlock,
    Normalization,
    TokenBlock,
    read_token,
)
from caption_gan.models.rematerialization import rematerialized

ImageInput = Literal["prefix", "cross_attention"]


class GPT2Memory(NamedTuple):
    """What the generator keeps of an image."""

    prefix: tuple[TokenCache, ...]  # [B, N, P, S] each, of each block.
    keys_values: tuple[KeysValues | None, ...]  # Of each block; None without cross-attention.
    # The same for all images. Transposed once per batch: it costs as much as a step's product.
    output_weights: tf.Tensor  # [H, V]


class GPT2State(NamedTuple):
    """What the generator keeps of captions so far."""

    time: tf.Tensor  # [B, K], number of tokens so far, equal for all captions.
    condition: tf.Tensor  # [B, K, H], what is added to every token.
    caches: tuple[TokenCache, ...]  # [B, K, N, P + T, S] each, of each block.


@keras.saving.register_keras_serializable(package="caption_gan")
class GPT2Generator(Generator):
    """Predicts the next token with GPT-2 (Radford et al., 2019).

    Args:
        vocabulary_size: V.
        hidden_size: H.
        block_count: Number of blocks.
        attention_heads: Number of heads N of each attention; must divide `hidden_size`.
        feed_forward_factor: Width of the blocks' feed-forward layers as a multiple of H.
        positions: Longest sequence of prefix and tokens.
        image_input: `prefix` or `cross_attention`.
        prefix_length: P, if there is a prefix.
        noise_size: Z.
        dropout: Dropout rate of regions, inputs, the blocks' layers and output features.
        rematerialize: Whether the gradient of whole captions computes the blocks again instead of
            keeping what they computed.
        lora_rank: See `lora.enable_lora`; 0 leaves it out.
    """

    def __init__(
        self,
        vocabulary_size: int,
        hidden_size: int,
        block_count: int,
        attention_heads: int,
        feed_forward_factor: int,
        positions: int,
        image_input: ImageInput,
        prefix_length: int,
        noise_size: int,
        dropout: float,
        rematerialize: bool = False,
        lora_rank: int = 0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.vocabulary_size = vocabulary_size
        self.embedding_size = hidden_size
        self.hidden_size = hidden_size
        self.block_count = block_count
        self.attention_heads = attention_heads
        self.feed_forward_factor = feed_forward_factor
        self.positions = positions
        self.image_input = image_input
        self.prefix_length = prefix_length
        self.noise_size = noise_size
        self.dropout = dropout
        self.rematerialize = rematerialize
        self.lora_rank = lora_rank
        self.has_attention = image_input == "cross_attention"

        self.embedding = self.new_embedding()
        self.position_embedding = keras.layers.Embedding(
            positions, hidden_size, name="position_embedding"
        )
        self.region_norm = Normalization("layer", name="region_norm")
        # The sizes of Mokady et al. (2021).
        prefix_size = prefix_length * hidden_size
        self.prefix_hidden = keras.layers.Dense(
            prefix_size // 2, activation="tanh", name="prefix_hidden"
        )
        self.prefix_projection = keras.layers.Dense(prefix_size, name="prefix_projection")
        self.noise_projection = keras.layers.Dense(
            hidden_size, kernel_initializer="zeros", use_bias=False, name="noise_projection"
        )
        block = GatedTransformerBlock if self.has_attention else TokenBlock
        self.blocks = [
            block(
                hidden_size,
                attention_heads,
                feed_forward_factor * hidden_size,
                dropout,
                name=f"block_{index}",
            )
            for index in range(block_count)
        ]
        self.output_norm = Normalization("layer", name="output_norm")
        self.input_dropout = replicas.Dropout(dropout, name="input_dropout")
        self.region_dropout = replicas.Dropout(dropout, name="region_dropout")
        self.output_dropout = replicas.Dropout(dropout, name="output_dropout")

    @classmethod
    def from_settings(cls, config: GeneratorConfig, vocabulary_size: int) -> "GPT2Generator":
        """Creates the generator without its weights; see `build_generator`."""
        return cls(
            vocabulary_size,
            config.hidden_size,
            config.layers,
            config.attention_heads,
            config.feed_forward_factor,
            config.positions,
            config.image_input,
            config.prefix_length,
            config.noise_size,
            config.dropout,
            config.rematerialize,
            name="generator",
        )

    def build(self, regions_shape):
        """Builds every layer for regions of shape [B, R, D]."""
        self.regions_shape = tuple(regions_shape[1:])
        tokens = (None, None, self.hidden_size)
        self.embedding.build((None, None))
        self.position_embedding.build((None,))
        self.region_norm.build(regions_shape)
        if not self.has_attention:
            self.prefix_hidden.build((None, regions_shape[-1]))
            self.prefix_projection.build((None, self.prefix_hidden.units))
        self.noise_projection.build((None, None, self.noise_size))
        for block in self.blocks:
            block.build(tokens, regions_shape)
        self.output_norm.build(tokens)
        self.built = True
        if self.lora_rank:
            enable_lora(self, self.lora_rank)

    @property
    def lora_layers(self) -> list[keras.layers.Dense]:
        """The projections of GPT-2's own layers."""
        return [layer for block in self.blocks for layer in block.text_projections]

    @property
    def new_variables(self) -> list[keras.Variable]:
        """Variables that read image and noise, which GPT-2 does not have."""
        layers = [
            *(self.region_norm, self.prefix_hidden, self.prefix_projection),
            self.noise_projection,
            *(part for block in self.blocks for part in block.region_layers),
        ]
        gates = [block.region_gamma for block in self.blocks if self.has_attention]
        return [*(weight for layer in layers for weight in layer.weights), *gates]

    def encode(self, regions: Regions, training: bool = False) -> GPT2Memory:
        """Encodes regions [B, R, D] once for any number of captions and tokens."""
        features = self.region_dropout(self.region_norm(regions.features), training=training)
        output_weights = self.embedding.output_weights(features.dtype)
        size = self.hidden_size // self.attention_heads
        empty = tf.zeros([tf.shape(features)[0], self.attention_heads, 0, size], features.dtype)
        nothing = TokenCache(empty, empty)
        if self.has_attention:
            keys_values = tuple(
                block.region_attention.project(features, regions.mask) for block in self.blocks
            )
            return GPT2Memory((nothing,) * self.block_count, keys_values, output_weights)
        vectors = self.prefix(masked_mean(features, regions.mask))
        prefix = self.read_prefix(vectors, nothing, training)
        return GPT2Memory(prefix, (None,) * self.block_count, output_weights)

    def prefix(self, mean: tf.Tensor) -> tf.Tensor:
        """Vectors [B, P, H] from the mean [B, D] of the regions."""
        vectors = self.prefix_projection(self.prefix_hidden(mean))  # [B, P H]
        return tf.reshape(vectors, [-1, self.prefix_length, self.hidden_size])

    def read_prefix(
        self, vectors: tf.Tensor, nothing: TokenCache, training: bool = False
    ) -> tuple[TokenCache, ...]:
        """Keys and values [B, N, P, S] of each block from vectors [B, P, H]."""
        length = vectors.shape[1]
        hidden = self.input_dropout(vectors + self._positions(0, length), training=training)
        bias = _causal_bias(0, length, length)  # [1, P, P]
        prefix = []
        for block in self.blocks:
            hidden, _, read = block(hidden, None, bias, nothing, training=training)
            # The graph of an unknown number of images forgets the other sizes.
            shape = [None, self.attention_heads, length, self.hidden_size // self.attention_heads]
            prefix.append(TokenCache(*(tf.ensure_shape(part, shape) for part in read)))
        return tuple(prefix)

    def initial_state(self, memory: GPT2Memory, noise: tf.Tensor, length: int) -> GPT2State:
        """State before the first token: caches with the prefix; see `Generator`."""
        batch, captions = tf.unstack(tf.shape(noise)[:2])

        def room(part: tf.Tensor) -> tf.Tensor:
            """[B, N, P, S] to [B, K, N, P + T, S] with zeros for the tokens."""
            padded = tf.pad(part, [[0, 0], [0, 0], [0, length], [0, 0]])
            shape = [batch, captions, *padded.shape[1:]]
            return tf.broadcast_to(padded[:, None], shape)

        return GPT2State(
            tf.zeros([batch, captions], tf.int32),
            self.noise_projection(noise),
            tuple(TokenCache(*map(room, part)) for part in memory.prefix),
        )

    def predict_features(
        self, embeddings: tf.Tensor, memory: GPT2Memory, noise: tf.Tensor, training: bool = False
    ) -> tf.Tensor:
        """Reads captions [B, K, T, H] and predicts features of the same shape; see `Generator`."""
        batch, captions, time, _ = tf.unstack(tf.shape(embeddings))
        before, length = memory.prefix[0].keys.shape[2], embeddings.shape[2]
        condition = self.noise_projection(noise)[:, :, None]  # [B, K, 1, H]
        inputs = tf.cast(embeddings, condition.dtype) + condition
        inputs += self._positions(before, length)
        hidden = tf.reshape(inputs, [batch, captions * time, self.hidden_size])
        hidden = self.input_dropout(hidden, training=training)
        bias = _causal_bias(before, length, before + length)  # [1, T, P + T]
        for block, keys_values, prefix in zip(
            self.blocks, memory.keys_values, memory.prefix, strict=True
        ):
            of_captions = TokenCache(*(tf.repeat(part, captions, axis=0) for part in prefix))
            run = functools.partial(rematerialized, block) if self.rematerialize else block
            hidden, _, _ = run(hidden, keys_values, bias, of_captions, training=training)
        hidden = self.output_dropout(self.output_norm(hidden), training=training)
        return tf.reshape(hidden, tf.shape(embeddings))

    def decode_step_embedded(
        self, embeddings: tf.Tensor, state: GPT2State, memory: GPT2Memory
    ) -> tuple[tf.Tensor, GPT2State, tf.Tensor | None]:
        """Reads one token of each caption and scores the next; see `Generator`."""
        batch, captions, _ = tf.unstack(tf.shape(embeddings))
        place = memory.prefix[0].keys.shape[2]
        place += tf.maximum(tf.reduce_max(state.time), 0)  # Negative if there are no captions.
        bias = _causal_bias(place, 1, state.caches[0].keys.shape[3])  # [1, 1, P + T]
        hidden = tf.cast(embeddings, state.condition.dtype) + state.condition  # [B, K, H]
        hidden += self._positions(place, 1)
        hidden, caches, attention = read_token(
            self.blocks, hidden, memory.keys_values, bias, state.caches, place
        )
        features = tf.reshape(self.output_norm(hidden), [-1, self.hidden_size])  # [B K, H]
        logits = tf.cast(tf.matmul(features, memory.output_weights), self.variable_dtype)
        logits = tf.reshape(logits, [batch, captions, self.vocabulary_size])
        return logits, GPT2State(state.time + 1, state.condition, caches), attention

    def _positions(self, start: int | tf.Tensor, length: int) -> tf.Tensor:
        """Vectors [L, H] of positions."""
        return self.position_embedding(start + tf.range(length))

    def get_config(self):
        return {
            **super().get_config(),
            "vocabulary_size": self.vocabulary_size,
            "hidden_size": self.hidden_size,
            "block_count": self.block_count,
            "attention_heads": self.attention_heads,
            "feed_forward_factor": self.feed_forward_factor,
            "positions": self.positions,
            "image_input": self.image_input,
            "prefix_length": self.prefix_length,
            "noise_size": self.noise_size,
            "dropout": self.dropout,
            "rematerialize": self.rematerialize,
            "lora_rank": self.lora_rank,
        }


def _causal_bias(start: int | tf.Tensor, queries: int, keys: int) -> tf.Tensor:
    """[1, Q, L] with -inf where the query at `start` + q must not attend to the key at l."""
    later = tf.range(keys) > (start + tf.range(queries))[:, None]
    return tf.where(later, -float("inf"), 0.0)[None]
