"""A run directory, which training writes and the other programs read.

config.yaml      all settings
vocabulary.txt   one token per line
encoder.json     architecture of an encoder that was read from a file (`encoder.model`)
checkpoints/     the captioner's best weights, including a frozen backbone's, so that the folder is
                 self-contained; the best weights of each stage; the critic's weights; training
                 checkpoints, from which an interrupted run continues
logs/            TensorBoard logs
metrics.json     metrics by "<split>/<decoding>/<metric>", and the training curves as "history"
captions.jsonl   one line per image: captions, references, scores
report.html      scores, curves and captions as a page
evaluations/     the last three for other settings of decoding and evaluation
export/          versions written by `caption_gan.export`
"""

import dataclasses
import hashlib
import json
import shlex
from collections.abc import Sequence
from pathlib import Path

import keras

from caption_gan.config.run import Config
from caption_gan.errors import CaptionGANError
from caption_gan.models.captioner import Captioner
from caption_gan.models.decoding.ensemble import CaptionerEnsemble
from caption_gan.models.encoders.encoder import (
    ARCHITECTURE_FILE,
    Encoder,
    build_encoder,
    restore_encoder,
)
from caption_gan.models.generators.generator import build_generator
from caption_gan.models.hugging_face.gpt2 import with_gpt2_sizes
from caption_gan.settings import CONFIG_FILE, differences, dump_config, read_config_file
from caption_gan.storage.atomic import replacing
from caption_gan.storage.paths import local_path
from caption_gan.text.kinds import open_tokenizer
from caption_gan.text.tokenizer import Tokenizer

# Settings that do not affect the trained weights.
MAY_CHANGE = {
    "run_dir",
    "checkpoint_minutes",
    "profile_steps",
    "steps_per_execution",
    "logging",
    "decoding",
    "evaluation",
    "data.cache",
}
# None stands for the size that the encoder takes, which the run's settings name.
MAY_BE_NONE = {"encoder.image_height", "encoder.image_width"}


class RunDirectory:
    """Paths and contents of a run directory.

    Args:
        path: The folder; it need not exist yet.
    """

    def __init__(self, path: str | Path):
        self.path = local_path(path)
        self.config = self.path / CONFIG_FILE
        self.vocabulary = self.path / "vocabulary.txt"
        self.architecture = self.path / ARCHITECTURE_FILE
        self.checkpoints = self.path / "checkpoints"
        self.best_weights = self.checkpoints / "best.weights.h5"
        self.critic_weights = self.checkpoints / "critic.weights.h5"
        self.history = self.checkpoints / "history.json"
        self.step_curves = self.checkpoints / "step_curves.json"
        self.parameters = self.checkpoints / "parameters.json"
        self.logs = self.path / "logs"
        self.metrics = self.path / "metrics.json"
        self.captions = self.path / "captions.jsonl"
        self.report = self.path / "report.html"

    @property
    def name(self) -> str:
        """The folder's name, also of a relative path such as `.`."""
        return self.path.resolve().name

    def stage_name(self, config: Config, number: int) -> str:
        """Returns the name of the stage at a position in `config.stages`."""
        return f"{number}-{config.stages[number]}"

    def stage_weights(self, stage: str) -> Path:
        """Returns the path of the captioner's best weights in a stage, given its name."""
        return self.checkpoints / f"{stage}.weights.h5"

    def read_config(self, changes: Sequence[str] = ()) -> Config:
        """Returns the settings of the run.

        Args:
            changes: Settings that replace the run's, as on a command line.

        Raises:
            CaptionGANError: The folder holds no run.
            UsageError: A setting is unknown or has a wrong value.
        """
        if not self.config.is_file():
            raise CaptionGANError(
                f"{self.path} is not a run directory: it has no {self.config.name}. Give the "
                "folder that `python -m caption_gan.fit` printed at its end."
            )
        config = read_config_file(self.config, changes)
        # The run may have been moved since its settings were written.
        return dataclasses.replace(config, run_dir=str(self.path))

    def write_config(self, config: Config) -> None:
        """Writes the settings of the run, usable from any folder."""
        config = dataclasses.replace(config, run_dir=str(self.path.absolute()))
        with replacing(self.config) as temporary:
            temporary.write_text(dump_config(config), encoding="utf-8")

    def changes(self, config: Config) -> list[str]:
        """Returns one line per setting that differs from the run's and affects training."""
        return [
            f"{name} was {before}, is {now}"
            for name, before, now in differences(self.read_config(), config)
            if not {name, name.partition(".")[0]} & MAY_CHANGE
            and not (now is None and name in MAY_BE_NONE)
        ]

    @property
    def is_trained(self) -> bool:
        """Whether anything was trained that other settings could contradict."""
        return self.best_weights.exists() or any(self.checkpoints.glob("*/epoch-*"))

    def stages_done(self, config: Config) -> int:
        """Returns the number of finished stages, those before the last one with a checkpoint."""
        started = [
            number
            for number in range(len(config.stages))
            if any(self.stage_checkpoints(config, number).glob("epoch-*"))
        ]
        return max(started, default=0)

    def stage_checkpoints(self, config: Config, number: int) -> Path:
        """Returns the folder of the training checkpoints of a stage, given its position."""
        return self.checkpoints / self.stage_name(config, number)

    def kept_weights(self, config: Config, stages: int) -> Path | None:
        """Returns the newest best weights of the first `stages` stages; None if there are none."""
        names = [self.stage_name(config, number) for number in range(stages)]
        kept = [self.stage_weights(name) for name in names if self.stage_weights(name).exists()]
        return kept[-1] if kept else None

    def weights_digest(self) -> str:
        """Returns the SHA-256 of the best weights, which `metrics.json` records."""
        with self.best_weights.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def read_step_curves(self) -> dict[str, list[dict[str, float]]]:
        """Returns training metrics over every few steps, by stage; see `callbacks.StepCurves`."""
        return json.loads(self.step_curves.read_text()) if self.step_curves.is_file() else {}

    def read_parameters(self) -> dict[str, dict[str, tuple[int, int]]]:
        """Returns the numbers of trained and frozen parameters, by stage and network."""
        return json.loads(self.parameters.read_text()) if self.parameters.is_file() else {}

    def read_history(self) -> dict[str, list[dict[str, float]]]:
        """Returns the metrics of each epoch so far, by stage."""
        return json.loads(self.history.read_text()) if self.history.is_file() else {}


