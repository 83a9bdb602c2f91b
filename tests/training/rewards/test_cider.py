"""CIDEr-D in the graph, against pycocoevalcap.

B batch, K captions per image, C references per image, T time.
"""

import csv
from collections import defaultdict

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocoevalcap.cider.cider import Cider

from caption_gan.training.rewards.cider import CiderReward, hash_ngrams

LENGTH = 12


def encode(captions: list[list[int]], length: int = LENGTH) -> np.ndarray:
    """[C, T], padded."""
    return np.array([caption + [0] * (length - len(caption)) for caption in captions], np.int32)


def official(captions: list[list[list[int]]], references: list[list[list[int]]]) -> np.ndarray:
    """Scores [B, K] by pycocoevalcap, which takes one caption per image at a time."""

    def text(token_ids: list[list[int]]) -> list[str]:
        return [" ".join(map(str, caption)) for caption in token_ids]

    targets = {image: text(of_image) for image, of_image in enumerate(references)}
    columns = [
        Cider().compute_score(
            targets, {image: text([of_image[k]]) for image, of_image in enumerate(captions)}
        )
        for k in range(len(captions[0]))
    ]
    return np.stack([scores for _, scores in columns], axis=1)


def ours(captions: list[list[list[int]]], references: list[list[list[int]]], length: int = LENGTH):
    targets = np.stack([encode(of_image, length) for of_image in references])
    candidates = np.stack([encode(of_image, length) for of_image in captions])
    return CiderReward(targets).score(tf.constant(candidates), tf.constant(targets)).numpy()


caption = st.lists(st.integers(1, 6), min_size=1, max_size=LENGTH)


@given(
    st.integers(2, 4).flatmap(
        lambda images: st.tuples(
            st.lists(st.tuples(caption, caption), min_size=images, max_size=images),
            st.lists(st.tuples(caption, caption, caption), min_size=images, max_size=images),
        )
    )
)
@settings(deadline=None, max_examples=60)
def test_it_equals_the_official_scorer(example):
    captions, references = example
    np.testing.assert_allclose(
        ours(captions, references), official(captions, references), rtol=1e-4, atol=1e-4
    )


def test_it_equals_the_official_scorer_on_real_captions(real_data):
    """A third of the captions are the image's own, the others the next image's."""
    by_image: dict[str, list[list[str]]] = defaultdict(list)
    with (real_data / "flickr8k" / "captions.txt").open() as file:
        for image, text in list(csv.reader(file))[1:1501]:
            by_image[image].append(text.lower().split()[:24])
    words = sorted({word for texts in by_image.values() for text in texts for word in text})
    ids = {word: number for number, word in enumerate(words, start=1)}
    references = [[[ids[word] for word in text] for text in texts] for texts in by_image.values()]
    shifted = references[1:] + references[:1]
    captions = [
        [(right if number % 3 == 0 else wrong)[0]]
        for number, (right, wrong) in enumerate(zip(references, shifted, strict=True))
    ]
    expected = official(captions, references)
    assert expected.max() > 2
    np.testing.assert_allclose(ours(captions, references, 24), expected, rtol=0, atol=1e-4)


def test_document_frequencies_come_from_the_training_split():
    """A word that is frequent in the training split counts little in any batch."""
    training = np.stack([encode([[1, 2]]), encode([[1, 3]]), encode([[1, 4]]), encode([[1, 5]])])
    reward = CiderReward(training)
    references = tf.constant(encode([[1, 2]])[None])
    common, rare = (
        float(reward.score(tf.constant(encode([words])[None]), references)[0, 0])
        for words in ([1], [2])
    )
    assert common == pytest.approx(0, abs=1e-6)
    assert rare > 1


def test_hashes_of_many_ngrams_do_not_collide():
    rng = np.random.default_rng(0)
    grams = np.unique(rng.integers(1, 20000, size=(300_000, 4)), axis=0).astype(np.int32)
    assert len(np.unique(hash_ngrams(tf.constant(grams), 4))) == len(grams)
    # Nor do those of n-grams that differ little, or only in order.
    close = np.array(np.meshgrid(*[range(1, 13)] * 4)).reshape(4, -1).T.astype(np.int32)
    assert len(np.unique(hash_ngrams(tf.constant(close), 4))) == 12**4


def test_empty_captions_score_zero():
    references = tf.constant(encode([[1, 2], [3]])[None])
    reward = CiderReward([encode([[1, 2]]), encode([[2, 3]])])
    assert float(reward.score(tf.constant(encode([[]])[None]), references)[0, 0]) == 0
