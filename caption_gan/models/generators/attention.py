"""Multi-head attention over an image's regions, and what it shares with other attention.

B batch, Q queries (tokens in time, captions of one image, or both), R regions, L length of what
is attended to, H hidden, N heads, S size of a head (H / N), D region depth.
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
        use_bias: Whether the projections have biases.
    """

    def __init__(self, hidden_size: int, heads: int, use_bias: bool = True, **kwargs):
        super().__init__(**kwargs)
        check_heads(heads, hidden_size)
        self.hidden_size = hidden_size
        self.heads = heads
        self.use_bias = use_bias
        self.query_projection, self.key_projection, self.value_projection = (
            keras.layers.Dense(hidden_size, use_bias=use_bias, name=f"{name}_projection")
            for name in ("query", "key", "value")
        )

    def build(self, query_shape, regions_shape):
        self.query_projection.build(query_shape)
        self.key_projection.build(regions_shape)
        self.value_projection.build(regions_shape)
        self.built = True

    def project(self, regions: tf.Tensor, mask: tf.Tensor | None = None) -> KeysValues:
        """Projects regions [B, R, D] to keys and values; the mask [B, R] is false for padding."""
        return KeysValues(
            keys=split_heads(self.key_projection(regions), self.heads),
            values=split_heads(self.value_projection(regions), self.heads),
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
        queries = split_heads(self.query_projection(query), self.heads)  # [B, N, Q, S]
        mask = keys_values.mask
        bias = None if mask is None else bias_of_mask(mask)
        context, weights = attend(queries, keys_values.keys, keys_values.values, bias)
        return merge_heads(context), tf.reduce_mean(weights, axis=1)  # [B, Q, H], [B, Q, R]

    def get_config(self):
        return {
            **super().get_config(),
            "hidden_size": self.hidden_size,
            "heads": self.heads,
            "use_bias": self.use_bias,
        }


def masked_mean(features: tf.Tensor, mask: tf.Tensor | None) -> tf.Tensor:
    """Mean [B, H] of the valid places [B, L, H]; without a mask, of all."""
    if mask is None:
        return tf.reduce_mean(features, axis=1)
    valid = tf.cast(mask, features.dtype)[..., None]  # [B, L, 1]
    return tf.reduce_sum(valid * features, axis=1) / tf.reduce_sum(valid, axis=1)


def check_heads(heads: int, hidden_size: int) -> None:
    """Raises an error if the hidden size cannot be divided among the heads."""
    if hidden_size % heads:
        raise ValueError(
            f"`heads` must divide `hidden_size`. Received: heads={heads}, "
            f"hidden_size={hidden_size}."
        )


def split_heads(projected: tf.Tensor, heads: int) -> tf.Tensor:
    """[B, L, H] -> [B, N, L, S]."""
    batch, length = tf.unstack(tf.shape(projected)[:2])
    split = tf.reshape(projected, [batch, length, heads, projected.shape[-1] // heads])
    return tf.transpose(split, [0, 2, 1, 3])


def merge_heads(context: tf.Tensor) -> tf.Tensor:
    """[B, N, Q, S] -> [B, Q, H]."""
    _, heads, _, size = context.shape
    context = tf.transpose(context, [0, 2, 1, 3])  # [B, Q, N, S]
    return tf.reshape(context, [*tf.unstack(tf.shape(context)[:2]), heads * size])


def bias_of_mask(mask: tf.Tensor) -> tf.Tensor:
    """The `score_bias` [B, 1, 1, L] with which no query attends where a mask [B, L] is false."""
    return tf.where(mask[:, None, None], 0.0, -float("inf"))


def attend(
    queries: tf.Tensor, keys: tf.Tensor, values: tf.Tensor, score_bias: tf.Tensor | None
) -> tuple[tf.Tensor, tf.Tensor]:
    """Scaled dot-product attention.

    Half precision cannot tell close scores apart: the softmax is float32 at least.

    Args:
        queries: [B, N, Q, S].
        keys: [B, N, L, S].
        values: [B, N, L, S].
        score_bias: Broadcasts to [B, N, Q, L] and is added to the scores; -inf where a query must
            not attend. Each query has at least one place to attend to.

    Returns:
        Context [B, N, Q, S] and weights [B, N, Q, L], which are float32 at least.
    """
    scores = queries.shape[-1] ** -0.5 * tf.matmul(queries, keys, transpose_b=True)
    exact_scores = tf.cast(scores, keras.backend.result_type(scores.dtype, "float32"))
    if score_bias is not None:
        exact_scores += tf.cast(score_bias, exact_scores.dtype)
    weights = tf.nn.softmax(exact_scores)
    return tf.matmul(tf.cast(weights, values.dtype), values), weights


@tf.custom_gradient
def _with_zero_gradients(value: tf.Tensor, *idle: tf.Tensor) -> Any:
    """Returns the value; the gradient of the idle tensors is zero."""

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return upstream, *map(tf.zeros_like, idle)

    return tf.identity(value), gradient
