"""What a run reads and writes is checked before anything is prepared, written or trained."""

import contextlib
import dataclasses
import os
import shutil
import sys

import numpy as np
import pytest
import tensorflow as tf

import caption_gan
from caption_gan.errors import CaptionGANError
from caption_gan.fit import resolve, start_run
from caption_gan.models.encoders.encoder import build_encoder
from caption_gan.run import RunDirectory
from caption_gan.settings import read_config
from caption_gan.training.early_checks import check_disk, check_files, check_reward_encoders
from tests.programs import SMALL
from tests.runs import CAPTIONS

GAN = ["--stages=[maximum_likelihood,wgan_gp]"]


def corpus(folder, text: str) -> list[str]:
    (folder / "corpus.txt").write_text(text)
    return [*GAN, f"--data.corpora=[{folder / 'corpus.txt'}]"]


def vectors(folder, text: str) -> list[str]:
    (folder / "vectors.txt").write_text(text)
    return [f"--text.word_vectors={folder / 'vectors.txt'}"]


def dual_encoder(folder, *names: str) -> list[str]:
    """A SavedModel with signatures of these names, which return the length of their input."""
    module = tf.Module()

    def embed(name: str):
        signature = [tf.TensorSpec([None], tf.string, name=name)]

        def lengths(**inputs):
            size = tf.strings.length(inputs[name])
            return {"embedding": tf.cast(size, tf.float32)[:, tf.newaxis]}

        return tf.function(lengths).get_concrete_function(**{name: signature[0]})

    inputs = {"images": "image_bytes", "texts": "text"}
    tf.saved_model.save(
        module, str(folder / "encoder"), {name: embed(inputs[name]) for name in names}
    )
    return [f"--evaluation.dual_encoder={folder / 'encoder'}"]


def file_in_the_way(folder) -> list[str]:
    (folder / "file").touch()
    return [f"--run_dir={folder / 'file' / 'run'}"]


# Settings whose files cannot be used, and words of the error.
BEFORE_ALL_WORK = {
    "no corpus": (lambda folder: [*GAN, "--data.corpora=[none.txt]"], "none.txt is not a file"),
    "folder as corpus": (lambda folder: [*GAN, f"--data.corpora=[{folder}]"], "is not a file"),
    "empty corpus": (lambda folder: corpus(folder, "\n \n"), "corpus.txt has no sentence"),
    "no vectors": (lambda folder: ["--text.word_vectors=none.txt"], "none.txt: expected a file"),
    "empty vectors": (lambda folder: vectors(folder, ""), "found none"),
    "text as vectors": (lambda folder: vectors(folder, "a red line\n"), "a word and its numbers"),
    "other size": (
        lambda folder: vectors(folder, "a 1 2 3\n"),
        "generator.embedding_size is 16; set it to 3",
    ),
    "other size, header": (lambda folder: vectors(folder, "9 3\na 1 2 3\n"), "set it to 3"),
    "no dual encoder": (lambda folder: [f"--evaluation.dual_encoder={folder}"], "found none at"),
    "half a dual encoder": (
        lambda folder: dual_encoder(folder, "images"),
        "expected the signatures",
    ),
    "run in a file": (file_in_the_way, "run_dir: cannot write to"),
}
# Found as soon as there is a vocabulary.
BEFORE_THE_RUN_IS_WRITTEN = {
    "unknown words": (lambda folder: corpus(folder, "unseen words\n"), "only known words"),
    "vectors of other words": (
        lambda folder: vectors(folder, "unseen" + " 1" * 16 + "\n"),
        "expected vectors of some",
    ),
    "a wrong line": (
        lambda folder: vectors(folder, "red" + " 1" * 16 + "\nline 1\n"),
        "expected 16 values in line 2",
    ),
}


@pytest.mark.parametrize("name", BEFORE_ALL_WORK)
def test_errors_before_all_work(name, tmp_path):
    make, words = BEFORE_ALL_WORK[name]
    config, run = resolve([*SMALL, f"--run_dir={tmp_path / 'run'}", *make(tmp_path)])
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(CaptionGANError, match=words):
        check_files(config, run)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", BEFORE_THE_RUN_IS_WRITTEN)
def test_errors_before_the_run_is_written(name, tmp_path):
    make, words = BEFORE_THE_RUN_IS_WRITTEN[name]
    config, run = resolve([*SMALL, f"--run_dir={tmp_path / 'run'}", *make(tmp_path)])
    check_files(config, run)
    with pytest.raises(CaptionGANError, match=words):
        start_run(run, config, CAPTIONS)
    assert not run.path.exists()


