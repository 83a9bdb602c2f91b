"""Trains a captioner: `python -m caption_gan.fit [--config configs/X.yaml] [--any.setting value]`.

Turns a data set into a run directory with weights, scores, captions and a report. Data flow:
source -> shards -> vocabulary -> batches -> stages of training -> scores -> report.
"""

import dataclasses
import json
import os
import shlex
import sys
import time
from argparse import SUPPRESS
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from caption_gan.command_line import (
    ArgumentParser,
    RaisingArgumentParser,
    arguments_of,
    run_program,
)
from caption_gan.config.run import Config
from caption_gan.data.pipeline import Pipeline
from caption_gan.data.shards.files import PreparedSplit
from caption_gan.data.shards.prepare import prepare_splits
from caption_gan.distribution import precision, strategies
from caption_gan.errors import CaptionGANError
from caption_gan.evaluation.loaded_captioners import load_captioner
from caption_gan.evaluation.result import summary
from caption_gan.evaluation.runs import evaluate_run, output_paths
from caption_gan.evaluation.trained_captioner import TrainedCaptioner
from caption_gan.models.captioner import Captioner
from caption_gan.models.encoders.encoder import Encoder, save_architecture
from caption_gan.models.hugging_face.gpt2 import load_gpt2
from caption_gan.reporting.data_summary import overlaps
from caption_gan.run import (
    RunDirectory,
    build_captioner,
    load_weights,
    open_encoder,
    open_pretrained_generator,
)
from caption_gan.settings import (
    config_from,
    config_parser,
    differences,
    dump_config,
    merge_settings,
)
from caption_gan.storage.atomic import remove_unfinished
from caption_gan.text.coverage import describe_captions
from caption_gan.text.embeddings import WordVectors
from caption_gan.text.kinds import choose_vocabulary, open_tokenizer
from caption_gan.text.vocabulary import read_vocabulary, write_vocabulary
from caption_gan.training.early_checks import (
    check_disk,
    check_files,
    check_reward_encoders,
    check_training_inputs,
)
from caption_gan.training.stage import steps_per_epoch, train_stage


@dataclasses.dataclass(frozen=True)
class TrainedRun(os.PathLike[str]):
    """A run that was trained and evaluated; usable wherever the path of a run is.

    Attributes:
        path: The run directory.
        summary: Scores, a few captions and the places of all files, to print.
    """

    path: Path
    summary: str = dataclasses.field(repr=False)

    @property
    def metrics(self) -> dict[str, float]:
        """Metrics by `<split>/<decoding>/<metric>`, such as `val/greedy/CIDEr`."""
        metrics = json.loads(RunDirectory(self.path).metrics.read_text())
        return {name: value for name, value in metrics.items() if isinstance(value, float)}

    def captioner(self) -> TrainedCaptioner:
        """Loads the captioner with the best weights of the last stage."""
        return load_captioner(self.path)

    def __fspath__(self) -> str:
        return str(self.path)


def fit(config: Config, run: RunDirectory) -> TrainedRun:
    """Trains, evaluates and reports; continues where an earlier call was interrupted.

    Args:
        config: Settings.
        run: Where everything is written.

    Raises:
        CaptionGANError: The data or a setting cannot be used.
    """
    check_files(config, run)
    config = open_pretrained_generator(config, run)
    keras.utils.set_random_seed(config.seed)
    config, encoder = open_encoder(config)
    check_reward_encoders(config, encoder)
    splits, word_vectors = prepare_run(config, run, encoder)
    captions = splits["train"].captions
    tokenizer = open_tokenizer(
        run.vocabulary,
        config.text.tokenizer,
        config.text.sequence_length,
        in_graph=config.data.service is not None,
    )
    captioner = build_captioner(config, encoder, tokenizer.vocabulary_size)
    check_disk(captioner, run)
    if config.generator.kind == "gpt2" and not run.is_trained:
        load_gpt2(captioner.generator, str(config.generator.weights), tokenizer.vocabulary)

    notes = [*splits["train"].notes, *splits["train"].skipped, *overlaps(list(splits.values()))]
    notes += describe_captions(captions, tokenizer)
    if word_vectors is not None:
        captioner.generator.embedding.assign(word_vectors.matrix)
        notes.append(word_vectors.describe(captions))
    if strategies.is_chief():
        print("\n".join(notes), file=sys.stderr)

    pipeline = Pipeline(config.data, config.encoder, encoder.cached_shape, tokenizer)
    train_stages(run, config, captioner, pipeline, splits)
    load_weights(captioner, run.best_weights)  # The last epoch need not be the best.

    def evaluate() -> str:
        evaluation = evaluate_run(run, config, tokenizer, captioner, "val", notes)
        return "\n".join([summary(evaluation), "", output_paths(run, config), *notes])

    return TrainedRun(run.path.absolute(), strategies.from_chief(evaluate))


def prepare_run(
    config: Config, run: RunDirectory, encoder: Encoder
) -> tuple[dict[str, PreparedSplit], WordVectors | None]:
    """Prepares the training and validation split, and starts the run directory; see `start_run`."""

    def check_steps(split: str, images: int) -> None:
        for objective in config.stages if split == "train" else []:
            steps_per_epoch(config, objective, images, encoder)

    with strategies.chief_first():
        splits = prepare_splits(config, encoder, ("train", "val"), check_steps)
        check_steps("train", splits["train"].images)  # Some images may be unusable.
        word_vectors = start_run(run, config, splits["train"].captions)
        if strategies.is_chief():
            save_architecture(encoder, run.path)
    return splits, word_vectors


