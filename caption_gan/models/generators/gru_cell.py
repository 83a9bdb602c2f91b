"""A GRU with cheaper gradients, and its cell.

B batch, T time, D input depth, H hidden.
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
        state = self.advance(self.project(inputs), states[0] if nested else states)
        return state, [state] if nested else state

    def project(self, inputs: tf.Tensor) -> tf.Tensor:
        """Share of the inputs in the gates, [N, 3 H], with the bias.

        Args:
            inputs: [N, D], or their first features only; `project_rest` takes the others.
        """
        kernel, bias = self._cast(self.kernel), tf.unstack(self._cast(self.bias))[0]
        depth = inputs.shape[-1]
        if depth < kernel.shape[0]:
            kernel = kernel[:depth]
        return tf.matmul(tf.cast(inputs, self.compute_dtype), kernel) + bias

    def project_rest(self, inputs: tf.Tensor) -> tf.Tensor:
        """Share of the last features of the inputs [N, d] in the gates, [N, 3 H]."""
        kernel = self._cast(self.kernel)[-inputs.shape[-1] :]
        return tf.matmul(tf.cast(inputs, self.compute_dtype), kernel)

    def advance(self, projected: tf.Tensor, state: tf.Tensor) -> tf.Tensor:
        """Next state [B, H] from the projected inputs [B, 3 H] and the state [B, H]."""
        recurrent_bias = tf.unstack(self._cast(self.bias))[1]  # [3 H]
        from_state = tf.matmul(state, self._cast(self.recurrent_kernel)) + recurrent_bias
        input_update, input_reset, input_new = tf.split(projected, 3, axis=-1)  # [B, H]
        state_update, state_reset, state_new = tf.split(from_state, 3, axis=-1)  # [B, H]
        update = self.recurrent_activation(input_update + state_update)
        reset = self.recurrent_activation(input_reset + state_reset)
        new = self.activation(input_new + reset * state_new)
        return update * state + (1 - update) * new

    def _cast(self, variable: keras.Variable) -> tf.Tensor:
        return tf.cast(variable.value, self.compute_dtype)


@keras.saving.register_keras_serializable(package="caption_gan")
class GRU(keras.layers.RNN):
    """An unrolled GRU that returns all states and projects the inputs of all times in one product.

    Unrolled: it has the second derivative that a gradient penalty needs on every device, and is
    faster than a loop on a CPU.

    Args:
        cell: A `GRUCell`.
    """

    def call(  # type: ignore[override]
        self,
        sequences: tf.Tensor,
        initial_state: tf.Tensor,
        constant_gates: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """States [B, T, H] after each of the inputs.

        Args:
            sequences: [B, T, D], or their first features if the others are the same at all times.
            initial_state: [B, H].
            constant_gates: Share in the gates of those others, [B, 3 H]; see
                `GRUCell.project_rest`.
        """
        batch, time = tf.shape(sequences)[0], sequences.shape[1]
        flat = tf.reshape(sequences, [-1, sequences.shape[-1]])  # [B T, D]
        projected = tf.reshape(self.cell.project(flat), [batch, time, 3 * self.cell.units])
        if constant_gates is not None:
            projected += constant_gates[:, None]
        states, state = [], tf.cast(initial_state, projected.dtype)
        for step in tf.unstack(projected, axis=1):
            state = self.cell.advance(step, state)  # [B, H]
            states.append(state)
        return tf.stack(states, axis=1)
