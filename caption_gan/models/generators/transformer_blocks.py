"""Blocks of Transformer decoders: self-attention, attention to regions, feed-forward layers.

B batch, K captions per image, M captions of all images (B K), T time, R regions, H hidden,
F feed-forward width, N heads, S size of a head (H / N).

Each layer normalises its input and adds its output to it (pre-norm; Xiong et al., 2020). The
arguments of a block cover GPT-2 (LayerNorm, biases) and T5 1.1 (RMS norm, no biases, gated
feed-forward layer).

A block reads whole captions, or one token of each with a cache of the keys and values of the
tokens before it. The `score_bias`, which is added to the scores of the self-attention, says which
tokens a token attends to and may depend on their distance.
"""

from typing import Literal, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from caption_gan.distribution import replicas
from caption_gan.models.generators.attention import (
    KeysValues,
    RegionAttention,
    attend,
    check_heads,
    merge_heads,
    split_heads,
)

# Those of T5 (Raffel et al., 2020): distances up to 15 have a bucket each, longer ones share 16.
BUCKETS = 32
LONGEST_DISTANCE = 128


class TokenCache(NamedTuple):
    """Keys and values of the tokens so far; places of later tokens are zero.

    T is the length of the longest caption: a loop in the graph requires constant shapes.
    """

    keys: tf.Tensor  # [M, N, T, S]
    values: tf.Tensor  # [M, N, T, S]

    def write(self, keys: tf.Tensor, values: tf.Tensor, time: tf.Tensor) -> "TokenCache":
        """Stores keys and values [M, N, 1, S] of the token at a time."""
        here = (tf.range(self.keys.shape[2]) == time)[:, None]  # [T, 1]
        return TokenCache(tf.where(here, keys, self.keys), tf.where(here, values, self.values))


@keras.saving.register_keras_serializable(package="caption_gan")
class RelativePositionBias(keras.layers.Layer):
    """Scores of each distance between two tokens, for each head (Raffel et al., 2020).

    Later tokens get -inf. There is no longest caption, unlike with learnt positions.

    Args:
        heads: N.
    """

    def __init__(self, heads: int, **kwargs):
        super().__init__(**kwargs)
        self.heads = heads

    def build(self, input_shape=None):
        # The optimizers know lookup tables by this name.
        self.relative_positions = self.add_weight(
            name="relative_positions",
            shape=(BUCKETS, self.heads),
            initializer=keras.initializers.RandomNormal(stddev=0.1),
        )
        self.built = True

    def call(self, length: int, time: tf.Tensor | None = None) -> tf.Tensor:
        """Returns what is added to scores: [N, T, T], queries first, or one row [N, 1, T] of it.

        Args:
            length: T.
            time: Of the row, a scalar.
        """
        distances = np.arange(length)[:, None] - np.arange(length)  # [T, T]
        buckets = tf.constant(distance_buckets(np.maximum(distances, 0)))
        is_later = tf.constant(distances < 0)
        if time is not None:
            buckets, is_later = buckets[time][None], is_later[time][None]  # [1, T]
        scores = tf.gather(tf.convert_to_tensor(self.relative_positions), buckets)  # [T, T, N]
        scores = tf.transpose(scores, [2, 0, 1])  # [N, T, T]
        return tf.where(is_later, tf.constant(-np.inf, scores.dtype), scores)

    def get_config(self):
        return {**super().get_config(), "heads": self.heads}


def distance_buckets(distances: np.ndarray) -> np.ndarray:
    """Buckets of distances from 0: half hold one distance each, the others grow exponentially."""
    exact = BUCKETS // 2
    ratio = np.log(np.maximum(distances, 1) / exact) / np.log(LONGEST_DISTANCE / exact)
    shared = np.minimum(exact + (ratio * (BUCKETS - exact)).astype(int), BUCKETS - 1)
    return np.where(distances < exact, distances, shared)


