"""Replicas of a model that take a training step together, each on its rows of the batch.

What a replica computes of its rows, a loss or its gradient, is scaled so that the mean over the
replicas is what a single one would have computed of the whole batch. All replicas must call these
functions, and outside of conditions and loops in the graph, of which TensorFlow cannot know that
all take the same way. With one replica, and outside of a training step, they change nothing.

N rows of a batch, n rows of one replica, U updates a step for which the batch is parted.
"""

from typing import Any

import keras
import tensorflow as tf

# Seeds of stages follow each other (0, 1, ...), and so do replicas: apart by a prime, no two of
# them meet.
_APART = 7919


def _context() -> tf.distribute.ReplicaContext | None:
    """The replica that runs this, if it is one of several."""
    context = tf.distribute.get_replica_context()
    return context if context is not None and context.num_replicas_in_sync > 1 else None


def count() -> int:
    """Number of the model's replicas."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def several() -> bool:
    """Whether there is more than one."""
    return count() > 1


def mean(values: Any) -> Any:
    """The mean over the replicas of a tensor, or of each of a list; None stays None."""
    context = _context()
    if context is None:
        return values
    present = [
        tf.convert_to_tensor(value) for value in tf.nest.flatten(values) if value is not None
    ]
    means = iter(context.all_reduce(tf.distribute.ReduceOp.MEAN, present))
    return tf.nest.map_structure(lambda value: None if value is None else next(means), values)


def all_gather(rows: tf.Tensor, updates: int) -> tf.Tensor:
    """The batch [N, ...] of which the replicas have rows [n, ...], in its order; see `shard`."""
    context = _context()
    if context is None:
        return rows
    count = context.num_replicas_in_sync
    # On several machines, what comes into the graph is on no device before something is done to it.
    gathered = context.all_gather(tf.identity(rows), axis=0)
    gathered = tf.ensure_shape(gathered, [None, *rows.shape[1:]])
    return _regroup(gathered, count, updates)


def local_rows(rows: tf.Tensor, updates: int) -> tf.Tensor:
    """This replica's rows [n, ...] of a batch [N, ...]."""
    context = _context()
    if context is None:
        return rows
    count, number = context.num_replicas_in_sync, context.replica_id_in_sync_group
    return shard(rows, count, updates)[number]


def shard(rows: tf.Tensor, count: int, updates: int) -> tf.Tensor:
    """The rows [N, ...] of a batch by replica, [count, n, ...].

    Each has as many rows of every update, so that an update sees the images that it would see with
    one replica.
    """
    regrouped = _regroup(rows, updates, count)
    return tf.reshape(regrouped, [count, -1, *rows.shape[1:]])


def _regroup(rows: tf.Tensor, first: int, second: int) -> tf.Tensor:
    """Rows in groups of groups: those of the second kind become the outer ones."""
    grouped = tf.reshape(rows, [first, second, -1, *rows.shape[1:]])
    order = [1, 0, *range(2, len(grouped.shape))]
    return tf.reshape(tf.transpose(grouped, order), [-1, *rows.shape[1:]])


def apart(seed: tf.Tensor) -> tf.Tensor:
    """Another seed [2] for each replica, whose random states are alike."""
    context = _context()
    if context is None:
        return seed
    number = tf.cast(context.replica_id_in_sync_group, seed.dtype)
    return seed + tf.stack([_APART * number, tf.zeros_like(number)])


class SeedGenerator(keras.random.SeedGenerator):
    """Keras's, but that each replica draws numbers of its own."""

    def next(self, ordered: bool = True) -> tf.Tensor:
        """Two integers [2]."""
        return apart(super().next(ordered))


class Dropout(keras.layers.Dropout):
    """Keras's, but that each replica leaves out values of its own."""

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Values [...] with a share of them zero, in training."""
        if not training or not self.rate:
            return inputs
        seed = tf.cast(apart(self.seed_generator.next()), tf.int32)
        # Half precision would draw from so few numbers that the rate would be another.
        exact = tf.cast(inputs, self.variable_dtype)
        kept = tf.nn.experimental.stateless_dropout(exact, self.rate, seed)
        return tf.cast(kept, inputs.dtype)


class Mean(keras.metrics.Mean):
    """Keras's, for figures that are alike on all replicas.

    Keras would keep a sum of its own on each replica and add them up whenever it is read or saved,
    for which all machines must meet.
    """

    def add_variable(self, shape, initializer, dtype=None, aggregation="none", name=None):
        variable = keras.Variable(
            keras.initializers.get(initializer), shape, dtype=dtype, trainable=False, name=name
        )
        self._tracker.add_to_store("variables", variable)
        return variable
