"""Whether cutting batches to fitting lengths pays: `python tools/benchmark_lengths.py --config=C`.

Takes the settings that `python -m caption_gan.fit` takes, and prints the time of a step of
`maximum_likelihood` with batches of several lengths, as a ratio of that with one. The two take
turns, some steps each.
"""

import dataclasses
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import keras

from caption_gan.config.run import Config
from caption_gan.data.pipeline import Pipeline
from caption_gan.data.shards.files import PreparedSplit
from caption_gan.data.shards.prepare import prepare_splits
from caption_gan.fit import start_run
from caption_gan.models.encoders.encoder import build_encoder
from caption_gan.run import RunDirectory, build_captioner, read_config
from caption_gan.text.tokenizer import Tokenizer
from caption_gan.training.objectives.maximum_likelihood import MaximumLikelihood

LENGTHS = (1, 4)
TURNS, STEPS_A_TURN = 12, 4


def main() -> None:
    """Reads the command line, prints the ratio."""
    config = read_config(sys.argv[1:], "python tools/benchmark_lengths.py", (__doc__ or ""))
    train = prepare_splits(config, build_encoder(config.encoder), ["train"])["train"]
    with tempfile.TemporaryDirectory() as folder:
        run = RunDirectory(Path(folder) / "run")
        start_run(run, config, train.captions)
        tokenizer = Tokenizer(run.vocabulary, config.text.tokenizer, config.text.sequence_length)
    steps = [step_of(config, train, tokenizer, lengths) for lengths in LENGTHS]
    times: list[list[float]] = [[], []]
    for _ in range(TURNS):
        for step, taken in zip(steps, times, strict=True):
            for _ in range(STEPS_A_TURN):
                started = time.perf_counter()
                step()
                taken.append(time.perf_counter() - started)
    # Means, not medians: short and long batches come in turns.
    one, several = map(statistics.mean, times)
    print(f"{1000 * one:.0f} ms a step with one length, {1000 * several:.0f} with {LENGTHS[1]}")
    print(f"ratio {several / one:.2f}")


def step_of(
    config: Config, train: PreparedSplit, tokenizer: Tokenizer, lengths: int
) -> Callable[[], object]:
    """A training step, compiled."""
    keras.utils.set_random_seed(config.seed)
    encoder = build_encoder(config.encoder)
    captioner = build_captioner(config, encoder, tokenizer.vocabulary_size)
    settings = dataclasses.replace(config.maximum_likelihood, lengths=lengths)
    model = MaximumLikelihood.stage(captioner, settings, 10_000, config.seed)
    pipeline = Pipeline(config.data, config.encoder, encoder.cached_shape, tokenizer)
    batches = pipeline.training(
        train, settings.images_a_step, settings.captions, config.seed, lengths > 1
    )
    iterator = iter(batches.repeat())
    model.make_train_function()
    model.train_function(iterator)
    return lambda: model.train_function(iterator)


if __name__ == "__main__":
    main()
