"""A running average of weights, which is better than any of the weights that it is made of."""

from collections.abc import Sequence

import keras
import tensorflow as tf


class RunningAverage:
    """Follows a network in training by an exponential average of its weights in a copy.

    Weights that are still moving fast jump about their best place; their average is closer to it
    (Polyak and Juditsky, 1992). Keras's own `use_ema` weighs the random weights of the start like
    any others; here the first averages are short: after t steps the momentum is at most
    (1 + t) / (10 + t).

    Args:
        weights: Of the network in training.
        averages: Of a copy that nothing else trains, in the same order.
        momentum: Share of the old average in the new one; close to 1.
    """

    def __init__(
        self,
        weights: Sequence[keras.Variable],
        averages: Sequence[keras.Variable],
        momentum: float,
    ):
        self.pairs = list(zip(weights, averages, strict=True))
        self.momentum = momentum

    def update(self, steps: tf.Tensor) -> None:
        """Takes the weights after so many steps into the averages."""
        share = 1 - tf.minimum(self.momentum, (1 + steps) / (10 + steps))
        for weight, average in self.pairs:
            average.value.assign_add(share * (weight.value - average.value))
