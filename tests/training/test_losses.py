"""Losses, by hand."""

import numpy as np
import pytest
import tensorflow as tf

from caption_gan.training.losses import (
    cross_entropy,
    leave_one_out,
    lipschitz_penalty,
    normalized,
    policy_loss,
    relativistic,
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


def test_by_hand():
    logits = of([[[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]])
    targets = tf.constant([[1, 2]])
    loss = cross_entropy(logits, targets, tf.constant([[True, True]]))
    assert float(loss) == pytest.approx((np.log(4) + np.log(1.25)) / 2, rel=1e-5)
    loss = cross_entropy(logits, targets, tf.constant([[True, False]]))
    assert float(loss) == pytest.approx(np.log(4), rel=1e-5)


def test_smoothing_by_hand():
    loss = cross_entropy(of([[0.5, 0.25, 0.25]]), tf.constant([0]), tf.constant([1]), 0.3)
    # 0.7 + 0.1 of the probability on the target, 0.1 on each of the others.
    assert float(loss) == pytest.approx(0.8 * np.log(2) + 0.2 * np.log(4), rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_equals_a_smoothed_one_hot_target(batch, smoothing):
    logits, targets, mask = map(np.array, batch)
    target = (1 - smoothing) * np.eye(5)[targets] + smoothing / 5
    logs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    expected = -(target * logs).sum(axis=-1)[mask].mean()
    loss = cross_entropy(batch[0], batch[1], batch[2], smoothing)
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_tokens_weigh_alike_whatever_the_length_of_their_caption():
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


def test_nothing_but_padding_is_zero_and_so_is_its_gradient(batch):
    logits, targets, mask = batch
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = cross_entropy(logits, targets, tf.zeros_like(mask), 0.1)
    assert float(loss) == 0
    assert not np.array(tape.gradient(loss, logits)).any()


def test_certain_and_wrong_stays_finite():
    logits = tf.constant([[1000.0, -1000.0]])
    for smoothing in (0.0, 0.1):
        loss = cross_entropy(logits, tf.constant([1]), tf.constant([1]), smoothing)
        assert np.isfinite(float(loss))


def test_critic_losses_by_hand():
    better, worse = tf.constant([2.0, -1.0]), tf.constant([0.5, 3.0])
    np.testing.assert_allclose(wasserstein(better, worse), [-1.5, 4.0])
    expected = np.log1p(np.exp([-1.5, 4.0]))
    np.testing.assert_allclose(relativistic(better, worse), expected, rtol=1e-6)


def across_captions(gradients: tf.Tensor, one_sided: bool = False) -> tf.Tensor:
    """The fault: one norm of all captions of an image."""
    norm = tf.sqrt(tf.reduce_sum(gradients**2, axis=[1, 2, 3], keepdims=True))
    return (norm - 1)[..., 0, 0] ** 2


def bare_root(gradients: tf.Tensor, one_sided: bool = False) -> tf.Tensor:
    """The fault: nothing under the root."""
    return (tf.sqrt(tf.reduce_sum(gradients**2, axis=[2, 3])) - 1) ** 2


@pytest.mark.parametrize("captions", [1, 2, 7])
@pytest.mark.parametrize(
    ("penalty", "right"), [(lipschitz_penalty, True), (across_captions, False)]
)
def test_the_penalty_of_a_linear_critic(captions, penalty, right):
    """A slope of norm g costs (g - 1)^2, however many captions there are."""
    rng = np.random.default_rng(0)
    slope = rng.normal(size=(4, 3))
    slope *= 2.5 / np.linalg.norm(slope)
    words = tf.constant(rng.normal(size=(5, captions, 4, 3)), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(words)
        score = tf.reduce_sum(words * slope, axis=[2, 3])
    cost = np.array(penalty(tape.gradient(score, words)))
    agrees = np.allclose(cost, (2.5 - 1) ** 2, rtol=1e-5)
    assert agrees == (right or captions == 1)


def test_a_one_sided_penalty_lets_small_slopes_be():
    gradients = tf.constant([0.25, 3.0], shape=[2, 1, 1, 1])
    np.testing.assert_allclose(lipschitz_penalty(gradients, one_sided=True), [[0.0], [4.0]])
    np.testing.assert_allclose(lipschitz_penalty(gradients), [[0.5625], [4.0]])


@pytest.mark.parametrize(("penalty", "right"), [(lipschitz_penalty, True), (bare_root, False)])
def test_a_slope_of_zero_has_a_derivative(penalty, right):
    gradients = tf.zeros([2, 1, 3, 4])
    with tf.GradientTape() as tape:
        tape.watch(gradients)
        cost = tf.reduce_mean(penalty(gradients))
    assert np.isfinite(tape.gradient(cost, gradients)).all() == right


def test_leave_one_out_by_hand():
    rewards = tf.constant([[1.0, 2.0, 6.0], [0.0, 0.0, 0.0]])
    expected = [[1 - 4, 2 - 3.5, 6 - 1.5], [0, 0, 0]]
    np.testing.assert_allclose(leave_one_out(rewards), expected)


def test_normalized_advantages_do_not_know_the_scale():
    advantages = tf.constant([[1.0, -1.0], [3.0, -3.0]])
    expected = np.array([[1.0, -1.0], [3.0, -3.0]]) / np.sqrt(5)
    np.testing.assert_allclose(normalized(advantages), expected, rtol=1e-6)
    np.testing.assert_allclose(normalized(1000 * advantages), expected, rtol=1e-6)
    np.testing.assert_array_equal(normalized(0 * advantages), np.zeros((2, 2)))


def test_policy_loss_by_hand():
    log_probabilities = tf.constant([[[-1.0, -2.0, -50.0], [-3.0, -4.0, -5.0]]])
    mask = tf.constant([[[True, True, False], [True, True, True]]])
    loss = policy_loss(log_probabilities, tf.constant([[2.0, -1.0]]), mask)
    assert float(loss) == pytest.approx(-(2 * (-1 - 2) - (-3 - 4 - 5)) / 5)


def test_a_policys_gradient_is_that_of_the_expected_reward():
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
            loss = policy_loss(chosen, rewards[word][None, None], tf.ones([1, 1, 1]))
        total -= probability * np.array(tape.gradient(loss, logits))
    np.testing.assert_allclose(total, wanted, rtol=1e-5)
