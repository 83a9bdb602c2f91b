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

from collections.abc import Sequence
from typing import Literal

import keras
import tensorflow as tf

from caption_gan.distribution import replicas
from caption_gan.models.generators.attention import KeysValues, RegionAttention
from caption_gan.models.generators.token_attention import TokenAttention, TokenCache


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
class TokenBlock(keras.layers.Layer):
    """Self-attention over the caption and a feed-forward layer, a block of GPT-2.

    Args:
        hidden_size: H.
        heads: N, of each attention; must divide `hidden_size`.
        feed_forward_size: F.
        dropout: Dropout rate of the outputs of the layers.
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
        self.token_norm, self.feed_forward_norm = (
            Normalization(normalization, name=f"{layer}_norm")
            for layer in ("token", "feed_forward")
        )
        self.token_attention = TokenAttention(hidden_size, heads, use_bias, name="tokens")
        self.contraction = keras.layers.Dense(hidden_size, use_bias=use_bias, name="contraction")
        self.expansion, self.gate = (
            keras.layers.Dense(feed_forward_size, use_bias=use_bias, name=name)
            for name in ("expansion", "gate")
        )
        self.output_dropout = replicas.Dropout(dropout, name="output_dropout")

    def build(self, input_shape, regions_shape=None):
        """Builds the layers for inputs [B, K T, H] and regions [B, R, D]."""
        self.token_norm.build(input_shape)
        self.feed_forward_norm.build(input_shape)
        self.token_attention.build(input_shape)
        self.expansion.build(input_shape)
        if self.gated:
            self.gate.build(input_shape)
        self.contraction.build((None, None, self.feed_forward_size))
        self.built = True

    @property
    def text_projections(self) -> list[keras.layers.Dense]:
        """The layers with weight matrices that read tokens alone."""
        tokens = self.token_attention
        return [
            *(tokens.input_projection, tokens.output_projection, self.expansion, self.contraction),
            *([self.gate] if self.gated else []),
        ]

    @property
    def region_layers(self) -> list[keras.layers.Layer]:
        """The layers that read the image; here none."""
        return []

    def call(
        self,
        inputs: tf.Tensor,
        keys_values: KeysValues | None,
        score_bias: tf.Tensor,
        cache: TokenCache | None = None,
        time: tf.Tensor | None = None,
        training: bool = False,
    ) -> tuple[tf.Tensor, tf.Tensor | None, TokenCache | None]:
        """Reads whole captions, alone or after what a cache holds, or one token of each.

        Args:
            inputs: [B, K T, H]; the tokens of a caption follow each other. With a time, [B, K, H].
            keys_values: Of the regions; None if the block does not attend to them.
            score_bias: Added to the scores of the self-attention, queries first: [N, T, T], with a
                cache of length L [N, T, L + T], with a time [N, 1, L]; N may be 1. It is -inf where
                a token must not attend.
            cache: Of the tokens before.
            time: Place in the cache of the token that is read, a scalar. Without it, the tokens
                follow those of the cache.
            training: Whether dropout is active.

        Returns:
            Outputs of the shape of the inputs, attention weights [B, K T, R] if there are any, and
            the cache with the tokens that were read.
        """
        said, cache = self.token_attention(self.token_norm(inputs), score_bias, cache, time)
        hidden = inputs + self.output_dropout(said, training=training)  # [B, K T, H]
        hidden, weights = self.read_regions(hidden, keys_values, training)
        normalized = self.feed_forward_norm(hidden)
        # The approximation by tanh, with which GPT-2 and T5 1.1 were trained.
        expanded = tf.nn.gelu(self.expansion(normalized), approximate=True)  # [B, K T, F]
        if self.gated:
            expanded *= self.gate(normalized)
        hidden += self.output_dropout(self.contraction(expanded), training=training)
        return hidden, weights, cache

    def read_regions(
        self, hidden: tf.Tensor, keys_values: KeysValues | None, training: bool
    ) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Adds what is seen to hidden states [B, K T, H]; here nothing."""
        return hidden, None

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