def train_stages(
    run: RunDirectory,
    config: Config,
    captioner: Captioner,
    pipeline: Pipeline,
    splits: dict[str, PreparedSplit],
) -> None:
    """Trains the stages that are not done yet; their weights are in the run directory."""
    try:
        with precision.using(config.precision):
            # The captioner itself stays float32, as it is when the run is loaded later.
            trained = captioner if config.precision == "float32" else captioner.copy()
            for number in range(run.stages_done(config), len(config.stages)):
                train_stage(run, config, number, trained, pipeline, splits)
    except KeyboardInterrupt:
        path = shlex.quote(str(run.path))
        print(
            f"\ninterrupted; the run can be\n"
            f"    evaluated: python -m caption_gan.evaluate {path}\n"
            f"    continued: python -m caption_gan.fit --run_dir {path}",
            file=sys.stderr,
        )
        raise


def start_run(run: RunDirectory, config: Config, captions: Sequence[str]) -> WordVectors | None:
    """Creates the run directory with its vocabulary and settings, unless something was trained.

    Returns:
        The pretrained word vectors that the settings name.

    Raises:
        CaptionGANError: An input does not fit the vocabulary, or the folder cannot be written.
    """
    if strategies.is_chief():
        remove_unfinished(run.path)
    # The chief has written it before the other workers come here.
    is_written = run.config.is_file() and (run.is_trained or not strategies.is_chief())
    words = (
        read_vocabulary(run.vocabulary)
        if is_written
        else choose_vocabulary(config.text, captions, config.generator.weights)
    )
    word_vectors = check_training_inputs(config, words)
    if is_written:
        return word_vectors
    try:
        run.checkpoints.mkdir(parents=True, exist_ok=True)
        write_vocabulary(run.vocabulary, words)
        # Last: a folder with settings counts as a run that can be continued.
        run.write_config(config)
    except OSError as error:
        raise CaptionGANError(
            f"run_dir: cannot write to {run.path}: {error.strerror}; choose another folder."
        ) from error
    return word_vectors


def resolve(
    arguments: Sequence[str], parser_class: type[ArgumentParser] = ArgumentParser
) -> tuple[Config, RunDirectory]:
    """Reads settings; when a run is continued, they override the settings of that run.

    Args:
        arguments: A command line.
        parser_class: Decides what happens to arguments that cannot be parsed.

    Raises:
        CaptionGANError: The run that is continued was started with other settings.
    """
    parser = config_parser(
        "python -m caption_gan.fit", (__doc__ or "").splitlines()[0], parser_class
    )
    parser.add_argument(
        "--accept_changes",
        action="store_true",
        default=SUPPRESS,  # Not a setting of a run, so --print_config leaves it out.
        help="continue a run with other settings than it was started with",
    )
    parsed, config = merge_settings(parser, arguments)
    if config.run_dir is None and config.strategy == "multi_worker":
        raise CaptionGANError(
            "run_dir is not set; several workers need the same one, in a folder that all can reach."
        )
    if config.run_dir is None:
        run = RunDirectory(Path("runs") / f"{config.data.source}-{time.strftime('%Y%m%d-%H%M%S')}")
        return dataclasses.replace(config, run_dir=str(run.path)), run
    run = RunDirectory(config.run_dir)
    if not run.config.is_file():
        return config, run
    changes = "; ".join(run.changes(config))
    if not run.is_trained:
        alone = config_from(parser, parser.parse_args([*arguments]))
        kept = "; ".join(f"{name} {value}" for name, _, value in differences(alone, config))
        for what, settings in (("takes other settings", changes), ("keeps of its settings", kept)):
            if settings:
                print(f"{run.path} was not trained yet and {what}: {settings}", file=sys.stderr)
    elif changes and not parsed.get("accept_changes"):
        raise CaptionGANError(
            f"{run.path} was started with other settings: {changes}. Choose another run_dir, leave "
            "them out to continue, or add --accept_changes to continue with them."
        )
    elif changes:
        print(f"continued with other settings: {changes}", file=sys.stderr)
    return config, run


def fit_settings(
    config: Config | str | os.PathLike[str] | None, settings: Mapping[str, Any]
) -> TrainedRun:
    """Trains with settings given in Python; see `caption_gan.fit`."""
    arguments = arguments_of(settings)
    if config is not None:
        text = dump_config(config) if isinstance(config, Config) else os.fspath(config)
        arguments = [f"--config={text}", *arguments]
    resolved, run = resolve(arguments, RaisingArgumentParser)
    with strategies.using(resolved.strategy):
        return fit(resolved, run)


def main() -> None:
    """Trains with the settings of the command line and prints the summary."""
    config, run = resolve(sys.argv[1:])
    started = time.monotonic()
    with strategies.using(config.strategy):
        trained = fit(config, run)
        if strategies.is_chief():
            print(f"\n{trained.summary}\n\n{(time.monotonic() - started) / 60:.1f} minutes")


if __name__ == "__main__":
    run_program(main)
