"""Training steps from wherever an interrupted training left them."""

from collections.abc import Sequence
from typing import NamedTuple

import keras
import tensorflow as tf


class Position(NamedTuple):
    """What of a stage is done.

    Attributes:
        epochs: Whole ones, with all that follows their last step.
        steps: Of the epoch after them.
    """

    epochs: int = 0
    steps: int = 0


def train(
    model: keras.Model,
    batches: tf.data.Dataset,
    validation: tf.data.Dataset,
    epochs: int,
    callbacks: Sequence[keras.callbacks.Callback],
    done: Position,
) -> None:
    """As `model.fit`, but from any step, as if the steps before had just been done.

    `fit` begins every epoch with its first batch, sets the epoch's means to zero and makes two
    iterators where one is read, so that the next epoch's order depends on which process began it.

    Args:
        model: A compiled objective, in the state of `done`.
        batches: An epoch of them for each iterator.
        validation: Batches.
        epochs: Of the whole stage.
        callbacks: As of `fit`.
        done: Is not done again.
    """
    steps = int(batches.cardinality())
    # Every new iterator moves the seeds on; nothing is read before the first batch is asked for.
    for _ in range(done.epochs):
        iter(batches)
    every = keras.callbacks.CallbackList(list(callbacks), model=model, epochs=epochs, steps=steps)
    model.make_train_function()
    every.on_train_begin()
    first = done.steps
    for epoch in range(done.epochs, epochs):
        if not first:
            model.reset_metrics()
        every.on_epoch_begin(epoch)
        iterator = iter(batches.skip(first) if first else batches)
        for step in range(first, steps):
            every.on_train_batch_begin(step)
            # The page divides a trace into steps by these.
            with tf.profiler.experimental.Trace("train", step_num=epoch * steps + step, _r=1):
                figures = model.train_function(iterator)
            every.on_train_batch_end(step, figures)
        first = 0
        logs = {name: float(value) for name, value in model.get_metrics_result().items()}
        measured = model.evaluate(validation, callbacks=every, return_dict=True, verbose=0)
        logs.update({f"val_{name}": value for name, value in measured.items()})
        every.on_epoch_end(epoch, logs)
    every.on_train_end()
