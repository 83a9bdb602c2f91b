"""The penalty that bounds a critic's slope.

B batch, K captions an image, T time, E embedding.
"""

import keras
import tensorflow as tf

from caption_gan.config.objectives import AdversarialConfig
from caption_gan.models.critic import Critic
from caption_gan.models.generators.gru import Memory
from caption_gan.models.trace_scopes import PENALTY, trace_scope
from caption_gan.training import losses


@trace_scope(PENALTY)
def critic_penalty(
    critic: Critic,
    memory: Memory,
    words: tf.Tensor,
    mask: tf.Tensor,
    config: AdversarialConfig,
    seed: keras.random.SeedGenerator,
    scale: tf.Tensor | float = 1.0,
) -> tf.Tensor:
    """Penalty on the critic's slope between real captions and negatives; a scalar.

    Args:
        critic: Scores captions.
        memory: Of the B images.
        words: Of real, written and mismatched captions, [B, 3 K, T, E].
        mask: [B, 3 K, T].
        config: Which penalty, if any, and how the kinds of negatives count.
        seed: Of the places between them.
        scale: Of the loss: slopes are as small as gradients of the loss, and vanish like them
            where a critic computes in float16.
    """
    if config.constraint not in ("gradient_penalty", "lipschitz_penalty"):
        return tf.constant(0.0)
    real, written, mismatched = tf.split(words, 3, axis=1)  # [B, K, T, E]
    # Which places have a word is part of a caption as its words are: a critic that may jump
    # where a caption grows longer has no bound.
    masks = tf.split(tf.cast(mask, words.dtype), 3, axis=1)  # [B, K, T] each
    real_mask, written_mask, mismatched_mask = masks
    shape = tf.shape(real)[:2]
    uniform = keras.random.uniform([*tf.unstack(shape), 2], seed=seed)
    # Each real caption is tied to one negative, of a kind drawn as the kinds count.
    other = (uniform < config.mismatched)[..., :1]  # [B, K, 1]
    negative = tf.where(other[..., None], mismatched, written)
    negative_mask = tf.where(other, mismatched_mask, written_mask)
    alpha = uniform[..., 1:]  # [B, K, 1], one for a whole caption
    between_mask = alpha * real_mask + (1 - alpha) * negative_mask
    between = alpha[..., None] * real + (1 - alpha[..., None]) * negative
    with tf.GradientTape() as tape:
        tape.watch([between, between_mask])
        scores = scale * critic(between, between_mask, memory)
    slopes = tape.gradient(scores, [between, between_mask])
    gradients = tf.concat([slopes[0], slopes[1][..., None]], axis=-1) / scale  # [B, K, T, E + 1]
    one_sided = config.constraint == "lipschitz_penalty"
    return tf.reduce_mean(losses.lipschitz_penalty(gradients, one_sided))
