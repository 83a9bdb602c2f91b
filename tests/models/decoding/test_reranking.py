"""Reranking of captions by the critic."""

import numpy as np
import tensorflow as tf

from caption_gan.models.critics.next_token import NextTokenCritic
from caption_gan.models.decoding import sampling
from caption_gan.models.decoding.decoder import DecodingOptions
from caption_gan.models.decoding.reranking import rerank
from caption_gan.models.encoders.encoder import Regions
from caption_gan.text.vocabulary import START_ID


def test_the_highest_ranked_captions_are_selected(small_generator, regions):
    generator = small_generator()
    critic = NextTokenCritic(small_generator(seed=1))
    critic.length_moments.assign([2.0, -0.5])
    drawn = sampling.sample(generator, Regions(regions), DecodingOptions(7, 6), tf.constant([1, 2]))
    selected = rerank(critic, Regions(regions), drawn, 2)
    token_ids = np.pad(drawn.token_ids, [(0, 0), (0, 0), (1, 0)], constant_values=START_ID)
    ranks = np.array(critic.rank(tf.constant(token_ids), critic.encode(Regions(regions))))
    best = np.argsort(-ranks, axis=1)[:, :2]
    assert len(np.unique(best)) > 2
    for part, chosen in zip(drawn, selected, strict=True):
        for image, places in enumerate(best):
            np.testing.assert_array_equal(chosen[image], np.array(part)[image, places])


def test_all_captions_can_be_selected(small_generator, regions):
    drawn = sampling.sample(
        small_generator(), Regions(regions), DecodingOptions(7, 3), tf.constant([1, 2])
    )
    selected = rerank(NextTokenCritic(small_generator()), Regions(regions), drawn, 3)
    np.testing.assert_allclose(np.sort(selected.scores), np.sort(drawn.scores), rtol=1e-6)
