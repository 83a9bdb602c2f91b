"""What all objectives are: models that can be trained by any strategy.

N images a step.
"""

from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from caption_gan import replicas


class Objective(keras.Model):
    """A model whose steps all replicas take together.

    Keras's own steps fail on several machines (it averages figures over an axis that they have
    not), and leave no room for what all replicas must know beforehand.
    """

    # The course of the steps that are being traced; None where a step finds out itself.
    in_course: Any = None

    train_function: Any
    test_function: Any

    @property
    def updates(self) -> int:
        """Parts of a batch that are used one after another in a step."""
        return 1

    @property
    def course(self) -> Any:
        """Which of several ways the next step takes: all replicas must know beforehand."""
        return None

    def make_train_function(self, force: bool = False) -> None:
        """Makes `train_function`, which takes an iterator and returns figures by name."""
        if not replicas.several():
            super().make_train_function(force)
        elif self.train_function is None or force:
            self.train_function = self._make_replicated_function()

    def make_test_function(self, force: bool = False) -> None:
        """Makes `test_function`, which each worker runs for itself on whole batches."""
        if not replicas.several():
            super().make_test_function(force)
        elif self.test_function is None or force:
            self.test_function = tf.function(lambda iterator: self.test_step(next(iterator)))

    def iterator(self, batches: tf.data.Dataset) -> Iterator[Any]:
        """Of training batches; with several replicas, of what each of them has of a batch.

        Every worker reads all of a batch: it is the same in the same order on all of them.
        """
        if not replicas.several():
            return iter(batches)
        strategy = self.distribute_strategy

        def of_worker(context: tf.distribute.InputContext) -> tf.data.Dataset:
            count, workers = context.num_replicas_in_sync, context.num_input_pipelines
            local = count // workers
            first = context.input_pipeline_id * local

            def divide(rows: tf.Tensor) -> tf.Tensor:
                return replicas.divide(rows, count, self.updates)[first : first + local]

            divided = batches.map(lambda batch: tf.nest.map_structure(divide, batch))
            return divided.unbatch().prefetch(2 * local)

        return iter(strategy.distribute_datasets_from_function(of_worker))

    def _make_replicated_function(self) -> Any:
        strategy = self.distribute_strategy

        @tf.function(reduce_retracing=True)
        def step(iterator: Any, course: Any) -> dict[str, tf.Tensor]:
            self.in_course = course
            figures = strategy.run(self.train_step, (next(iterator),))
            return {
                # They are alike on all replicas.
                name: strategy.experimental_local_results(values)[0]
                for name, values in figures.items()
            }

        # A Python value, for each of which TensorFlow traces a function.
        return lambda iterator: step(iterator, self.course)
