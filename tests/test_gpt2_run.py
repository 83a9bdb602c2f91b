"""A run with GPT-2 is used without its folder, from training to the exported model."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from caption_gan.run import RunDirectory
from tests.captioners import GPT2
from tests.programs import SMALL, call

SETTINGS = ["--generator.kind=gpt2", "--text.tokenizer=byte_pair", "--text.sequence_length=14"]


@pytest.mark.slow
@pytest.mark.parametrize("image_input", ["prefix", "cross_attention"])
def test_a_run_needs_no_folder(image_input, tmp_path):
    folder, run = tmp_path / "gpt2", RunDirectory(tmp_path / "run")
    shutil.copytree(GPT2, folder)
    settings = [
        *(*SMALL, *SETTINGS, f"--generator.weights={folder}", f"--run_dir={run.path}"),
        *("--generator.prefix_length=3", f"--generator.image_input={image_input}"),
        *(f"--data.cache={tmp_path / 'cache'}", "--maximum_likelihood.epochs=1"),
    ]
    done = call("fit", *settings)
    assert done.returncode == 0, done.stderr
    config = run.read_config()
    assert (config.generator.hidden_size, config.generator.layers) == (8, 2)
    # Drawn charts use a part of the 330 pieces.
    assert len(run.vocabulary.read_text().splitlines()) < 100
    shutil.rmtree(folder)

    picture = tmp_path / "chart.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 20, 3), np.uint8)).save(picture)
    captioned = call("caption", run.path, picture, "--json")
    assert captioned.returncode == 0, captioned.stderr
    before = json.loads(run.metrics.read_text())["val/greedy/CIDEr"]
    continued = call("fit", f"--run_dir={run.path}", "--maximum_likelihood.epochs=1")
    assert continued.returncode == 0, continued.stderr
    assert json.loads(run.metrics.read_text())["val/greedy/CIDEr"] == before
    exported = call("export", run.path, "--json")
    assert exported.returncode == 0, exported.stderr
    served = call("caption", json.loads(exported.stdout)["saved_model"], picture, "--json")
    first, second = (
        json.loads(done.stdout)["images"][0]["captions"][0] for done in (captioned, served)
    )
    assert first["caption"] == second["caption"]
    assert first["score"] == pytest.approx(second["score"], abs=1e-4)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (SETTINGS, "generator.weights is not set"),
        ([SETTINGS[0], f"--generator.weights={GPT2}"], "text.tokenizer is word"),
        ([f"--generator.weights={GPT2}"], "generator.kind is gru, but generator.weights"),
        ([*SETTINGS, "--generator.weights=nowhere"], "nowhere/config.json cannot be read"),
        ([*SETTINGS, f"--generator.weights={GPT2}"], "set it to 11 or less"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_anything_is_prepared(
    settings, words, tmp_path
):
    cache, run = tmp_path / "cache", tmp_path / "run"
    done = call("fit", *SMALL, *settings, f"--run_dir={run}", f"--data.cache={cache}")
    assert done.returncode, done.stdout
    assert words in done.stderr.splitlines()[-1]
    assert not cache.exists() and not list(run.glob("*.yaml"))
