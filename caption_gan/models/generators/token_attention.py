"""Attention of a caption's tokens to the tokens before them, and a cache of these.

B batch, K captions per image, M captions of all images (B K), T time, H hidden, N heads, S size of
a head (H / N).
"""

from typing import NamedTuple

import keras
import tensorflow as tf

from caption_gan.models.generators.attention import attend, check_heads, merge_heads, split_heads


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

    def extend(self, keys: tf.Tensor, values: tf.Tensor) -> "TokenCache":
        """Appends keys and values [M, N, L, S] of the tokens that follow."""
        return TokenCache(
            tf.concat([self.keys, keys], axis=2), tf.concat([self.values, values], axis=2)
        )


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
        """Returns outputs [B, K T, H] and the cache with the tokens; see `TokenBlock`."""
        projected = self.input_projection(inputs)  # [B, K T, 3 H]
        by_caption = [-1, score_bias.shape[1], 3 * self.hidden_size]
        queries, keys, values = (
            split_heads(part, self.heads)  # [M, N, T, S]
            for part in tf.split(tf.reshape(projected, by_caption), 3, axis=-1)
        )
        if cache is not None:
            at_end = time is None
            cache = cache.extend(keys, values) if at_end else cache.write(keys, values, time)
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
