"""References: which captions are compared, and how far n-grams agree."""

import numpy as np
import pytest
import tensorflow as tf

from caption_gan.models.critics.references import FEATURES, References, ngram_agreement

# Five words with orthogonal embeddings, but for the last two, whose cosine is 0.6.
WORDS = np.eye(5, dtype=np.float32)
WORDS[4, 3:] = 0.6, 0.8
NOTHING = np.zeros(FEATURES)


def features(caption: list[int], references: list[list[int]], visible: list[bool]) -> np.ndarray:
    """Features [T, FEATURES] of one caption; 0 in a reference is padding."""
    token_ids = np.array(references)
    return ngram_agreement(
        tf.constant(7 * WORDS[None, None, caption]),  # The length of embeddings does not matter.
        tf.constant(WORDS[token_ids][None]),
        tf.constant(token_ids[None] != 0),
        tf.constant([[visible]]),
    )[0, 0].numpy()


def test_agreement_by_hand():
    """A flag, then for 1-, 2- and 3-grams the mean over references and the largest."""
    rows = features([1, 2, 3, 2], [[1, 2, 4, 0], [2, 3, 2, 1]], [True, True])
    expected = [
        [1, 1, 1, 0, 0, 0, 0],  # 1 occurs in both; nothing is before it.
        [1, 1, 1, 0.5, 1, 0, 0],  # 1 2 occurs in the first.
        [1, 0.8, 1, 0.8, 1, 0.3, 0.6],  # 2 4 and 1 2 4 are like 2 3 and 1 2 3.
        [1, 1, 1, 0.5, 1, 0.5, 1],  # 2 3 2 occurs in the second.
    ]
    np.testing.assert_allclose(rows, expected, atol=1e-6)


def test_padding_of_a_reference_agrees_with_nothing():
    rows = features([1, 0], [[1, 0]], [True])
    np.testing.assert_allclose(rows[1], [1, 0, 0, 0, 0, 0, 0], atol=1e-6)


def test_hidden_references_do_not_count():
    both = [[1, 2, 4, 0], [2, 3, 2, 1]]
    one = features([1, 2, 3, 2], both[1:], [True])
    np.testing.assert_allclose(features([1, 2, 3, 2], both, [False, True]), one, atol=1e-6)
    np.testing.assert_array_equal(features([1, 2, 3, 2], both, [False, False]), [NOTHING] * 4)


def test_agreement_has_a_gradient_towards_the_references():
    caption = tf.Variable(WORDS[None, None, [1, 4]])
    with tf.GradientTape() as tape:
        rows = ngram_agreement(
            caption,
            tf.constant(WORDS[None, None, [1, 3]]),
            tf.fill([1, 1, 2], True),
            tf.fill([1] * 3, True),
        )
        total = tf.reduce_sum(rows)
    gradient = tape.gradient(total, caption)[0, 0, 1]
    assert float(tf.reduce_sum(gradient * WORDS[3])) > 0.5  # From word 4 towards word 3.


def test_references_are_the_other_captions_of_the_image():
    real = tf.constant([[[2, 5, 3], [2, 6, 3], [2, 5, 3]]])
    visible = References.others(real).visible[0].numpy()
    # The first and the third caption are the same: neither may see the other.
    np.testing.assert_array_equal(visible, [[0, 1, 0], [1, 0, 1], [0, 1, 0]])


@pytest.mark.parametrize("rate", [0.0, 0.4, 1.0])
def test_all_references_of_an_image_are_dropped_together(rate):
    real = tf.reshape(tf.range(3000), [1000, 3, 1])
    visible = References.others(real).drop(rate, tf.constant([1, 2])).visible.numpy()
    kept = visible.any(axis=(1, 2))
    np.testing.assert_array_equal(visible[kept].sum(axis=(1, 2)), 6)
    assert 1 - kept.mean() == pytest.approx(rate, abs=0.05)
