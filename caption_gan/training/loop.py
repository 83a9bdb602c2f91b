"""The training loop of a stage, which can start at any step."""

from collections.abc import Sequence
from typing import NamedTuple

import keras
import tensorflow as tf

from caption_gan.training.objectives.trainer import Trainer


class Position(NamedTuple):
    """Progress within a stage.

    Attributes:
        epochs: Completed epochs, including the work after their last step.
        steps: Completed steps of the current epoch.
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
    """Trains like `model.fit`, but can start at any step, as an uninterrupted training would.

    `fit` starts each epoch at its first batch, resets the epoch's metrics, and creates two
    iterators where it reads one, so that the order of the data would depend on the epoch in which
    the process started.

    Callbacks see the first and the last step of each call of the train function, which runs
    `model.steps_per_call` steps.

    Args:
        model: A compiled trainer in the state of `done`.
        batches: Training batches; each iterator is one epoch.
        validation: Validation batches.
        epochs: Epochs of the whole stage.
        callbacks: Callbacks, as for `fit`.
        done: The completed epochs and steps.
    """
    steps = int(batches.cardinality())
    # Each new iterator advances the seeds of shuffling; no data is read before the first batch.
    for _ in range(done.epochs):
        iter(batches)
    callback_list = keras.callbacks.CallbackList(
        list(callbacks), model=model, epochs=epochs, steps=steps
    )
    model.make_train_function()
    callback_list.on_train_begin()
    step = done.steps
    for epoch in range(done.epochs, epochs):
        if not step:
            model.reset_metrics()
        callback_list.on_epoch_begin(epoch)
        iterator = model.iterator(batches.skip(step) if step else batches)
        while step < steps:
            # Calls end at multiples of steps_per_call, wherever an interrupted training stopped.
            count = model.steps_per_call - step % model.steps_per_call
            count = min(count, steps - step)
            callback_list.on_train_batch_begin(step)
            # TensorBoard's profile page divides a trace into steps by these events.
            with tf.profiler.experimental.Trace("train", step_num=epoch * steps + step, _r=1):
                metrics = model.train_function(iterator, count)
            step += count
            callback_list.on_train_batch_end(step - 1, metrics)
        step = 0
        logs = {name: float(value) for name, value in model.get_metrics_result().items()}
        validation_metrics = evaluate(model, validation, callback_list)
        logs.update({f"val_{name}": value for name, value in validation_metrics.items()})
        callback_list.on_epoch_end(epoch, logs)
    callback_list.on_train_end()


def evaluate(
    model: Trainer, batches: tf.data.Dataset, callbacks: keras.callbacks.CallbackList
) -> dict[str, float]:
    """Returns metrics of batches by name; `model.evaluate` would divide batches among replicas."""
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
