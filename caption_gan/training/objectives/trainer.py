"""The base of all objectives: a Keras model whose `train_step` runs under any strategy.

N images per step.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from caption_gan.config.objective_config import ObjectiveConfig
from caption_gan.distribution import replicas
from caption_gan.models.captioner import Captioner
from caption_gan.training.averaging import RunningAverage


class Trainer(keras.Model):
    """Trains a captioner by one objective; subclasses define `train_step` and `test_step`.

    Keras's own training loop fails on several machines (it averages metrics over an axis that they
    do not have), and it has no place for what all replicas must agree on before a step. Hence the
    train function is made here, and `caption_gan.training.loop` calls it.

    Args:
        captioner: Encoder and generator.
        config: Settings of the objective.
        steps: Training steps of the stage, over which schedules run.
        seed: Seed of noise, samples and mixing.

    A trainer is not saved as a Keras model: a run keeps its captioner, and a checkpoint its
    variables.
    """

    # The kind of the step that is being traced; None where the step decides in the graph.
    traced_step_kind: str | None = None
    # Moving average of the captioner's weights, or None.
    average: RunningAverage | None = None
    # The critic, or None for objectives without one.
    critic: Any = None

    train_function: Any
    test_function: Any

    def __init__(self, captioner: Captioner, config: ObjectiveConfig, steps: int, seed: int):
        super().__init__()
        self.captioner = captioner
        self.config: Any = config
        self.steps = steps
        self.seed_generator = replicas.SeedGenerator(seed)
        self.steps_per_call = 1
        self.compiles_with_xla = False

    @classmethod
    def from_config(  # type: ignore[override]
        cls,
        captioner: Captioner,
        config: ObjectiveConfig,
        steps: int,
        seed: int,
        steps_per_execution: int = 1,
        jit_compile: bool = False,
        **data: Any,
    ) -> "Trainer":
        """Builds and compiles the trainer of a stage.

        Args:
            captioner: Encoder and generator.
            config: Settings of the objective.
            steps: Training steps of the stage.
            seed: Seed of everything random in training.
            steps_per_execution: See `compile`.
            jit_compile: See `compile`.
            **data: What the constructor takes besides, about the data of the stage.
        """
        trainer = cls(captioner, config, steps, seed, **data)
        trainer.compile(
            **trainer.build_optimizers(),
            steps_per_execution=steps_per_execution,
            jit_compile=jit_compile,
        )
        if config.ema_momentum:
            trainer.average = RunningAverage(captioner, captioner.copy(), config.ema_momentum)
        return trainer

    def build_optimizers(self) -> dict[str, keras.optimizers.Optimizer]:
        """The optimizers, by the names that `compile` gives them."""
        raise NotImplementedError(f"{type(self).__name__} must define build_optimizers.")

    def compile(
        self,
        optimizer: keras.optimizers.Optimizer,
        steps_per_execution: int = 1,
        jit_compile: bool = False,
    ) -> None:
        """Sets the optimizer and how steps are run.

        Args:
            optimizer: Trains the generator.
            steps_per_execution: Training steps per call of the train function.
            jit_compile: Whether XLA compiles a training step.
        """
        # Keras would apply both to validation too, whose last batch has another shape, and its
        # "auto" may choose XLA on a GPU, where compiling the unrolled GRU takes half a minute.
        super().compile(optimizer=optimizer, jit_compile=False)
        self.steps_per_call = steps_per_execution
        self.compiles_with_xla = jit_compile

    @property
    def kept_captioner(self) -> Captioner:
        """The captioner that is scored and kept: the moving average where there is one."""
        return self.captioner if self.average is None else self.average.copy

    @property
    def generator_variables(self) -> list[keras.Variable]:
        """What the optimizer of the captioner trains."""
        network = self.captioner if self.config.trains_encoder else self.captioner.generator
        return network.trainable_variables

    @property
    def checkpoint_variables(self) -> dict[str, list[keras.Variable]]:
        """Everything that training changes and that an exact resume needs."""
        return {
            "model": list(self.variables),
            "optimizer": list(self.optimizer.variables),
            "metrics": list(self.metrics_variables),  # The epoch's means so far.
            "average": [] if self.average is None else list(self.average.copy.weights),
        }

    @property
    def trained_state(self) -> list[keras.Variable]:
        """Weights and optimizer states: what a rollback restores.

        Random states are left out: the same noise would lead to the same collapse.
        """
        average = [] if self.average is None else self.average.copy.weights
        return [*self.weights, *self.optimizer.variables, *average]

    @staticmethod
    def monitored_metric(facts_are_known: bool) -> str:
        """The metric by which the best epoch is chosen: fact accuracy if known, else CIDEr."""
        return "val_fact_accuracy" if facts_are_known else "val_CIDEr"

    @property
    def updates_per_step(self) -> int:
        """Parts of a batch that a step uses one after another."""
        return 1

    @property
    def step_kind(self) -> str | None:
        """Which of several kinds the next step is, if all replicas must know it beforehand."""
        return None

    @property
    def warmup_done(self) -> bool:
        """Whether `step_kind` no longer changes."""
        return True

    def after_step(self) -> None:
        """Updates copies of the weights; runs after each step, outside of the replicas."""
        if self.average:
            self.average.update(tf.cast(self.optimizer.iterations, tf.float32))

    def make_train_function(self, force: bool = False) -> None:
        """Makes `train_function(iterator, steps)`, which returns metrics by name.

        One call of n steps equals n calls of one step, except that callbacks cannot run in
        between and that TensorFlow may reorder the sums of adversarial steps.
        """
        if self.train_function is None or force:
            self.train_function = self._make_train_function()

    def make_test_function(self, force: bool = False) -> None:
        """Makes `test_function`, which every worker runs by itself on whole batches."""
        if not replicas.several():
            super().make_test_function(force)
        elif self.test_function is None or force:
            self.test_function = tf.function(lambda iterator: self.test_step(next(iterator)))

    def iterator(self, batches: tf.data.Dataset) -> Iterator[Any]:
        """Iterates over training batches; with several replicas, over each replica's rows.

        Every worker reads whole batches: they are the same in the same order on all of them.
        """
        if not replicas.several():
            return iter(batches)

        def rows_of_worker(context: tf.distribute.InputContext) -> tf.data.Dataset:
            count, workers = context.num_replicas_in_sync, context.num_input_pipelines
            local = count // workers
            first = context.input_pipeline_id * local

            def shard(rows: tf.Tensor) -> tf.Tensor:
                return replicas.shard(rows, count, self.updates_per_step)[first : first + local]

            sharded = batches.map(lambda batch: tf.nest.map_structure(shard, batch))
            return sharded.unbatch().prefetch(2 * local)

        return iter(self.distribute_strategy.distribute_datasets_from_function(rows_of_worker))

    def _make_train_function(self) -> Callable[..., dict[str, tf.Tensor]]:
        strategy, several = self.distribute_strategy, replicas.several()
        train_step = self.train_step
        if not several and not self.run_eagerly:
            # Wrapped in its own tf.function: inlined into a loop, reductions are reordered and
            # rounding changes.
            train_step = tf.function(
                self.train_step,
                autograph=False,
                reduce_retracing=True,
                jit_compile=self.compiles_with_xla or None,
            )

        def step(iterator: Iterator[Any]) -> dict[str, tf.Tensor]:
            if several:
                metrics = strategy.run(train_step, (next(iterator),))
                metrics = {
                    # All replicas hold the same values.
                    name: strategy.experimental_local_results(values)[0]
                    for name, values in metrics.items()
                }
            else:
                metrics = train_step(next(iterator))
            self.after_step()
            return metrics

        def execute(iterator: Iterator[Any], steps: tf.Tensor | None, kind: str | None) -> Any:
            self.traced_step_kind = kind
            if steps is None:
                return step(iterator)

            def one_step(done: tf.Tensor) -> tuple[tf.Tensor]:
                step(iterator)
                return (done + 1,)

            tf.while_loop(lambda done: done < steps, one_step, (tf.constant(0),))
            return self.get_metrics_result()

        function: Any = execute
        if not self.run_eagerly:
            # The kind of a step is a Python value: TensorFlow traces a function for each.
            function = tf.function(execute, autograph=False, reduce_retracing=True)

        def train_function(iterator: Iterator[Any], steps: int = 1) -> dict[str, tf.Tensor]:
            with without_graph_optimizer():
                if self.steps_per_call == 1:
                    return function(iterator, None, self.step_kind)
                metrics: dict[str, tf.Tensor] = {}
                for count in [steps] if self.warmup_done else [1] * steps:
                    metrics = function(iterator, tf.constant(count), self.step_kind)
                return metrics

        return train_function


@contextlib.contextmanager
def without_graph_optimizer() -> Iterator[None]:
    """Functions that are called in this context run as they were traced.

    TensorFlow's optimizer (Grappler) delays the first step of an adversarial stage, whose graph has
    tens of thousands of nodes, and does not make the steps faster (docs/profiling.md).
    """
    name = "disable_meta_optimizer"
    before = tf.config.optimizer.get_experimental_options().get(name, False)
    tf.config.optimizer.set_experimental_options({name: True})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({name: before})