@keras.saving.register_keras_serializable(package="caption_gan")
class TransformerBlock(TokenBlock):
    """A `TokenBlock` with attention to the image's regions between its layers."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.region_norm = Normalization(self.normalization, name="region_norm")
        self.region_attention = RegionAttention(
            self.hidden_size, self.heads, self.use_bias, name="regions"
        )
        self.region_output = keras.layers.Dense(
            self.hidden_size, use_bias=self.use_bias, name="region_output"
        )

    def build(self, input_shape, regions_shape=None):
        """Builds the layers for inputs [B, K T, H] and regions [B, R, D]."""
        self.region_norm.build(input_shape)
        self.region_attention.build(input_shape, regions_shape)
        self.region_output.build(input_shape)
        super().build(input_shape, regions_shape)

    @property
    def region_layers(self) -> list[keras.layers.Layer]:
        """The layers that read the image."""
        return [self.region_norm, self.region_attention, self.region_output]

    @property
    def projections(self) -> list[keras.layers.Dense]:
        """All layers with weight matrices."""
        seen = self.region_attention
        return [
            *self.text_projections,
            *(seen.query_projection, seen.key_projection, seen.value_projection),
            self.region_output,
        ]

    def read_regions(
        self, hidden: tf.Tensor, keys_values: KeysValues | None, training: bool
    ) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Adds what is seen to hidden states [B, K T, H]."""
        seen, weights = self.region_attention(self.region_norm(hidden), keys_values)
        return hidden + self.output_dropout(self.region_output(seen), training=training), weights


@keras.saving.register_keras_serializable(package="caption_gan")
class GatedTransformerBlock(TransformerBlock):
    """A `TransformerBlock` that at first ignores the image (Alayrac et al., "Flamingo", 2022).

    What is seen is multiplied by the tanh of a number that starts at zero, so that a language model
    with such blocks starts with its own predictions.
    """

    def build(self, input_shape, regions_shape=None):
        """Builds the layers for inputs [B, K T, H] and regions [B, R, D]."""
        super().build(input_shape, regions_shape)
        # The optimizers do not decay it: its name is that of a scale.
        self.region_gamma = self.add_weight(name="region_gamma", shape=(), initializer="zeros")

    def read_regions(
        self, hidden: tf.Tensor, keys_values: KeysValues | None, training: bool
    ) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Adds a part of what is seen to hidden states [B, K T, H]."""
        read, weights = super().read_regions(hidden, keys_values, training)
        part = tf.cast(tf.tanh(tf.convert_to_tensor(self.region_gamma)), hidden.dtype)
        return hidden + part * (read - hidden), weights


def read_token(
    blocks: Sequence[TokenBlock],
    hidden: tf.Tensor,
    keys_values: Sequence[KeysValues | None],
    score_bias: tf.Tensor,
    caches: Sequence[TokenCache],
    time: tf.Tensor,
) -> tuple[tf.Tensor, tuple[TokenCache, ...], tf.Tensor | None]:
    """Reads one token of each caption with all blocks.

    Args:
        blocks: The blocks.
        hidden: Input [B, K, H] of the first block.
        keys_values: Of each block; see `TokenBlock`.
        score_bias: [N, 1, L]; see `TokenBlock`.
        caches: [B, K, N, L, S] each, of each block.
        time: Place of the token, a scalar.

    Returns:
        Output [B, K, H] of the last block, caches, and the mean [B, K, R] of attention weights.
    """
    written, weights = [], []
    for block, seen, old in zip(blocks, keys_values, caches, strict=True):
        flat = TokenCache(*(tf.reshape(part, [-1, *part.shape[2:]]) for part in old))
        hidden, block_weights, flat = block(hidden, seen, score_bias, flat, time)
        written.append(TokenCache(*map(tf.reshape, flat, map(tf.shape, old))))
        weights.append(block_weights)  # [B, K, R]
    attention = None if weights[0] is None else tf.add_n(weights) / len(weights)
    return hidden, tuple(written), attention
