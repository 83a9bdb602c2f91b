"""Every command in the documentation and in docstrings is accepted by its program."""

import argparse
import importlib
import importlib.util
import logging
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from unittest.mock import MagicMock

import pytest

from caption_gan.command_line import ArgumentParser
from caption_gan.data.sources.registry import SYNTHETIC
from caption_gan.errors import CaptionGANError
from tests.commands import PAGES, PROGRAMS, ROOT, SETTINGS, Command, commands_of

# What each program calls once its arguments, and the files of settings among them, are read and
# checked.
WORK = {
    "caption_gan.caption": ["load_captioner"],
    "caption_gan.evaluate": ["evaluate_all", "score_results", "correlate_with_ratings"],
    "caption_gan.export": ["export_run"],
    "caption_gan.fit": ["strategies.using"],  # Several workers would wait for each other.
    "caption_gan.input_server": ["start_dispatcher", "start_worker"],
    "caption_gan.prepare": ["prepare"],
    "caption_gan.train_dual_encoder": ["train_dual_encoder"],
    "serving.client": ["_caption_files"],
    "serving.demo": ["connect_grpc"],
    "serving.push": ["push", "roll_back"],
    "serving.server": ["ModelServer"],
    "tests.serving.check_contract": ["write_models", "pytest.main"],
}
# Programs of others, and why their commands are only looked at.
OTHERS = {
    ".ci/run": "runs this suite in a fresh environment",
    "curl": "needs the server; test_journey.py runs it",
    "docker": "needs a container engine",
    "export": "sets a variable of the shell",
    "helm": "needs a cluster",
    "kubectl": "needs a cluster",
    "pip": "needs a network",
    "python3.11": "creates the environment that the tests are in",
    "ruff": "test_style.py runs it",
    "source": "enters the environment that the tests are in",
    "tensorboard": "serves until it is stopped",
}


class Accepted(BaseException):
    """Raised where the work begins; not an error that a program could catch."""


def accept(*_: object, **__: object) -> None:
    raise Accepted


def refuse(message: str, *values: object) -> None:
    raise AssertionError(message % values)


def accept_after(function: Callable) -> Callable:
    """The function, after which the work would begin."""

    def wrapped(*arguments, **options):
        function(*arguments, **options)
        raise Accepted

    return wrapped


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The working directory: the project, except that nothing is written into it."""
    for name in ("configs", "docs", "serving", "tests", "tools"):
        (tmp_path / name).symlink_to(ROOT / name)
    for name in ("COCO", "FLICKR8K", "SCICAP", "photos"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    return tmp_path


def check(command: Command, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a command up to its work.

    Raises:
        AssertionError: Its program does not exist or does not accept its arguments.
    """
    program, *arguments = command.words
    if program != "python":
        assert program in OTHERS, f"{command}: an unknown program"
        return
    # Folders of the machines that the documentation speaks of.
    arguments = [re.sub(r"^/(?=shared|MOUNTED)", f"{folder}/", each) for each in arguments]
    if arguments[:2] == ["-m", "pytest"]:
        paths = [each for each in arguments[2:] if not each.startswith("-")]
        assert all((ROOT / path).exists() for path in paths), command
        return
    name = arguments.pop(0)
    name = arguments.pop(0) if name == "-m" else name
    with monkeypatch.context() as patch:
        module = stop_tool(name, patch) if name.endswith(".py") else stop_program(name, patch)
        patch.setattr(sys, "argv", [name, *arguments])
        # The server only warns of unknown flags.
        patch.setattr(logging.getLogger("serving"), "warning", refuse)
        try:
            module.main()
        except Accepted:
            assert name != "caption_gan.fit" or names_its_data(module, arguments), command
            return
        except SystemExit as ended:
            if "--help" in arguments and not ended.code:
                return
        except CaptionGANError as error:
            raise AssertionError(f"{command}: {error}") from error
    raise AssertionError(f"{command}: refused, or no work was begun")


def names_its_data(fit: ModuleType, arguments: list[str]) -> bool:
    """Whether a training has its data, which only its work would notice."""
    data = fit.resolve(arguments)[0].data
    return data.source in SYNTHETIC or bool(data.root or data.shards)


def stop_program(name: str, patch: pytest.MonkeyPatch) -> ModuleType:
    """Loads a program and stops it where its work begins."""
    module = importlib.import_module(name)
    for work in WORK[name]:
        *owner, function = work.split(".")
        patch.setattr(getattr(module, owner[0]) if owner else module, function, accept)
    return module


def stop_tool(name: str, patch: pytest.MonkeyPatch) -> ModuleType:
    """Loads a tool and stops it once its command line, or its settings, are read."""
    for extra in ("torch", "transformers"):  # Of the extra `benchmark`.
        if importlib.util.find_spec(extra) is None:
            patch.setitem(sys.modules, extra, MagicMock())
    module = importlib.import_module(Path(name).stem)
    if hasattr(module, "read_config"):
        patch.setattr(module, "read_config", accept_after(module.read_config))
    else:
        for parser in (argparse.ArgumentParser, ArgumentParser):
            patch.setattr(parser, "parse_args", accept_after(parser.parse_args))
    return module


@pytest.mark.parametrize(
    "path",
    [path for path in [*PAGES, *SETTINGS, *PROGRAMS] if commands_of(path)],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_programs_accept_their_commands(path, folder, monkeypatch):
    for command in commands_of(path):
        check(command, folder, monkeypatch)


def test_pages_have_the_commands_that_readers_see():
    """The commands are found; a page in another format would be checked for nothing."""
    found = {path.name: len(commands_of(path)) for path in [*PAGES, *SETTINGS, *PROGRAMS]}
    assert found["README.md"] > 0 and sum(found.values()) > 100
    assert all(found[path.name] for path in [*SETTINGS, *PROGRAMS])


@pytest.mark.parametrize(
    "words",
    [
        "python -m caption_gan.fit --data.rot photos",
        "python -m caption_gan.fit --config configs/none.yaml",
        "python -m caption_gan.fit --decoding.beam_groups 2",
        "python -m caption_gan.fit --config configs/coco2014.yaml",
        "python -m caption_gan.export runs/NAME --too MODELS",
        "python -m caption_gan.evaluate",
        "python -m serving.server --model_nam=captioner",
        "python -m serving.server --model_base_path=MODELS --rest_port=8501",
        "python -m serving.client photo.jpg --temperature 0.8",
        "python tools/benchmark_memory.py wgan",
        "python tools/benchmark_memory.py wgan_gp --generator.hiden_size 16",
        "python -m pytest tests/none.py",
        "pyton -m caption_gan.fit",
    ],
)
def test_wrong_commands_are_noticed(words, folder, monkeypatch):
    with pytest.raises(AssertionError):
        check(Command("a page", tuple(words.split())), folder, monkeypatch)
