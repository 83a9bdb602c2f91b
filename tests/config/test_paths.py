"""Paths in settings mean the same from any folder."""

import os
from pathlib import Path

import pytest

from caption_gan.config.paths import DEFAULT_CACHE
from caption_gan.config.run import Config
from caption_gan.errors import CaptionGANError
from caption_gan.evaluation.runs import output_paths
from caption_gan.fit import resolve
from caption_gan.run import RunDirectory
from caption_gan.settings import read_config
from caption_gan.storage.paths import local_path
from tests.runs import untrained_run

FILE = """
data: {source: folder, root: photos, corpora: [a.txt, gs://bucket/b.txt, ~/c.txt]}
encoder: {weights: weights/w.h5}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The working directory; its subfolder `home` is the home folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "photos").mkdir()
    return tmp_path


def read(*arguments: str) -> Config:
    return read_config([*arguments], "test")


def test_paths_in_files_and_arguments_are_relative_to_the_working_directory(folder):
    # A file of settings in another folder does not change what its paths mean.
    (folder / "configs").mkdir()
    (folder / "configs" / "photos.yaml").write_text(FILE)
    config = read(
        "--config=configs/photos.yaml",
        "--data.karpathy=../k.json",
        "--data.shards=~/shards",
        "--data.cache=cache",
        "--text.word_vectors=./glove.txt",
        "--encoder.regions=2024",
        "--evaluation.dual_encoder=gs://bucket/clip",
    )
    assert config.data.root == f"{folder}/photos"
    assert config.data.corpora == [f"{folder}/a.txt", "gs://bucket/b.txt", f"{folder}/home/c.txt"]
    assert config.data.karpathy == f"{folder.parent}/k.json"
    assert config.data.shards == f"{folder}/home/shards"
    assert config.data.cache == f"{folder}/cache"
    assert config.text.word_vectors == f"{folder}/glove.txt"
    assert config.encoder.weights == f"{folder}/weights/w.h5"
    assert config.encoder.regions == f"{folder}/2024"
    assert config.evaluation.dual_encoder == "gs://bucket/clip"


@pytest.mark.parametrize("weights", ["imagenet", "none"])
def test_names_of_weights_are_no_paths(folder, weights):
    assert read(f"--encoder.weights={weights}").encoder.weights == weights


@pytest.mark.parametrize(("root", "is_path"), [("photos", True), ("owner/photos", False)])
def test_the_root_is_a_name_on_the_hub_unless_it_exists(folder, root, is_path):
    config = read("--data.source=hugging_face", f"--data.root={root}")
    assert config.data.root == (f"{folder}/{root}" if is_path else root)


@pytest.mark.parametrize("cache", ["~/.cache/caption_gan", "home/.cache/caption_gan", None])
def test_the_default_cache_is_below_the_home_of_whoever_uses_the_run(folder, cache):
    assert read(*[f"--data.cache={cache}"] if cache else []).data.cache == DEFAULT_CACHE


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("--data.root=", "data.root: expected a path; got an empty text"),
        ("--data.corpora=[2024]", "data.corpora: expected a path, in quotes"),
        ("--data.corpora=a.txt", "data.corpora: expected a list, e.g. [a,b]; got a.txt"),
    ],
)
def test_what_is_no_path_is_an_error(folder, capsys, argument, words):
    with pytest.raises(SystemExit):
        read(argument)
    assert words in capsys.readouterr().err


def test_a_run_directory_is_on_a_disk():
    with pytest.raises(CaptionGANError, match="gs://bucket/run is not on a disk"):
        RunDirectory("gs://bucket/run")
    assert local_path("~/runs") == Path.home() / "runs"


def test_a_run_is_continued_from_another_folder(folder, monkeypatch):
    settings = ["--data.source=folder", "--data.root=photos", "--data.cache=cache"]
    untrained_run(Path("runs/a"), settings=[*settings, "--run_dir=runs/a"])
    assert RunDirectory("runs/a").read_config().data.root == f"{folder}/photos"
    # The same place by other names is no change.
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    for root in ("../photos", "../elsewhere/../photos", f"{folder}/photos/"):
        config, run = resolve(
            ["--run_dir=../runs/a", "--data.source=folder", f"--data.root={root}"]
        )
        assert run.path == Path("../runs/a")  # As the user knows it.
        assert config.data.cache == f"{folder}/cache"
    with pytest.raises(CaptionGANError, match=r"data\.root was .*/photos, is .*/home"):
        (folder / "home").mkdir()
        resolve(["--run_dir=../runs/a", "--data.root=../home"])
    # The settings of a run name its folder.
    assert resolve([f"--config={folder}/runs/a/config.yaml"])[1].config.samefile(
        folder / "runs/a/config.yaml"
    )


def test_a_moved_run_is_where_it_is(folder):
    untrained_run(Path("old"))
    os.rename("old", "new")
    run = RunDirectory("new")
    assert run.read_config().run_dir == "new"
    assert resolve(["--run_dir=new"])[1].path == Path("new")
    assert not Path("old").exists()


def test_printed_commands_can_be_pasted(folder):
    run = RunDirectory("my runs/a")
    run.path.mkdir(parents=True)
    run.write_config(Config())
    printed = output_paths(run, run.read_config())
    assert "tensorboard --logdir 'my runs/a/logs'" in printed
    assert "python -m caption_gan.caption 'my runs/a' IMAGE..." in printed


@pytest.mark.parametrize("path", ["run", "run/", "run/../run", "."])
def test_a_run_has_a_name_however_it_is_given(tmp_path, monkeypatch, path):
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path / "run" if path == "." else tmp_path)
    assert RunDirectory(path).name == "run"
