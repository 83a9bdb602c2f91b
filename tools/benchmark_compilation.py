"""Measures ways to run a step: `python tools/benchmark_compilation.py OBJECTIVE [--small] [...]`.

Prints, for whole training steps on random regions, each beside the same step as it is by default,
measured in turns in one process:

- seconds until the first step is done, most of which are tracing and compiling;
- milliseconds a step (median), and how many times the default's that is: with XLA
  (`jit_compile`), in `mixed_bfloat16` and `mixed_float16`, and with several steps in one call
  (`steps_per_execution`).

`--small` takes a network and batch of a tenth of the default sizes, where what TensorFlow does
around an operation is most of it. The encoder is left out.
"""

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from random_stage import OBJECTIVES, random_examples, random_stage

from caption_gan.config.models import GeneratorConfig
from caption_gan.config.run import Config
from caption_gan.distribution import precision

VOCABULARY, REGIONS, DEPTH = 1_000, 64, 80
TOGETHER = 4  # Steps of one call.
WAYS = ("default", "XLA", "mixed_bfloat16", "mixed_float16", f"{TOGETHER} steps a call")


def configured(objective: str, small: bool) -> Config:
    """The default settings, or small ones."""
    config = Config()
    if not small:
        return config
    settings = getattr(config, objective)
    return dataclasses.replace(
        config,
        generator=GeneratorConfig(embedding_size=16, hidden_size=16),
        text=dataclasses.replace(config.text, sequence_length=8),
        **{objective: dataclasses.replace(settings, batch_size=2)},
    )


def step_in(way: str, config: Config, objective: str, vocabulary: int) -> tuple[Callable, int]:
    """A call that trains, and the number of steps it takes."""
    examples = random_examples(config, objective, vocabulary, REGIONS, DEPTH)
    with precision.using(way if way.startswith("mixed") else "float32"):
        model: Any = random_stage(config, objective, vocabulary, examples)
    batch = {name: tf.constant(value) for name, value in examples.items()}
    if objective != "maximum_likelihood":
        # As after the warm-up.
        model.critic_optimizer.iterations.assign(model.warmup + 1)
    model.xla = way == "XLA"
    steps = TOGETHER if way == WAYS[-1] else 1
    model.steps_a_call = steps
    model.make_train_function()
    iterator = iter(tf.data.Dataset.from_tensors(batch).cache().repeat())
    return lambda: float(model.train_function(iterator, steps)["loss"]), steps


def benchmark(objective: str, small: bool, ways: list[str], repetitions: int) -> None:
    """Prints the figures that the module's docstring lists."""
    config = configured(objective, small)
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
    times: dict[str, list[float]] = {way: [] for way in calls}
    for _ in range(repetitions):
        for way, (call, steps) in calls.items():
            started = time.perf_counter()
            call()
            times[way].append((time.perf_counter() - started) / steps)
    base = statistics.median(times["default"])
    print(f"{objective}, {'small' if small else 'default sizes'}")
    print(f"{'':20}{'first step, s':>14}{'a step, ms':>12}{'times the default':>19}")
    for way, some in times.items():
        median = statistics.median(some)
        print(f"{way:20}{first[way]:14.1f}{1e3 * median:12.1f}{median / base:19.2f}")


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("objective", choices=OBJECTIVES)
    parser.add_argument("--small", action="store_true", help="a tenth of the default sizes")
    parser.add_argument("--ways", nargs="+", choices=WAYS[1:], default=list(WAYS[1:]))
    parser.add_argument("--repetitions", type=int, default=5, help="of each measurement")
    arguments = parser.parse_args()
    ways = [WAYS[0], *arguments.ways]
    benchmark(arguments.objective, arguments.small, ways, arguments.repetitions)


if __name__ == "__main__":
    main()
