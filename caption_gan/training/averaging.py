"""A running average of weights, which is better than any of the weights that it is made of."""

import keras
import tensorflow as tf


class RunningAverage:
    """Follows a network in training by an exponential average of its weights in a copy.

    Weights that are still moving fast jump about their best place; their average is closer to it
    (Polyak and Juditsky, 1992). Keras's own `use_ema` weighs the random weights of the start like
    any others; here the first averages are short: after t steps the momentum is at most
    (1 + t) / (10 + t).

    Args:
        network: The network in training.
        copy: A copy of it that nothing else trains.
        momentum: Share of the old average in the new one; close to 1.
    """

    def __init__(self, network: keras.Model, copy: keras.Model, momentum: float):
        self.copy = copy
        self.pairs = list(zip(network.weights, copy.weights, strict=True))
        self.momentum = momentum

    def update(self, steps: tf.Tensor) -> None:
        """Takes the weights after so many steps into the averages."""
        share = 1 - tf.minimum(self.momentum, (1 + steps) / (10 + steps))
        for weight, average in self.pairs:
            average.value.assign_add(share * (weight.value - average.value))
