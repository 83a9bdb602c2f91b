"""Near misses: which words are replaced, and by what."""

import numpy as np
import pytest
import tensorflow as tf

from caption_gan.models.encoders.encoder import Regions
from caption_gan.text.vocabulary import END_ID, PAD_ID, START_ID, UNK_ID
from caption_gan.training.objectives.negatives import LEAST_LOG_RATIO, near_misses
from tests.captioners import REGIONS, VOCABULARY, captioner

IMAGES = 60
LONG = [START_ID, 4, 5, UNK_ID, 6, END_ID, PAD_ID]
SHORT = [START_ID, 7, END_ID, PAD_ID, PAD_ID, PAD_ID, PAD_ID]
REAL = np.tile([[LONG, SHORT]], (IMAGES, 1, 1)).astype(np.int32)


@pytest.fixture(scope="module")
def generator():
    """A generator whose predictions differ much between images, and not by noise."""
    generator = captioner(noise_size=0, dropout=0.0).generator
    table = 60 * np.random.default_rng(0).normal(size=(VOCABULARY, generator.embedding_size))
    generator.embedding.assign(table.astype(np.float32))
    return generator


def images(seed: int) -> Regions:
    return Regions(5 * tf.random.stateless_normal([IMAGES, *REGIONS], [seed, 0]))


@pytest.fixture(scope="module")
def misses(generator) -> tuple[np.ndarray, np.ndarray]:
    real = tf.constant(REAL)
    captions, replaced = near_misses(generator, images(1), images(2), real, tf.constant([3, 4]))
    return captions.numpy(), replaced.numpy()


def test_one_word_is_replaced_by_another_word(misses):
    captions, replaced = misses
    np.testing.assert_array_equal(captions != REAL, replaced)
    assert set(replaced.sum(axis=-1).ravel()) <= {0, 1}
    assert replaced.any(axis=-1).mean() > 0.5
    assert (captions[replaced] > UNK_ID).all()
    # Only words are replaced, at any place: no unknown word, no end token, no padding.
    np.testing.assert_array_equal(replaced[:, 0].any(axis=0), [0, 1, 1, 0, 1, 0, 0])
    np.testing.assert_array_equal(replaced[:, 1].any(axis=0), [0, 1, 0, 0, 0, 0, 0])


def test_the_word_is_likelier_of_the_other_image(generator, misses):
    captions, replaced = misses
    noise = tf.zeros([IMAGES, 2, 0])
    here, there = (
        tf.nn.log_softmax(generator(regions.features, REAL[..., :-1], noise)).numpy()
        for regions in (images(1), images(2))
    )
    for place in np.argwhere(replaced):
        before = (place[0], place[1], place[2] - 1, captions[tuple(place)])
        assert there[before] - here[before] > LEAST_LOG_RATIO


def test_no_word_is_false_of_the_same_image(generator):
    regions = images(1)
    captions, replaced = near_misses(
        generator, regions, regions, tf.constant(REAL), tf.constant([3, 4])
    )
    assert not replaced.numpy().any()
    np.testing.assert_array_equal(captions, REAL)
