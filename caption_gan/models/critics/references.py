"""References: an image's other real captions, with which a critic compares a caption.

While it writes, a generator knows none of them. They say more about an image than it sees in the
regions, so that a critic can tell which of the generator's uncertain statements are wrong.

B batch, K captions per image, C references per image, T time, S time of a reference, E embedding.
"""

from typing import NamedTuple

import tensorflow as tf

# Longest n-grams that are compared. Longer ones hardly ever agree between two people's captions.
ORDERS = 3
# For each order the mean and the largest agreement, and whether there are references at all.
FEATURES = 2 * ORDERS + 1


class References(NamedTuple):
    """Real captions of B images, and which of them are references of which caption.

    Attributes:
        token_ids: [B, C, S].
        visible: Boolean [B, K, C].
    """

    token_ids: tf.Tensor
    visible: tf.Tensor

    @classmethod
    def others(cls, real: tf.Tensor) -> "References":
        """For the k-th caption of an image its real captions [B, K, T] but the k-th.

        Generated captions have the same references as the real one at their place, so that the
        number of references says nothing. A real caption that occurs twice is no reference of
        itself: an image with one caption has none.
        """
        differs = tf.reduce_any(real[:, :, None] != real[:, None], axis=-1)  # [B, K, K]
        return cls(real, differs)

    def hidden(self) -> "References":
        """The same captions, none of them visible."""
        return self._replace(visible=tf.zeros_like(self.visible))

    def concat(self, other: "References") -> "References":
        """References of these images and of others."""
        return References(*(tf.concat(rows, axis=0) for rows in zip(self, other, strict=True)))

    def drop(self, rate: float, seed: tf.Tensor) -> "References":
        """Hides all references of an image with that probability."""
        kept = tf.random.stateless_uniform([tf.shape(self.visible)[0], 1, 1], seed) >= rate
        return self._replace(visible=self.visible & kept)


def ngram_agreement(
    embeddings: tf.Tensor, references: tf.Tensor, mask: tf.Tensor, visible: tf.Tensor
) -> tf.Tensor:
    """How far the n-grams that end at each token occur in the references.

    The agreement of two tokens is the cosine of their embeddings, of two n-grams the product over
    their tokens: 1 for equal n-grams, near 0 for unrelated ones. It has a gradient, which a caption
    of relaxed words can follow.

    Args:
        embeddings: Of captions, [B, K, T, E].
        references: Embeddings of references, [B, C, S, E].
        mask: Boolean [B, C, S], false after a reference's end.
        visible: Boolean [B, K, C].

    Returns:
        [B, K, T, FEATURES].
    """
    batch, captions, time, size = tf.unstack(tf.shape(embeddings))
    count, length = tf.unstack(tf.shape(references)[1:3])
    ours, theirs = (tf.math.l2_normalize(part, axis=-1) for part in (embeddings, references))
    cosine = tf.matmul(
        tf.reshape(ours, [batch, captions * time, size]),
        tf.reshape(theirs, [batch, count * length, size]),
        transpose_b=True,
    )
    cosine = tf.reshape(cosine, [batch, captions, time, count, length])
    single = tf.nn.relu(cosine) * tf.cast(mask, cosine.dtype)[:, None, None]
    shown = tf.cast(visible, cosine.dtype)[:, :, None]  # [B, K, 1, C]
    has_references = tf.minimum(tf.reduce_sum(shown, axis=-1), 1)  # [B, K, 1]
    features = [has_references * tf.ones_like(single[..., 0, 0])]
    ngram = single
    for order in range(1, ORDERS + 1):
        if order > 1:
            # The n-gram before, one token earlier in both.
            shifted = tf.pad(ngram[:, :, :-1, :, :-1], [[0, 0], [0, 0], [1, 0], [0, 0], [1, 0]])
            ngram = single * shifted
        best = tf.reduce_max(ngram, axis=-1) * shown  # [B, K, T, C]
        features.append(tf.reduce_sum(best, -1) / tf.maximum(tf.reduce_sum(shown, -1), 1))
        features.append(tf.reduce_max(best, axis=-1))
    return tf.stack(features, axis=-1)
