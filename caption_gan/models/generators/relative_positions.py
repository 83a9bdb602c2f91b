"""Positions of tokens by their distance, which attention adds to its scores.

T time, N heads.
"""

import keras
import numpy as np
import tensorflow as tf

# Those of T5 (Raffel et al., 2020): distances up to 15 have a bucket each, longer ones share 16.
BUCKETS = 32
LONGEST_DISTANCE = 128


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
