"""The next-token critic: what its scores depend on, and its derivatives.

B batch, K captions per image, T time, R regions, D region depth, E embedding.
"""

import functools
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from caption_gan.models.critics.critic import Critic
from caption_gan.models.critics.next_token import NextTokenCritic
from caption_gan.models.critics.references import References
from caption_gan.models.encoders.encoder import Regions
from caption_gan.text.vocabulary import END_ID, PAD_ID, START_ID
from tests.captioners import GENERATORS

IMAGES, CAPTIONS, LENGTH = 4, 3, 6


def random_critic(make, seed: int = 0, **settings) -> Critic:
    critic = NextTokenCritic(make(seed), **settings)
    # The score head starts at zero; random weights test it too.
    shape = critic.score_head.kernel.shape
    critic.score_head.kernel.assign(np.random.default_rng(seed).normal(size=shape))
    return critic


@pytest.fixture(scope="module")
def critic(small_generator) -> Critic:
    return random_critic(small_generator)


@pytest.fixture(scope="module")
def regions() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(IMAGES, 4, 5)).astype(np.float32)


@pytest.fixture(scope="module")
def token_ids() -> np.ndarray:
    ids = np.random.default_rng(2).integers(4, 9, size=(IMAGES, CAPTIONS, LENGTH))
    ids[..., 0] = START_ID
    for row, end in zip(ids.reshape(-1, LENGTH), [1, 2, 3, 4, 5, 5] * 2, strict=True):
        row[end] = END_ID
        row[end + 1 :] = PAD_ID
    return ids.astype(np.int32)


def scores(critic: Critic, regions, token_ids) -> np.ndarray:
    return np.array(critic.score_tokens(tf.constant(token_ids), critic.encode(Regions(regions))))


def same(actual, expected) -> None:
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


class ScoresPadding(NextTokenCritic):
    """A wrong critic: its mean includes the padding."""

    def call(self, words, mask, memory, training=False):
        return super().call(words, tf.ones_like(mask), memory, training)


@pytest.mark.parametrize(("kind", "right"), [(NextTokenCritic, True), (ScoresPadding, False)])
def test_embeddings_after_the_end_token_do_not_count(
    small_generator, regions, token_ids, kind, right
):
    critic = kind(small_generator())
    words = critic.embedding(tf.constant(token_ids))
    mask = token_ids != PAD_ID
    memory = critic.encode(Regions(regions))
    other = tf.where(mask[..., None], words, 7.0)
    expected, actual = (np.array(critic(embeddings, mask, memory)) for embeddings in (words, other))
    assert np.allclose(actual, expected, atol=1e-5) == right


def test_captions_together_score_as_each_alone(critic, regions, token_ids):
    together = scores(critic, regions, token_ids)
    assert together.shape == (IMAGES, CAPTIONS)
    for image in range(IMAGES):
        for caption in range(CAPTIONS):
            part = np.s_[image : image + 1, caption : caption + 1]
            same(scores(critic, regions[:1] * 0 + regions[image], token_ids[part]), together[part])


def test_references_count_only_where_they_are_visible(small_generator, regions, token_ids):
    reader = random_critic(small_generator, reads_references=True)
    captions = tf.constant(token_ids)
    of_others = References.others(captions)

    def scored(references: References | None, kinds: int = 1) -> np.ndarray:
        memory = reader.encode(Regions(regions), references)
        return np.array(reader.score_tokens(tf.tile(captions, [1, kinds, 1]), memory))

    shown = scored(of_others)
    assert (np.abs(shown - scored(None)) > 1e-3).any(axis=1).all()
    same(scored(of_others.hidden()), scored(None))
    # The second kind of captions has the same references, place by place.
    same(scored(of_others, kinds=2), np.tile(shown, [1, 2]))


# Ends the process if an operation writes past its memory.
VARYING_BATCHES = """
import tensorflow as tf
from caption_gan.config.adversarial import CriticConfig
from caption_gan.models.critics.critic import build_critic
from caption_gan.models.encoders.encoder import Regions
from tests.captioners import REGIONS, captioner

critic = build_critic(CriticConfig(), captioner().generator)
for number in range(60):
    images = 1 + number % 3
    token_ids = tf.fill([images, 1, 24], 5)
    critic.score_tokens(token_ids, critic.encode(Regions(tf.ones([images, *REGIONS]))))
"""


def test_one_caption_per_image_in_batches_of_any_size():
    done = subprocess.run([sys.executable, "-c", VARYING_BATCHES], capture_output=True)
    assert done.returncode == 0, done.stderr.decode()[-2000:]


