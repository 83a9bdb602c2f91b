"""A critic that predicts each token and compares the prediction with the caption.

B batch, K captions per image, C references per image, T time, E embedding, H hidden.
"""

from typing import NamedTuple

import keras
import tensorflow as tf

from caption_gan.config.adversarial import CriticConfig
from caption_gan.models.critics.critic import Critic
from caption_gan.models.critics.references import FEATURES, References, ngram_agreement
from caption_gan.models.encoders.encoder import Regions
from caption_gan.models.generators.generator import Generator, Memory
from caption_gan.models.generators.lora import merged_weights
from caption_gan.text.vocabulary import SPECIAL_IDS

# A token's likelihood is computed against the first tokens of the vocabulary only. In a vocabulary
# of words these are the most frequent ones and hold most of the probability, and their number does
# not grow with the vocabulary. (Pieces of words stand in the order in which they were learnt.)
FREQUENT_WORDS = 1000


class CriticMemory(NamedTuple):
    """What the critic keeps of B images."""

    trunk: Memory
    references: tf.Tensor | None  # Embeddings [B, C, T, E].
    reference_mask: tf.Tensor | None  # [B, C, T]
    visible: tf.Tensor | None  # [B, K, C]


@keras.saving.register_keras_serializable(package="caption_gan")
class NextTokenCritic(Critic):
    """Compares each token with what a trunk predicts from the image and the tokens before it.

    The score of a caption is the mean score of its tokens. Weights-only: `call` takes the memory
    of `encode`, so a saved critic is rebuilt by `from_config` and loads its weights.

    Args:
        trunk: A built generator that predicts features of the next token; its noise stays zero.
        reads_references: Whether it compares captions with the image's other real captions where
            `encode` is given them.
    """

    def __init__(self, trunk: Generator, reads_references: bool = False, **kwargs):
        super().__init__(**kwargs)
        self.reads_references = reads_references
        self.trunk = trunk
        self.embedding = trunk.embedding
        # Inputs: prediction, token and their product, which says whether they agree.
        self.fusion = keras.layers.Dense(trunk.hidden_size, activation="silu", name="fusion")
        self.score_head = keras.layers.Dense(
            1, kernel_initializer="zeros", dtype=self.variable_dtype, name="score_head"
        )
        features = 3 * trunk.embedding_size + 2 + (FEATURES if reads_references else 0)
        self.fusion.build((None, None, None, features))
        self.score_head.build((None, None, None, trunk.hidden_size))
        self.built = True

    @classmethod
    def from_settings(cls, config: CriticConfig, generator: Generator) -> "NextTokenCritic":
        """Builds a critic with a trunk like the generator, from its weights if `start` says so."""
        settings = generator.get_config() | {"dropout": config.dropout, "name": "trunk"}
        if generator.lora_rank:
            settings["lora_rank"] = 0
        trunk = type(generator).from_config(settings)
        trunk.build((None, *generator.regions_shape))
        if config.start == "generator":
            trunk.set_weights(merged_weights(generator))
        trunk.embedding.trainable = config.word_vectors_policy == "trainable"
        return cls(trunk, config.references, name="critic")

    def encode(
        self, regions: Regions, references: References | None = None, training: bool = False
    ) -> CriticMemory:
        """Encodes regions [B, R, D] and references once; see `Critic`."""
        memory = self.trunk.encode(regions, training)
        if references is None or not self.reads_references:
            return CriticMemory(memory, None, None, None)
        token_ids, visible = references
        embedded = tf.stop_gradient(self.embedding(token_ids))
        return CriticMemory(memory, embedded, token_ids != SPECIAL_IDS.pad, visible)

    def token_scores(
        self, embeddings: tf.Tensor, memory: CriticMemory, training: bool = False
    ) -> tf.Tensor:
        """Scores every token but the first, [B, K, T - 1]."""
        batch, captions, _, _ = tf.unstack(tf.shape(embeddings))
        noise = tf.zeros([batch, captions, self.trunk.noise_size], embeddings.dtype)
        exact = self.variable_dtype
        token = tf.cast(embeddings[..., 1:, :], exact)  # [B, K, T - 1, E]
        predicted = self.trunk.predict_features(
            embeddings[..., :-1, :], memory.trunk, noise, training
        )
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
        if self.reads_references:
            features.append(self.compared(tf.cast(embeddings, exact), memory))
        fused = self.fusion(tf.concat(features, axis=-1))  # [B, K, T - 1, H]
        return (self.score_head(fused) + margin_to_best)[..., 0]

    def compared(self, embeddings: tf.Tensor, memory: CriticMemory) -> tf.Tensor:
        """Agreement of every token but the first with the references, [B, K, T - 1, FEATURES]."""
        if memory.references is None:
            shape = tf.shape(embeddings)[:3] - [0, 0, 1]
            return tf.zeros([*tf.unstack(shape), FEATURES], embeddings.dtype)
        # Of several kinds of captions, those at the same place have the same references.
        kinds = tf.shape(embeddings)[1] // tf.shape(memory.visible)[1]
        features = ngram_agreement(
            embeddings,
            tf.cast(memory.references, embeddings.dtype),
            memory.reference_mask,
            tf.tile(memory.visible, [1, kinds, 1]),
        )
        return features[:, :, 1:]

    def get_config(self):
        return {
            **super().get_config(),
            "reads_references": self.reads_references,
            "trunk": keras.saving.serialize_keras_object(self.trunk),
        }

    @classmethod
    def from_config(cls, config):
        config["trunk"] = keras.saving.deserialize_keras_object(config["trunk"])
        return cls(**config)
