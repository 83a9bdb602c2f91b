"""Critics score how well captions fit their image; `build_critic` chooses one by the settings.

B batch, K captions per image, T time, R regions, D region depth, E embedding.
"""

import keras
import tensorflow as tf

from caption_gan.config.adversarial import CriticConfig
from caption_gan.distribution import replicas
from caption_gan.models.critics.references import References
from caption_gan.models.encoders.encoder import Regions
from caption_gan.models.generators.generator import Generator, Memory
from caption_gan.text.embeddings import WordEmbedding
from caption_gan.text.vocabulary import SPECIAL_IDS


class Critic(keras.Model):
    """Base class of critics, and what all share: scores of token ids and their bias by length.

    A subclass implements `encode` and `token_scores`. A critic has no sigmoid at its end, which
    would saturate and leave no gradient where captions are easily told apart, and no batch
    normalisation, which would make a caption's score depend on others (Gulrajani et al., 2017).

    To add a critic: write a subclass in a module of its own, give it a name in
    `CriticConfig.kind` and a line in `build_critic`.

    Attributes:
        embedding: The word embeddings in which captions are given.
    """

    embedding: WordEmbedding

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        # Running means of length^2 and length * score of generated captions, both centred per
        # image: images that take longer to describe may be harder ones.
        self.length_moments = self.add_weight(
            name="length_moments", shape=(2,), initializer="zeros", trainable=False
        )

    @classmethod
    def from_settings(cls, config: CriticConfig, generator: Generator) -> "Critic":
        """Builds the critic; see `build_critic`."""
        raise NotImplementedError

    def encode(
        self, regions: Regions, references: References | None = None, training: bool = False
    ) -> Memory:
        """Encodes an image once for any number of captions.

        Args:
            regions: [B, R, D].
            references: The images' other real captions; None if they are not known, as where the
                critic judges captions of a new image.
            training: Whether dropout is active.
        """
        raise NotImplementedError

    def token_scores(
        self, embeddings: tf.Tensor, memory: Memory, training: bool = False
    ) -> tf.Tensor:
        """Scores how well each token but the first fits the image and the tokens before it.

        Args:
            embeddings: Word embeddings [B, K, T, E], looked up for real captions and mixed for
                relaxed ones; the first is the start token's.
            memory: Of the B images.
            training: Whether dropout is active.

        Returns:
            Unbounded scores [B, K, T - 1]; higher is better.
        """
        raise NotImplementedError

    def call(
        self, embeddings: tf.Tensor, mask: tf.Tensor, memory: Memory, training: bool = False
    ) -> tf.Tensor:
        """Scores captions by the mean score of their tokens.

        Args:
            embeddings: [B, K, T, E]; see `token_scores`.
            mask: [B, K, T]; false after the end token, and a share in [0, 1] where captions of
                different lengths are interpolated.
            memory: Of the B images.
            training: Whether dropout is active.

        Returns:
            Unbounded scores [B, K]; higher is better.
        """
        return mean_score(self.token_scores(embeddings, memory, training), mask)

    def score_tokens(self, token_ids: tf.Tensor, memory: Memory) -> tf.Tensor:
        """Scores [B, K] of captions given as token ids [B, K, T]."""
        return self(self.embedding(token_ids), token_ids != SPECIAL_IDS.pad, memory)

    def length_statistics(self, scores: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        """What `learn_lengths` learns from, means over captions, [2].

        Args:
            scores: Of the images' generated captions, [B, K].
            mask: [B, K, T].
        """
        length = tf.reduce_sum(tf.cast(mask, tf.float32), axis=-1)  # [B, K]
        length, score = (
            values - tf.reduce_mean(values, axis=1, keepdims=True) for values in (length, scores)
        )
        return tf.reduce_mean(tf.stack([length**2, length * score]), axis=[1, 2])

    def learn_lengths(self, statistics: tf.Tensor, momentum: float = 0.99) -> None:
        """Updates the regression of scores on the length of generated captions.

        Args:
            statistics: Of a batch, [2]; see `length_statistics`.
            momentum: Of the running means.
        """
        moments = replicas.mean(statistics)
        self.length_moments.assign(momentum * self.length_moments + (1 - momentum) * moments)

    def rank(self, token_ids: tf.Tensor, memory: Memory) -> tf.Tensor:
        """Scores [B, K] minus their regression on length.

        A mean over tokens depends on their number in ways that say nothing about the caption:
        without the correction, the best of several would be the shortest, or the longest.
        """
        length_squared, product = tf.unstack(self.length_moments)
        slope = product / tf.maximum(length_squared, 1e-6)
        mask = token_ids != SPECIAL_IDS.pad
        length = tf.reduce_sum(tf.cast(mask, tf.float32), axis=-1)  # [B, K]
        return self.score_tokens(token_ids, memory) - slope * length


def mean_score(token_scores: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Mean scores [B, K] of captions' tokens, from [B, K, T - 1] and a mask [B, K, T]."""
    counted = tf.cast(mask[..., 1:], token_scores.dtype)
    total = tf.reduce_sum(token_scores * counted, axis=-1)
    return total / tf.maximum(tf.reduce_sum(counted, axis=-1), 1)


def build_critic(config: CriticConfig, generator: Generator) -> Critic:
    """Builds the critic that the settings name.

    Args:
        config: The settings.
        generator: That the critic is trained against: gives the vocabulary and the regions'
            shape and, if the settings say so, the weights that the critic starts from.
    """
    # Imported here because these modules import the base class.
    from caption_gan.models.critics.next_token import NextTokenCritic

    critics: dict[str, type[Critic]] = {"next_token": NextTokenCritic}
    return critics[config.kind].from_settings(config, generator)
