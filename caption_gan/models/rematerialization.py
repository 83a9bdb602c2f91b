"""Layers whose gradient computes their output again instead of keeping what led to it.

Not `keras.RematScope`, which is TensorFlow's `recompute_grad`: that draws another dropout mask when
it computes again, so that gradients are wrong, and it has no second derivative, which a gradient
penalty needs.
"""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf


def rematerialized(layer: keras.layers.Layer, *arguments: Any, **options: Any) -> Any:
    """Calls a layer and keeps nothing but its inputs for the gradient (Chen et al., 2016).

    Args:
        layer: A built layer. What it creates when it is called cannot be nested in another graph.
        *arguments: Its arguments, nested tensors.
        **options: Its other arguments, no tensors.

    Returns:
        What the layer returns.
    """
    trained = [tf.convert_to_tensor(variable.value) for variable in layer.trainable_variables]
    # Among them the states of random generators: both computations draw the same numbers.
    others = [tf.convert_to_tensor(variable.value) for variable in layer.non_trainable_variables]
    flat = tf.nest.flatten(arguments)
    places = [place for place, value in enumerate(flat) if is_differentiable(value)]
    count = len(places)
    structure: list[Any] = []

    def compute(tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        inputs = list(flat)
        for place, tensor in zip(places, tensors[:count], strict=True):
            inputs[place] = tensor
        outputs, state = layer.stateless_call(
            list(tensors[count:]), others, *tf.nest.pack_sequence_as(arguments, inputs), **options
        )
        structure[:] = [outputs]
        return [value for value in tf.nest.flatten(outputs) if value is not None] + list(state)

    @tf.custom_gradient
    def call(*tensors: tf.Tensor) -> Any:
        def gradient(*upstream: tf.Tensor) -> list[tf.Tensor]:
            with tf.control_dependencies([each for each in upstream if each is not None]):
                # Not before the gradient arrives: otherwise both would be computed at once.
                again = [tf.identity(tensor) for tensor in tensors]
            with tf.GradientTape() as tape:
                tape.watch(again)
                outputs = compute(again)
            kept = [place for place, value in enumerate(outputs) if is_differentiable(value)]
            return tape.gradient(
                [outputs[place] for place in kept],
                again,
                output_gradients=[upstream[place] for place in kept],
                unconnected_gradients=tf.UnconnectedGradients.ZERO,
            )

        return tuple(compute(tensors)), gradient

    results = list(call(*(flat[place] for place in places), *trained))
    for variable, value in zip(
        layer.non_trainable_variables, results[len(results) - len(others) :], strict=True
    ):
        if not is_differentiable(value):
            variable.assign(value)
    outputs = iter(results)
    return tf.nest.pack_sequence_as(
        structure[0],
        [None if value is None else next(outputs) for value in tf.nest.flatten(structure[0])],
    )


def is_differentiable(value: Any) -> bool:
    """Whether a value is a tensor of real numbers."""
    return tf.is_tensor(value) and value.dtype.is_floating
