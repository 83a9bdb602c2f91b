"""Measures the GRU cell with split gates: `python tools/benchmark_recurrence.py [--config X.yaml]`.

Prints milliseconds with Keras's cell and with ours, and their ratio: for the recurrence of the
generator's second GRU alone, with its gradient, and with the gradient of a penalty on that
gradient; then for a step of `wgan_gp`. Both are measured alternately, by the clock and in CPU time,
which other processes disturb less. Times are medians, ratios are medians of the rounds' ratios.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from unittest import mock

import keras
import tensorflow as tf
from random_trainer import random_examples, random_trainer

from caption_gan.config.run import Config
from caption_gan.models.generators import gru
from caption_gan.models.generators.gru_cell import GRUCell
from caption_gan.settings import read_config

CELLS = (keras.layers.GRUCell, GRUCell)
VOCABULARY, REGIONS, DEPTH = 1_000, 64, 80


def recurrence(cell: type[keras.layers.GRUCell], config: Config) -> list[Callable[[], object]]:
    """Calls for the captions of a step: forward, gradients, gradients of a penalty."""
    hidden, settings = config.generator.hidden_size, config.wgan_gp
    captions = settings.images_per_step * settings.captions
    layer = keras.layers.RNN(cell(hidden), return_sequences=True, unroll=True)
    read = tf.random.normal([captions, config.text.sequence_length - 1, 2 * hidden])
    layer.build(read.shape)

    def forward() -> tf.Tensor:
        return tf.reduce_mean(tf.square(layer(read)))

    def gradients() -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(read)
            value = forward()
        return tape.gradient(value, [read, *layer.trainable_variables])

    def penalty() -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            value = tf.reduce_sum(tf.square(gradients()[0]))
        return tape.gradient(value, layer.trainable_variables)

    return [tf.function(work) for work in (forward, gradients, penalty)]


def step(cell: type[keras.layers.GRUCell], config: Config) -> Callable[[], object]:
    """A step of `wgan_gp` without an encoder."""
    examples = random_examples(config, "wgan_gp", VOCABULARY, REGIONS, DEPTH)
    # Keras's loop over time for both, so that the cell alone differs.
    with mock.patch.multiple(gru, GRUCell=cell, GRU=keras.layers.RNN):
        model = random_trainer(config, "wgan_gp", VOCABULARY, examples)
        batch = {name: tf.constant(value) for name, value in examples.items()}
        work = tf.function(model.train_step).get_concrete_function(batch)
    # Skip the warm-up of the critic.
    model.critic_optimizer.iterations.assign(model.warmup_updates)
    return lambda: work(batch)


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the clock, and of CPU time."""
    began = time.perf_counter(), time.process_time()
    tf.nest.map_structure(lambda value: value.numpy(), work())
    return time.perf_counter() - began[0], time.process_time() - began[1]


def compare(name: str, works: tuple[Callable[[], object], ...], turns: int) -> None:
    """Prints one row of the table."""
    for work in works:
        seconds(work)
    measured = [[seconds(work) for work in works] for _ in range(turns)]
    line = f"{name:30}"
    for clock in range(2):
        times = [[turn[clock] for turn in some] for some in zip(*measured, strict=True)]
        ratio = statistics.median(ours / theirs for theirs, ours in zip(*times, strict=True))
        line += "".join(f"{1e3 * statistics.median(some):10.1f}" for some in times)
        line += f"{ratio:8.2f}"
    print(line)


def main() -> None:
    """Reads the command line, prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", help="YAML file with settings, as for training")
    parser.add_argument("--turns", type=int, default=9)
    arguments = parser.parse_args()
    config = read_config([f"--config={arguments.config}"] if arguments.config else [], parser.prog)
    print(f"{'ms':30}{'Keras':>10}{'split':>10}{'ratio':>8}{'Keras CPU':>10}{'split CPU':>10}")
    names = ("recurrence", "... and gradient", "... and penalty's gradient")
    for name, *works in zip(names, *(recurrence(cell, config) for cell in CELLS), strict=True):
        compare(name, tuple(works), arguments.turns)
    compare("step of wgan_gp", tuple(step(cell, config) for cell in CELLS), arguments.turns)


if __name__ == "__main__":
    main()
