"""`tools/readme_picture.py` on images with made-up captions and a made-up frontier."""

import importlib.util
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from caption_gan.data.synthetic.dataset import SyntheticSource
from caption_gan.data.synthetic.scenes import ScenesDataset

TOOL = Path(__file__).parents[2] / "tools" / "readme_picture.py"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location(TOOL.stem, TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_words_with_a_meaning_are_shown(tool):
    tokens = ["a", "small", "red", "circle", "is", "left", "of", "a", "large", "blue", "square"]
    shown = [tokens[place] for place in tool.shown_words(tokens)]
    assert shown == ["small", "circle", "large", "square"]
    assert tool.shown_words(["a", "the"]) == []


def test_picture(tool, tmp_path):
    example = SyntheticSource(ScenesDataset(), {"val": 1}).example("val", 0)
    tokens = example.captions[0].split()
    attention = np.random.default_rng(0).random((len(tokens), 4, 4))
    image = tool.Described(example.image, *[example.captions[0]] * 3, tokens, attention)
    points = [
        {"temperature": t, "mBLEU-4": 1 - t / 2, "fact_accuracy": 1 - t / 3} for t in (0.3, 1)
    ]
    path = tmp_path / "pictures" / "x.png"
    tool.draw([image, image], {"0-maximum_likelihood": points, "1-wgan_gp": points}, path)
    assert path.stat().st_size < 400_000
    pixels = np.asarray(Image.open(io.BytesIO(path.read_bytes())).convert("RGB"))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 100


def test_frontier_by_stage(tool, tmp_path):
    point = {"temperature": 1.0, "mBLEU-4": 0.5, "fact_accuracy": 0.5}
    selection = {"drawn": 5, "mBLEU-4": 0.5, "fact_accuracy": 0.5}
    frontier = {"1-wgan_gp": [point], "0-maximum_likelihood": [point], "critic": [selection]}
    (tmp_path / "metrics.json").write_text(json.dumps({"frontier": {"val": frontier}}))
    assert list(tool.read_frontier(tmp_path)) == ["0-maximum_likelihood", "1-wgan_gp"]


def test_a_run_with_one_stage_has_no_frontier(tool, tmp_path):
    (tmp_path / "metrics.json").write_text(json.dumps({"val/greedy/CIDEr": 1.0}))
    assert tool.read_frontier(tmp_path) == {}