@keras.saving.register_keras_serializable(package="caption_gan")
class TokenAttention(keras.layers.Layer):
    """Multi-head self-attention over the tokens of a caption.

    Args:
        hidden_size: H.
        heads: N; must divide `hidden_size`.
        use_bias: Whether the projections have biases.
    """

    def __init__(self, hidden_size: int, heads: int, use_bias: bool, **kwargs):
        super().__init__(**kwargs)
        check_heads(heads, hidden_size)
        self.hidden_size = hidden_size
        self.heads = heads
        self.use_bias = use_bias
        # Queries, keys and values in one product.
        self.input_projection, self.output_projection = (
            keras.layers.Dense(size, use_bias=use_bias, name=name)
            for name, size in (("input", 3 * hidden_size), ("output", hidden_size))
        )

    def build(self, input_shape):
        self.input_projection.build(input_shape)
        self.output_projection.build(input_shape)
        self.built = True

    def call(
        self,
        inputs: tf.Tensor,
        score_bias: tf.Tensor,
        cache: TokenCache | None = None,
        time: tf.Tensor | None = None,
    ) -> tuple[tf.Tensor, TokenCache | None]:
        """Returns outputs [B, K T, H] and the cache with the token; see `TransformerBlock`."""
        projected = self.input_projection(inputs)  # [B, K T, 3 H]
        by_caption = [-1, score_bias.shape[1], 3 * self.hidden_size]
        queries, keys, values = (
            split_heads(part, self.heads)  # [M, N, T, S]
            for part in tf.split(tf.reshape(projected, by_caption), 3, axis=-1)
        )
        if cache is not None:
            cache = cache.write(keys, values, time)
            keys, values = cache
        context, _ = attend(queries, keys, values, score_bias)
        context = tf.reshape(merge_heads(context), tf.shape(inputs))  # [B, K T, H]
        return self.output_projection(context), cache

    def get_config(self):
        return {
            **super().get_config(),
            "hidden_size": self.hidden_size,
            "heads": self.heads,
            "use_bias": self.use_bias,
        }


