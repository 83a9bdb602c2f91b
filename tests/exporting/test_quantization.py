"""An export with weights in fewer bytes."""

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from caption_gan import signature
from caption_gan.exporting.served_captioner import ServedCaptioner
from caption_gan.exporting.small_weights import SmallWeights
from caption_gan.exporting.versions import export_run
from caption_gan.run import RunDirectory, load_run
from tests.programs import call
from tests.runs import IMAGES, untrained_run


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RunDirectory:
    return untrained_run(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory) -> Path:
    return export_run(run.path, tmp_path_factory.mktemp("to"), "2.20")


@pytest.mark.parametrize(("kind", "largest_share"), [("float16", 0.55), ("int8", 0.35)])
def test_small_weights_are_served(run, exported, tmp_path, kind, largest_share):
    """What is served is the captioner with rounded weights, from fewer bytes."""
    done = call("export", run.path, f"--to={tmp_path}", f"--weights={kind}", "--json")
    assert done.returncode == 0, done.stderr
    written = json.loads(done.stdout)
    version = Path(written["saved_model"])

    config, tokenizer, captioner = load_run(run.path)
    expected = ServedCaptioner(captioner, tokenizer, config)
    before = expected.default(tf.constant(IMAGES))
    SmallWeights(captioner, kind)
    after = expected.default(tf.constant(IMAGES))
    model = tf.saved_model.load(str(version))
    found = model.signatures[signature.DEFAULT](image_bytes=tf.constant(IMAGES))
    np.testing.assert_array_equal(found[signature.CAPTION], after[signature.CAPTION])
    np.testing.assert_allclose(found[signature.SCORE], after[signature.SCORE], atol=1e-6)
    assert not np.allclose(before[signature.SCORE], after[signature.SCORE], atol=1e-6)

    def stored(folder: Path) -> int:
        (data,) = (folder / "variables").glob("variables.data*")
        return data.stat().st_size

    assert stored(version) < largest_share * stored(exported)
    rounding = written["rounding"]
    # The file has the names of the weights besides.
    assert 0 < stored(version) - 1e6 * rounding["megabytes"] < 20_000
    assert rounding["weights"] == kind
    card = (version / "assets.extra" / "MODEL_CARD.md").read_text()
    assert f"weights as {kind}: {rounding['megabytes']:.1f} MB" in card
    assert f"{rounding['cider'] - rounding['cider_before']:+.4f}" in card
