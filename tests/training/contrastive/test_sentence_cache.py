"""Sentence vectors on disk: computed once, kept by the encoder, shared by programs."""

import numpy as np
import tensorflow as tf

from caption_gan.training.contrastive import sentence_cache
from caption_gan.training.contrastive.sentence_cache import SentenceCache


class Lengths:
    """Embeds sentences as their length and 1, and counts what it embeds."""

    vocabulary = ("a",)
    hidden_size = 2

    def __init__(self, weight: float = 1.0):
        self.variables = [tf.Variable(weight)]
        self.embedded = tf.Variable(0)

    def __call__(self, texts: tf.Tensor) -> tf.Tensor:
        self.embedded.assign_add(tf.size(texts))
        lengths = tf.cast(tf.strings.length(texts), tf.float32)
        return tf.stack([lengths, tf.ones_like(lengths)], axis=1)


def cache(folder, encoder: Lengths) -> SentenceCache:
    return SentenceCache(encoder, folder)  # type: ignore[arg-type]


def lengths(found: np.ndarray) -> list[int]:
    return found[:, 0].astype(int).tolist()


def test_sentences_are_embedded_once(tmp_path, monkeypatch):
    monkeypatch.setattr(sentence_cache, "BATCH", 2)
    monkeypatch.setattr(sentence_cache, "SENTENCES_BETWEEN_WRITES", 3)
    encoder = Lengths()
    sentences = ["four", "a", "four", "three", "six six", "", "line\nbreak"]
    assert lengths(cache(tmp_path, encoder).vectors_of(sentences, "")) == [4, 1, 4, 5, 7, 0, 10]
    assert int(encoder.embedded) == 6
    again = cache(tmp_path, encoder)
    assert lengths(again.vectors_of(["new one", *sentences], "")) == [7, 4, 1, 4, 5, 7, 0, 10]
    assert int(encoder.embedded) == 7
    other = Lengths(weight=2.0)
    cache(tmp_path, other).vectors_of(["a"], "")
    assert int(other.embedded) == 1


def test_programs_at_the_same_time_lose_nothing(tmp_path):
    encoder = Lengths()
    first, second = cache(tmp_path, encoder), cache(tmp_path, encoder)
    first.vectors_of(["a", "both"], "")
    assert lengths(second.vectors_of(["both", "second"], "")) == [4, 6]
    assert lengths(first.vectors_of(["a", "both"], "")) == [1, 4]
    before = int(encoder.embedded)
    assert lengths(cache(tmp_path, encoder).vectors_of(["second", "a", "both"], "")) == [6, 1, 4]
    assert int(encoder.embedded) == before
