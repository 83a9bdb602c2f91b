"""Runs whose encoder was read from a file or preset are used without it, from shards to export."""

import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

import caption_gan
from tests.programs import SMALL, call

SIZE = 32


def keras_model(path: Path) -> list[str]:
    pixels = keras.Input((SIZE, SIZE, 3))
    cells = keras.layers.Conv2D(6, 8, 8, name="first")(keras.layers.Rescaling(1 / 255)(pixels))
    keras.Model(pixels, keras.layers.Conv2D(8, 1)(cells)).save(path / "tiny.keras")
    return [f"--encoder.model={path / 'tiny.keras'}", "--encoder.frozen_up_to=first"]


def keras_hub(path: Path) -> list[str]:
    hub = pytest.importorskip("keras_hub", reason="keras-hub is not installed (extra `hub`)")
    backbone = hub.models.ViTBackbone(
        image_shape=(SIZE, SIZE, 3),
        patch_size=8,
        num_layers=2,
        num_heads=2,
        hidden_dim=8,
        mlp_dim=8,
    )
    backbone.save_to_preset(path)
    hub.layers.ImageConverter(image_size=(SIZE, SIZE), scale=1 / 255).save_to_preset(path)
    return [f"--encoder.model={path}", "--encoder.frozen_up_to=transformer_block_1"]


@pytest.mark.slow
@pytest.mark.parametrize("make", [keras_model, keras_hub], ids=lambda make: make.__name__)
def test_a_run_needs_no_file_and_no_preset(make, tmp_path):
    network, run = tmp_path / "network", tmp_path / "run"
    network.mkdir()
    sizes = ("--encoder.image_height", "--encoder.image_width", "--encoder.width")
    settings = [
        *(setting for setting in SMALL if not setting.startswith(sizes)),
        *make(network),
        *(f"--encoder.name={make.__name__}", "--encoder.trainable=true", f"--run_dir={run}"),
        *(f"--data.cache={tmp_path / 'cache'}", "--maximum_likelihood.epochs=1"),
    ]
    done = call("fit", *settings)
    assert done.returncode == 0, done.stderr
    assert "image_height: 32" in (run / "config.yaml").read_text()
    shutil.rmtree(network)

    picture = tmp_path / "chart.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 20, 3), np.uint8)).save(picture)
    captioned = call("caption", run, picture, "--json")
    assert captioned.returncode == 0, captioned.stderr
    before = json.loads((run / "metrics.json").read_text())["val/greedy/CIDEr"]
    evaluated = call("evaluate", run)
    assert evaluated.returncode == 0, evaluated.stderr
    assert json.loads((run / "metrics.json").read_text())["val/greedy/CIDEr"] == before
    exported = call("export", run, "--json")
    assert exported.returncode == 0, exported.stderr
    saved_model = json.loads(exported.stdout)["saved_model"]
    served = call("caption", saved_model, picture, "--json")
    first, second = (
        json.loads(done.stdout)["images"][0]["captions"][0] for done in (captioned, served)
    )
    assert first["caption"] == second["caption"]
    assert first["score"] == pytest.approx(second["score"], abs=1e-4)
    # The places of its regions are those of the network.
    (caption,) = caption_gan.load(saved_model).caption(picture, n=1, attention=True)
    assert caption.attention.shape[1:] == (4, 4)