def test_image_and_words_matter(critic, regions, token_ids):
    before = scores(critic, regions, token_ids)
    assert np.abs(scores(critic, regions[::-1], token_ids) - before).min() > 1e-5
    other = np.where(token_ids == 5, 6, token_ids)
    changed = (other != token_ids).any(axis=-1)
    assert changed.any()
    assert np.abs(scores(critic, regions, other) - before)[changed].min() > 1e-5


def test_initial_scores_are_the_trunks_margins(small_generator, regions, token_ids):
    """The mean over tokens of the token's logit minus the best logit."""
    generator = small_generator()
    noise = np.zeros((IMAGES, CAPTIONS, generator.noise_size), np.float32)
    logits = np.array(generator(regions, tf.constant(token_ids[..., :-1]), noise))
    written = token_ids[..., 1:]
    shortfall = np.take_along_axis(logits, written[..., None], -1)[..., 0] - logits.max(axis=-1)
    counted = written != PAD_ID
    expected = (shortfall * counted).sum(axis=-1) / counted.sum(axis=-1)
    same(scores(NextTokenCritic(generator), regions, token_ids), expected)


def test_scores_do_not_saturate(small_generator, regions, token_ids):
    """The gradient does not vanish at high scores, as it would behind a sigmoid."""
    critic = random_critic(small_generator)
    critic.score_head.bias.assign([50.0])
    words = critic.embedding(tf.constant(token_ids))
    memory = critic.encode(Regions(regions))
    slopes = []
    for end in (tf.identity, tf.sigmoid):
        with tf.GradientTape() as tape:
            tape.watch(words)
            score = end(critic(words, token_ids != PAD_ID, memory))
        slopes.append(float(tf.norm(tape.gradient(score, words))))
    assert slopes[0] > 1e-2
    assert slopes[1] < 1e-6


@pytest.mark.parametrize("kind", GENERATORS)
def test_second_derivatives_agree_with_finite_differences(
    small_generator, regions, token_ids, kind
):
    """Derivatives by all weights of the squared gradient norm, as in a gradient penalty."""
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    try:
        critic = random_critic(functools.partial(small_generator, kind=kind))
    finally:
        keras.config.set_dtype_policy(policy)
    variables = critic.trainable_variables
    regions = tf.constant(regions, tf.float64)
    words = tf.constant(np.array(critic.embedding(tf.constant(token_ids))), tf.float64)

    def slope() -> tf.Tensor:
        memory = critic.encode(Regions(regions))
        with tf.GradientTape() as tape:
            tape.watch(words)
            score = critic(words, token_ids != PAD_ID, memory)
        return tf.reduce_sum(tape.gradient(score, words) ** 2)

    with tf.GradientTape() as tape:
        value = slope()
    gradients = [
        tf.zeros_like(variable.value) if gradient is None else tf.convert_to_tensor(gradient)
        for variable, gradient in zip(variables, tape.gradient(value, variables), strict=True)
    ]
    rng = np.random.default_rng(3)
    direction = [rng.normal(size=variable.shape) for variable in variables]
    expected = sum(float(tf.reduce_sum(g * d)) for g, d in zip(gradients, direction, strict=True))
    start = [np.array(variable) for variable in variables]
    step, ends = 1e-6, []
    for sign in (1, -1):
        for variable, value, way in zip(variables, start, direction, strict=True):
            variable.assign(value + sign * step * way)
        ends.append(float(slope()))
    assert abs(expected) > 1e-3
    np.testing.assert_allclose((ends[0] - ends[1]) / (2 * step), expected, rtol=1e-5)


def test_rank_subtracts_the_regression_on_length(small_generator, regions, token_ids):
    """The regression is within images; differences between images do not enter."""
    critic = NextTokenCritic(small_generator())
    lengths = (token_ids != PAD_ID).sum(axis=-1)  # [B, K]
    of_image = lengths.mean(axis=1, keepdims=True)
    assert lengths.std(axis=1).max() > 0
    assert of_image.std() > 0
    learnt = 3.0 * of_image - 0.5 * (lengths - of_image)
    for _ in range(100):
        statistics = critic.length_statistics(tf.constant(learnt, tf.float32), token_ids != PAD_ID)
        critic.learn_lengths(statistics, momentum=0.9)
    ranks = np.array(critic.rank(tf.constant(token_ids), critic.encode(Regions(regions))))
    same(ranks - scores(critic, regions, token_ids), 0.5 * lengths)


def test_rank_without_statistics_equals_the_score(small_generator, regions, token_ids):
    critic = NextTokenCritic(small_generator())
    ranks = critic.rank(tf.constant(token_ids), critic.encode(Regions(regions)))
    same(ranks, scores(critic, regions, token_ids))


def test_config_round_trip(critic, regions, token_ids):
    other = NextTokenCritic.from_config(critic.get_config())
    other.set_weights(critic.get_weights())
    same(scores(other, regions, token_ids), scores(critic, regions, token_ids))
