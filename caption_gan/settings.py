"""Settings on command lines, in YAML files and in Python, and how they are merged."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from caption_gan.command_line import ArgumentParser, RaisingArgumentParser
from caption_gan.config.checks import check
from caption_gan.config.paths import with_absolute_paths
from caption_gan.config.renamed import RENAMED, RENAMED_VALUES
from caption_gan.config.run import Config
from caption_gan.errors import UsageError
from caption_gan.storage.paths import local_path

CONFIG_FILE = "config.yaml"  # Of a run directory.


def config_parser(
    prog: str, description: str = "", parser_class: type[ArgumentParser] = ArgumentParser
) -> ArgumentParser:
    """Returns a parser with `--config` and all settings of a run."""
    parser = parser_class(
        prog=prog, description=description, renamed=RENAMED, renamed_values=RENAMED_VALUES
    )
    parser.add_argument("--config", action="config", help="YAML file with settings")
    parser.add_class_arguments(Config)
    return parser


def read_config(
    arguments: list[str] | None,
    prog: str,
    description: str = "",
    parser_class: type[ArgumentParser] = ArgumentParser,
) -> Config:
    """Returns the settings of a command line: defaults, then files, then single settings."""
    parser = config_parser(prog, description, parser_class)
    return config_from(parser, parser.parse_args(arguments))


def read_config_file(path: Path, changes: Sequence[str] = ()) -> Config:
    """Returns the settings of a file that `dump_config` wrote.

    Args:
        path: The file.
        changes: Settings that replace those of the file, as on a command line.

    Raises:
        CaptionGANError: Changed settings do not fit the others.
        UsageError: A setting is unknown or has a wrong value.
    """
    try:
        config = read_config(
            [f"--config={path}", *changes], str(path), parser_class=RaisingArgumentParser
        )
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error
    if changes:
        check(config)
    return config


def merge_settings(parser: ArgumentParser, arguments: Sequence[str]) -> tuple[Any, Config]:
    """Parses the command line of a program that may continue a run, and checks the settings.

    Later settings replace earlier ones: defaults, the settings of the run that `run_dir` names if
    it exists, files of `--config`, single settings. They are checked together: whether one is
    valid depends on the others.

    Args:
        parser: As `config_parser` returns it.
        arguments: The command line.

    Returns:
        The parsed arguments and their settings.

    Raises:
        CaptionGANError: Settings do not fit together.
        UsageError: A setting of the run is unknown or has a wrong value.
    """
    # --print_config would exit before the run's own settings are merged.
    silent = [each for each in arguments if not each.startswith("--print_config")]
    run_dir = parser.parse_args(silent).run_dir
    own = []
    if run_dir is not None and (file := local_path(run_dir) / CONFIG_FILE).is_file():
        read_config_file(file)  # Errors name the run's file, not the command line.
        own = [f"--config={file}"]
    parsed = parser.parse_args([*own, *arguments])
    config = config_from(parser, parsed)
    check(config)
    return parsed, config


def config_from(parser: ArgumentParser, arguments: Any) -> Config:
    """Returns the settings in the parsed arguments of a parser of `config_parser`.

    Relative paths, also those in files of settings, are relative to the working directory.
    """
    settings = parser.instantiate(arguments)
    config = Config(**{field.name: settings[field.name] for field in dataclasses.fields(Config)})
    return with_absolute_paths(config)


def dump_config(config: Config) -> str:
    """Returns the settings as YAML that `read_config` reads."""
    parser = config_parser("config")
    return parser.dump(parser.parse_object(dataclasses.asdict(config)))


def differences(first: Config, second: Config) -> list[tuple[str, Any, Any]]:
    """Returns the dotted name and both values of each setting that differs."""
    pairs = zip(_flat(first), _flat(second), strict=True)
    return [(name, before, now) for (name, before), (_, now) in pairs if before != now]


def _flat(config: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """Returns all settings as pairs of dotted name and value."""
    pairs = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            pairs += _flat(value, f"{prefix}{field.name}.")
        else:
            pairs.append((prefix + field.name, value))
    return pairs
