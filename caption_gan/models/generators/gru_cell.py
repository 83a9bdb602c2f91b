"""The cell of the recurrences.

B batch, D input depth, H hidden.
"""

from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="caption_gan")
class GRUCell(keras.layers.GRUCell):
    """Keras's without dropout, but that gates are split and not sliced.

    The gradient of a split is one concatenation. That of three slices is three tensors of the size
    of the whole, two thirds of them zeros, and their sum (`docs/profiling.md` has the times).
    """

    def call(self, inputs: tf.Tensor, states: Any, training: bool = False) -> tuple[tf.Tensor, Any]:
        """Reads inputs [B, D] in states [B, H]; returns the next states twice, as Keras's does."""
        nested = isinstance(states, list | tuple)
        state = states[0] if nested else states
        read_bias, kept_bias = tf.unstack(self.bias.value)  # [3 H]
        read = tf.matmul(inputs, self.kernel.value) + read_bias  # [B, 3 H]
        kept = tf.matmul(state, self.recurrent_kernel.value) + kept_bias  # [B, 3 H]
        read_update, read_reset, read_new = tf.split(read, 3, axis=-1)  # [B, H]
        kept_update, kept_reset, kept_new = tf.split(kept, 3, axis=-1)  # [B, H]
        update = self.recurrent_activation(read_update + kept_update)
        reset = self.recurrent_activation(read_reset + kept_reset)
        new = self.activation(read_new + reset * kept_new)
        state = update * state + (1 - update) * new
        return state, [state] if nested else state
