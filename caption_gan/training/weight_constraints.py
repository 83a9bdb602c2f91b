"""Constraints on a critic's weights, which Keras's optimizers apply after each update.

They bound the critic's slope, as a gradient penalty does in the loss.
"""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

POWER_ITERATIONS = 10


def constrain(variables: Sequence[keras.Variable], kind: str, clip_value: float) -> None:
    """Sets the constraint of each variable.

    Args:
        variables: Trainable variables of the critic.
        kind: Setting `constraint` of an objective; kinds other than `weight_clipping` and
            `spectral_norm` do not constrain weights.
        clip_value: Largest absolute value of a clipped weight.
    """
    for variable in variables:
        if kind == "weight_clipping":
            variable.constraint = WeightClipping(clip_value)
        elif kind == "spectral_norm" and len(variable.shape) == 2:
            variable.constraint = SpectralNorm()


class WeightClipping(keras.constraints.Constraint):
    """Clips weights to [-clip_value, clip_value] (Arjovsky et al., 2017)."""

    def __init__(self, clip_value: float):
        self.clip_value = clip_value

    def __call__(self, w: Any) -> tf.Tensor:
        return tf.clip_by_value(w, -self.clip_value, self.clip_value)

    def get_config(self) -> dict[str, Any]:
        return {"clip_value": self.clip_value}


class SpectralNorm(keras.constraints.Constraint):
    """Scales a matrix down to a largest singular value of one (Gouk et al., 2021).

    Spectral normalisation (Miyato et al., 2018) divides by the singular value in the forward pass.
    Here the weights themselves change, so that the network needs no special layers.
    """

    def __call__(self, w: Any) -> tf.Tensor:
        matrix = tf.convert_to_tensor(w)
        return matrix / tf.maximum(spectral_norm(matrix), 1.0)


def spectral_norm(matrix: tf.Tensor) -> tf.Tensor:
    """Returns the largest singular value of a matrix, which power iteration nears from below."""
    vector = tf.random.stateless_normal([matrix.shape[1], 1], seed=[0, 0], dtype=matrix.dtype)
    for _ in range(POWER_ITERATIONS):
        vector = tf.matmul(matrix, tf.matmul(matrix, vector), transpose_a=True)
        vector = tf.math.l2_normalize(vector)
    return tf.norm(tf.matmul(matrix, vector))
