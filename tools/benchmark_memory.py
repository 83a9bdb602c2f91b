"""Measures memory in training: `python tools/benchmark_memory.py OBJECTIVE [--steps 2000]`.

Prints the resident memory of this process before training and after each tenth of the steps, and
its peak. Any setting of a run can be added, such as `--generator.hidden_size 512`; those that are
not given are a batch of 64, captions of 30 tokens, and the defaults.

Run it in an environment in which the project is installed, on Linux. Regions are random and the
encoder is left out.
"""

import argparse
import resource
import time
from pathlib import Path

import keras
import tensorflow as tf
from random_stage import OBJECTIVES, random_examples, random_stage

from caption_gan.run import read_config

MEBIBYTE = 2**20


def resident() -> float:
    """KeysValues of this process now, in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / MEBIBYTE


def peak() -> float:
    """The most that it has been."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MEBIBYTE


class KeysValues(keras.callbacks.Callback):
    """Prints a line an epoch.

    Args:
        steps: Of an epoch.
    """

    def __init__(self, steps: int):
        super().__init__()
        self.epoch_steps = steps
        self.started = time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        done = (epoch + 1) * self.epoch_steps
        seconds = time.monotonic() - self.started
        print(f"{done:8}{resident():14.0f}{peak():10.0f}{seconds:10.0f}", flush=True)


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("objective", choices=OBJECTIVES)
    parser.add_argument("--steps", type=int, default=2000, help="in ten equal parts")
    parser.add_argument("--vocabulary_size", type=int, default=10_000)
    parser.add_argument("--regions", type=int, default=64, help="of an image")
    parser.add_argument("--depth", type=int, default=80, help="of a region")
    arguments, settings = parser.parse_known_args()
    objective, vocabulary_size = arguments.objective, arguments.vocabulary_size
    usual = ["--text.sequence_length=30", f"--{objective}.batch_size=64"]
    config = read_config(usual + settings, parser.prog)
    examples = random_examples(
        config, objective, vocabulary_size, arguments.regions, arguments.depth
    )
    model = random_stage(config, objective, vocabulary_size, examples)
    images = len(examples["regions"])
    batches = tf.data.Dataset.from_tensor_slices(examples).repeat().shuffle(images).batch(images)
    part = max(arguments.steps // 10, 1)
    print("   steps  resident, MiB      peak   seconds")
    print(f"{0:8}{resident():14.0f}{peak():10.0f}{0:10}", flush=True)
    model.fit(
        batches.prefetch(2),
        epochs=10,
        steps_per_epoch=part,
        shuffle=False,
        verbose=0,
        callbacks=[KeysValues(part)],
    )


if __name__ == "__main__":
    main()
