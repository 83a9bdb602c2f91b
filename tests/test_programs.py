"""The programs as users call them, from a command line to files, on small data."""

import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import yaml
from PIL import Image

from caption_gan.config.run import Config
from caption_gan.errors import CaptionGANError
from caption_gan.fit import resolve
from caption_gan.run import RunDirectory, load_run
from tests.programs import SMALL, call


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, cache) -> tuple[RunDirectory, subprocess.CompletedProcess]:
    """A run of two epochs on a few charts, with a moving average, a profile and histograms."""
    path = tmp_path_factory.mktemp("runs") / "run"
    done = call(
        "fit",
        *SMALL,
        f"--run_dir={path}",
        f"--data.cache={cache}",
        "--maximum_likelihood.epochs=2",
        "--maximum_likelihood.ema_momentum=0.9",
        "--logging.histograms=true",
        "--profile_steps=2,4",
    )
    assert done.returncode == 0, done.stderr
    return RunDirectory(path), done


def test_fit_prints_scores_captions_and_places(trained):
    run, done = trained
    for word in ("CIDEr", "fact_accuracy", "blind", "nearest", "val-000000", str(run.report)):
        assert word in done.stdout
    assert "Traceback" not in done.stderr


def test_a_run_prints_one_line_per_epoch_and_activity(trained):
    _, done = trained
    # A bar is redrawn in its line after a carriage return.
    lines = [line.rsplit("\r", 1)[-1].strip() for line in done.stderr.rstrip().split("\n")]
    expected = [
        r"preparing \S+/train: 100%.*",
        r"preparing \S+/val: 100%.*",
        r"\d+ training captions, .*",
        r"maximum_likelihood +trained +frozen +parameters",
        r"encoder +[\d,]+ +[\d,]+",
        r"generator +[\d,]+ +0",
        r"copies +0 +[\d,]+",
        r"together +[\d,]+ +[\d,]+",
        r"memory in MB: weights [\d.]+, gradients [\d.]+, optimizers [\d.]+; .*",
        r"maximum_likelihood, epoch 1: loss .*",
        # Five steps after the first one, of which an epoch has five.
        r"[\d.e-]+ seconds per step: .* for 4 steps, without validation",
        r"maximum_likelihood, epoch 2: loss .*",
        r"maximum_likelihood: 100%.*",
        r"captioning: 100%.*",
    ]
    shown = [line for line in lines if not line.startswith("signs of collapse: ")]
    assert len(shown) == len(expected), done.stderr
    for line, pattern in zip(shown, expected, strict=True):
        assert re.fullmatch(pattern, line), line


def test_the_run_directory_is_complete(trained):
    run, _ = trained
    metrics = json.loads(run.metrics.read_text())
    for name in (
        "val/greedy/CIDEr",
        "val/greedy/BLEU-4",
        "val/greedy/fact_accuracy",
        "val/greedy/repeated_token_rate",
        "val/sample/mBLEU-4",
        "val/sample/distinct_captions",
        "val/reference/distinct_captions",
        "val/blind/fact_accuracy",
        "val/nearest/fact_accuracy",
    ):
        assert isinstance(metrics[name], float), name
    (epochs,) = metrics["history"].values()
    assert [figures["epoch"] for figures in epochs] == [1, 2]
    lines = [json.loads(line) for line in run.captions.read_text().splitlines()]
    assert len(lines) == 12
    assert len(lines[0]["captions"]["sample"]) == 5
    assert yaml.safe_load(run.config.read_text())["data"]["train_images"] == 40
    assert run.vocabulary.read_text().splitlines()[:4] == ["[PAD]", "[START]", "[END]", "[UNK]"]
    assert "<html" in run.report.read_text()


def test_the_running_average_is_kept(trained):
    run, _ = trained
    (stage,) = run.read_history()
    scores = [figures["val_fact_accuracy"] for figures in run.read_history()[stage]]
    chosen = max(range(len(scores)), key=lambda epoch: (scores[epoch], epoch)) + 1
    best = tf.train.load_checkpoint(
        f"{run.checkpoints / stage}/epoch-{chosen:05d}-step-00000000/state"
    )

    def restored(part: str) -> list[np.ndarray]:
        names = [name for name in best.get_variable_to_shape_map() if name.startswith(part)]
        by_number = sorted(names, key=lambda name: int(name.split("/")[1]))
        return [best.get_tensor(name) for name in by_number]

    _, _, captioner = load_run(run.path)
    for weight, average in zip(captioner.get_weights(), restored("average/"), strict=True):
        np.testing.assert_array_equal(weight, average)
    kept, in_training = captioner.generator.embedding.get_weights()[0], restored("model/")
    same_shape = [weight for weight in in_training if weight.shape == kept.shape]
    assert same_shape
    assert not any(np.array_equal(weight, kept) for weight in same_shape)


