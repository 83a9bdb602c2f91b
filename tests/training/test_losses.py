"""Losses, by hand."""

import numpy as np
import pytest
import tensorflow as tf

from caption_gan.training.losses import cross_entropy


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
