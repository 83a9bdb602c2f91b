"""Replicas of a model that take a training step together, each on its rows of the batch.

A replica scales its loss and gradients so that their mean over the replicas equals the loss and
the gradients of the whole batch on one device. All replicas must call these functions, outside
tf.cond and tf.while_loop: TensorFlow cannot know that all replicas take the same branch. With one
replica, and outside a training step, these functions return their arguments.

N rows of a batch, n rows of one replica, U critic updates per step.
"""

from typing import Any

import keras
import tensorflow as tf

# Distance of the seeds of two replicas. Stages have consecutive seeds (0, 1, ...), so a large
# number keeps the seeds of all stages and replicas different.
_SEED_STRIDE = 7919


def _context() -> tf.distribute.ReplicaContext | None:
    """Returns the context of the current replica; None if there is only one."""
    context = tf.distribute.get_replica_context()
    return context if context is not None and context.num_replicas_in_sync > 1 else None


def count() -> int:
    """Returns the number of replicas."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def several() -> bool:
    """Returns whether there is more than one replica."""
    return count() > 1


def mean(values: Any) -> Any:
    """Returns the mean over the replicas of a tensor or of each in a list; None stays None."""
    context = _context()
    if context is None:
        return values
    present = [
        tf.convert_to_tensor(value) for value in tf.nest.flatten(values) if value is not None
    ]
    means = iter(context.all_reduce(tf.distribute.ReduceOp.MEAN, present))
    return tf.nest.map_structure(lambda value: None if value is None else next(means), values)


def all_gather(rows: tf.Tensor, updates: int) -> tf.Tensor:
    """Returns the batch [N, ...] from the rows [n, ...] of the replicas; the inverse of `shard`."""
    context = _context()
    if context is None:
        return rows
    count = context.num_replicas_in_sync
    # identity() assigns a device; with several workers all_gather needs one.
    gathered = context.all_gather(tf.identity(rows), axis=0)
    gathered = tf.ensure_shape(gathered, [None, *rows.shape[1:]])
    return _regroup(gathered, count, updates)


def local_rows(rows: tf.Tensor, updates: int) -> tf.Tensor:
    """Returns this replica's rows [n, ...] of a batch [N, ...]."""
    context = _context()
    if context is None:
        return rows
    count, number = context.num_replicas_in_sync, context.replica_id_in_sync_group
    return shard(rows, count, updates)[number]


def shard(rows: tf.Tensor, count: int, updates: int) -> tf.Tensor:
    """Returns the rows [N, ...] of a batch by replica, [count, n, ...].

    Each replica gets the same number of rows of each of the U updates, so that an update sees the
    same images as with one replica.
    """
    regrouped = _regroup(rows, updates, count)
    return tf.reshape(regrouped, [count, -1, *rows.shape[1:]])


def _regroup(rows: tf.Tensor, first: int, second: int) -> tf.Tensor:
    """Swaps the two outer levels of rows [first * second * ..., ...]."""
    grouped = tf.reshape(rows, [first, second, -1, *rows.shape[1:]])
    order = [1, 0, *range(2, len(grouped.shape))]
    return tf.reshape(tf.transpose(grouped, order), [-1, *rows.shape[1:]])


def per_replica_seed(seed: tf.Tensor) -> tf.Tensor:
    """Returns a different seed [2] on each replica; their seed generators have equal states."""
    context = _context()
    if context is None:
        return seed
    number = tf.cast(context.replica_id_in_sync_group, seed.dtype)
    return seed + tf.stack([_SEED_STRIDE * number, tf.zeros_like(number)])


class SeedGenerator(keras.random.SeedGenerator):
    """Keras's SeedGenerator with different seeds on each replica."""

    def next(self, ordered: bool = True) -> tf.Tensor:
        """Returns the next seed, two integers [2]."""
        return per_replica_seed(super().next(ordered))


class Dropout(keras.layers.Dropout):
    """Keras's Dropout with a different mask on each replica."""

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns the inputs [...], of which a share is zero in training."""
        if not training or not self.rate:
            return inputs
        seed = tf.cast(per_replica_seed(self.seed_generator.next()), tf.int32)
        # Half precision has too few distinct random numbers to give the exact rate.
        exact = tf.cast(inputs, self.variable_dtype)
        dropped = tf.nn.experimental.stateless_dropout(exact, self.rate, seed)
        return tf.cast(dropped, inputs.dtype)


class Mean(keras.metrics.Mean):
    """Keras's Mean for values that are equal on all replicas.

    Keras's metric has a separate sum on each replica and adds them up when it is read or saved,
    which requires communication between all workers.
    """

    def add_variable(self, shape, initializer, dtype=None, aggregation="none", name=None):
        variable = keras.Variable(
            keras.initializers.get(initializer), shape, dtype=dtype, trainable=False, name=name
        )
        self._tracker.add_to_store("variables", variable)
        return variable
