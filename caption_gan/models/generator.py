"""The generator writes captions: word embeddings, GRU, attention over regions, noise.

B batch, K captions an image, T time, V vocabulary, R regions, D region depth, H hidden,
E embedding, Z noise.

Attention is queried with the state after the GRU has read a word. The recurrence is then the only
part that must run word by word; with teacher forcing, attention and the softmax take all words of
all captions of an image in one product.
"""

from typing import NamedTuple

import keras
import tensorflow as tf

from caption_gan.models.attention import Memory, RegionAttention
from caption_gan.text.embeddings import WordEmbedding


class Context(NamedTuple):
    """What the generator knows of an image before the first word."""

    memory: Memory
    summary: tf.Tensor  # [B, H]


@keras.saving.register_keras_serializable(package="caption_gan")
class Generator(keras.Model):
    """Scores the next word of a caption, given an image's regions and the words so far.

    The output weights are the word embeddings, transposed (Press & Wolf, 2017): what is learnt of
    a word by reading it serves writing it, and small data overfit less.

    Args:
        vocabulary_size: V.
        embedding_size: E.
        hidden_size: H, of the GRU and the attention.
        attention_heads: Number of heads; must divide `hidden_size`.
        noise_size: Z; noise enters the GRU's first state.
        dropout: Share of word embeddings, regions and output features set to zero in training.
    """

    def __init__(
        self,
        vocabulary_size: int,
        embedding_size: int,
        hidden_size: int,
        attention_heads: int,
        noise_size: int,
        dropout: float,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.vocabulary_size = vocabulary_size
        self.embedding_size = embedding_size
        self.hidden_size = hidden_size
        self.attention_heads = attention_heads
        self.noise_size = noise_size
        self.dropout = dropout

        self.embedding = WordEmbedding(vocabulary_size, embedding_size, name="embedding")
        self.region_projection = keras.layers.Dense(hidden_size, name="region_projection")
        # Unnormalised backbone features saturate the first state, and nothing is learnt but
        # word frequencies.
        self.region_norm = keras.layers.LayerNormalization(name="region_norm")
        self.first_state = keras.layers.Dense(hidden_size, activation="tanh", name="first_state")
        self.cell = keras.layers.GRUCell(hidden_size, name="cell")
        # Unrolled: the second derivative that a gradient penalty needs exists for it everywhere,
        # and it runs faster than a loop on a CPU.
        self.recurrence = keras.layers.RNN(
            self.cell, return_sequences=True, unroll=True, name="recurrence"
        )
        self.attention = RegionAttention(hidden_size, attention_heads, name="attention")
        self.output_projection = keras.layers.Dense(embedding_size, name="output_projection")
        self.output_norm = keras.layers.LayerNormalization(name="output_norm")
        self.input_dropout = keras.layers.Dropout(dropout, name="input_dropout")
        self.region_dropout = keras.layers.Dropout(dropout, name="region_dropout")
        self.output_dropout = keras.layers.Dropout(dropout, name="output_dropout")

    def build(self, regions_shape):
        """Builds every layer for regions of shape [B, R, D]."""
        regions_count, hidden = regions_shape[1], self.hidden_size
        self.embedding.build((None, None))
        self.region_projection.build(regions_shape)
        self.region_norm.build((None, regions_count, hidden))
        self.first_state.build((None, hidden + self.noise_size))
        self.recurrence.build((None, None, self.embedding_size))
        self.attention.build((None, None, hidden), (None, regions_count, hidden))
        self.output_projection.build((None, None, 2 * hidden))
        self.output_norm.build((None, None, self.embedding_size))
        self.built = True

    def look(self, regions: tf.Tensor, training: bool = False) -> Context:
        """Reads regions [B, R, D] once for any number of captions and words."""
        features = self.region_norm(self.region_projection(regions))  # [B, R, H]
        features = self.region_dropout(features, training=training)
        return Context(self.attention.memory(features), tf.reduce_mean(features, axis=1))

    def start(self, context: Context, noise: tf.Tensor) -> tf.Tensor:
        """First states [B, K, H] of captions, from noise [B, K, Z]."""
        summary = tf.repeat(context.summary[:, None], tf.shape(noise)[1], axis=1)  # [B, K, H]
        return self.first_state(tf.concat([summary, noise], axis=-1))

    def call(
        self,
        regions: tf.Tensor,
        token_ids: tf.Tensor,
        noise: tf.Tensor,
        training: bool = False,
    ) -> tf.Tensor:
        """Teacher forcing: scores every next word of given captions at once.

        Args:
            regions: [B, R, D].
            token_ids: [B, K, T], the words that are read.
            noise: [B, K, Z].
            training: Whether dropout is active.

        Returns:
            Logits [B, K, T, V]; those at t score the word at t + 1.
        """
        batch, captions, time = tf.unstack(tf.shape(token_ids))
        length = token_ids.shape[2]
        context = self.look(regions, training)
        flat_ids = tf.reshape(token_ids, [batch * captions, length])  # [B K, T]
        words = self.input_dropout(self.embedding(flat_ids), training=training)  # [B K, T, E]
        first = tf.reshape(self.start(context, noise), [batch * captions, self.hidden_size])
        states = self.recurrence(words, initial_state=first)  # [B K, T, H]
        states = tf.reshape(states, [batch, captions * time, self.hidden_size])  # [B, K T, H]
        logits, _ = self.score(states, context, training)  # [B, K T, V]
        return tf.reshape(logits, [batch, captions, time, self.vocabulary_size])

    def step(
        self, token_ids: tf.Tensor, states: tf.Tensor, context: Context
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Reads one word of each of K captions an image and scores the next.

        Args:
            token_ids: [B, K].
            states: [B, K, H].
            context: Of the B images.

        Returns:
            Logits [B, K, V], the next states [B, K, H], attention weights [B, K, R].
        """
        batch, captions = tf.unstack(tf.shape(token_ids))
        words = self.embedding(tf.reshape(token_ids, [-1]))  # [B K, E]
        states = tf.reshape(states, [-1, self.hidden_size])  # [B K, H]
        _, states = self.cell(words, states)
        states = tf.reshape(states, [batch, captions, self.hidden_size])
        logits, weights = self.score(states, context)
        return logits, states, weights

    def score(
        self, states: tf.Tensor, context: Context, training: bool = False
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """From states [B, Q, H] to next-word logits [B, Q, V] and attention [B, Q, R]."""
        attended, weights = self.attention(states, context.memory)  # [B, Q, H], [B, Q, R]
        features = self.output_projection(tf.concat([states, attended], axis=-1))  # [B, Q, E]
        features = self.output_dropout(self.output_norm(features), training=training)
        return self.embedding.logits(features), weights  # [B, Q, V]

    def get_config(self):
        return {
            **super().get_config(),
            "vocabulary_size": self.vocabulary_size,
            "embedding_size": self.embedding_size,
            "hidden_size": self.hidden_size,
            "attention_heads": self.attention_heads,
            "noise_size": self.noise_size,
            "dropout": self.dropout,
        }
