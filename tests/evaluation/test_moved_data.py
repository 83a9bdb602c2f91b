"""Runs and SavedModels whose data set was moved."""

import dataclasses
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

import caption_gan
import caption_gan.evaluate
from caption_gan.data.shards.files import IndexedImage, PreparedSplit
from caption_gan.data.shards.prepare import prepare_splits
from caption_gan.errors import CaptionGANError
from caption_gan.evaluation.known_data import describe_data, describe_difference
from caption_gan.evaluation.saved_models import METRICS, SETTINGS
from caption_gan.exporting import versions
from caption_gan.exporting.versions import export_run
from caption_gan.models.encoders.encoder import build_encoder
from caption_gan.prepare import prepare
from caption_gan.run import RunDirectory
from tests.runs import picture, untrained_run
from tests.test_evaluate import FileSizeCaptioner

CAPTIONS = ("a red line rises", "two dots cross")


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory) -> tuple[RunDirectory, Path]:
    """A run that was evaluated on 3 images, and where its data set was moved afterwards."""
    folder = tmp_path_factory.mktemp("moved")
    root = folder / "data"
    root.mkdir()
    rows = []
    for number in range(12):
        (root / f"{number}.png").write_bytes(picture(number))
        rows.append({"file_name": f"{number}.png", "text": CAPTIONS[number % 2]})
    (root / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = ["--data.source=folder", f"--data.root={root}", "--data.held_out=0.25"]
    settings += [f"--data.cache={folder / 'cache'}", "--evaluation.bootstrap_samples=10"]
    run = untrained_run(folder / "run", settings=settings)
    config = run.read_config()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", "")  # Without Java.
        prepare_splits(config, build_encoder(config.encoder), ["train"])
        prepare(config, str(folder / "shards"))
        caption_gan.evaluate(run.path)
    return run, root.rename(folder / "elsewhere")


@pytest.fixture
def run(evaluated, tmp_path, monkeypatch) -> RunDirectory:
    """A copy of the run."""
    monkeypatch.setenv("PATH", "")
    return RunDirectory(shutil.copytree(evaluated[0].path, tmp_path / "run"))


@pytest.fixture
def moved(evaluated, tmp_path) -> Path:
    """A copy of its data set."""
    return Path(shutil.copytree(evaluated[1], tmp_path / "data"))


def scores(run: RunDirectory) -> dict:
    """Everything in `metrics.json` but the places of shards."""
    metrics = json.loads(run.metrics.read_text())
    for split in metrics["data"].values():
        del split["shards"]
    return metrics


def test_a_moved_data_set_gives_the_same_results(run, moved, capsys):
    before = scores(run), run.captions.read_text()
    root = run.read_config().data.root
    assert before[0]["data"]["val"]["images"] == 3
    assert "val/greedy/novel_captions" in before[0]
    with pytest.raises(CaptionGANError, match=r"/data is not a folder; .*--data\.root FOLDER"):
        caption_gan.evaluate(run.path)
    caption_gan.evaluate(run.path, data={"root": moved})
    assert (scores(run), run.captions.read_text()) == before
    assert "differs" not in capsys.readouterr().err
    assert run.read_config().data.root == root


def test_shards_instead_of_the_data_set(run, evaluated):
    before = scores(run)
    with pytest.raises(CaptionGANError, match=r"none/content\.json is missing; .*--data\.shards"):
        caption_gan.evaluate(run.path, data={"shards": "/none"})
    caption_gan.evaluate(run.path, data={"shards": evaluated[0].path.parent / "shards"})
    assert scores(run) == before


def test_fewer_images_are_reported(run, moved, capsys):
    lines = (moved / "metadata.jsonl").read_text().splitlines()
    (moved / "metadata.jsonl").write_text("\n".join(lines[:8]))
    caption_gan.evaluate(run.path, data={"root": moved})
    line = "the split 'val' differs from the one that was evaluated before: it has 2 images instead"
    assert line in capsys.readouterr().err
    assert line.replace("'", "&#39;") in run.report.read_text()


def test_other_images_or_captions_are_noticed(run):
    def split(*images: IndexedImage) -> PreparedSplit:
        return PreparedSplit("shards", "val", images, 0, [])

    first, second = IndexedImage("a", "1", ("a dog",)), IndexedImage("b", "2", ("a cat",))
    known = {"val": describe_data(split(first, second))}
    assert describe_difference(known, split(second, first)) is None
    assert describe_difference({}, split(first)) is None
    renamed = dataclasses.replace(first, image_id="monday/a")
    assert describe_difference(known, split(renamed, second)) is None
    for other in (
        dataclasses.replace(first, digest="3"),
        dataclasses.replace(first, captions=("a dog runs",)),
    ):
        assert "2 images or their captions are others" in str(
            describe_difference(known, split(other, second))
        )


def test_a_saved_model_whose_data_set_was_moved(run, moved, tmp_path, capsys):
    version = tmp_path / "1"
    module = FileSizeCaptioner("bytes")
    tf.saved_model.save(module, str(version), {"serving_default": module.greedy})
    (version / SETTINGS).parent.mkdir()
    shutil.copy(run.config, version / SETTINGS)
    shutil.copy(run.metrics, version / METRICS)
    with pytest.raises(CaptionGANError, match=r"--data\.root FOLDER"):
        caption_gan.evaluate(version)
    found = caption_gan.evaluate(version, data={"root": moved})
    assert {"val/greedy/CIDEr", "val/greedy/novel_captions"} <= found.keys()
    assert "differs" not in capsys.readouterr().err
    with pytest.raises(CaptionGANError, match=r"decoding was fixed .* leave out decoding\.samples"):
        caption_gan.evaluate(version, decoding={"samples": 3})
    with pytest.raises(CaptionGANError, match=r"leave out decoding\.top_p"):
        caption_gan.load(version, decoding={"top_p": 0.5})


def test_flags_hold_for_all_runs_that_are_compared(run, moved, tmp_path, monkeypatch):
    other = shutil.copytree(run.path, tmp_path / "other")
    program = sys.modules["caption_gan.evaluate"]
    calls = []

    def evaluate_captioner(path, split, frontier, changes):
        calls.append((path, changes))
        return SimpleNamespace(to_json=dict)

    def compare(evaluations):
        raise CaptionGANError("no further")

    monkeypatch.setattr(program, "evaluate_captioner", evaluate_captioner)
    monkeypatch.setattr(program, "summary", str)
    monkeypatch.setattr(program, "compare", compare)
    monkeypatch.setattr(
        sys, "argv", ["evaluate", str(run.path), str(other), f"--data.root={moved}"]
    )
    with pytest.raises(CaptionGANError, match="no further"):
        program.main()
    assert calls == [(str(path), [f"--data.root={moved}"]) for path in (run.path, other)]


def test_quantization_of_a_run_whose_data_set_was_moved(run, moved, tmp_path, monkeypatch):
    with pytest.raises(CaptionGANError, match=r"--data\.root FOLDER"):
        export_run(run.path, tmp_path / "to", "2.20", weights="float16")
    places: list[str | None] = []

    def quantize(captioner, caption, config, weights):
        places.append(config.data.root)
        raise CaptionGANError("no further")

    monkeypatch.setattr(versions, "quantize", quantize)
    with pytest.raises(CaptionGANError, match="no further"):
        export_run(run.path, tmp_path / "to", "2.20", (), "float16", [f"--data.root={moved}"])
    assert places == [str(moved)]


def test_export_is_refused_before_the_run_is_loaded(run, tmp_path, monkeypatch):
    monkeypatch.setattr(versions, "load_ensemble", lambda paths: pytest.fail("late"))
    (tmp_path / "file").touch()
    with pytest.raises(CaptionGANError, match=r"choose another --to"):
        export_run(run.path, tmp_path / "file" / "to", "2.20")
    with pytest.raises(CaptionGANError, match=r"--engine"):
        export_run(run.path, tmp_path / "to", "2.x")


def test_moved_regions_and_karpathy_files_are_asked_for(tmp_path):
    regions = tmp_path / "regions"
    regions.mkdir()
    np.save(regions / "0.npy", np.zeros([2, 3], np.float32))
    settings = ["--encoder.name=precomputed", f"--encoder.regions={regions}"]
    run = untrained_run(tmp_path / "run", settings=[*settings, "--data.source=coco"])
    moved = regions.rename(tmp_path / "moved")
    with pytest.raises(CaptionGANError, match=r"--encoder\.regions FOLDER"):
        caption_gan.evaluate(run.path)
    with pytest.raises(CaptionGANError, match=r"--data\.karpathy FILE"):
        caption_gan.evaluate(
            run.path,
            encoder={"regions": moved},
            data={"root": str(tmp_path), "karpathy": str(tmp_path / "none.json")},
        )