def open_encoder(config: Config) -> tuple[Config, Encoder]:
    """Builds the encoder with its pretrained weights, and settings with the image size it takes.

    Raises:
        CaptionGANError: See `build_encoder`.
    """
    encoder = build_encoder(config.encoder)
    if not encoder.needs_pixels:
        return config, encoder
    settings = dataclasses.replace(
        config.encoder, image_height=encoder.image_height, image_width=encoder.image_width
    )
    return dataclasses.replace(config, encoder=settings), encoder


def open_pretrained_generator(config: Config, run: RunDirectory) -> Config:
    """Returns settings with the sizes of the pretrained generator, whose files are checked.

    Those of a run that was trained have them already, and it needs the files no more.

    Raises:
        CaptionGANError: See `with_gpt2_sizes`.
    """
    if config.generator.kind != "gpt2" or run.is_trained:
        return config
    generator = with_gpt2_sizes(config.generator, config.text.sequence_length)
    return dataclasses.replace(config, generator=generator)


def build_captioner(config: Config, encoder: Encoder, vocabulary_size: int) -> Captioner:
    """Returns a captioner with newly initialised weights."""
    generator = build_generator(config.generator, vocabulary_size, encoder.regions_shape)
    return Captioner(encoder, generator, name="captioner")


def read_trained_config(path: str | Path, changes: Sequence[str] = ()) -> Config:
    """Returns the settings of a run that can be loaded; see `load_run`."""
    run = RunDirectory(path)
    config = run.read_config(changes)
    if not run.best_weights.is_file():
        raise CaptionGANError(
            f"{run.path} has no trained weights yet; continue it with "
            f"`python -m caption_gan.fit --run_dir {shlex.quote(str(run.path))}`."
        )
    return config


def load_run(path: str | Path, changes: Sequence[str] = ()) -> tuple[Config, Tokenizer, Captioner]:
    """Returns settings, tokenizer and trained captioner of a run directory.

    Args:
        path: The run directory.
        changes: Settings that replace the run's, as on a command line.

    Raises:
        CaptionGANError: The folder holds no run, or the run has no trained weights yet.
    """
    run = RunDirectory(path)
    config = read_trained_config(path, changes)
    tokenizer = open_tokenizer(run.vocabulary, config.text.tokenizer, config.text.sequence_length)
    encoder = restore_encoder(run.path, config.encoder)
    # Only gradients compute anything again.
    plain = dataclasses.replace(config.generator, rematerialize=False)
    captioner = build_captioner(
        dataclasses.replace(config, generator=plain), encoder, tokenizer.vocabulary_size
    )
    load_weights(captioner, run.best_weights)
    return config, tokenizer, captioner


def load_ensemble(
    paths: Sequence[str | Path],
) -> tuple[Config, Tokenizer, Captioner | CaptionerEnsemble]:
    """Returns what `load_run` returns, for an ensemble of runs, with the settings of the first.

    Raises:
        CaptionGANError: A run cannot be loaded, or the runs are incompatible.
    """
    config, tokenizer, captioner = load_run(paths[0])
    captioners = [captioner]
    for path in paths[1:]:
        other, _, captioner = load_run(path)
        vocabularies = {RunDirectory(run).vocabulary.read_bytes() for run in (paths[0], path)}
        sizes = {run.encoder.image_size for run in (config, other)}
        regions = {member.generator.regions_shape[0] for member in (captioners[0], captioner)}
        same = len(vocabularies) == len(sizes) == len(regions) == 1
        if not same or config.text != other.text:
            raise CaptionGANError(
                f"{path} and {paths[0]} cannot form an ensemble: their vocabulary, text settings, "
                "image size and number of regions must be equal. Train both on the same data "
                "with different seeds."
            )
        captioners.append(captioner)
    return config, tokenizer, CaptionerEnsemble(captioners) if paths[1:] else captioners[0]


def save_weights(captioner: keras.Model, path: Path) -> None:
    """Writes a network's weights atomically."""
    with replacing(path) as temporary:
        captioner.save_weights(temporary)


def load_weights(network: keras.Model, path: Path) -> None:
    """Loads weights that `save_weights` wrote.

    Raises:
        CaptionGANError: The file is damaged or belongs to another network.
    """
    try:
        network.load_weights(path)
    except (ValueError, OSError) as error:
        raise CaptionGANError(
            f"{path} does not hold weights of this network: {str(error).splitlines()[0]}"
        ) from error
