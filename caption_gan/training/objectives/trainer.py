"""What all objectives are: models that can be trained by any strategy.

N images a step.
"""

from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from caption_gan.distribution import replicas


class Objective(keras.Model):
    """A model whose steps all replicas take together.

    Keras's own steps fail on several machines (it averages figures over an axis that they have
    not), and leave no room for what all replicas must know beforehand; several in one execution
    are always as many, also where an epoch has fewer left.
    """

    # The course of the steps that are being traced; None where a step finds out itself.
    in_course: Any = None

    # Most steps of a call of `train_function`. Keras's `steps_per_execution` is that of validation
    # too.
    steps_a_call = 1
    # Whether XLA compiles a step; Keras's `jit_compile` is that of validation too, whose last batch
    # has another shape.
    xla = False
    # Called in the graph after each step, with the number of the generator's updates so far.
    after_step: Callable[[tf.Tensor], None] | None = None

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

    @property
    def settled(self) -> bool:
        """Whether `course` stays as it is."""
        return True

    def make_train_function(self, force: bool = False) -> None:
        """Makes `train_function`, which takes an iterator and a number of steps.

        It gives figures by name. What it does in one call is what it does in as many as there are
        steps, but that nothing else can be done between them. TensorFlow may add up what an
        adversarial step sums in another order there.
        """
        if self.train_function is None or force:
            self.train_function = self._make_train_function()

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
                return replicas.shard(rows, count, self.updates)[first : first + local]

            divided = batches.map(lambda batch: tf.nest.map_structure(divide, batch))
            return divided.unbatch().prefetch(2 * local)

        return iter(strategy.distribute_datasets_from_function(of_worker))

    def _make_train_function(self) -> Callable[..., dict[str, tf.Tensor]]:
        strategy, several = self.distribute_strategy, replicas.several()
        train_step = self.train_step
        if not several and not self.run_eagerly:
            # A function in the function, or TensorFlow arranges the sums of a step in a loop
            # otherwise, and rounds them otherwise.
            train_step = tf.function(
                self.train_step,
                autograph=False,
                reduce_retracing=True,
                jit_compile=self.xla or None,
            )

        def step(iterator: Iterator[Any]) -> dict[str, tf.Tensor]:
            if several:
                figures = strategy.run(train_step, (next(iterator),))
                figures = {
                    # They are alike on all replicas.
                    name: strategy.experimental_local_results(values)[0]
                    for name, values in figures.items()
                }
            else:
                figures = train_step(next(iterator))
            if self.after_step:
                self.after_step(tf.cast(self.optimizer.iterations, tf.float32))
            return figures

        def execute(iterator: Iterator[Any], steps: tf.Tensor | None, course: Any) -> Any:
            self.in_course = course
            if steps is None:
                return step(iterator)

            def one(done: tf.Tensor) -> tuple[tf.Tensor]:
                step(iterator)
                return (done + 1,)

            tf.while_loop(lambda done: done < steps, one, (tf.constant(0),))
            return self.get_metrics_result()

        function: Any = execute
        if not self.run_eagerly:
            # A course is a Python value, for each of which TensorFlow traces a function.
            function = tf.function(execute, autograph=False, reduce_retracing=True)

        def train_function(iterator: Iterator[Any], steps: int = 1) -> dict[str, tf.Tensor]:
            if self.steps_a_call == 1:
                return function(iterator, None, self.course)
            figures: dict[str, tf.Tensor] = {}
            for count in [steps] if self.settled else [1] * steps:
                figures = function(iterator, tf.constant(count), self.course)
            return figures

        return train_function
