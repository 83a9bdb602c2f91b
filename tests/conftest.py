"""What all tests share."""

import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import numpy as np
import pytest

if TYPE_CHECKING:
    import tensorflow as tf

    from caption_gan.run import RunDirectory

STEP_LENGTH = 6  # Tokens of a caption in `step_batch`.
REAL_DATA = Path(__file__).parent.parent.parent / "shared" / "data"

# A loaded machine takes longer than the default of 200 ms per example.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")


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


@pytest.fixture(scope="session")
def run(tmp_path_factory) -> "RunDirectory":
    """An untrained run with a few metrics. Tests must not change it."""
    from tests.runs import METRICS, untrained_run

    directory = untrained_run(tmp_path_factory.mktemp("runs") / "run")
    directory.metrics.write_text(json.dumps(METRICS))
    return directory


@pytest.fixture(scope="session")
def exported(run) -> Path:
    """The SavedModel of `run`, which takes half a minute."""
    from tests.programs import call

    # Relative paths: the check in a fresh process runs in another folder.
    done = call("export", run.path.name, "--json", cwd=run.path.parent)
    assert done.returncode == 0, done.stderr
    version = Path(json.loads(done.stdout)["saved_model"])
    assert version.parent == Path(run.path.name) / "export"
    return run.path.parent / version


@pytest.fixture
def as_in_a_terminal():
    """Ctrl-C works, also in processes begun here: a shell's background jobs ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def step_batch() -> "dict[str, tf.Tensor]":
    """One step's data: eight images with two captions each, regions [8, R, D], ids [8, 2, T]."""
    import tensorflow as tf  # Only where it is needed: it takes seconds.

    from caption_gan.text.vocabulary import END_ID, PAD_ID, START_ID
    from tests.captioners import REGIONS, VOCABULARY

    rng = np.random.default_rng(0)
    token_ids = rng.integers(4, VOCABULARY, size=(8, 2, STEP_LENGTH))
    token_ids[..., 0] = START_ID
    for number, row in enumerate(token_ids.reshape(-1, STEP_LENGTH)):
        end = 2 + number % (STEP_LENGTH - 2)
        row[end:] = PAD_ID
        row[end] = END_ID
    regions = rng.normal(size=(8, *REGIONS)).astype(np.float32)
    return {"regions": tf.constant(regions), "token_ids": tf.constant(token_ids, tf.int32)}
