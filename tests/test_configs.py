"""Configurations of full data sets, run for a few steps on a part of the data."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import yaml

from caption_gan.data.synthetic.dataset import SyntheticSource
from caption_gan.data.synthetic.figures import FiguresDataset
from caption_gan.run import RunDirectory
from caption_gan.settings import read_config
from tests.captioners import GPT2
from tests.programs import call

# Sizes at which two cores need seconds; all other settings are those of the configuration.
STEPS = [
    "--maximum_likelihood.epochs=1",
    "--maximum_likelihood.batch_size=8",
    "--text.minimum_count=2",
    "--generator.embedding_size=32",
    "--generator.hidden_size=32",
    "--encoder.weights=none",
    "--encoder.image_height=64",
    "--encoder.image_width=64",
    "--logging.images=2",
    "--stages=[maximum_likelihood]",
]


def fit(tmp_path, name: str, *arguments: str) -> dict[str, float]:
    run = RunDirectory(tmp_path / "run")
    settings = [f"--run_dir={run.path}", f"--data.cache={tmp_path / 'cache'}"]
    done = call("fit", f"--config=configs/{name}.yaml", *STEPS, *settings, *arguments)
    assert done.returncode == 0, done.stderr
    assert run.report.is_file()
    return json.loads(run.metrics.read_text())


@pytest.mark.slow
def test_coco_on_a_part_of_the_real_data(tmp_path, real_data):
    root = tmp_path / "coco2014"
    (root / "annotations").mkdir(parents=True)
    (root / "val2014").symlink_to(real_data / "coco2014" / "val2014")
    annotations = "annotations/captions_val2014.json"
    content = json.loads((real_data / "coco2014" / annotations).read_text())
    content["images"] = content["images"][:40]
    ids = {image["id"] for image in content["images"]}
    content["annotations"] = [each for each in content["annotations"] if each["image_id"] in ids]
    (root / annotations).write_text(json.dumps(content))
    metrics = fit(tmp_path, "coco2014", f"--data.root={root}", "--data.held_out=0.2")
    assert metrics["val/beam/CIDEr"] >= 0


@pytest.mark.slow
def test_scicap_on_synthetic_figures_in_the_released_layout(tmp_path):
    root = tmp_path / "scicap"
    for split, count in (("train", 24), ("val", 6)):
        names = []
        source = SyntheticSource(FiguresDataset(), {split: count})
        folders = [root / part / split for part in ("SciCap-Caption-All", "SciCap-No-Subfig-Img")]
        listed = root / "List-of-Files-for-Each-Experiments" / "First-Sentence" / "No-Subfig"
        folders.append(listed / split)
        for folder in folders:
            folder.mkdir(parents=True)
        for index in range(count):
            example = source.example(split, index)
            names.append(f"{example.image_id}.png")
            caption = {"caption": example.captions[0], "sentence": [example.captions[0]]}
            record = {"2-normalized": {"2-2-advanced-euqation-bracket": caption}}
            (folders[0] / f"{example.image_id}.json").write_text(json.dumps(record))
            (folders[1] / names[-1]).write_bytes(example.image)
        (folders[2] / "file_idx.json").write_text(json.dumps(names))
    metrics = fit(tmp_path, "scicap", f"--data.root={root}", "--text.maximum_vocabulary=200")
    assert metrics["val/greedy/CIDEr"] >= 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["coco2014_clip_gpt2", "coco2014_siglip", "flickr8k_clip"])
def test_pretrained_networks_as_tiny_random_ones_on_drawn_images(name, tmp_path):
    pytest.importorskip("keras_hub", reason="keras-hub is not installed (extra `hub`)")
    kind = "siglip" if "siglip" in name else "clip"
    encoder = Path(shutil.copytree(GPT2.parent / kind, tmp_path / kind))
    scaling = {"do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (encoder / "preprocessor_config.json").write_text(json.dumps(scaling))
    settings = [
        *("--data.source=figures", "--data.train_images=16", "--data.val_images=4"),
        *(f"--encoder.model={encoder}", f"--run_dir={tmp_path / 'run'}"),
        *(f"--data.cache={tmp_path / 'cache'}", "--logging.images=2"),
        *("--maximum_likelihood.epochs=1", "--maximum_likelihood.batch_size=8"),
        "--text.minimum_count=1",
    ]
    if "gpt2" in name:
        # The tiny network has fewer positions.
        settings += [f"--generator.weights={GPT2}", "--text.sequence_length=11"]
    done = call("fit", f"--config=configs/{name}.yaml", *settings)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["val/beam/CIDEr"] >= 0


@pytest.mark.parametrize(
    "name", ["coco2014", "scicap", "coco2014_clip_gpt2", "coco2014_siglip", "flickr8k_clip"]
)
def test_configs_without_measured_scores_say_so(name):
    with open(f"configs/{name}.yaml") as file:
        text = file.read()
    assert "Not yet measured on the full data set" in text.split("\ndata:")[0]
    assert yaml.safe_load(text)["stages"][0] == "maximum_likelihood"


def test_the_configuration_of_the_charts_is_the_default():
    written, default = (
        read_config(given, "test") for given in (["--config=configs/figures.yaml"], [])
    )
    # By default the size is left to the encoder, for which it is the same.
    assert written.encoder.image_size == default.encoder.image_size
    size = {"image_height": 64, "image_width": 64}
    assert written == dataclasses.replace(
        default, encoder=dataclasses.replace(default.encoder, **size)
    )
