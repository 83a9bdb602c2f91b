"""Settings of a run that may differ at evaluation, captioning and export.

Those of `decoding` and `evaluation` give other results, which stand beside the run's. Those of
`data` and `encoder` name the places of files that were moved.
"""

import argparse
import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from caption_gan.command_line import ArgumentParser, RaisingArgumentParser, arguments_of
from caption_gan.config.data import DataConfig
from caption_gan.config.models import DecodingConfig, EncoderConfig
from caption_gan.config.renamed import RENAMED
from caption_gan.config.run import Config, EvaluationConfig
from caption_gan.errors import CaptionGANError
from caption_gan.run import RunDirectory
from caption_gan.settings import differences

EVALUATIONS = "evaluations"  # Folder of a run with results of other settings.
GROUPS: dict[str, type] = {
    "decoding": DecodingConfig,
    "evaluation": EvaluationConfig,
    "data": DataConfig,
    "encoder": EncoderConfig,
}
# Of these groups, only the settings that are paths.
PLACES = {"data": {"root", "karpathy", "shards", "cache"}, "encoder": {"regions", "weights"}}


def add_settings(
    parser: ArgumentParser,
    groups: Sequence[str] = tuple(GROUPS),
    skip: frozenset[str] = frozenset(),
) -> None:
    """Adds settings to a parser, without defaults: those are the run's own.

    Args:
        parser: Parser of a program.
        groups: Names in `GROUPS`.
        skip: Settings to leave out, such as `decoding.samples`.
    """
    parser.renamed = RENAMED
    for group in groups:
        names = {field.name for field in dataclasses.fields(GROUPS[group])}
        skipped = {name for name in names if f"{group}.{name}" in skip}
        skipped |= names - PLACES.get(group, names)
        parser.add_class_arguments(GROUPS[group], group, skip=skipped)
    for action in parser._actions:
        if action.dest.partition(".")[0] in groups:
            action.default = argparse.SUPPRESS


def given_settings(parsed: Any) -> list[str]:
    """The command line of the settings in the arguments that a parser of `add_settings` parsed."""
    return arguments_of({group: parsed[group].as_dict() for group in GROUPS if group in parsed})


def settings_from_python(
    settings: Mapping[str, Any], groups: Sequence[str] = tuple(GROUPS)
) -> list[str]:
    """The command line of nested settings, checked.

    Raises:
        UsageError: A setting is unknown or has a wrong value.
    """
    parser = RaisingArgumentParser(prog="settings")
    add_settings(parser, groups)
    return given_settings(parser.parse_args(arguments_of(settings)))


def refuse_decoding(saved_model: Path, changes: Sequence[str]) -> None:
    """Refuses other settings of decoding for a SavedModel."""
    names = [change.partition("=")[0].removeprefix("--") for change in changes]
    decoding = [name for name in names if name.startswith("decoding.")]
    if decoding:
        raise CaptionGANError(
            f"{saved_model} is a SavedModel, whose decoding was fixed when it was exported; leave "
            f"out {', '.join(decoding)}, or give the run that it was exported from."
        )


@dataclasses.dataclass(frozen=True)
class ResultFiles:
    """Where the results of an evaluation are.

    Attributes:
        folder: The run directory or, for other settings, a folder in it.
    """

    folder: Path

    @property
    def metrics(self) -> Path:
        """Metrics by `<split>/<decoding>/<metric>`."""
        return self.folder / "metrics.json"

    @property
    def captions(self) -> Path:
        """One line per image: captions, references, scores."""
        return self.folder / "captions.jsonl"

    @property
    def report(self) -> Path:
        """Scores, curves and captions as a page."""
        return self.folder / "report.html"


def result_files(run: RunDirectory, config: Config) -> ResultFiles:
    """Returns where results go: into the run for its own settings, else into its `evaluations/`.

    A dual encoder, where the run has none, only adds metrics to the run's own results.
    """
    own = run.read_config()
    changed = [
        f"{name.partition('.')[2]}={_file_name(value)}"
        for name, before, value in differences(own, config)
        if name.startswith(("decoding.", "evaluation."))
        and not (name == "evaluation.dual_encoder" and before is None)
    ]
    return ResultFiles(run.path / EVALUATIONS / ",".join(changed) if changed else run.path)


def _file_name(value: Any) -> str:
    if not isinstance(value, str):
        return str(value)
    # A path is not a file name, and two paths may end alike: a hash tells them apart.
    return f"{Path(value).name[:30]}-{hashlib.sha256(value.encode()).hexdigest()[:6]}"
