"""Fixtures for tests of the model manager: ready versions, a model's folder, and its polls."""

import itertools
import shutil
from pathlib import Path

import pytest

from serving import loader
from tests.serving.manager_helpers import wait_until
from tests.serving.saved_models import write_old


@pytest.fixture(scope="session")
def ready_versions(tmp_path_factory) -> Path:
    """Versions 1 to 12, each of which adds its number."""
    folder = tmp_path_factory.mktemp("ready_versions")
    for version in range(1, 13):
        write_old(folder, version)
    return folder


@pytest.fixture
def base_path(tmp_path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    return folder


@pytest.fixture
def publish(ready_versions, base_path):
    """Puts versions of the ready_versions where a model's are, each at once."""

    def publish(*versions: int, at: Path = base_path, name: str | None = None) -> None:
        at.mkdir(exist_ok=True)
        for version in versions:
            unfinished = shutil.copytree(ready_versions / str(version), at / "unfinished")
            unfinished.rename(at / (name or str(version)))

    return publish


class Polls:
    """Waits for folders to be looked at again."""

    def __init__(self, monkeypatch):
        self._count = itertools.count()
        self._done = 0
        aspired_versions = loader.aspired_versions

        def counted(*arguments):
            self._done = next(self._count)
            return aspired_versions(*arguments)

        monkeypatch.setattr(loader, "aspired_versions", counted)

    def wait_for(self, times: int) -> None:
        target = self._done + times
        wait_until(lambda: self._done > target)


@pytest.fixture
def polls(monkeypatch):
    return Polls(monkeypatch)


@pytest.fixture
def started_loads(monkeypatch) -> list[int]:
    """Versions of which loader was begun."""
    begun: list[int] = []
    load = loader.load_and_warm_up

    def counted(name, version, path, session_config):
        begun.append(version)
        return load(name, version, path, session_config)

    monkeypatch.setattr(loader, "load_and_warm_up", counted)
    return begun
