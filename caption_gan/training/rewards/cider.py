"""CIDEr-D of token ids in the graph, a reward that training need not leave TensorFlow for.

B batch, K captions an image, C references an image, T time, M different n-grams.
"""

from collections.abc import Iterable

import numpy as np
import tensorflow as tf

from caption_gan.models.encoders.encoder import Regions
from caption_gan.text.vocabulary import PAD_ID

ORDERS = 4
SIGMA = 6.0
# An odd multiplier makes the hash of an n-gram a polynomial in its tokens. Three of its 64 bits
# tell the order; of a million n-grams two are the same with a probability of 2e-7 if the other 61
# behave like random ones.
_MULTIPLIER = 0x9E3779B97F4A7C15 - 2**64
_ABSENT = 0


def hash_ngrams(token_ids: tf.Tensor, order: int) -> tf.Tensor:
    """Hashes [..., T - order + 1] of the n-grams of [..., T]; 0 where padding is among them."""
    places = token_ids.shape[-1] - order + 1
    hashes = tf.zeros_like(token_ids[..., :places], tf.int64)
    whole = tf.ones_like(hashes, tf.bool)
    for offset in range(order):
        token = token_ids[..., offset : offset + places]
        whole &= token != PAD_ID
        hashes = (hashes + tf.cast(token, tf.int64) + 1) * _MULTIPLIER
        # The product's low bits know only the tokens' low bits; the high ones are folded in.
        hashes = tf.bitwise.bitwise_xor(hashes, tf.bitwise.right_shift(hashes, 29))
    # The order is part of the hash, so that all orders share a table.
    return tf.where(whole, hashes * 8 + order, tf.cast(_ABSENT, tf.int64))


class CiderReward:
    """Scores captions against references of the same image.

    Equal to pycocoevalcap's `Cider` (Vedantam et al., 2015, in the form CIDEr-D: clipped counts
    and a Gaussian penalty for a difference in length, of sigma 6), but that the document
    frequencies are given, and of the training split.

    Args:
        references: Token ids of the captions of each training image, [C, T] each, without the
            start token. Whether the end token is a word of them decides whether it is scored,
            and must be the same later; unscored, captions learn to break off (Rennie et al., 2017).
    """

    def __init__(self, references: Iterable[np.ndarray]):
        images = 0
        found: list[np.ndarray] = []
        for captions in references:
            images += 1
            hashes = [hash_ngrams(tf.constant(captions), order) for order in range(1, ORDERS + 1)]
            found.append(np.unique(np.concatenate([np.ravel(part) for part in hashes])))
        keys, counts = np.unique(np.concatenate(found), return_counts=True)
        self.keys = tf.constant(keys)  # [M], sorted
        self.weights = tf.constant(np.log(images) - np.log(counts), tf.float32)  # [M]
        self.unseen = float(np.log(images))

    def weigh(self, hashes: tf.Tensor) -> tf.Tensor:
        """Inverse document frequencies of n-grams, in the shape of `hashes`; 0 if absent."""
        flat = tf.reshape(hashes, [-1])
        place = tf.minimum(tf.searchsorted(self.keys, flat), len(self.keys) - 1)
        known = tf.gather(self.keys, place) == flat
        weights = tf.where(known, tf.gather(self.weights, place), self.unseen)
        return tf.reshape(tf.where(flat == _ABSENT, 0.0, weights), tf.shape(hashes))

    def __call__(self, regions: Regions, generated: tf.Tensor, real: tf.Tensor) -> tf.Tensor:
        """Rewards [N, K] of generated captions, in [0, 10]; see `Reward`."""
        return self.score(generated[..., 1:], real[..., 1:])

    def score(self, captions: tf.Tensor, references: tf.Tensor) -> tf.Tensor:
        """CIDEr-D of captions, [B, K].

        Args:
            captions: Token ids [B, K, T] without the start token, then padding.
            references: Token ids [B, C, T] of the same images.

        Returns:
            [B, K], in [0, 10].
        """
        total = tf.zeros(tf.shape(captions)[:2])
        for order in range(1, ORDERS + 1):
            total += tf.reduce_mean(self._similarity(captions, references, order), axis=-1)
        return 10 * total / ORDERS

    def _similarity(self, captions: tf.Tensor, references: tf.Tensor, order: int) -> tf.Tensor:
        """Penalised cosine of TF-IDF vectors of n-grams of one order, [B, K, C]."""
        ours, theirs = hash_ngrams(captions, order), hash_ngrams(references, order)
        our_weights, their_weights = self.weigh(ours), self.weigh(theirs)
        # How often a place's n-gram occurs in its own caption, and in each reference.
        our_counts = _count(ours[..., :, None] == ours[..., None, :])  # [B, K, P]
        their_counts = _count(theirs[..., :, None] == theirs[..., None, :])  # [B, C, P]
        shared = _count(ours[:, :, None, :, None] == theirs[:, None, :, None, :])  # [B, K, C, P]
        # Sums run over places; an n-gram has as many as it has occurrences, hence the division.
        product = tf.minimum(our_counts[:, :, None], shared) * shared / our_counts[:, :, None]
        product = tf.reduce_sum(product * our_weights[:, :, None] ** 2, axis=-1)  # [B, K, C]
        our_norm = tf.sqrt(tf.reduce_sum(our_counts * our_weights**2, axis=-1))  # [B, K]
        their_norm = tf.sqrt(tf.reduce_sum(their_counts * their_weights**2, axis=-1))  # [B, C]
        norms = our_norm[:, :, None] * their_norm[:, None]
        # pycocoevalcap takes the number of bigrams for the length.
        difference = _bigrams(captions)[:, :, None] - _bigrams(references)[:, None]
        penalty = tf.exp(-(difference**2) / (2 * SIGMA**2))
        return tf.math.divide_no_nan(product, norms) * penalty


def _count(equal: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(equal, tf.float32), axis=-1)


def _bigrams(token_ids: tf.Tensor) -> tf.Tensor:
    words = tf.reduce_sum(tf.cast(token_ids != PAD_ID, tf.float32), axis=-1)
    return tf.maximum(words - 1, 0)
