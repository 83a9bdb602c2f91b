"""Exponential moving average of weights."""

import keras
import tensorflow as tf


class RunningAverage:
    """Keeps an exponential moving average of a network's weights in a copy of the network.

    Weights that change fast oscillate around an optimum; their average is closer to it (Polyak and
    Juditsky, 1992). Keras's `use_ema` gives the random initial weights full weight. Here the
    momentum after t steps is at most (1 + t) / (10 + t), so that they are soon forgotten.

    Args:
        network: The network in training.
        copy: A copy of it that nothing else trains.
        momentum: Share of the previous average in the new one; close to 1.
    """

    def __init__(self, network: keras.Model, copy: keras.Model, momentum: float):
        self.copy = copy
        # A pretrained encoder may have whole numbers among its weights, such as positions.
        self.pairs = [
            (weight, average)
            for weight, average in zip(network.weights, copy.weights, strict=True)
            if keras.backend.is_float_dtype(weight.dtype)
        ]
        self.momentum = momentum

    def update(self, steps: tf.Tensor) -> None:
        """Updates the average with the weights after the given number of steps."""
        share = 1 - tf.minimum(self.momentum, (1 + steps) / (10 + steps))
        for weight, average in self.pairs:
            average.value.assign_add(share * (weight.value - average.value))