def test_tensorboard_gets_scalars_pictures_histograms_and_a_trace(trained):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run, _ = trained
    tags: dict[str, set[str]] = {}
    for folder in {path.parent for path in run.logs.rglob("events.out.tfevents.*")}:
        events = EventAccumulator(str(folder), size_guidance={"tensors": 0})
        events.Reload()
        for tag in events.Tags()["tensors"]:
            kind = events.summary_metadata[tag].plugin_data.plugin_name
            tags.setdefault(kind, set()).add(tag)
    assert "epoch_CIDEr" in tags["scalars"]
    assert {"val-000000", "val-000001"} <= tags["images"]
    assert tags["histograms"]
    assert list(run.logs.rglob("*.xplane.pb"))


def test_same_run_dir_continues(trained, cache):
    run, _ = trained
    before = run.best_weights.stat().st_mtime_ns
    done = call("fit", f"--run_dir={run.path}")
    assert done.returncode == 0, done.stderr
    assert "epoch" not in done.stderr  # Both epochs were done.
    assert run.best_weights.stat().st_mtime_ns == before


def test_other_settings_for_the_same_run_are_refused(trained):
    run, _ = trained
    done = call("fit", f"--run_dir={run.path}", "--generator.hidden_size=32")
    assert done.returncode == 1
    assert "generator.hidden_size was 16, is 32" in done.stderr
    assert "--accept_changes" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_run_continues_with_other_settings_if_asked(tmp_path, capsys):
    run = RunDirectory(tmp_path)
    run.write_config(Config(run_dir=str(run.path)))
    (run.stage_checkpoints(Config(), 0) / "epoch-00001-step-00000000").mkdir(parents=True)
    changed = [f"--run_dir={run.path}", "--wgan_gp.mle_weight=2", "--seed=7", "--decoding.beam=3"]
    with pytest.raises(
        CaptionGANError, match=r"wgan_gp.mle_weight was 1.0, is 2.0; seed was 0, is 7"
    ):
        resolve(changed)
    config, _ = resolve([*changed, "--accept_changes"])
    assert (config.seed, config.wgan_gp.mle_weight, config.decoding.beam) == (7, 2, 3)
    assert "wgan_gp.mle_weight was 1.0, is 2.0; seed was 0, is 7\n" in capsys.readouterr().err
    assert run.read_config().seed == 0  # Until its checkpoints were found to fit.


@pytest.mark.slow
def test_a_run_trains_on_with_other_settings(trained, tmp_path):
    run = RunDirectory(tmp_path / "run")
    shutil.copytree(trained[0].path, run.path)
    settings = [f"--run_dir={run.path}", "--accept_changes"]
    # What the checkpoints do not fit is refused all the same, and does not become the run's.
    done = call("fit", *settings, "--generator.hidden_size=32")
    assert done.returncode == 1
    assert "continued with other settings: generator.hidden_size was 16, is 32" in done.stderr
    assert "does not fit the settings" in done.stderr
    assert "Traceback" not in done.stderr
    assert run.read_config().generator.hidden_size == 16

    done = call("fit", *settings, "--maximum_likelihood.epochs=3")
    assert done.returncode == 0, done.stderr
    assert "epoch 2:" not in done.stderr
    assert "epoch 3:" in done.stderr
    assert run.read_config().maximum_likelihood.epochs == 3


def test_evaluate_prints_one_json_object(trained):
    run, _ = trained
    before = json.loads(run.metrics.read_text())
    done = call("evaluate", run.path, "--split=test", "--json")
    assert done.returncode == 0, done.stderr
    (figures,) = json.loads(done.stdout).values()
    assert 0 <= figures["test/greedy/fact_accuracy"] <= 1
    after = json.loads(run.metrics.read_text())
    for name, value in before.items():
        if name in ("intervals", "not_run", "notes", "collapsed", "weights", "data"):
            assert value.items() <= after[name].items()
        else:
            assert after[name] == value
    assert after["intervals"]["test/greedy/CIDEr"] == figures["intervals"]["test/greedy/CIDEr"]
    assert after["test/greedy/CIDEr"] == pytest.approx(figures["test/greedy/CIDEr"], abs=1e-6)


@pytest.mark.slow
def test_evaluate_agrees_with_fit(trained):
    run, _ = trained
    before = json.loads(run.metrics.read_text())
    done = call("evaluate", run.path)
    assert done.returncode == 0, done.stderr
    assert json.loads(run.metrics.read_text()) == before


