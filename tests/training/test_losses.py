"""Losses: computed by hand, and against planted faults.

B batch, K captions per image, T time, E embedding.
"""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from caption_gan.training import losses
from caption_gan.training.losses import (
    EmbeddedCaptions,
    cross_entropy,
    discounted,
    leave_one_out,
    normalized,
    policy_loss,
    relativistic,
    verdicts,
    wasserstein,
)


def of(probabilities: list) -> tf.Tensor:
    """Logits that have these probabilities, shifted, as a softmax allows."""
    return tf.constant(np.log(probabilities) + 3.0, tf.float32)


@pytest.fixture(scope="module")
def batch() -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Logits [2, 3, 4, 5], targets and mask [2, 3, 4]."""
    rng = np.random.default_rng(0)
    logits = tf.constant(rng.normal(0, 2, (2, 3, 4, 5)), tf.float32)
    targets = tf.constant(rng.integers(0, 5, (2, 3, 4)), tf.int32)
    mask = tf.constant(rng.random((2, 3, 4)) < 0.6)
    return logits, targets, mask


def test_cross_entropy_by_hand():
    logits = of([[[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]])
    targets = tf.constant([[1, 2]])
    loss = cross_entropy(logits, targets, tf.constant([[True, True]]))
    assert float(loss) == pytest.approx((np.log(4) + np.log(1.25)) / 2, rel=1e-5)
    loss = cross_entropy(logits, targets, tf.constant([[True, False]]))
    assert float(loss) == pytest.approx(np.log(4), rel=1e-5)


def test_label_smoothing_by_hand():
    loss = cross_entropy(of([[0.5, 0.25, 0.25]]), tf.constant([0]), tf.constant([1]), 0.3)
    # 0.7 + 0.1 of the probability on the target, 0.1 on each of the others.
    assert float(loss) == pytest.approx(0.8 * np.log(2) + 0.2 * np.log(4), rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_label_smoothing_equals_a_smoothed_one_hot_target(batch, smoothing):
    logits, targets, mask = map(np.array, batch)
    target = (1 - smoothing) * np.eye(5)[targets] + smoothing / 5
    logs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    expected = -(target * logs).sum(axis=-1)[mask].mean()
    loss = cross_entropy(batch[0], batch[1], batch[2], smoothing)
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_every_token_has_the_same_weight_whatever_its_captions_length():
    """Not a mean of the captions' means."""
    logits = of([[[0.5, 0.5], [0.5, 0.5], [0.5, 0.5]], [[0.25, 0.75]] * 3])
    mask = tf.constant([[1, 1, 1], [1, 0, 0]])
    loss = cross_entropy(logits, tf.zeros([2, 3], tf.int32), mask)
    assert float(loss) == pytest.approx((3 * np.log(2) + np.log(4)) / 4, rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_padding_has_no_gradient(batch, smoothing):
    logits, targets, mask = batch
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = cross_entropy(logits, targets, mask, smoothing)
    gradient = np.array(tape.gradient(loss, logits))
    mask = np.array(mask)
    assert not gradient[~mask].any()
    assert np.abs(gradient[mask]).max(axis=-1).min() > 0


def test_loss_and_gradient_of_a_batch_of_padding_are_zero(batch):
    logits, targets, mask = batch
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = cross_entropy(logits, targets, tf.zeros_like(mask), 0.1)
    assert float(loss) == 0
    assert not np.array(tape.gradient(loss, logits)).any()


def test_a_certain_and_wrong_prediction_has_a_finite_loss():
    logits = tf.constant([[1000.0, -1000.0]])
    for smoothing in (0.0, 0.1):
        loss = cross_entropy(logits, tf.constant([1]), tf.constant([1]), smoothing)
        assert np.isfinite(float(loss))


def test_critic_losses_by_hand():
    better, worse = tf.constant([2.0, -1.0]), tf.constant([0.5, 3.0])
    np.testing.assert_allclose(wasserstein(better, worse), [-1.5, 4.0])
    expected = np.log1p(np.exp([-1.5, 4.0]))
    np.testing.assert_allclose(relativistic(better, worse), expected, rtol=1e-6)


def linear_critic(slope: np.ndarray, mask_slope: float = 0.0):
    """A critic whose score is linear in the embeddings [B, K, T, E] and in the mask."""

    def critic_fn(embeddings: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        score = tf.reduce_sum(embeddings * slope, axis=[2, 3])
        return score + mask_slope * tf.reduce_sum(mask, axis=2)

    return critic_fn


def random_captions(captions: int, seed: int) -> EmbeddedCaptions:
    """Five images' captions of four tokens with embeddings of three numbers."""
    embeddings = np.random.default_rng(seed).normal(size=(5, captions, 4, 3))
    return EmbeddedCaptions(tf.constant(embeddings, tf.float32), tf.ones([5, captions, 4]))


def slope_of_norm(norm: float) -> np.ndarray:
    slope = np.random.default_rng(0).normal(size=(4, 3))
    return slope * norm / np.linalg.norm(slope)


def one_norm_per_image(values: tf.Tensor, axis: list[int]) -> tf.Tensor:
    """The fault: sums over an image's captions too."""
    total = tf.math.reduce_sum(values, axis=[1, *axis], keepdims=True)[..., 0, 0]
    return tf.broadcast_to(total, tf.shape(values)[:2])


@pytest.mark.parametrize("captions", [1, 2, 7])
@pytest.mark.parametrize("fault", [None, one_norm_per_image])
def test_the_penalty_of_a_linear_critic_by_hand(captions, fault, monkeypatch):
    """A slope of norm g costs (g - 1)^2, however many captions there are."""
    critic_fn = linear_critic(slope_of_norm(2.5))
    real, fake = random_captions(captions, 1), random_captions(captions, 2)
    if fault:
        monkeypatch.setattr(losses, "tf", SimpleNamespace(**{**vars(tf), "reduce_sum": fault}))
        critic_fn = linear_critic(slope_of_norm(2.5))
    penalty = float(losses.gradient_penalty(critic_fn, real, fake, seed=0))
    agrees = penalty == pytest.approx((2.5 - 1) ** 2, rel=1e-5)
    assert agrees == (fault is None or captions == 1)


@pytest.mark.parametrize(("norm", "one_sided", "two_sided"), [(0.25, 0, 0.5625), (3.0, 4, 4)])
def test_a_one_sided_penalty_ignores_slopes_below_one(norm, one_sided, two_sided):
    arguments = linear_critic(slope_of_norm(norm)), random_captions(2, 1), random_captions(2, 2), 0
    assert float(losses.one_sided_gradient_penalty(*arguments)) == pytest.approx(one_sided)
    assert float(losses.gradient_penalty(*arguments)) == pytest.approx(two_sided, rel=1e-5)


def test_a_jump_between_lengths_is_penalised():
    """A score of 3 per token has a slope of 3 at each of the four positions of the mask."""
    critic_fn = linear_critic(np.zeros((4, 3)), mask_slope=3.0)
    norm = losses.interpolated_gradient_norm(
        critic_fn, random_captions(2, 1), random_captions(2, 2), seed=0
    )
    np.testing.assert_allclose(norm, np.full((5, 2), 3 * 4**0.5), rtol=1e-6)


@pytest.mark.parametrize("has_epsilon", [True, False])
def test_the_penalty_has_a_derivative_at_a_slope_of_zero(has_epsilon, monkeypatch):
    if not has_epsilon:
        bare_root = {**vars(tf), "sqrt": lambda value: tf.sqrt(value - 1e-12)}
        monkeypatch.setattr(losses, "tf", SimpleNamespace(**bare_root))
    slope = tf.Variable(tf.zeros([4, 3]))
    with tf.GradientTape() as tape:
        penalty = losses.gradient_penalty(
            linear_critic(slope), random_captions(2, 1), random_captions(2, 2), seed=0
        )
    assert np.isfinite(tape.gradient(penalty, slope)).all() == has_epsilon


def interpolation(mismatched_share: float = 0.0, seed: int = 0) -> np.ndarray:
    """Values at which a critic is asked, one row per caption: 1 real, 0 fake, -1 mismatched."""
    shape, rows = (400, 2, 6, 4), []
    ones = EmbeddedCaptions(tf.ones(shape), tf.ones(shape[:-1]))

    def notice(embeddings: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        rows.append(np.array(embeddings).reshape(-1, 24))
        return tf.reduce_sum(embeddings, axis=[2, 3]) + tf.reduce_sum(mask, axis=2)

    negatives = [EmbeddedCaptions(factor * ones.embeddings, ones.mask) for factor in (0, -1)]
    losses.gradient_penalty(
        notice,
        ones,
        negatives[0],
        keras.random.SeedGenerator(seed),
        mismatched=negatives[1],
        mismatched_share=mismatched_share,
    )
    return rows[0]


def is_uniform(alpha: np.ndarray) -> bool:
    """Whether the numbers lie evenly in [0, 1]."""
    in_range = 0 <= alpha.min() < 0.02 and 0.98 < alpha.max() <= 1
    mean = alpha.mean() == pytest.approx(0.5, abs=0.05)
    return in_range and mean and alpha.std() == pytest.approx(12**-0.5, abs=0.03)


def test_alpha_is_uniform_and_one_number_per_caption():
    alpha = interpolation()
    assert (alpha == alpha[:, :1]).all()
    assert is_uniform(alpha[:, 0])


def test_a_normal_alpha_would_be_noticed(monkeypatch):
    """It leaves the line between the two captions."""
    monkeypatch.setattr(keras.random, "uniform", keras.random.normal)
    assert not is_uniform(interpolation()[:, 0])


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_mismatched_captions_are_paired_with_their_share_of_real_ones(share):
    """Towards a fake caption alpha 1 + (1 - alpha) 0 is positive, towards -1 half are negative."""
    is_negative = interpolation(mismatched_share=share)[:, 0] < 0
    assert is_negative.mean() == pytest.approx(share / 2, abs=0.05)


def test_leave_one_out_by_hand():
    rewards = tf.constant([[1.0, 2.0, 6.0], [0.0, 0.0, 0.0]])
    expected = [[1 - 4, 2 - 3.5, 6 - 1.5], [0, 0, 0]]
    np.testing.assert_allclose(leave_one_out(rewards), expected)


def test_normalized_advantages_do_not_depend_on_the_scale():
    advantages = tf.constant([[1.0, -1.0], [3.0, -3.0]])
    expected = np.array([[1.0, -1.0], [3.0, -3.0]]) / np.sqrt(5)
    np.testing.assert_allclose(normalized(advantages), expected, rtol=1e-6)
    np.testing.assert_allclose(normalized(1000 * advantages), expected, rtol=1e-6)
    np.testing.assert_array_equal(normalized(0 * advantages), np.zeros((2, 2)))


def test_normalized_advantages_of_tokens():
    """Tokens that do not count change nothing."""
    advantages = tf.constant([[[3.0, 4.0, 0.0], [0.0, 0.0, 0.0]]])
    mask = tf.constant([[[True, True, False], [False, False, False]]])
    expected = np.array([[[3.0, 4.0, 0.0], [0.0, 0.0, 0.0]]]) / np.sqrt(25 / 2)
    np.testing.assert_allclose(normalized(advantages, mask), expected, rtol=1e-6)


def test_discounted_rewards_by_hand():
    rewards = tf.constant([[[1.0, 2.0, 4.0], [8.0, 0.0, 0.0]]])
    half = [[[1 + 0.5 * 2 + 0.25 * 4, 2 + 0.5 * 4, 4], [8, 0, 0]]]
    np.testing.assert_allclose(discounted(rewards, 0.5), half)
    np.testing.assert_allclose(discounted(rewards, 0.0), rewards)
    np.testing.assert_allclose(discounted(rewards, 1.0), [[[7, 6, 4], [8, 0, 0]]])


def test_verdicts_by_hand():
    """Only captions with a replaced token count, and of them only tokens."""
    scores = tf.constant([[[2.0, -1.0, 50.0], [9.0, 9.0, 9.0]]])
    replaced = tf.constant([[[False, True, False], [False, False, False]]])
    mask = tf.constant([[[True, True, False], [True, True, True]]])
    expected = (np.log1p(np.exp(-2)) + np.log1p(np.exp(-1))) / 2
    assert float(verdicts(scores, replaced, mask)) == pytest.approx(expected)
    assert float(verdicts(scores, tf.zeros_like(replaced), mask)) == 0


def test_policy_loss_by_hand():
    log_probabilities = tf.constant([[[-1.0, -2.0, -50.0], [-3.0, -4.0, -5.0]]])
    mask = tf.constant([[[True, True, False], [True, True, True]]])
    loss = policy_loss(log_probabilities, tf.constant([[[2.0], [-1.0]]]), mask)
    assert float(loss) == pytest.approx(-(2 * (-1 - 2) - (-3 - 4 - 5)) / 5)


def test_the_policy_loss_has_the_gradient_of_the_expected_reward():
    """Over all captions of one word, against the derivative of their expected reward."""
    logits = tf.constant([0.3, -0.7, 1.1, 0.2])
    rewards = np.array([1.0, -2.0, 0.5, 3.0], np.float32)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        expected_reward = tf.reduce_sum(tf.nn.softmax(logits) * rewards)
    wanted = np.array(tape.gradient(expected_reward, logits))
    total = np.zeros(4)
    for word, probability in enumerate(np.array(tf.nn.softmax(logits))):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            chosen = tf.nn.log_softmax(logits)[word][None, None, None]
            loss = policy_loss(chosen, rewards[word], tf.ones([1, 1, 1]))
        total -= probability * np.array(tape.gradient(loss, logits))
    np.testing.assert_allclose(total, wanted, rtol=1e-5)
