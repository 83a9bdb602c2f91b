"""Measures ways to run a step: `python tools/benchmark_compilation.py OBJECTIVE [--small] [...]`.

Prints, for whole training steps on random regions, in each way and by default, measured alternately
in one process:

- seconds until the first step is done, mostly for tracing and compiling;
- median milliseconds per step, also relative to the default: with XLA (`jit_compile`), in
  `mixed_bfloat16` and `mixed_float16`, with several steps per call (`steps_per_execution`), and
  with TensorFlow's graph optimizer, which training turns off.

`--small` uses a network and batch of a tenth of the default sizes, where TensorFlow's overhead per
operation dominates. There is no encoder.
"""

import argparse
import dataclasses
import time
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from measuring import median_seconds
from random_trainer import random_examples, random_trainer

from caption_gan.config.models import GeneratorConfig
from caption_gan.config.objectives import OBJECTIVES
from caption_gan.config.run import Config
from caption_gan.distribution import precision

VOCABULARY, REGIONS, DEPTH = 1_000, 64, 80
STEPS_PER_CALL = 4
SEVERAL_STEPS = f"{STEPS_PER_CALL} steps per call"
OPTIMIZER = "graph optimizer"
WAYS = ("default", "XLA", "mixed_bfloat16", "mixed_float16", SEVERAL_STEPS, OPTIMIZER)


def configuration(objective: str, small: bool) -> Config:
    """The default settings, or smaller ones."""
    config = Config()
    if not small:
        return config
    settings = config.objective(objective)
    return dataclasses.replace(
        config,
        generator=GeneratorConfig(embedding_size=16, hidden_size=16),
        text=dataclasses.replace(config.text, sequence_length=8),
        **{objective: dataclasses.replace(settings, batch_size=2)},
    )


def step_in(way: str, config: Config, objective: str, vocabulary: int) -> tuple[Callable, int]:
    """A call that trains, and the number of steps per call."""
    examples = random_examples(config, objective, vocabulary, REGIONS, DEPTH)
    steps = STEPS_PER_CALL if way == SEVERAL_STEPS else 1
    with precision.using(way if way.startswith("mixed") else "float32"):
        model: Any = random_trainer(
            config, objective, vocabulary, examples, steps, jit_compile=way == "XLA"
        )
    batch = {name: tf.constant(value) for name, value in examples.items()}
    if config.objective(objective).has_critic:
        # Skip the warm-up of the critic.
        model.critic_optimizer.iterations.assign(model.warmup_updates + 1)
    if way == OPTIMIZER:
        step = tf.function(model.train_step, autograph=False)
        return lambda: float(step(batch)["loss"]), steps
    model.make_train_function()
    iterator = iter(tf.data.Dataset.from_tensors(batch).cache().repeat())
    return lambda: float(model.train_function(iterator, steps)["loss"]), steps


def benchmark(objective: str, small: bool, ways: list[str], repetitions: int) -> None:
    """Prints the measurements that the module's docstring lists."""
    config = configuration(objective, small)
    calls, first = {}, {}
    for way in ways:
        started = time.perf_counter()
        calls[way] = step_in(way, config, objective, VOCABULARY // 10 if small else VOCABULARY)
        try:
            calls[way][0]()
        except (tf.errors.OpError, ValueError) as error:
            print(f"{way} fails: {str(error).strip().splitlines()[0][:200]}")
            del calls[way]
            continue
        first[way] = time.perf_counter() - started
    seconds = median_seconds(
        {way: call for way, (call, _) in calls.items()}, repetitions, warm_up=0
    )
    times = {way: seconds[way] / steps for way, (_, steps) in calls.items()}
    print(f"{objective}, {'small' if small else 'default sizes'}")
    print(f"{'':20}{'first step, s':>14}{'ms per step':>12}{'relative':>10}")
    for way, time_per_step in times.items():
        relative = time_per_step / times["default"]
        print(f"{way:20}{first[way]:14.1f}{1e3 * time_per_step:12.1f}{relative:10.2f}")


def main() -> None:
    """Reads the command line, prints the measurements."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("objective", choices=OBJECTIVES)
    parser.add_argument("--small", action="store_true", help="a tenth of the default sizes")
    parser.add_argument("--ways", nargs="+", choices=WAYS[1:], default=list(WAYS[1:]))
    parser.add_argument("--repetitions", type=int, default=5, help="measurements of each way")
    arguments = parser.parse_args()
    ways = [WAYS[0], *arguments.ways]
    benchmark(arguments.objective, arguments.small, ways, arguments.repetitions)


if __name__ == "__main__":
    main()
