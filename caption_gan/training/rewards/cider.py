"""CIDEr-D as a reward, computed in the graph from token ids.

B batch, K captions per image, C references per image, T time, P n-grams of a caption, M distinct
n-grams of the training split.
"""

from collections.abc import Iterable, Mapping

import numpy as np
import tensorflow as tf

from caption_gan.models.encoders.encoder import Regions
from caption_gan.text.vocabulary import PAD_ID

ORDERS = 4
SIGMA = 6.0
# An odd multiplier makes the hash of an n-gram a polynomial in its tokens. Three of its 64 bits
# hold the order. If the other 61 bits behave like random ones, two of a million n-grams collide
# with a probability of 2e-7.
_MULTIPLIER = 0x9E3779B97F4A7C15 - 2**64
_ABSENT = 0


def hash_ngrams(token_ids: tf.Tensor, order: int) -> tf.Tensor:
    """Hashes [..., T - order + 1] of the n-grams of [..., T]; 0 where an n-gram has padding."""
    count = token_ids.shape[-1] - order + 1
    hashes = tf.zeros_like(token_ids[..., :count], tf.int64)
    has_no_padding = tf.ones_like(hashes, tf.bool)
    for offset in range(order):
        token = token_ids[..., offset : offset + count]
        has_no_padding &= token != PAD_ID
        hashes = (hashes + tf.cast(token, tf.int64) + 1) * _MULTIPLIER
        # The low bits of the product depend only on the tokens' low bits: fold in the high ones.
        hashes = tf.bitwise.bitwise_xor(hashes, tf.bitwise.right_shift(hashes, 29))
    # The order is part of the hash, so that all orders share one table.
    return tf.where(has_no_padding, hashes * 8 + order, tf.cast(_ABSENT, tf.int64))


class CiderReward:
    """Scores captions against references of the same image.

    Equals pycocoevalcap's `Cider` (Vedantam et al., 2015, in the form CIDEr-D: clipped counts and
    a Gaussian length penalty with sigma 6), except that document frequencies come from the training
    split instead of the scored references.

    Args:
        references: Token ids of the captions of each training image, [C, T] each, without the
            start token. With the end token in them, the end token is scored as a word, in `score`
            too; otherwise captions learn to break off (Rennie et al., 2017).
    """

    def __init__(self, references: Iterable[np.ndarray]):
        ngrams_of_image: list[np.ndarray] = []
        for captions in references:
            hashes = [hash_ngrams(tf.constant(captions), order) for order in range(1, ORDERS + 1)]
            ngrams_of_image.append(np.unique(np.concatenate([np.ravel(part) for part in hashes])))
        images = len(ngrams_of_image)
        keys, counts = np.unique(np.concatenate(ngrams_of_image), return_counts=True)
        self.keys = tf.constant(keys)  # [M], sorted
        self.weights = tf.constant(np.log(images) - np.log(counts), tf.float32)  # [M]
        self.unseen = float(np.log(images))

    def weigh(self, hashes: tf.Tensor) -> tf.Tensor:
        """Inverse document frequencies of n-grams, in the shape of `hashes`; 0 if absent."""
        flat = tf.reshape(hashes, [-1])
        index = tf.minimum(tf.searchsorted(self.keys, flat), len(self.keys) - 1)
        is_seen = tf.gather(self.keys, index) == flat
        weights = tf.where(is_seen, tf.gather(self.weights, index), self.unseen)
        return tf.reshape(tf.where(flat == _ABSENT, 0.0, weights), tf.shape(hashes))

    def __call__(
        self, regions: Regions, generated: tf.Tensor, batch: Mapping[str, tf.Tensor]
    ) -> tf.Tensor:
        """Rewards [N, K] of generated captions, in [0, 10]; see `Reward`."""
        return self.score(generated[..., 1:], batch["token_ids"][..., 1:])

    def score(self, captions: tf.Tensor, references: tf.Tensor) -> tf.Tensor:
        """CIDEr-D of captions, [B, K].

        Args:
            captions: Token ids [B, K, T] without the start token.
            references: Token ids [B, C, T] of the same images.

        Returns:
            [B, K], in [0, 10].
        """
        total = tf.zeros(tf.shape(captions)[:2])
        for order in range(1, ORDERS + 1):
            total += tf.reduce_mean(self._similarity(captions, references, order), axis=-1)
        return 10 * total / ORDERS

    def _similarity(self, captions: tf.Tensor, references: tf.Tensor, order: int) -> tf.Tensor:
        """Cosine of TF-IDF vectors of n-grams of one order, times the length penalty, [B, K, C]."""
        ours, theirs = hash_ngrams(captions, order), hash_ngrams(references, order)
        our_weights, their_weights = self.weigh(ours), self.weigh(theirs)
        # How often each n-gram occurs in its own caption, and in each reference.
        our_counts = _count(ours[..., :, None] == ours[..., None, :])  # [B, K, P]
        their_counts = _count(theirs[..., :, None] == theirs[..., None, :])  # [B, C, P]
        shared = _count(ours[:, :, None, :, None] == theirs[:, None, :, None, :])  # [B, K, C, P]
        # The sum visits an n-gram once per occurrence, hence the division.
        product = tf.minimum(our_counts[:, :, None], shared) * shared / our_counts[:, :, None]
        product = tf.reduce_sum(product * our_weights[:, :, None] ** 2, axis=-1)  # [B, K, C]
        our_norm = tf.sqrt(tf.reduce_sum(our_counts * our_weights**2, axis=-1))  # [B, K]
        their_norm = tf.sqrt(tf.reduce_sum(their_counts * their_weights**2, axis=-1))  # [B, C]
        norms = our_norm[:, :, None] * their_norm[:, None]
        # pycocoevalcap uses the number of bigrams as the length.
        difference = _bigrams(captions)[:, :, None] - _bigrams(references)[:, None]
        penalty = tf.exp(-(difference**2) / (2 * SIGMA**2))
        return tf.math.divide_no_nan(product, norms) * penalty


def _count(equal: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(equal, tf.float32), axis=-1)


def _bigrams(token_ids: tf.Tensor) -> tf.Tensor:
    words = tf.reduce_sum(tf.cast(token_ids != PAD_ID, tf.float32), axis=-1)
    return tf.maximum(words - 1, 0)
