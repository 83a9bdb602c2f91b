"""The critic scores how well a caption fits an image.

B batch, K captions an image, T time, R regions, D region depth, E embedding.

It is of the generator's make: two recurrences with attention between them foretell each word from
those before it and from the image. What was foretold is compared with what was written, and the
verdicts on all words are averaged. It has no sigmoid at its end, which would saturate where
captions are told apart with ease and leave no gradient to learn from, and no batch normalisation,
which would make a caption's score depend on others' (Gulrajani et al., 2017).
"""

import keras
import tensorflow as tf

from caption_gan.config.objectives import CriticConfig
from caption_gan.distribution import replicas
from caption_gan.models.encoders.encoder import Regions
from caption_gan.models.generators.gru import GRUGenerator, Memory
from caption_gan.text.vocabulary import PAD_ID

# How likely a written word was depends on all that might have been written in its place. The most
# frequent words, which stand first in a vocabulary of words, are most of that, and their number
# does not grow with the vocabulary. (Pieces of words stand in the order in which they were learnt.)
FREQUENT_WORDS = 1000


@keras.saving.register_keras_serializable(package="caption_gan")
class Critic(keras.Model):
    """Scores captions given as word embeddings: looked up for real ones, mixed for relaxed ones.

    Args:
        trunk: Foretells words; its noise stays zero.
    """

    def __init__(self, trunk: GRUGenerator, **kwargs):
        super().__init__(**kwargs)
        self.trunk = trunk
        self.embedding = trunk.embedding
        # Both what was foretold and what was written matter, but above all whether they agree.
        self.comparison = keras.layers.Dense(
            trunk.hidden_size, activation="silu", name="comparison"
        )
        self.verdict = keras.layers.Dense(
            1, kernel_initializer="zeros", dtype=self.variable_dtype, name="verdict"
        )
        self.comparison.build((None, None, None, 3 * trunk.embedding_size + 2))
        self.verdict.build((None, None, None, trunk.hidden_size))
        # Running means of length^2 and length * score of generated captions, both less the mean of
        # the image's captions: images that take longer to describe may be harder ones.
        self.length_moments = self.add_weight(
            name="length_moments", shape=(2,), initializer="zeros", trainable=False
        )
        self.built = True

    def encode(self, regions: Regions, training: bool = False) -> Memory:
        """Reads regions [B, R, D] once for any number of captions."""
        return self.trunk.encode(regions, training)

    def call(
        self, words: tf.Tensor, mask: tf.Tensor, memory: Memory, training: bool = False
    ) -> tf.Tensor:
        """Scores captions.

        Args:
            words: Embeddings [B, K, T, E]; the start token is the first of them.
            mask: [B, K, T]; false after the end token. What stands there does not count. Between
                two captions of different lengths it is a share.
            memory: Of the B images.
            training: Whether dropout is active.

        Returns:
            Scores [B, K] without bounds; higher is better.
        """
        verdicts = self.score_words(words, memory, training)  # [B, K, T - 1]
        counted = tf.cast(mask[..., 1:], verdicts.dtype)
        total = tf.reduce_sum(verdicts * counted, axis=-1)
        return total / tf.maximum(tf.reduce_sum(counted, axis=-1), 1)

    def score_words(self, words: tf.Tensor, memory: Memory, training: bool = False) -> tf.Tensor:
        """Scores each word but the first by those before it and by the image, [B, K, T - 1]."""
        batch, captions, _, _ = tf.unstack(tf.shape(words))
        noise = tf.zeros([batch, captions, self.trunk.noise_size], words.dtype)
        exact = self.variable_dtype
        written = tf.cast(words[..., 1:, :], exact)  # [B, K, T - 1, E]
        foretold = self.trunk.predict_features(words[..., :-1, :], memory, noise, training)
        frequent = tf.cast(self.embedding.embeddings.value[:FREQUENT_WORDS], foretold.dtype)
        alternatives = tf.matmul(foretold, frequent, transpose_b=True)  # [B, K, T - 1, <= 1000]
        alternatives = tf.cast(alternatives, exact)
        foretold = tf.cast(foretold, exact)
        agreement = foretold * written
        logit = tf.reduce_sum(agreement, axis=-1, keepdims=True)
        likelihood = logit - tf.reduce_logsumexp(alternatives, axis=-1, keepdims=True)
        shortfall = logit - tf.reduce_max(alternatives, axis=-1, keepdims=True)
        features = tf.concat([foretold, written, agreement, likelihood, shortfall], axis=-1)
        return (self.verdict(self.comparison(features)) + shortfall)[..., 0]

    def score_tokens(self, token_ids: tf.Tensor, memory: Memory) -> tf.Tensor:
        """Scores [B, K] of captions given as token ids [B, K, T]."""
        return self(self.embedding(token_ids), token_ids != PAD_ID, memory)

    def learn_lengths(self, scores: tf.Tensor, mask: tf.Tensor, momentum: float = 0.99) -> None:
        """Learns how scores [B, K] of an image's captions with a mask [B, K, T] follow length."""
        length = tf.reduce_sum(tf.cast(mask, tf.float32), axis=-1)  # [B, K]
        length, score = (
            figure - tf.reduce_mean(figure, axis=1, keepdims=True) for figure in (length, scores)
        )
        now = replicas.mean(tf.reduce_mean(tf.stack([length**2, length * score]), axis=[1, 2]))
        self.length_moments.assign(momentum * self.length_moments + (1 - momentum) * now)

    def rank(self, token_ids: tf.Tensor, memory: Memory) -> tf.Tensor:
        """Scores [B, K] less what their length alone explains of their order in an image.

        A mean over words depends on their number in ways that say nothing of the caption, and
        the best of several would be the shortest, or the longest.
        """
        length_squared, product = tf.unstack(self.length_moments)
        slope = product / tf.maximum(length_squared, 1e-6)
        length = tf.reduce_sum(tf.cast(token_ids != PAD_ID, tf.float32), axis=-1)  # [B, K]
        return self.score_tokens(token_ids, memory) - slope * length

    def get_config(self):
        return {
            **super().get_config(),
            "trunk": keras.saving.serialize_keras_object(self.trunk),
        }

    @classmethod
    def from_config(cls, config):
        config["trunk"] = keras.saving.deserialize_keras_object(config["trunk"])
        return cls(**config)


def build_critic(generator: GRUGenerator, config: CriticConfig) -> Critic:
    """A critic of the generator's sizes, and with its weights if the settings say so."""
    settings = generator.get_config() | {"dropout": config.dropout, "name": "trunk"}
    trunk = GRUGenerator.from_config(settings)
    trunk.build((None, *generator.regions_shape))
    if config.start == "generator":
        trunk.set_weights(generator.get_weights())
    trunk.embedding.trainable = config.word_vectors_policy == "trainable"
    return Critic(trunk, name="critic")
