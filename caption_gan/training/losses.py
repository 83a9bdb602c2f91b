"""Losses as pure functions.

B batch, K captions per image, T time, V vocabulary, E embedding; N any leading dimensions.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from caption_gan.distribution import replicas

CriticFunction = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def cross_entropy(
    logits: tf.Tensor,
    targets: tf.Tensor,
    mask: tf.Tensor,
    label_smoothing: float = 0.0,
    count: tf.Tensor | None = None,
) -> tf.Tensor:
    """Mean cross-entropy in nats per token, a scalar.

    Args:
        logits: [N, T, V].
        targets: Token ids [N, T].
        mask: [N, T]; tokens where it is zero do not count.
        label_smoothing: Share s of the target's probability that is spread evenly over the
            vocabulary (Szegedy et al., 2016): (1 - s) * nll(target) + s * mean over V of nll.
        count: Number of tokens to divide by; see `token_count`.
    """
    mask = tf.cast(mask, logits.dtype)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits)  # [N, T]
    if label_smoothing:
        # -log p averaged over V, without a [N, T, V] tensor of probabilities.
        uniform = tf.reduce_logsumexp(logits, axis=-1) - tf.reduce_mean(logits, axis=-1)  # [N, T]
        losses = (1 - label_smoothing) * losses + label_smoothing * uniform
    return tf.reduce_sum(losses * mask) / (token_count(mask) if count is None else count)


def token_count(mask: tf.Tensor) -> tf.Tensor:
    """Number of tokens that count, a scalar: the mean over replicas where there are several.

    Divided by this mean, the replicas' losses average to the loss of the whole batch, whichever
    replica has the longer captions.
    """
    # At least one token, so that a batch of padding gives 0 and not NaN.
    return tf.maximum(replicas.mean(tf.reduce_sum(tf.cast(mask, tf.float32))), 1)


def wasserstein(better: tf.Tensor, worse: tf.Tensor) -> tf.Tensor:
    """Difference of scores, worse - better (Arjovsky et al., 2017); any shape.

    Unbounded below: use it only with a critic whose slope is constrained.
    """
    return worse - better


def relativistic(better: tf.Tensor, worse: tf.Tensor) -> tf.Tensor:
    """-log sigmoid(better - worse) (Jolicoeur-Martineau, 2019); any shape.

    Pairs that are already in the right order contribute little, however far apart they are.
    """
    return tf.nn.softplus(worse - better)


def verdicts(
    token_scores: tf.Tensor,
    replaced: tf.Tensor,
    mask: tf.Tensor,
    count: tf.Tensor | None = None,
) -> tf.Tensor:
    """Whether each token of a caption was replaced, as a binary cross-entropy, a scalar.

    Its logit is the token's score: a critic that says so knows which word of a caption is false.
    Captions without a replaced token do not count (Clark et al., 2020).

    Args:
        token_scores: [B, K, T].
        replaced: Boolean [B, K, T].
        mask: [B, K, T]; false where there is no token.
        count: Number of tokens to divide by; see `token_count`.
    """
    counts = in_false_captions(replaced, mask)
    entropy = tf.nn.softplus(tf.where(replaced, token_scores, -token_scores))
    entropy *= tf.cast(counts, entropy.dtype)
    return tf.reduce_sum(entropy) / (token_count(counts) if count is None else count)


def in_false_captions(replaced: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Which tokens are in captions with a replaced one, boolean [B, K, T]; see `verdicts`."""
    return mask & tf.reduce_any(replaced, axis=-1, keepdims=True)


class EmbeddedCaptions(NamedTuple):
    """Captions as a critic reads them.

    Attributes:
        embeddings: [B, K, T, E].
        mask: float [B, K, T]; 1 where there is a token, 0 after the end.
    """

    embeddings: tf.Tensor
    mask: tf.Tensor


def gradient_penalty(
    critic_fn: CriticFunction,
    real: EmbeddedCaptions,
    fake: EmbeddedCaptions,
    seed: keras.random.SeedGenerator | int,
    **options: Any,
) -> tf.Tensor:
    """Two-sided penalty, mean of (norm - 1)^2, a scalar (Gulrajani et al., 2017, Algorithm 1).

    Args:
        critic_fn: See `interpolated_gradient_norm`, as for all other arguments.
        real: Real captions.
        fake: Generated captions.
        seed: Seed of the interpolation.
        **options: `mismatched`, `mismatched_share`, `loss_scale`.
    """
    norm = interpolated_gradient_norm(critic_fn, real, fake, seed, **options)  # [B, K]
    return tf.reduce_mean(tf.square(norm - 1))


def one_sided_gradient_penalty(
    critic_fn: CriticFunction,
    real: EmbeddedCaptions,
    fake: EmbeddedCaptions,
    seed: keras.random.SeedGenerator | int,
    **options: Any,
) -> tf.Tensor:
    """One-sided penalty, mean of max(norm - 1, 0)^2, a scalar (Petzka et al., 2018).

    Arguments as of `gradient_penalty`.
    """
    norm = interpolated_gradient_norm(critic_fn, real, fake, seed, **options)  # [B, K]
    return tf.reduce_mean(tf.square(tf.nn.relu(norm - 1)))


