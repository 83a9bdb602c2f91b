"""Constraints on captions, whatever the probabilities.

B batch, K captions per image, T time, V vocabulary, P positions of an n-gram.
"""

from typing import NamedTuple

import tensorflow as tf

from caption_gan.text.vocabulary import SPECIAL_IDS, SpecialTokens


class DecodingConstraints(NamedTuple):
    """Constraints on captions, which never contain special tokens.

    A caption ends where no other token is allowed.

    Attributes:
        minimum_length: Tokens before the end token.
        no_repeat_ngram_size: No n-gram of this size occurs twice; 0 allows repetition.
    """

    minimum_length: int = 0
    no_repeat_ngram_size: int = 0

    def apply(
        self,
        logits: tf.Tensor,
        token_ids: tf.Tensor,
        time: tf.Tensor | int,
        special_tokens: SpecialTokens = SPECIAL_IDS,
    ) -> tf.Tensor:
        """Sets to -inf the logits [B, K, V] of tokens that may not come next.

        Args:
            logits: Of the next token.
            token_ids: [B, K, T], captions so far; positions from `time` on are not read.
            time: Number of tokens so far.
            special_tokens: Ids of the special tokens.
        """
        logits = mask_special_tokens(logits, special_tokens)
        if self.no_repeat_ngram_size:
            logits = _without_repetition(logits, token_ids, time, self.no_repeat_ngram_size)
        if self.minimum_length:
            is_end = tf.one_hot(special_tokens.end, logits.shape[-1], True, False, dtype=tf.bool)
            others = tf.reduce_max(tf.where(is_end, -float("inf"), logits), -1, keepdims=True)
            early = (time < self.minimum_length) & ~tf.math.is_inf(others)  # [B, K, 1]
            logits = tf.where(early & is_end, -float("inf"), logits)
        return logits


NO_CONSTRAINTS = DecodingConstraints()


def mask_special_tokens(
    logits: tf.Tensor, special_tokens: SpecialTokens = SPECIAL_IDS
) -> tf.Tensor:
    """Sets to -inf the logits [..., V] of padding, start and unknown token."""
    ids = [special_tokens.pad, special_tokens.start, special_tokens.unknown]
    forbidden = tf.one_hot(ids, logits.shape[-1], True, False, dtype=tf.bool)  # [3, V]
    return tf.where(tf.reduce_any(forbidden, axis=0), -float("inf"), logits)


def _without_repetition(
    logits: tf.Tensor, token_ids: tf.Tensor, time: tf.Tensor | int, size: int
) -> tf.Tensor:
    """Sets to -inf the logits [B, K, V] of tokens that would complete an n-gram a second time."""
    positions = token_ids.shape[2] - size + 1
    if positions < 1:
        return logits
    repeated = tf.range(size - 1, size - 1 + positions) < time  # [P]; the n-gram is complete
    for offset in range(size - 1):
        # At times too early for a last n-gram, no n-gram is complete either.
        last = tf.gather(token_ids, tf.maximum(time - size + 1 + offset, 0), axis=2)  # [B, K]
        repeated &= token_ids[..., offset : offset + positions] == last[..., None]  # [B, K, P]
    followers = tf.reshape(token_ids[..., size - 1 :], [-1, positions])  # [B K, P]
    repeated = tf.broadcast_to(repeated, tf.shape(token_ids[..., size - 1 :]))
    rows = tf.broadcast_to(tf.range(tf.shape(followers)[0])[:, None], tf.shape(followers))
    flat = tf.tensor_scatter_nd_min(
        tf.reshape(logits, [-1, logits.shape[-1]]),
        tf.stack([rows, followers], axis=-1),
        tf.reshape(tf.where(repeated, -float("inf"), float("inf")), [-1, positions]),
    )
    return tf.reshape(flat, tf.shape(logits))
