"""Training steps from wherever an interrupted training left them."""

from collections.abc import Sequence
from typing import NamedTuple

import keras
import tensorflow as tf

from caption_gan.training.objectives.trainer import Trainer


class Position(NamedTuple):
    """What of a stage is done.

    Attributes:
        epochs: Whole ones, with all that follows their last step.
        steps: Of the epoch after them.
    """

    epochs: int = 0
    steps: int = 0


def train(
    model: Trainer,
    batches: tf.data.Dataset,
    validation: tf.data.Dataset,
    epochs: int,
    callbacks: Sequence[keras.callbacks.Callback],
    done: Position,
) -> None:
    """As `model.fit`, but from any step, as if the steps before had just been done.

    Callbacks see the first and the last step of an execution, which takes
    `model.steps_per_call` of them.

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
        iterator = model.iterator(batches.skip(first) if first else batches)
        while first < steps:
            # At the same steps wherever an interrupted training ended.
            count = model.steps_per_call - first % model.steps_per_call
            count = min(count, steps - first)
            every.on_train_batch_begin(first)
            # The page divides a trace into steps by these.
            with tf.profiler.experimental.Trace("train", step_num=epoch * steps + first, _r=1):
                figures = model.train_function(iterator, count)
            first += count
            every.on_train_batch_end(first - 1, figures)
        first = 0
        logs = {name: float(value) for name, value in model.get_metrics_result().items()}
        measured = evaluate(model, validation, every)
        logs.update({f"val_{name}": value for name, value in measured.items()})
        every.on_epoch_end(epoch, logs)
    every.on_train_end()


def evaluate(
    model: Trainer, batches: tf.data.Dataset, callbacks: keras.callbacks.CallbackList
) -> dict[str, float]:
    """Figures of batches by name, as of `model.evaluate`, which divides them among replicas."""
    model.reset_metrics()
    model.make_test_function()
    callbacks.on_test_begin()
    iterator, logs = iter(batches), {}
    for step in range(int(batches.cardinality())):
        callbacks.on_test_batch_begin(step)
        logs = model.test_function(iterator)
        callbacks.on_test_batch_end(step, logs)
    callbacks.on_test_end(logs)
    return {name: float(value) for name, value in logs.items()}
