"""Fixtures for tests of the model manager: ready versions, a model's folder, and its polls."""

import itertools
import shutil
from pathlib import Path

import pytest

from serving import loader
from tests.serving.manager_helpers import wait_until
from tests.serving.saved_models import write_tf1


@pytest.fixture(scope="session")
def ready_versions(tmp_path_factory) -> Path:
    """A folder of versions 1 to 12 of a model that adds its version to the input."""
    folder = tmp_path_factory.mktemp("ready_versions")
    for version in range(1, 13):
        write_tf1(folder, version)
    return folder


@pytest.fixture
def base_path(tmp_path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    return folder


@pytest.fixture
def publish(ready_versions, base_path):
    """Copies ready versions into a model's folder, each by an atomic rename."""

    def publish(*versions: int, at: Path = base_path, name: str | None = None) -> None:
        at.mkdir(exist_ok=True)
        for version in versions:
            unfinished = shutil.copytree(ready_versions / str(version), at / "unfinished")
            unfinished.rename(at / (name or str(version)))

    return publish


class Polls:
    """Counts the manager's polls, and waits for more of them."""

    def __init__(self, monkeypatch):
        self._count = itertools.count()
        self._done = 0
        aspired_versions = loader.aspired_versions

        def counting(*arguments):
            self._done = next(self._count)
            return aspired_versions(*arguments)

        monkeypatch.setattr(loader, "aspired_versions", counting)

    def wait_for(self, times: int) -> None:
        target = self._done + times
        wait_until(lambda: self._done > target)


@pytest.fixture
def polls(monkeypatch):
    return Polls(monkeypatch)


@pytest.fixture
def started_loads(monkeypatch) -> list[int]:
    """The versions whose loading has started."""
    started: list[int] = []
    load = loader.load_and_warm_up

    def counting(name, version, *arguments):
        started.append(version)
        return load(name, version, *arguments)

    monkeypatch.setattr(loader, "load_and_warm_up", counting)
    return started