def test_dual_encoders_that_reward(tmp_path):
    dual_encoder(tmp_path, "images", "texts")
    settings = ["--stages=[maximum_likelihood,self_critical]"]
    settings += ["--self_critical.rewards.dual_encoder=1"]
    encoder = build_encoder(read_config(SMALL, "test").encoder)
    for folder, words in (("none", "found none at"), ("encoder", None)):
        given = f"--self_critical.dual_encoder={tmp_path / folder}"
        config = read_config([*SMALL, *settings, given], "test")
        with pytest.raises(CaptionGANError, match=words) if words else contextlib.nullcontext():
            check_reward_encoders(config, encoder)


def test_files_that_can_be_used(tmp_path):
    settings = [*corpus(tmp_path, "a red line\n"), *dual_encoder(tmp_path, "images", "texts")]
    settings += vectors(tmp_path, "red" + " 1" * 16 + "\n")
    config, run = resolve([*SMALL, f"--run_dir={tmp_path / 'run'}", *settings])
    check_files(config, run)
    assert not run.path.exists()
    started = start_run(run, config, CAPTIONS)
    assert run.read_config() == config
    run.best_weights.touch()
    continued = start_run(run, config, ["other words"])
    for word_vectors in (started, continued):
        found = dict(zip(word_vectors.words, word_vectors.found, strict=True))
        assert [word for word, is_found in found.items() if is_found] == ["red"]
        np.testing.assert_array_equal(word_vectors.matrix, started.matrix)


@pytest.mark.skipif(os.geteuid() == 0, reason="root can write everywhere")
def test_a_folder_without_permission(tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    config = read_config([*SMALL], "test")
    with pytest.raises(CaptionGANError, match="run_dir: cannot write to"):
        check_files(config, RunDirectory(tmp_path / "locked" / "run"))


def test_a_full_disk(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10**6))
    layer = tf.keras.layers.Dense(1000)
    layer.build((None, 100))
    model = tf.keras.Sequential([layer])
    with pytest.raises(CaptionGANError, match=r"has 1 MB free, but the weights .* take 2 MB"):
        check_disk(model, RunDirectory(tmp_path))


def test_fit_checks_files_before_the_data_are_prepared(tmp_path, monkeypatch):
    def prepare_splits(*arguments):
        pytest.fail("nothing may be prepared")

    monkeypatch.setattr(sys.modules["caption_gan.fit"], "prepare_splits", prepare_splits)
    with pytest.raises(CaptionGANError, match=r"none\.txt: expected a file of word vectors"):
        caption_gan.fit(run_dir=tmp_path / "run", text={"word_vectors": tmp_path / "none.txt"})
    assert not (tmp_path / "run").exists()


def test_too_few_images_are_found_before_they_are_prepared(tmp_path):
    with pytest.raises(CaptionGANError, match="takes 32 images, but there are only 9"):
        caption_gan.fit(
            run_dir=tmp_path / "run", data={"cache": str(tmp_path / "cache"), "train_images": 9}
        )
    assert not list((tmp_path / "cache").rglob("data_tfrecord*"))
    assert not (tmp_path / "run").exists()


def test_an_untrained_run_takes_other_settings(tmp_path, capsys):
    run = RunDirectory(tmp_path / "run")
    arguments = [*SMALL, f"--run_dir={run.path}"]
    config, _ = resolve(arguments)
    start_run(run, config, ["a red line", "a blue line"])
    changed, _ = resolve([*arguments, "--text.maximum_vocabulary=6", "--seed=3"])
    errors = capsys.readouterr().err
    assert "was not trained yet and takes other settings: seed was 0, is 3; text." in errors
    assert "keeps" not in errors
    start_run(run, changed, ["a red line", "a blue line"])
    assert run.read_config() == changed
    assert len(run.vocabulary.read_text().splitlines()) == 6
    resolve([f"--run_dir={run.path}", "--data.train_images=40"])
    errors = capsys.readouterr().err
    assert "was not trained yet and keeps of its settings: " in errors
    assert "; seed 3; data.val_images 12; " in errors
    assert "train_images" not in errors

    run.best_weights.touch()
    with pytest.raises(CaptionGANError, match=r"seed was 3, is 4.*--accept_changes"):
        resolve([*arguments, "--seed=4"])
    start_run(run, dataclasses.replace(changed, seed=4), ["other words"])
    assert run.read_config().seed == 3
    assert "other" not in run.vocabulary.read_text()
