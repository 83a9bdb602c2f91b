"""Measures training and decoding: `python tools/benchmark_training.py [--config X.yaml]`.

Prints, for a step of maximum likelihood and for greedy decoding:

- captions per second in training;
- milliseconds per step for input, forward pass, backward pass and update;
- the share of this machine's matrix-product peak that teacher forcing reaches, from the
  floating-point operations of its matrix products and the peak measured in the same run;
- captions per second of greedy decoding by batch size.

Regions are random: there is no encoder, and no data set is needed. Times are medians.
"""

import argparse
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from measuring import median_seconds
from random_trainer import random_examples, random_trainer, sizes_of
from step_costs import teacher_forcing

from caption_gan.config.run import Config
from caption_gan.models.decoding.decoder import DecodingOptions
from caption_gan.models.decoding.sampling import greedy
from caption_gan.models.encoders.encoder import Regions
from caption_gan.settings import read_config


def seconds_of(call: Callable[[], object], repetitions: int) -> float:
    """Median time of one call."""
    return median_seconds({"call": call}, repetitions)["call"]


def matrix_product_peak(size: int = 2048, repetitions: int = 10) -> float:
    """Floating-point operations per second of a large float32 matrix product."""
    matrix = tf.random.normal([size, size])
    product = tf.function(lambda: tf.reduce_sum(tf.matmul(matrix, matrix)))
    return 2 * size**3 / seconds_of(lambda: product().numpy(), repetitions)


def benchmark(config: Config, vocabulary_size: int, regions: int, depth: int, steps: int) -> None:
    """Prints the measurements that the module's docstring lists."""
    settings = config.maximum_likelihood
    images, captions = settings.batch_size, settings.captions
    length = config.text.sequence_length
    examples = random_examples(config, "maximum_likelihood", vocabulary_size, regions, depth)
    model: Any = random_trainer(config, "maximum_likelihood", vocabulary_size, examples)
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
        # One number per gradient, so that TensorFlow prunes none of them.
        return [tf.reduce_sum(gradient) for gradient in tape.gradient(loss, variables)]

    train_step = tf.function(model.train_step)
    peak = matrix_product_peak()
    input_time = seconds_of(lambda: next(batches), steps)
    forward_time = seconds_of(lambda: forward().numpy(), steps)
    both_time = seconds_of(lambda: forward_and_backward()[0].numpy(), steps)
    step_time = seconds_of(lambda: train_step(batch)["loss"].numpy(), steps)
    sizes = sizes_of(config, "maximum_likelihood", vocabulary_size, regions, depth)
    operations = teacher_forcing(sizes).operations
    rows = {
        "training, captions/s": f"{images * captions / (step_time + input_time):10.0f}",
        "input, ms per step": f"{1e3 * input_time:10.1f}",
        "forward, ms per step": f"{1e3 * forward_time:10.1f}",
        "backward, ms per step": f"{1e3 * (both_time - forward_time):10.1f}",
        "update, ms per step": f"{1e3 * max(step_time - both_time, 0):10.1f}",
        "matrix products, Gflop per step": f"{operations / 1e9:10.1f}",
        "matrix-product peak, Gflop/s": f"{peak / 1e9:10.1f}",
        "share of the peak, teacher forcing": f"{operations / both_time / peak:10.2f}",
    }
    for name, value in rows.items():
        print(f"{name:36}{value}")
    options = DecodingOptions(length)
    decode = tf.function(lambda features: greedy(generator, Regions(features), options).token_ids)
    for size in (1, 8, 64):
        batch_regions = tf.random.normal([size, regions, depth])
        seconds = seconds_of(functools.partial(decode, batch_regions), steps)
        print(f"{f'greedy, captions/s at batch {size}':36}{size / seconds:10.0f}")


def main() -> None:
    """Reads the command line, prints the measurements."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", default="configs/flickr8k.yaml", help="YAML file with sizes")
    parser.add_argument("--vocabulary_size", type=int, default=2561)
    parser.add_argument("--regions", type=int, default=49)
    parser.add_argument("--depth", type=int, default=1280, help="channels per region")
    parser.add_argument("--steps", type=int, default=10, help="repetitions of each measurement")
    arguments = parser.parse_args()
    config = read_config([f"--config={arguments.config}"], "benchmark_training")
    benchmark(
        config, arguments.vocabulary_size, arguments.regions, arguments.depth, arguments.steps
    )


if __name__ == "__main__":
    main()