@keras.saving.register_keras_serializable(package="caption_gan")
class Normalization(keras.layers.Layer):
    """LayerNorm, or RMS norm, which neither centres nor shifts (Zhang & Sennrich, 2019).

    Not Keras's LayerNorm: with TensorFlow, its variance takes the mean for a constant. The first
    derivative is right nevertheless, the second, which gradient penalties need, is wrong.

    Args:
        kind: `layer` or `rms`.
    """

    def __init__(self, kind: Literal["layer", "rms"], **kwargs):
        super().__init__(autocast=False, **kwargs)  # Full precision; see `precision`.
        self.kind = kind
        self.epsilon = 1e-5 if kind == "layer" else 1e-6  # Those of GPT-2 and of T5.

    def build(self, input_shape):
        shape = input_shape[-1:]
        # Keras would cast them where no other layer calls this one.
        self.gamma = self.add_weight(name="gamma", shape=shape, initializer="ones", autocast=False)
        if self.kind == "layer":
            self.beta = self.add_weight(
                name="beta", shape=shape, initializer="zeros", autocast=False
            )
        self.built = True

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Inputs [..., H] to outputs of the same shape."""
        exact = tf.cast(inputs, self.variable_dtype)
        if self.kind == "layer":
            exact -= tf.reduce_mean(exact, axis=-1, keepdims=True)
        power = tf.reduce_mean(exact**2, axis=-1, keepdims=True)
        exact *= tf.math.rsqrt(power + self.epsilon) * self.gamma
        return tf.cast(exact + self.beta if self.kind == "layer" else exact, self.compute_dtype)

    def get_config(self):
        return {**super().get_config(), "kind": self.kind}


@keras.saving.register_keras_serializable(package="caption_gan")
class TransformerBlock(keras.layers.Layer):
    """Self-attention over the caption, attention to the image's regions, and a feed-forward layer.

    Args:
        hidden_size: H.
        heads: N, of both attentions; must divide `hidden_size`.
        feed_forward_size: F.
        dropout: Dropout rate of the outputs of the three layers.
        normalization: `layer` or `rms`; see `Normalization`.
        use_bias: Whether projections have biases.
        gated: Whether a second product multiplies the feed-forward activations (Shazeer, 2020).
    """

    def __init__(
        self,
        hidden_size: int,
        heads: int,
        feed_forward_size: int,
        dropout: float,
        normalization: Literal["layer", "rms"] = "layer",
        use_bias: bool = True,
        gated: bool = False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.hidden_size = hidden_size
        self.heads = heads
        self.feed_forward_size = feed_forward_size
        self.dropout = dropout
        self.normalization = normalization
        self.use_bias = use_bias
        self.gated = gated
        self.token_norm, self.region_norm, self.feed_forward_norm = (
            Normalization(normalization, name=f"{layer}_norm")
            for layer in ("token", "region", "feed_forward")
        )
        self.token_attention = TokenAttention(hidden_size, heads, use_bias, name="tokens")
        self.region_attention = RegionAttention(hidden_size, heads, use_bias, name="regions")
        self.region_output, self.contraction = (
            keras.layers.Dense(hidden_size, use_bias=use_bias, name=name)
            for name in ("region_output", "contraction")
        )
        self.expansion, self.gate = (
            keras.layers.Dense(feed_forward_size, use_bias=use_bias, name=name)
            for name in ("expansion", "gate")
        )
        self.output_dropout = replicas.Dropout(dropout, name="output_dropout")

    def build(self, input_shape, regions_shape):
        """Builds the layers for inputs [B, K T, H] and regions [B, R, D]."""
        for norm in (self.token_norm, self.region_norm, self.feed_forward_norm):
            norm.build(input_shape)
        self.token_attention.build(input_shape)
        self.region_attention.build(input_shape, regions_shape)
        self.region_output.build(input_shape)
        self.expansion.build(input_shape)
        if self.gated:
            self.gate.build(input_shape)
        self.contraction.build((None, None, self.feed_forward_size))
        self.built = True

    @property
    def projections(self) -> list[keras.layers.Dense]:
        """The layers with weight matrices."""
        seen, tokens = self.region_attention, self.token_attention
        return [
            *(tokens.input_projection, tokens.output_projection),
            *(seen.query_projection, seen.key_projection, seen.value_projection),
            *(self.region_output, self.expansion, self.contraction),
            *([self.gate] if self.gated else []),
        ]

    def call(
        self,
        inputs: tf.Tensor,
        keys_values: KeysValues,
        score_bias: tf.Tensor,
        cache: TokenCache | None = None,
        time: tf.Tensor | None = None,
        training: bool = False,
    ) -> tuple[tf.Tensor, tf.Tensor, TokenCache | None]:
        """Reads whole captions or, with a cache, one token of each.

        Args:
            inputs: [B, K T, H]; the tokens of a caption follow each other. With a cache, [B, K, H].
            keys_values: Of the regions, by `region_attention.project`.
            score_bias: Added to the scores of the self-attention: [N, T, T], queries first, or
                [N, 1, T] with a cache. It is -inf where a token must not attend.
            cache: Of the tokens before.
            time: Of the token that is read, a scalar, if there is a cache.
            training: Whether dropout is active.

        Returns:
            Outputs of the shape of the inputs, attention weights [B, K T, R], and the cache with
            the token that was read.
        """
        said, cache = self.token_attention(self.token_norm(inputs), score_bias, cache, time)
        hidden = inputs + self.output_dropout(said, training=training)  # [B, K T, H]
        seen, weights = self.region_attention(self.region_norm(hidden), keys_values)
        hidden += self.output_dropout(self.region_output(seen), training=training)
        normalized = self.feed_forward_norm(hidden)
        # The approximation by tanh, with which GPT-2 and T5 1.1 were trained.
        expanded = tf.nn.gelu(self.expansion(normalized), approximate=True)  # [B, K T, F]
        if self.gated:
            expanded *= self.gate(normalized)
        hidden += self.output_dropout(self.contraction(expanded), training=training)
        return hidden, weights, cache

    def get_config(self):
        return {
            **super().get_config(),
            "hidden_size": self.hidden_size,
            "heads": self.heads,
            "feed_forward_size": self.feed_forward_size,
            "dropout": self.dropout,
            "normalization": self.normalization,
            "use_bias": self.use_bias,
            "gated": self.gated,
        }
