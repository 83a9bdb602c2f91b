"""Losses as pure functions.

N any leading dimensions, T time, V vocabulary.
"""

import tensorflow as tf

from caption_gan.distribution import replicas


def cross_entropy(
    logits: tf.Tensor,
    targets: tf.Tensor,
    mask: tf.Tensor,
    label_smoothing: float = 0.0,
    count: tf.Tensor | None = None,
) -> tf.Tensor:
    """Mean cross-entropy a token, in nats.

    Args:
        logits: [N, T, V].
        targets: Token ids [N, T].
        mask: [N, T]; tokens where it is zero do not count.
        label_smoothing: Share s of the target's probability that is spread evenly over the
            vocabulary (Szegedy et al., 2016): (1 - s) * nll(target) + s * mean over V of nll.
        count: Number of tokens over which the mean is taken; see `counted`.

    Returns:
        A scalar.
    """
    mask = tf.cast(mask, logits.dtype)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits)  # [N, T]
    if label_smoothing:
        # -log p averaged over V, without a [N, T, V] tensor of probabilities.
        uniform = tf.reduce_logsumexp(logits, axis=-1) - tf.reduce_mean(logits, axis=-1)  # [N, T]
        losses = (1 - label_smoothing) * losses + label_smoothing * uniform
    return tf.reduce_sum(losses * mask) / (counted(mask) if count is None else count)


def counted(mask: tf.Tensor) -> tf.Tensor:
    """Number of tokens that count, a scalar; the mean over the replicas where there are several.

    Divided by it, each replica's sum is so large that their mean is that of the whole batch,
    whichever of them has the longer captions.
    """
    # At least one token, so that a batch of nothing but padding gives 0 and not NaN.
    return tf.maximum(replicas.mean(tf.reduce_sum(tf.cast(mask, tf.float32))), 1)


def wasserstein(better: tf.Tensor, worse: tf.Tensor) -> tf.Tensor:
    """By how much the worse score is higher (Arjovsky et al., 2017); any shape.

    Only a critic whose slope is bounded may be trained by it.
    """
    return worse - better


def relativistic(better: tf.Tensor, worse: tf.Tensor) -> tf.Tensor:
    """-log sigmoid(better - worse) (Jolicoeur-Martineau, 2019); any shape.

    What is right already counts little, however large the difference.
    """
    return tf.nn.softplus(worse - better)


def lipschitz_penalty(gradients: tf.Tensor, one_sided: bool = False) -> tf.Tensor:
    """(norm - 1)^2 of the gradient of each caption's score with regard to its words.

    Args:
        gradients: [B, K, T, E]. A norm is of one caption alone: one across captions would demand
            less of each, the more captions there are in a batch.
        one_sided: Whether a norm below one is free (Petzka et al., 2018); otherwise it is drawn
            towards one from both sides (Gulrajani et al., 2017).

    Returns:
        [B, K].
    """
    # The root has no derivative at zero, where an untrained critic can be.
    norm = tf.sqrt(tf.reduce_sum(tf.square(gradients), axis=[-2, -1]) + 1e-12)
    excess = norm - 1
    return tf.square(tf.nn.relu(excess) if one_sided else excess)


def leave_one_out(rewards: tf.Tensor) -> tf.Tensor:
    """Rewards [B, K] less the mean of the other captions of the image (Kool et al., 2019)."""
    others = tf.cast(tf.shape(rewards)[1] - 1, rewards.dtype)
    return rewards - (tf.reduce_sum(rewards, axis=1, keepdims=True) - rewards) / others


def normalized(advantages: tf.Tensor) -> tf.Tensor:
    """Advantages [B, K] with a mean square of one, so that the scale of rewards does not matter."""
    square = replicas.mean(tf.reduce_mean(tf.square(advantages)))
    # Captions that are all alike have no advantage over each other, and no scale.
    return advantages / tf.maximum(tf.sqrt(square), 1e-6)


def policy_loss(log_probabilities: tf.Tensor, advantages: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """REINFORCE (Williams, 1992), a mean over words so that it compares with the cross-entropy.

    Args:
        log_probabilities: Of the words that were drawn, [B, K, T].
        advantages: [B, K]; constants.
        mask: [B, K, T]; words where it is zero were not drawn.

    Returns:
        A scalar.
    """
    mask = tf.cast(mask, log_probabilities.dtype)
    weighted = tf.stop_gradient(advantages)[..., None] * log_probabilities * mask
    return -tf.reduce_sum(weighted) / counted(mask)
