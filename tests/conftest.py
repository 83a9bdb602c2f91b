"""What all tests share."""

import signal
from pathlib import Path

import pytest

REAL_DATA = Path(__file__).parent.parent.parent / "shared" / "data"


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="also run the tests that take minutes")
    parser.addoption("--engine", help="GRPC,REST,MODELS of a server; tests.serving.check_contract")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--slow"):
        return
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="takes minutes; runs with --slow"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real photographs, charts and scores, which cannot be part of the project."""
    if not REAL_DATA.is_dir():
        pytest.skip("real data are not beside this checkout (../shared/data)")
    return REAL_DATA


@pytest.fixture
def as_in_a_terminal():
    """Ctrl-C works, also in processes begun here: a shell's background jobs ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
