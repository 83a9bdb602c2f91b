"""What a caption may not say next, whatever its probability.

B batch, K captions an image, T time, V vocabulary, P places of an n-gram.
"""

from typing import NamedTuple

import tensorflow as tf

from caption_gan.text.vocabulary import END_ID, PAD_ID, START_ID, UNK_ID


class DecodingConstraints(NamedTuple):
    """Constraints on captions beyond their having no special words.

    Where they leave no word at all, a caption ends.
    """

    minimum_length: int = 0  # Words before the end.
    no_repeat_ngram_size: int = 0  # No n words in a row are said twice; 0 lets them.

    def apply(self, logits: tf.Tensor, written: tf.Tensor, time: tf.Tensor | int) -> tf.Tensor:
        """Sets to -inf the logits [B, K, V] of what may not be written at that time.

        Args:
            logits: Of the next word.
            written: [B, K, T], captions so far; what they hold from `time` on is not read.
            time: Number of words that are written.
        """
        logits = mask_special_tokens(logits)
        if self.no_repeat_ngram_size:
            logits = _without_repetition(logits, written, time, self.no_repeat_ngram_size)
        if self.minimum_length:
            is_end = tf.one_hot(END_ID, logits.shape[-1], True, False, dtype=tf.bool)  # [V]
            others = tf.reduce_max(tf.where(is_end, -float("inf"), logits), -1, keepdims=True)
            early = (time < self.minimum_length) & ~tf.math.is_inf(others)  # [B, K, 1]
            logits = tf.where(early & is_end, -float("inf"), logits)
        return logits


NO_CONSTRAINTS = DecodingConstraints()


def mask_special_tokens(logits: tf.Tensor) -> tf.Tensor:
    """Sets to -inf the logits [..., V] of what no caption may contain."""
    forbidden = tf.one_hot([PAD_ID, START_ID, UNK_ID], logits.shape[-1], True, False, dtype=tf.bool)
    return tf.where(tf.reduce_any(forbidden, axis=0), -float("inf"), logits)


def _without_repetition(
    logits: tf.Tensor, written: tf.Tensor, time: tf.Tensor | int, size: int
) -> tf.Tensor:
    """Sets to -inf the logits [B, K, V] of words that would end an n-gram a second time."""
    places = written.shape[2] - size + 1
    if places < 1:
        return logits
    repeated = tf.range(size - 1, size - 1 + places) < time  # [P]; the n-gram is complete
    for offset in range(size - 1):
        # Too early for a last n-gram, none is complete either.
        last = tf.gather(written, tf.maximum(time - size + 1 + offset, 0), axis=2)  # [B, K]
        repeated &= written[..., offset : offset + places] == last[..., None]  # [B, K, P]
    followers = tf.reshape(written[..., size - 1 :], [-1, places])  # [B K, P]
    repeated = tf.broadcast_to(repeated, tf.shape(written[..., size - 1 :]))
    rows = tf.broadcast_to(tf.range(tf.shape(followers)[0])[:, None], tf.shape(followers))
    flat = tf.tensor_scatter_nd_min(
        tf.reshape(logits, [-1, logits.shape[-1]]),
        tf.stack([rows, followers], axis=-1),
        tf.reshape(tf.where(repeated, -float("inf"), float("inf")), [-1, places]),
    )
    return tf.reshape(flat, tf.shape(logits))
