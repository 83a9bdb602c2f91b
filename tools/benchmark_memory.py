"""Measures memory in training: `python tools/benchmark_memory.py OBJECTIVE [--steps 2000]`.

Prints the resident memory of this process (Linux) before training and after each tenth of the
steps, and its peak. Accepts any setting of a run, such as `--generator.hidden_size 512`; the batch
size is 64 and the sequence length 30 unless given. Regions are random and there is no encoder.
"""

import argparse
import time

import keras
import tensorflow as tf
from measuring import peak_resident_mib, resident_mib
from random_trainer import random_examples, random_trainer

from caption_gan.config.objectives import OBJECTIVES
from caption_gan.settings import read_config


class PrintMemory(keras.callbacks.Callback):
    """Prints steps, memory and time after each epoch.

    Args:
        steps: Steps per epoch.
    """

    def __init__(self, steps: int):
        super().__init__()
        self.epoch_steps = steps
        self.started = time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        done = (epoch + 1) * self.epoch_steps
        print_memory(done, time.monotonic() - self.started)


def print_memory(steps: int, seconds: float) -> None:
    """Prints a row of the table."""
    memory = f"{resident_mib():14.0f}{peak_resident_mib():10.0f}"
    print(f"{steps:8}{memory}{seconds:10.0f}", flush=True)


def main() -> None:
    """Reads the command line, trains and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("objective", choices=OBJECTIVES)
    parser.add_argument("--steps", type=int, default=2000, help="in ten equal parts")
    parser.add_argument("--vocabulary_size", type=int, default=10_000)
    parser.add_argument("--regions", type=int, default=64, help="regions per image")
    parser.add_argument("--depth", type=int, default=80, help="channels per region")
    arguments, settings = parser.parse_known_args()
    objective, vocabulary_size = arguments.objective, arguments.vocabulary_size
    defaults = ["--text.sequence_length=30", f"--{objective}.batch_size=64"]
    config = read_config(defaults + settings, parser.prog)
    examples = random_examples(
        config, objective, vocabulary_size, arguments.regions, arguments.depth
    )
    model = random_trainer(config, objective, vocabulary_size, examples)
    images = len(examples["regions"])
    batches = tf.data.Dataset.from_tensor_slices(examples).repeat().shuffle(images).batch(images)
    part = max(arguments.steps // 10, 1)
    print("   steps  resident, MiB      peak   seconds")
    print_memory(0, 0)
    model.fit(
        batches.prefetch(2),
        epochs=10,
        steps_per_epoch=part,
        shuffle=False,
        verbose=0,
        callbacks=[PrintMemory(part)],
    )


if __name__ == "__main__":
    main()
