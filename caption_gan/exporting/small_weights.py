"""Weights stored in fewer bytes and read as float32.

C channels of a weight: its longest axis.
"""

from typing import Literal, get_args

import keras
import numpy as np
import tensorflow as tf

SmallKind = Literal["float16", "int8"]
SMALL_KINDS: tuple[SmallKind, ...] = get_args(SmallKind)
LARGEST = 127  # Of int8; -128 is left out, so that a weight and its opposite are rounded alike.


class SmallWeight(tf.Module):
    """A weight as it is stored.

    Args:
        values: Of any shape.
        kind: `float16`; or `int8`, with a scale for each channel; None leaves the values alone.
    """

    def __init__(self, values: np.ndarray, kind: SmallKind | None):
        super().__init__()
        self.scale = None
        if kind == "int8":
            # The last of equal axes: there a layer has its outputs. Words have it first, and the
            # convolutions of a single channel before the last.
            channels = max(range(values.ndim), key=lambda axis: (values.shape[axis], axis))
            others = tuple(axis for axis in range(values.ndim) if axis != channels)
            largest = np.abs(values).max(axis=others, keepdims=True)
            # Of zeros any scale will do.
            scale = np.where(largest > 0, largest / LARGEST, 1).astype(np.float32)
            self.scale = tf.Variable(scale, trainable=False)
            values = np.rint(values / scale)
        self.stored = tf.Variable(
            values, trainable=False, dtype=kind if kind else values.dtype.name
        )

    def read(self) -> tf.Tensor:
        """The weight as the model's layers take it."""
        if self.scale is not None:
            return tf.cast(self.stored, tf.float32) * self.scale
        value = tf.convert_to_tensor(self.stored)
        return tf.cast(value, tf.float32) if value.dtype == tf.float16 else value

    def size(self) -> int:
        """Bytes."""
        return sum(np.array(variable).nbytes for variable in self.variables)


class SmallWeights:
    """A model's weights in fewer bytes; the model's own are rounded to what they say.

    Those of a single axis, such as biases, stay as they are: they are few.

    Args:
        model: Its variables are assigned to.
        kind: What the others are stored as.
    """

    def __init__(self, model: keras.Model, kind: SmallKind):
        self.pairs: list[tuple[keras.Variable, SmallWeight]] = []
        for variable in model.variables:
            values = np.array(variable)
            is_large = values.dtype == np.float32 and values.ndim > 1
            weight = SmallWeight(values, kind if is_large else None)
            variable.assign(weight.read())
            self.pairs.append((variable, weight))

    def weights(self) -> list[SmallWeight]:
        """What has to be stored."""
        return [weight for _, weight in self.pairs]

    def reading(self) -> keras.StatelessScope:
        """Within it the model reads what is stored, and its own variables not at all."""
        mapping = [(variable, weight.read()) for variable, weight in self.pairs]
        return keras.StatelessScope(state_mapping=mapping)
