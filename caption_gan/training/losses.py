"""Losses as pure functions.

N any leading dimensions, T time, V vocabulary.
"""

import tensorflow as tf


def cross_entropy(
    logits: tf.Tensor, targets: tf.Tensor, mask: tf.Tensor, label_smoothing: float = 0.0
) -> tf.Tensor:
    """Mean cross-entropy a token, in nats.

    Args:
        logits: [N, T, V].
        targets: Token ids [N, T].
        mask: [N, T]; tokens where it is zero do not count.
        label_smoothing: Share s of the target's probability that is spread evenly over the
            vocabulary (Szegedy et al., 2016): (1 - s) * nll(target) + s * mean over V of nll.

    Returns:
        A scalar.
    """
    mask = tf.cast(mask, logits.dtype)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits)  # [N, T]
    if label_smoothing:
        # -log p averaged over V, without a [N, T, V] tensor of probabilities.
        uniform = tf.reduce_logsumexp(logits, axis=-1) - tf.reduce_mean(logits, axis=-1)  # [N, T]
        losses = (1 - label_smoothing) * losses + label_smoothing * uniform
    # At least one token, so that a batch of nothing but padding gives 0 and not NaN.
    return tf.reduce_sum(losses * mask) / tf.maximum(tf.reduce_sum(mask), 1)
