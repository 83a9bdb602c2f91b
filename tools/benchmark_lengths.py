"""Measures cutting batches to their captions: `python tools/benchmark_lengths.py --config=C`.

Takes the settings of `python -m caption_gan.fit`. Prints the time of a step of `maximum_likelihood`
with batches of one length and of four lengths, measured alternately, and the ratio.
"""

import dataclasses
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import keras
from measuring import alternate

from caption_gan.config.run import Config
from caption_gan.data.pipeline import Pipeline
from caption_gan.data.shards.files import PreparedSplit
from caption_gan.data.shards.prepare import prepare_splits
from caption_gan.fit import start_run
from caption_gan.models.encoders.encoder import build_encoder
from caption_gan.run import RunDirectory, build_captioner
from caption_gan.settings import read_config
from caption_gan.text.kinds import open_tokenizer
from caption_gan.text.tokenizer import Tokenizer
from caption_gan.training.objectives.maximum_likelihood import MaximumLikelihood

LENGTHS = (1, 4)
ROUNDS, STEPS_PER_ROUND = 12, 4


def main() -> None:
    """Reads the command line, prints the measurements."""
    config = read_config(sys.argv[1:], "python tools/benchmark_lengths.py", (__doc__ or ""))
    train = prepare_splits(config, build_encoder(config.encoder), ["train"])["train"]
    with tempfile.TemporaryDirectory() as folder:
        run = RunDirectory(Path(folder) / "run")
        start_run(run, config, train.captions)
        tokenizer = open_tokenizer(
            run.vocabulary, config.text.tokenizer, config.text.sequence_length
        )
    calls = [training_steps(config, train, tokenizer, lengths) for lengths in LENGTHS]
    seconds = alternate(dict(zip(("one", "several"), calls, strict=True)), ROUNDS, warm_up=0)
    # Means, not medians: batches of different lengths take different times.
    one, several = (statistics.mean(times) / STEPS_PER_ROUND for times in seconds.values())
    print(f"{1000 * one:.0f} ms per step with one length, {1000 * several:.0f} with {LENGTHS[1]}")
    print(f"ratio {several / one:.2f}")


def training_steps(
    config: Config, train: PreparedSplit, tokenizer: Tokenizer, lengths: int
) -> Callable[[], object]:
    """A call that takes the steps of a round, compiled."""
    keras.utils.set_random_seed(config.seed)
    encoder = build_encoder(config.encoder)
    captioner = build_captioner(config, encoder, tokenizer.vocabulary_size)
    settings = dataclasses.replace(config.maximum_likelihood, length_buckets=lengths)
    model = MaximumLikelihood.from_config(captioner, settings, 10_000, config.seed)
    pipeline = Pipeline(config.data, config.encoder, encoder.cached_shape, tokenizer)
    batches = pipeline.training(
        train, settings.images_per_step, settings.captions, config.seed, lengths > 1
    )
    iterator = iter(batches.repeat())
    model.make_train_function()
    model.train_function(iterator)

    def take_steps() -> None:
        for _ in range(STEPS_PER_ROUND):
            model.train_function(iterator)

    return take_steps


if __name__ == "__main__":
    main()
