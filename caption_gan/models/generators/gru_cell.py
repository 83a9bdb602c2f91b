"""A GRU cell with cheaper gradients.

B batch, D input depth, H hidden.
"""

from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="caption_gan")
class GRUCell(keras.layers.GRUCell):
    """Keras's GRU cell without dropout, with split gates instead of sliced ones.

    The gradient of a split is one concatenation. The gradient of three slices is the sum of three
    tensors of full size, two thirds of them zeros (times: `docs/profiling.md`).
    """

    def call(self, inputs: tf.Tensor, states: Any, training: bool = False) -> tuple[tf.Tensor, Any]:
        """Reads inputs [B, D] in states [B, H]; returns the next state twice, as Keras's cell."""
        nested = isinstance(states, list | tuple)
        state = states[0] if nested else states
        input_bias, recurrent_bias = tf.unstack(self.bias.value)  # [3 H]
        from_input = tf.matmul(inputs, self.kernel.value) + input_bias  # [B, 3 H]
        from_state = tf.matmul(state, self.recurrent_kernel.value) + recurrent_bias  # [B, 3 H]
        input_update, input_reset, input_new = tf.split(from_input, 3, axis=-1)  # [B, H]
        state_update, state_reset, state_new = tf.split(from_state, 3, axis=-1)  # [B, H]
        update = self.recurrent_activation(input_update + state_update)
        reset = self.recurrent_activation(input_reset + state_reset)
        new = self.activation(input_new + reset * state_new)
        state = update * state + (1 - update) * new
        return state, [state] if nested else state
