"""A critic that predicts each token and compares the prediction with the caption.

B batch, K captions per image, T time, E embedding, H hidden.
"""

import keras
import tensorflow as tf

from caption_gan.config.adversarial import CriticConfig
from caption_gan.models.critics.critic import Critic
from caption_gan.models.encoders.encoder import Regions
from caption_gan.models.generators.generator import Generator, Memory

# A token's likelihood is computed against the first tokens of the vocabulary only. In a vocabulary
# of words these are the most frequent ones and hold most of the probability, and their number does
# not grow with the vocabulary. (Pieces of words stand in the order in which they were learnt.)
FREQUENT_WORDS = 1000


@keras.saving.register_keras_serializable(package="caption_gan")
class NextTokenCritic(Critic):
    """Compares each token with what a trunk predicts from the image and the tokens before it.

    The score of a caption is the mean score of its tokens. Weights-only: `call` takes the memory
    of `encode`, so a saved critic is rebuilt by `from_config` and loads its weights.

    Args:
        trunk: A built generator that predicts features of the next token; its noise stays zero.
    """

    def __init__(self, trunk: Generator, **kwargs):
        super().__init__(**kwargs)
        self.trunk = trunk
        self.embedding = trunk.embedding
        # Inputs: prediction, token and their product, which says whether they agree.
        self.fusion = keras.layers.Dense(trunk.hidden_size, activation="silu", name="fusion")
        self.score_head = keras.layers.Dense(
            1, kernel_initializer="zeros", dtype=self.variable_dtype, name="score_head"
        )
        self.fusion.build((None, None, None, 3 * trunk.embedding_size + 2))
        self.score_head.build((None, None, None, trunk.hidden_size))
        self.built = True

    @classmethod
    def from_settings(cls, config: CriticConfig, generator: Generator) -> "NextTokenCritic":
        """Builds a critic with a trunk like the generator, from its weights if `start` says so."""
        settings = generator.get_config() | {"dropout": config.dropout, "name": "trunk"}
        trunk = type(generator).from_config(settings)
        trunk.build((None, *generator.regions_shape))
        if config.start == "generator":
            trunk.set_weights(generator.get_weights())
        trunk.embedding.trainable = config.word_vectors_policy == "trainable"
        return cls(trunk, name="critic")

    def encode(self, regions: Regions, training: bool = False) -> Memory:
        """Encodes regions [B, R, D] once for any number of captions."""
        return self.trunk.encode(regions, training)

    def call(
        self, embeddings: tf.Tensor, mask: tf.Tensor, memory: Memory, training: bool = False
    ) -> tf.Tensor:
        """Scores captions [B, K] by the mean score of their tokens; see `Critic`."""
        scores = self.token_scores(embeddings, memory, training)  # [B, K, T - 1]
        counted = tf.cast(mask[..., 1:], scores.dtype)
        total = tf.reduce_sum(scores * counted, axis=-1)
        return total / tf.maximum(tf.reduce_sum(counted, axis=-1), 1)

    def token_scores(
        self, embeddings: tf.Tensor, memory: Memory, training: bool = False
    ) -> tf.Tensor:
        """Scores every token but the first, [B, K, T - 1]."""
        batch, captions, _, _ = tf.unstack(tf.shape(embeddings))
        noise = tf.zeros([batch, captions, self.trunk.noise_size], embeddings.dtype)
        exact = self.variable_dtype
        token = tf.cast(embeddings[..., 1:, :], exact)  # [B, K, T - 1, E]
        predicted = self.trunk.predict_features(embeddings[..., :-1, :], memory, noise, training)
        frequent = tf.cast(self.embedding.embeddings.value[:FREQUENT_WORDS], predicted.dtype)
        # Flat: with oneDNN, TensorFlow 2.21 writes past its memory when it broadcasts a matrix
        # over a 4-D tensor with one caption per image and B changes between calls.
        flat = tf.reshape(predicted, [-1, self.trunk.embedding_size])  # [B K (T - 1), E]
        alternatives = tf.matmul(flat, frequent, transpose_b=True)
        shape = tf.concat([tf.shape(predicted)[:-1], tf.shape(frequent)[:1]], axis=0)
        alternatives = tf.reshape(alternatives, shape)  # [B, K, T - 1, <= 1000]
        alternatives = tf.cast(alternatives, exact)
        predicted = tf.cast(predicted, exact)
        agreement = predicted * token
        logit = tf.reduce_sum(agreement, axis=-1, keepdims=True)  # [B, K, T - 1, 1]
        log_likelihood = logit - tf.reduce_logsumexp(alternatives, axis=-1, keepdims=True)
        margin_to_best = logit - tf.reduce_max(alternatives, axis=-1, keepdims=True)
        features = [predicted, token, agreement, log_likelihood, margin_to_best]
        fused = self.fusion(tf.concat(features, axis=-1))  # [B, K, T - 1, H]
        return (self.score_head(fused) + margin_to_best)[..., 0]

    def get_config(self):
        return {
            **super().get_config(),
            "trunk": keras.saving.serialize_keras_object(self.trunk),
        }

    @classmethod
    def from_config(cls, config):
        config["trunk"] = keras.saving.deserialize_keras_object(config["trunk"])
        return cls(**config)
