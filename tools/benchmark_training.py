"""Measures training and decoding: `python tools/benchmark_training.py [--config X.yaml]`.

Prints, for the generator's maximum-likelihood step and for greedy decoding:

- captions a second of training;
- milliseconds a step of input, forward pass, backward pass and update;
- the share of this machine's matrix-product peak that teacher forcing reaches, from the
  floating-point operations of its matrix products and the peak measured in the same run;
- captions a second of greedy decoding by batch size.

Run it in an environment in which the project is installed. Regions are random: no data set is
needed, and the encoder, which is another network for each configuration, is left out. Times are
medians over the steps.
"""

import argparse
import functools
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from random_stage import random_examples, random_stage, sizes_of
from step_costs import teacher_forcing

from caption_gan.config.run import Config
from caption_gan.models.decoding.sampling import greedy
from caption_gan.models.encoders.encoder import Regions
from caption_gan.run import read_config


def median_seconds(run: Callable[[], object], repetitions: int, warm_up: int = 2) -> float:
    """Median time of a call, after calls that compile and fill caches."""
    for _ in range(warm_up):
        run()
    times = []
    for _ in range(repetitions):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def matrix_product_peak(size: int = 2048, repetitions: int = 10) -> float:
    """Floating-point operations a second of a large float32 matrix product."""
    matrix = tf.random.normal([size, size])
    product = tf.function(lambda: tf.reduce_sum(tf.matmul(matrix, matrix)))
    return 2 * size**3 / median_seconds(lambda: product().numpy(), repetitions)


def benchmark(config: Config, vocabulary_size: int, regions: int, depth: int, steps: int) -> None:
    """Prints the figures that the module's docstring lists."""
    settings = config.maximum_likelihood
    images, captions = settings.batch_size, settings.captions
    length = config.text.sequence_length
    examples = random_examples(config, "maximum_likelihood", vocabulary_size, regions, depth)
    model: Any = random_stage(config, "maximum_likelihood", vocabulary_size, examples)
    generator = model.captioner.generator
    examples = {name: np.repeat(part, 4, 0) for name, part in examples.items()}
    batches = iter(
        tf.data.Dataset.from_tensor_slices(examples)
        .repeat()
        .shuffle(4 * images)
        .batch(images)
        .prefetch(tf.data.AUTOTUNE)
    )
    batch = next(batches)
    variables = model.trainable_variables

    @tf.function
    def forward() -> tf.Tensor:
        return model.batch_loss(batch, training=True)

    @tf.function
    def forward_and_backward() -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            loss = model.batch_loss(batch, training=True)
        # A number of each gradient, so that none is left out.
        return [tf.reduce_sum(gradient) for gradient in tape.gradient(loss, variables)]

    train_step = tf.function(model.train_step)
    peak = matrix_product_peak()
    input_time = median_seconds(lambda: next(batches), steps)
    forward_time = median_seconds(lambda: forward().numpy(), steps)
    both_time = median_seconds(lambda: forward_and_backward()[0].numpy(), steps)
    step_time = median_seconds(lambda: train_step(batch)["loss"].numpy(), steps)
    sizes = sizes_of(config, "maximum_likelihood", vocabulary_size, regions, depth)
    operations = teacher_forcing(sizes).operations
    rows = {
        "training, captions/s": f"{images * captions / (step_time + input_time):10.0f}",
        "input, ms a step": f"{1e3 * input_time:10.1f}",
        "forward, ms a step": f"{1e3 * forward_time:10.1f}",
        "backward, ms a step": f"{1e3 * (both_time - forward_time):10.1f}",
        "update, ms a step": f"{1e3 * max(step_time - both_time, 0):10.1f}",
        "matrix products, Gflop a step": f"{operations / 1e9:10.1f}",
        "matrix-product peak, Gflop/s": f"{peak / 1e9:10.1f}",
        "share of the peak, teacher forcing": f"{operations / both_time / peak:10.2f}",
    }
    for name, value in rows.items():
        print(f"{name:36}{value}")
    write = tf.function(lambda seen: greedy(generator, Regions(seen), length).token_ids)
    for size in (1, 8, 64):
        seen = tf.random.normal([size, regions, depth])
        seconds = median_seconds(functools.partial(write, seen), steps)
        print(f"{f'greedy, captions/s at batch {size}':36}{size / seconds:10.0f}")


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", default="configs/flickr8k.yaml", help="sizes to measure")
    parser.add_argument("--vocabulary_size", type=int, default=2561)
    parser.add_argument("--regions", type=int, default=49)
    parser.add_argument("--depth", type=int, default=1280, help="channels of a region")
    parser.add_argument("--steps", type=int, default=10, help="repetitions of each measurement")
    arguments = parser.parse_args()
    config = read_config([f"--config={arguments.config}"], "benchmark_training")
    benchmark(
        config, arguments.vocabulary_size, arguments.regions, arguments.depth, arguments.steps
    )


if __name__ == "__main__":
    main()