def interpolated_gradient_norm(
    critic_fn: CriticFunction,
    real: EmbeddedCaptions,
    fake: EmbeddedCaptions,
    seed: keras.random.SeedGenerator | int,
    mismatched: EmbeddedCaptions | None = None,
    mismatched_share: float = 0.0,
    loss_scale: tf.Tensor | float = 1.0,
) -> tf.Tensor:
    """Norm of the critic's gradient at points between real and fake captions.

    Args:
        critic_fn: Scores embeddings [B, K, T, E] with a mask [B, K, T]; returns [B, K].
        real: Real captions.
        fake: Generated captions, as many.
        seed: Seed of the random numbers, which are uniform in [0, 1).
        mismatched: A second kind of negatives, real captions of other images.
        mismatched_share: Probability that a real caption is paired with a mismatched one.
        loss_scale: Multiplies the score before it is differentiated, so that small gradients
            survive float16; the result is free of it.

    Returns:
        [B, K], one norm per caption. A norm over several captions would bound each of them the
        less, the more captions there are in a batch.
    """
    batch, captions = tf.unstack(tf.shape(real.mask)[:2])
    uniform = keras.random.uniform([batch, captions, 2], seed=seed)
    if mismatched is not None:
        is_mismatched = uniform[..., :1] < mismatched_share  # [B, K, 1]
        fake = EmbeddedCaptions(
            tf.where(is_mismatched[..., None], mismatched.embeddings, fake.embeddings),
            tf.where(is_mismatched, mismatched.mask, fake.mask),
        )
    alpha = uniform[..., 1:]  # [B, K, 1], one number per caption
    # Interpolates the mask too: captions differ in length, and a critic that may jump where a
    # caption grows by a token is not bounded.
    mask = alpha * real.mask + (1 - alpha) * fake.mask  # [B, K, T]
    alpha = alpha[..., None]  # [B, K, 1, 1]
    embeddings = alpha * real.embeddings + (1 - alpha) * fake.embeddings  # [B, K, T, E]
    with tf.GradientTape() as tape:
        tape.watch([embeddings, mask])
        score = loss_scale * critic_fn(embeddings, mask)  # [B, K]
    gradients = tape.gradient(score, [embeddings, mask])
    gradients = tf.concat([gradients[0], gradients[1][..., None]], axis=-1)  # [B, K, T, E + 1]
    squared_norm = tf.reduce_sum(tf.square(gradients / loss_scale), axis=[-2, -1])  # [B, K]
    # Epsilon: the root has no derivative at zero, where an untrained critic can be.
    return tf.sqrt(squared_norm + 1e-12)


def leave_one_out(rewards: tf.Tensor) -> tf.Tensor:
    """Rewards [B, K] minus the mean of the image's other captions (Kool et al., 2019)."""
    return rewards - mean_of_others(rewards)


def mean_of_others(rewards: tf.Tensor) -> tf.Tensor:
    """For each caption the mean reward [B, K] of the image's other captions."""
    others = tf.cast(tf.shape(rewards)[1] - 1, rewards.dtype)
    return (tf.reduce_sum(rewards, axis=1, keepdims=True) - rewards) / others


def discounted(rewards: tf.Tensor, discount: float) -> tf.Tensor:
    """For each token its reward and those of later tokens, [B, K, T].

    Args:
        rewards: Of tokens, [B, K, T]; zero where there is none.
        discount: Factor per token by which later rewards count less.
    """
    length = rewards.shape[-1]
    distance = tf.range(length)[:, None] - tf.range(length)  # Of a reward (row) from a token.
    power = tf.cast(tf.maximum(distance, 0), rewards.dtype)
    weights = tf.where(distance >= 0, tf.cast(discount, rewards.dtype) ** power, 0.0)  # [T, T]
    return tf.einsum("bks,st->bkt", rewards, weights)


def normalized(advantages: tf.Tensor, mask: tf.Tensor | None = None) -> tf.Tensor:
    """Advantages scaled to a mean square of one: the scale of rewards does not matter.

    Args:
        advantages: [B, K], or [B, K, T] with a mask of the same shape; zero where the mask is.
        mask: Which advantages count.
    """
    share = 1.0 if mask is None else replicas.mean(tf.reduce_mean(tf.cast(mask, tf.float32)))
    square = replicas.mean(tf.reduce_mean(tf.square(advantages))) / share
    # Captions that are all the same have no advantage over each other, and no scale.
    return advantages / tf.maximum(tf.sqrt(square), 1e-6)


def policy_loss(
    log_probabilities: tf.Tensor,
    advantages: tf.Tensor,
    mask: tf.Tensor,
    count: tf.Tensor | None = None,
) -> tf.Tensor:
    """REINFORCE (Williams, 1992), a scalar: a mean over tokens, comparable to the cross-entropy.

    Args:
        log_probabilities: Log-probabilities of the sampled tokens, [B, K, T].
        advantages: Of the tokens, [B, K, T], or the same for all tokens of a caption, [B, K, 1];
            constants.
        mask: [B, K, T]; zero where no token was sampled.
        count: Number of tokens to divide by; see `token_count`.
    """
    mask = tf.cast(mask, log_probabilities.dtype)
    weighted = tf.stop_gradient(advantages) * log_probabilities * mask
    return -tf.reduce_sum(weighted) / (token_count(mask) if count is None else count)
