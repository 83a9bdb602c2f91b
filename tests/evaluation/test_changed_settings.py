"""Evaluation and captioning with settings that are not the run's own."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import caption_gan
import caption_gan.caption
import caption_gan.evaluate
from caption_gan.command_line import run_program
from caption_gan.errors import CaptionGANError
from caption_gan.evaluation.changed_settings import result_files, settings_from_python
from caption_gan.run import RunDirectory
from tests.runs import IMAGES, untrained_run

DATA = ["--data.train_images=6", "--data.val_images=4", "--data.test_images=3"]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RunDirectory:
    folder = tmp_path_factory.mktemp("settings")
    settings = ["--decoding.samples=2", "--evaluation.bootstrap_samples=10"]
    settings += [*DATA, f"--data.cache={folder / 'cache'}"]
    return untrained_run(folder / "run", settings=settings)


@pytest.fixture
def call(monkeypatch, capsys):
    """Calls a program in this process without Java; returns exit status and output."""

    def call(program: str, *arguments: object) -> tuple[int, str, str]:
        module = sys.modules[f"caption_gan.{program}"]
        monkeypatch.setattr(sys, "argv", [program, *map(str, arguments)])
        monkeypatch.setenv("PATH", "")
        with pytest.raises(SystemExit) as ended:
            run_program(module.main)
        return ended.value.code, *capsys.readouterr()

    return call


def test_results_of_other_settings_stand_beside_the_runs_own(run, call):
    own = [run.metrics, run.captions, run.report]
    for file in own:
        file.write_text("{}")
    changes = ["--decoding.samples", "4", "--decoding.minimum_length", 2, "--split=test"]
    status, output, _ = call("evaluate", run.path, *changes)
    assert status == 0
    assert [file.read_text() for file in own] == ["{}"] * 3
    folder = run.path / "evaluations" / "samples=4,minimum_length=2"
    assert f"metrics:          {folder / 'metrics.json'}" in output
    first = json.loads((folder / "captions.jsonl").read_text().splitlines()[0])
    assert len(first["captions"]["sample"]) == 4
    assert "test/greedy/CIDEr" in json.loads((folder / "metrics.json").read_text())
    page = (folder / "report.html").read_text()
    assert "--split test --decoding.samples=4 --decoding.minimum_length=2" in page
    for file in own:
        file.unlink()


def test_the_runs_own_settings_are_the_defaults(run):
    for changes, folder in (
        ([], run.path),
        (["--decoding.samples=2"], run.path),
        (["--data.root=elsewhere", "--data.cache=elsewhere"], run.path),
        (["--evaluation.dual_encoder=clip"], run.path),  # Only adds metrics.
        (["--decoding.temperature=0.5"], run.path / "evaluations" / "temperature=0.5"),
        (["--evaluation.bootstrap_samples=5"], run.path / "evaluations" / "bootstrap_samples=5"),
    ):
        assert result_files(run, run.read_config(changes)).folder == folder


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--decoding.sampels=3"], 2, "Did you mean decoding.samples?"),
        (["--decoding.samples=0"], 2, "decoding.samples: expected a value >0; got 0"),
        (["--decoding.diversity=1"], 2, "is now called decoding.diversity_penalty"),
        (["--generator.hidden_size=3"], 2, "unrecognized arguments: --generator.hidden_size"),
        (["--data.train_images=3"], 2, "unrecognized arguments: --data.train_images"),
        (["--decoding.beam_groups=3"], 1, "must divide decoding.beam, which is 1"),
        (["--evaluation.dual_encoder=none"], 1, "found none at"),
        (["--dual_encoder=none"], 1, "found none at"),
    ],
)
def test_mistakes_are_answered_in_one_line(arguments, status, words, run, call):
    before = sorted(run.path.rglob("*"))
    found, output, errors = call("evaluate", run.path, *arguments)
    assert (found, output) == (status, "")
    assert words in errors
    assert len(errors.splitlines()) == 1
    assert sorted(run.path.rglob("*")) == before


def test_settings_need_a_run(call):
    status, _, errors = call(
        "evaluate", "--results=r.json", "--references=s.json", "--decoding.beam=3"
    )
    assert status == 2
    assert "--decoding.beam=3 is a setting of a RUN; leave it out" in errors


def test_all_runs_are_checked_before_the_first_is_evaluated(run, tmp_path, call, monkeypatch):
    program = sys.modules["caption_gan.evaluate"]
    monkeypatch.setattr(program, "evaluate_captioner", lambda *_: pytest.fail("late"))
    untrained = RunDirectory(tmp_path / "untrained")
    untrained.path.mkdir()
    untrained.write_config(run.read_config())
    (tmp_path / "file").touch()
    moved = RunDirectory(tmp_path / "moved")
    moved.path.mkdir()
    moved.write_config(run.read_config(["--data.source=folder", "--data.root=/nowhere"]))
    moved.best_weights.parent.mkdir()
    moved.best_weights.touch()
    for arguments, words in (
        ([untrained.path], "has no trained weights yet"),
        ([tmp_path / "none"], "is not a run directory"),
        ([moved.path], "--data.root FOLDER"),
        ([moved.path, "--split=tset", "--data.root=/nowhere"], "tset"),
        ([run.path.parent, f"--to={tmp_path / 'file' / 'comparison.html'}"], "--to"),
    ):
        status, output, errors = call("evaluate", run.path, *arguments)
        assert (status, output) == (1, "")
        assert words in errors


def test_python_calls_take_the_same_settings(run, monkeypatch):
    calls = []
    scores = SimpleNamespace(scores=SimpleNamespace(values={"val/greedy/CIDEr": 1.0}))
    program = sys.modules["caption_gan.evaluate"]
    monkeypatch.setattr(
        program, "evaluate_captioner", lambda *_, changes: calls.append(changes) or scores
    )
    found = caption_gan.evaluate(
        run.path, decoding={"samples": 3}, evaluation={}, data={"root": None, "cache": Path("c")}
    )
    assert found == {"val/greedy/CIDEr": 1.0}
    ((samples, root, cache),) = calls
    assert (samples, root) == ("--decoding.samples=3", "--data.root=null")
    assert cache.startswith("--data.cache=")
    for settings, words in (
        ({"decoding": {"sampels": 3}}, "Did you mean decoding.samples"),
        ({"decoding": {"samples": "many"}}, "decoding.samples"),
        ({"generator": {"hidden_size": 3}}, "generator.hidden_size"),
        ({"seed": 3}, "seed"),
    ):
        with pytest.raises(CaptionGANError, match=words):
            settings_from_python(settings)


def test_captioning_takes_settings_of_decoding(run, tmp_path, call, monkeypatch):
    image = tmp_path / "image.png"
    image.write_bytes(IMAGES[0])
    called = []

    class FakeCaptioner:
        def __init__(self, path, changes):
            run.read_config(changes)
            called.append(changes)

        def caption(self, image, **options):
            called.append(options)
            return []

    monkeypatch.setattr(caption_gan.caption, "load_captioner", FakeCaptioner)
    own = {"n": 5, "temperature": 0.8, "top_p": None, "beam": 1, "seed": 0}
    for arguments, changes, options in (
        ([], [], own),
        (["--decoding.top_p=0.9", "--n=3"], [], own | {"n": 3, "top_p": 0.9}),
        (["--decoding.top_k=9"], ["--decoding.top_k=9"], own),
        (
            ["--decoding.samples=3", "--decoding.temperature=0.4"],
            [],
            own | {"n": 3, "temperature": 0.4},
        ),
        (
            ["--beam=4", "--decoding.beam_groups=2"],
            ["--decoding.beam_groups=2", "--decoding.beam=4"],
            own | {"beam": 4},
        ),
    ):
        called.clear()
        assert call("caption", run.path, image, *arguments)[0] == 0
        assert called == [changes, options]
    for arguments, status, words in (
        (["--beam=4", "--decoding.beam_groups=3"], 1, "must divide decoding.beam, which is 4"),
        (["--decoding.topk=3"], 2, "Did you mean decoding.top_k?"),
        (["--decoding.no_repeat=3", "--data.root=x"], 2, "--data.root"),
    ):
        found, output, errors = call("caption", run.path, image, *arguments)
        assert (found, output, len(errors.splitlines())) == (status, "", 1)
        assert words in errors


def test_a_loaded_captioner_decodes_with_given_settings(run):
    captioner = caption_gan.load(run.path, decoding={"no_repeat_ngram_size": 1})
    (caption,) = captioner.caption(IMAGES[0], n=1)
    words = caption.text.split()
    assert len(set(words)) == len(words)
