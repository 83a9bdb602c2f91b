"""Versions of models, in place or on their way, and what a manager does about them."""

import itertools
import shutil
from pathlib import Path

import pytest

from serving import loading
from tests.serving.managed import until
from tests.serving.models import write_old


@pytest.fixture(scope="session")
def stock(tmp_path_factory) -> Path:
    """Versions 1 to 12, each of which adds its number."""
    folder = tmp_path_factory.mktemp("stock")
    for version in range(1, 13):
        write_old(folder, version)
    return folder


@pytest.fixture
def base(tmp_path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    return folder


@pytest.fixture
def place(stock, base):
    """Puts versions of the stock where a model's are, each at once."""

    def place(*versions: int, at: Path = base, name: str | None = None) -> None:
        at.mkdir(exist_ok=True)
        for version in versions:
            unfinished = shutil.copytree(stock / str(version), at / "unfinished")
            unfinished.rename(at / (name or str(version)))

    return place


class Polls:
    """Waits for folders to be looked at again."""

    def __init__(self, monkeypatch):
        self._count = itertools.count()
        self._done = 0
        wanted = loading.versions.wanted

        def counted(*arguments):
            self._done = next(self._count)
            return wanted(*arguments)

        monkeypatch.setattr(loading.versions, "wanted", counted)

    def pass_by(self, times: int) -> None:
        target = self._done + times
        until(lambda: self._done > target)


@pytest.fixture
def polls(monkeypatch):
    return Polls(monkeypatch)


@pytest.fixture
def loads(monkeypatch) -> list[int]:
    """Versions of which loading was begun."""
    begun: list[int] = []
    load = loading.load_and_warm_up

    def counted(name, version, path, session_config):
        begun.append(version)
        return load(name, version, path, session_config)

    monkeypatch.setattr(loading, "load_and_warm_up", counted)
    return begun