def test_caption_captions_image_files(trained, tmp_path):
    run, _ = trained
    picture, text, missing = tmp_path / "chart.png", tmp_path / "notes.png", tmp_path / "no.jpg"
    Image.new("RGB", (300, 200), "white").save(picture)
    text.write_text("these are no pixels")
    done = call("caption", run.path, picture, text, missing, "--n=3", "--json")
    assert done.returncode == 1
    first, second, third = json.loads(done.stdout)["images"]
    assert len(first["captions"]) == 3
    assert all(caption["score"] < 0 for caption in first["captions"])
    assert "not an image" in second["error"]
    assert "cannot be read" in third["error"]
    assert "Traceback" not in done.stderr


def test_caption_by_beam(trained, tmp_path):
    run, _ = trained
    picture = tmp_path / "chart.png"
    Image.new("RGB", (300, 200), "white").save(picture)
    done = call("caption", run.path, picture, "--beam=3", "--json")
    captions = json.loads(done.stdout)["images"][0]["captions"]
    assert len(captions) == 3
    assert done.returncode == 0


@pytest.mark.slow
def test_precomputed_regions_from_shards_to_captions(tmp_path, cache):
    folder, run = tmp_path / "regions", tmp_path / "run"
    folder.mkdir()
    for split, images in (("train", 39), ("val", 12)):
        for number in range(images):
            regions = np.random.default_rng(number).normal(size=(4, 6))
            np.save(folder / f"{split}-{number:06d}.npy", regions)
    settings = [
        *("--encoder.name=precomputed", f"--encoder.regions={folder}", f"--run_dir={run}"),
        *(f"--data.cache={cache}", "--maximum_likelihood.epochs=1"),
    ]
    done = call("fit", *SMALL, *settings)
    assert done.returncode == 0, done.stderr
    assert f"1 images have no regions in {folder}: train-000039" in done.stdout
    picture = tmp_path / "chart.png"
    Image.new("RGB", (30, 20), "white").save(picture)
    done = call("caption", run, picture)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"error: {run} was trained on precomputed")


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--data.sorce=scenes"], 2, "Did you mean data.source?"),
        (["--data.source=scene"], 2, "flickr"),
        (["--maximum_likelihood.epochs=0"], 2, "maximum_likelihood.epochs"),
        (["--profile_steps=10"], 2, "profile_steps"),
        (["--config=nowhere.yaml"], 2, "nowhere.yaml"),
        (["--data.source=flickr"], 1, "data.root is not set"),
        (["--data.source=flickr", "--data.root=/nowhere"], 1, "/nowhere is not a folder"),
        (["--encoder.name=keras_applications", "--encoder.backbone=Foo"], 1, "MobileNetV2"),
        (["--generator.attention_heads=5"], 1, "attention_heads"),
        (["--text.sequence_length=2"], 1, "sequence_length"),
    ],
)
def test_mistakes_are_answered_in_one_line(arguments, status, words, tmp_path, cache):
    done = call("fit", *SMALL, f"--data.cache={cache}", f"--run_dir={tmp_path / 'run'}", *arguments)
    assert done.returncode == status
    last = done.stderr.strip().splitlines()[-1]
    assert words in last
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run" / "config.yaml").exists()


@pytest.mark.parametrize("program", ["prepare", "evaluate", "caption", "export", "input_server"])
def test_help_and_a_wrong_call(program):
    asked = call(program, "--help")
    assert asked.returncode == 0
    assert asked.stdout.startswith("usage:")
    assert asked.stderr == ""
    wrong = call(program, "--no_such_flag=1")
    assert wrong.returncode == 2
    (line,) = wrong.stderr.splitlines()
    assert "no_such_flag" in line or "required" in line


@pytest.mark.parametrize("program", ["evaluate", "caption"])
def test_a_folder_that_is_not_a_run_is_refused(program, tmp_path):
    done = call(program, tmp_path, *(["x.png"] if program == "caption" else []))
    assert done.returncode == 1
    assert "is not a run directory" in done.stderr
    assert done.stdout == ""


@pytest.mark.slow
@pytest.mark.usefixtures("as_in_a_terminal")
def test_an_interrupted_run_can_be_evaluated_and_continued(tmp_path, cache):
    path = tmp_path / "run"
    command = [
        *(sys.executable, "-m", "caption_gan.fit", *SMALL),
        *(f"--run_dir={path}", f"--data.cache={cache}", "--maximum_likelihood.epochs=4"),
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "epoch 1:" in line:
                process.send_signal(signal.SIGINT)
                break
        rest = process.stderr.read()
    assert process.returncode == 1
    assert f"python -m caption_gan.fit --run_dir {path}" in rest
    assert "Traceback" not in rest

    done = call("evaluate", path)
    assert done.returncode == 0, done.stderr
    done = call("fit", f"--run_dir={path}")
    assert done.returncode == 0, done.stderr
    assert "epoch 1:" not in done.stderr
    assert "epoch 4:" in done.stderr
    (epochs,) = json.loads(RunDirectory(path).metrics.read_text())["history"].values()
    assert [figures["epoch"] for figures in epochs] == [1, 2, 3, 4]
