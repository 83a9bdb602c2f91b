"""Multi-head attention over an image's regions.

B batch, Q queries (tokens in time, captions of one image, or both), R regions, H hidden, N heads,
S size of a head (H / N), D region depth.
"""

from typing import Any, NamedTuple

import keras
import tensorflow as tf


class KeysValues(NamedTuple):
    """Keys and values of an image, computed once for any number of queries."""

    keys: tf.Tensor  # [B, N, R, S]
    values: tf.Tensor  # [B, N, R, S]
    mask: tf.Tensor | None = None  # Boolean [B, R]; false for padding, None if there is none.


@keras.saving.register_keras_serializable(package="caption_gan")
class RegionAttention(keras.layers.Layer):
    """Scaled dot-product attention with several heads (Vaswani et al., 2017).

    Keys and values are a separate step, `project`, so that all tokens and captions of an image
    share them: `keras.layers.MultiHeadAttention` projects them at every call, and initialises its
    kernels differently from the same seed.

    Args:
        hidden_size: Size H of queries and context.
        heads: Number of heads N; must divide `hidden_size`.
    """

    def __init__(self, hidden_size: int, heads: int, **kwargs):
        super().__init__(**kwargs)
        if hidden_size % heads:
            raise ValueError(
                f"`heads` must divide `hidden_size`. Received: heads={heads}, "
                f"hidden_size={hidden_size}."
            )
        self.hidden_size = hidden_size
        self.heads = heads
        self.query_projection = keras.layers.Dense(hidden_size, name="query_projection")
        self.key_projection = keras.layers.Dense(hidden_size, name="key_projection")
        self.value_projection = keras.layers.Dense(hidden_size, name="value_projection")

    def build(self, query_shape, regions_shape):
        self.query_projection.build(query_shape)
        self.key_projection.build(regions_shape)
        self.value_projection.build(regions_shape)
        self.built = True

    def project(self, regions: tf.Tensor, mask: tf.Tensor | None = None) -> KeysValues:
        """Projects regions [B, R, D] to keys and values; the mask [B, R] is false for padding."""
        return KeysValues(
            keys=self._split_heads(self.key_projection(regions)),
            values=self._split_heads(self.value_projection(regions)),
            mask=mask,
        )

    def only_value(self, regions: tf.Tensor) -> tf.Tensor:
        """Context [B, H] for any query to images of a single region [B, 1, D].

        Its weight is one. The gradients of queries and keys are zero, and connected: an optimizer
        expects one for each variable.
        """
        idle = [*self.query_projection.weights, *self.key_projection.weights]
        value = self.value_projection(regions)[:, 0]  # [B, H]
        return _with_zero_gradients(value, *map(tf.convert_to_tensor, idle))

    def call(self, query: tf.Tensor, keys_values: KeysValues) -> tuple[tf.Tensor, tf.Tensor]:
        """Attends to the regions.

        Args:
            query: [B, Q, H].
            keys_values: Of the same B images.

        Returns:
            Context [B, Q, H] and weights [B, Q, R], the mean over heads; weights sum to 1.
        """
        queries = self._split_heads(self.query_projection(query))  # [B, N, Q, S]
        scale = (self.hidden_size // self.heads) ** -0.5
        scores = scale * tf.matmul(queries, keys_values.keys, transpose_b=True)  # [B, N, Q, R]
        exact_scores = tf.cast(scores, self.variable_dtype)
        if keys_values.mask is not None:
            exact_scores = tf.where(keys_values.mask[:, None, None], exact_scores, -float("inf"))
        weights = tf.nn.softmax(exact_scores)
        context = tf.matmul(tf.cast(weights, scores.dtype), keys_values.values)  # [B, N, Q, S]
        context = tf.transpose(context, [0, 2, 1, 3])  # [B, Q, N, S]
        context = tf.reshape(context, [*tf.unstack(tf.shape(context)[:2]), self.hidden_size])
        return context, tf.reduce_mean(weights, axis=1)  # [B, Q, H], [B, Q, R]

    def _split_heads(self, projected: tf.Tensor) -> tf.Tensor:
        """[B, L, H] -> [B, N, L, S]."""
        batch, length = tf.unstack(tf.shape(projected)[:2])
        split = tf.reshape(projected, [batch, length, self.heads, self.hidden_size // self.heads])
        return tf.transpose(split, [0, 2, 1, 3])

    def get_config(self):
        return {**super().get_config(), "hidden_size": self.hidden_size, "heads": self.heads}


@tf.custom_gradient
def _with_zero_gradients(value: tf.Tensor, *idle: tf.Tensor) -> Any:
    """Returns the value; the gradient of the idle tensors is zero."""

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return upstream, *map(tf.zeros_like, idle)

    return tf.identity(value), gradient
