"""Bounds on a critic's slope that are kept by changing its weights after each update."""

from collections.abc import Sequence

import keras
import tensorflow as tf

POWER_ITERATIONS = 10


def apply(kind: str, variables: Sequence[keras.Variable], clip_value: float) -> None:
    """Applies the constraint of that name, if it is one of weights; penalties are in the loss."""
    if kind == "weight_clipping":
        clip(variables, clip_value)
    elif kind == "spectral_norm":
        limit_spectral_norms(variables)


def clip(variables: Sequence[keras.Variable], value: float) -> None:
    """Moves every weight into [-value, value] (Arjovsky et al., 2017)."""
    for variable in variables:
        variable.assign(tf.clip_by_value(variable.value, -value, value))


def limit_spectral_norms(variables: Sequence[keras.Variable]) -> None:
    """Scales matrices down to a largest singular value of one (Gouk et al., 2021).

    Spectral normalisation (Miyato et al., 2018) divides by it in the forward pass; here the
    weights themselves are moved, as by clipping, so that the network stays an ordinary one.
    """
    for variable in variables:
        if len(variable.shape) == 2:
            norm = spectral_norm(variable.value)
            variable.assign(variable.value / tf.maximum(norm, 1.0))


def spectral_norm(matrix: tf.Tensor) -> tf.Tensor:
    """Largest singular value of a matrix, by power iteration from below."""
    vector = tf.random.stateless_normal([matrix.shape[1], 1], seed=[0, 0], dtype=matrix.dtype)
    for _ in range(POWER_ITERATIONS):
        vector = tf.matmul(matrix, tf.matmul(matrix, vector), transpose_a=True)
        vector = tf.math.l2_normalize(vector)
    return tf.norm(tf.matmul(matrix, vector))
