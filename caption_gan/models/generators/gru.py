"""The generator writes captions: word embeddings, GRU, attention over regions, noise.

B batch, K captions an image, T time, V vocabulary, R regions, D region depth, H hidden,
E embedding, Z noise.

A first GRU, the reader, reads the words; its states query the attention; a second GRU, the writer,
reads them together with what was attended to, and so knows what has been seen and said (the two
layers of Anderson et al., 2018, but that the reader does not see the writer). The recurrences are
the only parts that must run word by word: with teacher forcing, attention and the softmax take all
words of all captions of an image in one product.
"""

from typing import NamedTuple

import keras
import tensorflow as tf

from caption_gan.distribution import replicas
from caption_gan.models.encoders.encoder import Regions
from caption_gan.models.generators.attention import KeysValues, RegionAttention
from caption_gan.models.generators.gru_cell import GRUCell
from caption_gan.text.embeddings import WordEmbedding


class Memory(NamedTuple):
    """What the generator knows of an image before the first word."""

    keys_values: KeysValues
    summary: tf.Tensor  # [B, H]
    # The same for all images; laid out once, for that costs as much as the product of a step.
    output_weights: tf.Tensor  # [E, V]


@keras.saving.register_keras_serializable(package="caption_gan")
class GRUGenerator(keras.Model):
    """Scores the next word of a caption, given an image's regions and the words so far.

    The output weights are the word embeddings, transposed (Press & Wolf, 2017): what is learnt of
    a word by reading it serves writing it, and small data overfit less.

    Args:
        vocabulary_size: V.
        embedding_size: E.
        hidden_size: H, of each GRU and of the attention.
        attention_heads: Number of heads; must divide `hidden_size`.
        noise_size: Z; noise enters the first states.
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
        self.state_size = 2 * hidden_size

        self.embedding = WordEmbedding(
            vocabulary_size,
            embedding_size,
            # Of length one: as output weights, smaller vectors make for a slow start.
            embeddings_initializer=keras.initializers.RandomNormal(stddev=embedding_size**-0.5),
            # Captions are mixed word by word, and the penalty looks between them.
            dtype=self.variable_dtype,
            name="embedding",
        )
        self.region_projection = keras.layers.Dense(hidden_size, name="region_projection")
        # Unnormalised backbone features saturate the first state, and nothing is learnt but
        # word frequencies.
        self.region_norm = keras.layers.LayerNormalization(name="region_norm")
        self.first_state = keras.layers.Dense(
            self.state_size, activation="tanh", name="first_state"
        )
        # Unrolled: the second derivative that a gradient penalty needs exists for it everywhere,
        # and it runs faster than a loop on a CPU.
        self.reader, self.writer = (
            keras.layers.RNN(GRUCell(hidden_size), return_sequences=True, unroll=True, name=name)
            for name in ("reader", "writer")
        )
        self.attention = RegionAttention(hidden_size, attention_heads, name="attention")
        # Which word fits what is said and seen is no sum of what each of them alone suggests.
        self.output_hidden = keras.layers.Dense(
            hidden_size, activation="relu", name="output_hidden"
        )
        self.output_projection = keras.layers.Dense(embedding_size, name="output_projection")
        self.input_dropout = replicas.Dropout(dropout, name="input_dropout")
        self.region_dropout = replicas.Dropout(dropout, name="region_dropout")
        self.output_dropout = replicas.Dropout(dropout, name="output_dropout")

    def build(self, regions_shape):
        """Builds every layer for regions of shape [B, R, D]."""
        regions_count, hidden = regions_shape[1], self.hidden_size
        self.regions_shape = tuple(regions_shape[1:])
        self.embedding.build((None, None))
        self.region_projection.build(regions_shape)
        self.region_norm.build((None, regions_count, hidden))
        self.first_state.build((None, hidden + self.noise_size))
        self.reader.build((None, None, self.embedding_size))
        self.writer.build((None, None, 2 * hidden))
        self.attention.build((None, None, hidden), (None, regions_count, hidden))
        self.output_hidden.build((None, None, 2 * hidden))
        self.output_projection.build((None, None, hidden))
        self.built = True

    def encode(self, regions: Regions, training: bool = False) -> Memory:
        """Encodes regions [B, R, D] once for any number of captions and words."""
        features = self.region_norm(self.region_projection(regions.features))  # [B, R, H]
        features = self.region_dropout(features, training=training)
        return Memory(
            self.attention.project(features, regions.mask),
            _masked_mean(features, regions.mask),
            self.embedding.output_weights(features.dtype),
        )

    def initial_state(self, memory: Memory, noise: tf.Tensor) -> tf.Tensor:
        """First states [B, K, 2 H] of captions, reader's and writer's, from noise [B, K, Z]."""
        summary = tf.repeat(memory.summary[:, None], tf.shape(noise)[1], axis=1)  # [B, K, H]
        return self.first_state(tf.concat([summary, tf.cast(noise, summary.dtype)], axis=-1))

    def call(
        self,
        features: tf.Tensor,
        token_ids: tf.Tensor,
        noise: tf.Tensor,
        regions_mask: tf.Tensor | None = None,
        training: bool = False,
    ) -> tf.Tensor:
        """Teacher forcing from the features [B, R, D] of regions and their mask [B, R]."""
        memory = self.encode(Regions(features, regions_mask), training)
        return self.teacher_forcing(token_ids, memory, noise, training)

    def teacher_forcing(
        self, token_ids: tf.Tensor, memory: Memory, noise: tf.Tensor, training: bool = False
    ) -> tf.Tensor:
        """Scores every next word of given captions at once.

        Args:
            token_ids: [B, K, T], the words that are read.
            memory: Of the B images.
            noise: [B, K, Z].
            training: Whether dropout is active.

        Returns:
            Logits [B, K, T, V]; those at t score the word at t + 1.
        """
        words = self.embedding(token_ids)  # [B, K, T, E]
        features = self.predict_features(words, memory, noise, training)
        return tf.cast(self.embedding.logits(features), self.variable_dtype)

    def predict_features(
        self, words: tf.Tensor, memory: Memory, noise: tf.Tensor, training: bool = False
    ) -> tf.Tensor:
        """Reads whole captions, given as word embeddings.

        Args:
            words: [B, K, T, E].
            memory: Of the B images.
            noise: [B, K, Z].
            training: Whether dropout is active.

        Returns:
            Features [B, K, T, E]; the closer those at t are to a word's embedding, the likelier
            it is that this word is the next.
        """
        batch, captions, time, _ = tf.unstack(tf.shape(words))
        flat_words = tf.reshape(words, [batch * captions, words.shape[2], self.embedding_size])
        flat_words = self.input_dropout(flat_words, training=training)  # [B K, T, E]
        first = tf.reshape(self.initial_state(memory, noise), [-1, self.state_size])  # [B K, 2 H]
        first_read, first_written = tf.split(first, 2, axis=-1)
        read = self.reader(flat_words, initial_state=first_read)  # [B K, T, H]
        flat = [batch, captions * time, self.hidden_size]
        attended, _ = self.attention(tf.reshape(read, flat), memory.keys_values)  # [B, K T, H]
        seen = tf.reshape(attended, tf.shape(read))  # [B K, T, H]
        written = self.writer(tf.concat([read, seen], -1), initial_state=first_written)
        features = self.predict_word(written, seen, training)  # [B K, T, E]
        return tf.reshape(features, [batch, captions, time, self.embedding_size])

    def decode_step(
        self, token_ids: tf.Tensor, states: tf.Tensor, memory: Memory
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Reads one word of each of K captions an image, [B, K]; see `decode_step_embedded`."""
        return self.decode_step_embedded(self.embedding(token_ids), states, memory)

    def decode_step_embedded(
        self, words: tf.Tensor, states: tf.Tensor, memory: Memory
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Reads one word of each of K captions an image and scores the next.

        Args:
            words: Word embeddings [B, K, E].
            states: [B, K, 2 H].
            memory: Of the B images.

        Returns:
            Logits [B, K, V], the next states [B, K, 2 H], attention weights [B, K, R].
        """
        batch, captions, _ = tf.unstack(tf.shape(words))
        words = tf.reshape(words, [-1, self.embedding_size])  # [B K, E]
        read, written = tf.split(tf.reshape(states, [-1, self.state_size]), 2, axis=-1)
        _, read = self.reader.cell(words, read)  # [B K, H]
        query = tf.reshape(read, [batch, captions, self.hidden_size])
        attended, weights = self.attention(query, memory.keys_values)  # [B, K, H], [B, K, R]
        seen = tf.reshape(attended, [-1, self.hidden_size])
        _, written = self.writer.cell(tf.concat([read, seen], -1), written)  # [B K, H]
        logits = tf.matmul(self.predict_word(written, seen), memory.output_weights)  # [B K, V]
        logits = tf.cast(logits, self.variable_dtype)
        logits = tf.reshape(logits, [batch, captions, self.vocabulary_size])
        states = tf.reshape(tf.concat([read, written], -1), [batch, captions, self.state_size])
        return logits, states, weights

    def predict_word(
        self, written: tf.Tensor, seen: tf.Tensor, training: bool = False
    ) -> tf.Tensor:
        """Features [..., E] of the next word from the writer's states and what was seen, [..., H].

        Their product with a word's embedding is its logit.
        """
        features = self.output_hidden(tf.concat([written, seen], axis=-1))  # [..., H]
        return self.output_projection(self.output_dropout(features, training=training))

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


def _masked_mean(features: tf.Tensor, mask: tf.Tensor | None) -> tf.Tensor:
    """Mean [B, H] of the valid ones of regions [B, R, H]; all are valid if there is no mask."""
    if mask is None:
        return tf.reduce_mean(features, axis=1)
    valid = tf.cast(mask, features.dtype)[..., None]  # [B, R, 1]
    return tf.reduce_sum(valid * features, axis=1) / tf.reduce_sum(valid, axis=1)
