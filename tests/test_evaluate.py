"""The program `evaluate` on results files, human ratings and SavedModels."""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import tensorflow as tf

from caption_gan.command_line import run_program
from caption_gan.evaluate import main
from caption_gan.settings import dump_config, read_config
from tests.programs import SMALL, call

CAPTIONS = {
    1: "A red dog runs on the grass.",
    2: "a cat sleeps on a sofa",
    "three": "two men play tennis",
    4: "",
}
REFERENCES = {
    1: ["a red dog runs across grass", "the dog is red and runs on grass"],
    2: ["a cat sleeps on the sofa", "the sofa has a cat on it"],
    "three": ["two men are playing tennis", "men play a game of tennis"],
    4: ["a bus on a street", "the red bus is on the street"],
    5: ["nobody captioned this"],
}


def write_results(path: Path, captions=CAPTIONS) -> Path:
    rows = [{"image_id": key, "caption": caption} for key, caption in captions.items()]
    path.write_text(json.dumps(rows))
    return path


def write_references(path: Path) -> Path:
    annotations = [
        {"image_id": key, "caption": caption, "id": 0}
        for key, captions in REFERENCES.items()
        for caption in captions
    ]
    images = [{"id": key} for key in REFERENCES]
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    return path


@pytest.fixture
def evaluate(monkeypatch, capsys):
    """Runs the program in this process without Java; returns exit status and output."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["evaluate", *map(str, arguments)])
        monkeypatch.setenv("PATH", "")
        with pytest.raises(SystemExit) as ended:
            run_program(main)
        return ended.value.code, *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("coco")
    return write_results(folder / "results.json"), write_references(folder / "references.json")


@pytest.mark.parametrize("count", [1, 3])
def test_a_cider_that_can_only_be_zero_is_explained(evaluate, tmp_path, count):
    captions = dict.fromkeys(range(count), "a red dog")
    results, references = write_results(tmp_path / "r.json", captions), tmp_path / "references.json"
    rows = [{"image_id": key, "caption": "A red dog.", "id": key} for key in captions]
    references.write_text(json.dumps({"images": [], "annotations": rows}))
    arguments = (f"--results={results}", f"--references={references}")
    code, output, _ = evaluate(*arguments)
    assert code == 0
    assert "COLLAPSED" not in output
    assert "CIDEr is 0 by definition" in output
    scores = json.loads(evaluate(*arguments, "--json")[1])
    assert scores["CIDEr"] == 0
    assert "by definition" in scores["notes"][0]


def test_results_file_is_scored(files):
    results, references = files
    done = call("evaluate", f"--results={results}", f"--references={references}", "--json")
    assert done.returncode == 0, done.stderr
    metrics = json.loads(done.stdout)
    assert metrics["images"] == 4
    for name in ("BLEU-1", "BLEU-4", "ROUGE-L", "CIDEr", "object_recall", "CIDEr_drop"):
        low, high = metrics["intervals"][name]
        assert 0 <= low <= metrics[name] <= high, name
    assert metrics["not_run"] == {"METEOR": "no java on the PATH", "SPICE": "no java on the PATH"}
    assert not {"METEOR", "SPICE"} & (set(metrics) | set(metrics["intervals"]))
    assert metrics["collapsed"] == []
    assert len(metrics["notes"]) == 2


def test_terminal_output_of_a_results_file(files, evaluate):
    _, output, _ = evaluate(f"--results={files[0]}", f"--references={files[1]}")
    assert re.search(r"^CIDEr +\d\.\d{4}  \[", output, re.MULTILINE)
    for line in (
        "METEOR                not run: no java on the PATH",
        "1 captions are empty and score 0",
        f"1 images of {files[1]} have no caption and do not count",
    ):
        assert line in output.splitlines()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("java") is None, reason="java is not on the PATH")
def test_meteor_runs_if_java_is_installed(files):
    arguments = [f"--results={files[0]}", f"--references={files[1]}", "--json"]
    done = call("evaluate", *arguments, java=True)
    metrics = json.loads(done.stdout)
    assert 0.2 < metrics["METEOR"] < 0.6
    assert "METEOR" not in metrics["not_run"]


def test_collapsed_results_file_is_reported(files, tmp_path, evaluate):
    same = write_results(tmp_path / "same.json", dict.fromkeys(CAPTIONS, "a a a a a a"))
    _, output, _ = evaluate(f"--results={same}", f"--references={files[1]}")
    assert output.startswith("COLLAPSED: repeated_token_rate is 1.000")


@pytest.mark.parametrize(
    ("captions", "words"),
    [
        ({9: "a dog"}, "no reference"),
        ({1: None}, "number 1"),
        ({1: float("nan")}, "number 1"),
    ],
)
def test_bad_results_end_with_one_line(files, tmp_path, evaluate, captions, words):
    bad = write_results(tmp_path / "bad.json", captions)
    status, output, errors = evaluate(f"--results={bad}", f"--references={files[1]}", "--json")
    assert (status, output) == (1, "")
    assert words in errors
    assert len(errors.splitlines()) == 1


def test_metrics_are_correlated_with_human_ratings(files, tmp_path, evaluate):
    ratings = tmp_path / "ratings.jsonl"
    rows = [
        (1, "a red dog runs on grass", [4, 4]),
        (1, "a dog on grass", [3, 4]),
        (1, "a man rides a bus", [1, 1]),
        (2, "a cat sleeps on a wide sofa", [4, 3]),
        (2, "a cat", [2, 3]),
        (2, "tennis players", [1, 1]),
    ]
    ratings.write_text(
        "\n".join(
            json.dumps({"image_id": key, "caption": caption, "ratings": ratings_of_pair})
            for key, caption, ratings_of_pair in rows
        )
    )
    arguments = [f"--ratings={ratings}", f"--references={files[1]}"]
    result = json.loads(evaluate(*arguments, "--json")[1])
    assert result["pairs"] == 6
    assert all(0.5 < tau <= 1.1 for tau in result["correlation"].values())
    assert set(result["correlation"]) == {"BLEU-1", "BLEU-4", "ROUGE-L", "CIDEr"}
    assert result["not_run"]["METEOR"] == "no java on the PATH"
    _, text, _ = evaluate(*arguments)
    assert "Kendall's tau-c" in text
    assert re.search(r"^CIDEr +\+0\.", text, re.MULTILINE)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["RUN", "--results=r.json", "--references=s.json"],
        ["--results=r.json"],
        ["RUN", "--references=s.json"],
        ["--results=r.json", "--ratings=t.txt", "--references=s.json"],
    ],
)
def test_wrong_call_ends_with_one_line(evaluate, arguments):
    status, output, errors = evaluate(*arguments)
    assert (status, output) == (2, "")
    assert len(errors.splitlines()) == 1


class FileSizeCaptioner(tf.Module):
    """An exported captioner whose captions are the size of the image file."""

    def __init__(self, word: str):
        super().__init__()
        self.word = word

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def greedy(self, image_bytes):
        size = tf.strings.as_string(tf.strings.length(image_bytes))
        captions = tf.strings.join(["a chart of ", size, f" {self.word}"])
        return {"caption": captions, "score": tf.zeros(tf.shape(image_bytes))}

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.string, name="image_bytes"),
            tf.TensorSpec([None], tf.float32, name="temperature"),
            tf.TensorSpec([None], tf.float32, name="top_p"),
            tf.TensorSpec([None], tf.int64, name="seed"),
        ]
    )
    def sample(self, image_bytes, temperature, top_p, seed):
        first = self.greedy(image_bytes)["caption"]
        second = tf.strings.join([first, tf.strings.as_string(seed)], " ")
        scores = tf.stack([temperature, top_p], axis=1)
        return {"captions": tf.stack([first, second], axis=1), "scores": scores}


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("export") / "1"
    module = FileSizeCaptioner("bytes")
    signatures = {"serving_default": module.greedy, "sample": module.sample}
    tf.saved_model.save(module, str(path), signatures)
    (path / "assets.extra").mkdir()
    cache = tmp_path_factory.mktemp("cache")
    config = read_config([*SMALL, f"--data.cache={cache}"], "test")
    (path / "assets.extra" / "config.yaml").write_text(dump_config(config))
    return path


def test_saved_model_is_scored_on_its_data_set(exported):
    before = sorted(exported.rglob("*"))
    done = call("evaluate", exported, "--json")
    assert done.returncode == 0, done.stderr
    metrics = json.loads(done.stdout)[str(exported)]
    assert 0 < metrics["val/greedy/BLEU-1"] < 1
    assert metrics["val/greedy/fact_accuracy"] == 0
    assert metrics["val/greedy/mean_length"] == 5
    assert metrics["val/sample/mBLEU-4"] > 0.5
    assert "the training split is not prepared here" in metrics["not_run"].values()
    assert sorted(exported.rglob("*")) == before


def test_saved_model_without_settings_is_refused(exported, tmp_path, evaluate):
    shutil.copytree(exported, tmp_path / "bare")
    shutil.rmtree(tmp_path / "bare" / "assets.extra")
    status, _, errors = evaluate(tmp_path / "bare")
    assert status == 1
    assert "has no assets.extra/config.yaml" in errors


def test_saved_model_of_another_program_is_refused(exported, tmp_path, evaluate):
    module = tf.Module()
    module.double = tf.function(lambda x: 2 * x, input_signature=[tf.TensorSpec([], tf.float32)])
    tf.saved_model.save(module, str(tmp_path / "other"))
    shutil.copytree(exported / "assets.extra", tmp_path / "other" / "assets.extra")
    status, _, errors = evaluate(tmp_path / "other")
    assert status == 1
    assert "expected a signature serving_default" in errors
