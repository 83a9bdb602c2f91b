"""A generator of two GRUs with attention over regions between them.

B batch, K captions per image, T time, V vocabulary, R regions, D region depth, H hidden,
E embedding, Z noise.

The first GRU, the reader, reads the tokens. Its states query the attention. The second GRU, the
writer, reads the reader's states and the attended context, so that its states hold what was said
and what was looked at. These are the two layers of Anderson et al. (2018), except that the reader
does not see the writer's states: only the recurrences run token by token, and with teacher forcing
attention and softmax take all tokens of all captions of an image in one product.

Images of a single region leave attention nothing to choose: the context is that region's value for
every token, and its products are computed once per image (`ConstantContext`).
"""

from typing import NamedTuple

import keras
import tensorflow as tf

from caption_gan.config.models import GeneratorConfig
from caption_gan.distribution import replicas
from caption_gan.models.encoders.encoder import Regions
from caption_gan.models.generators.attention import KeysValues, RegionAttention, masked_mean
from caption_gan.models.generators.generator import Generator
from caption_gan.models.generators.gru_cell import GRU, GRUCell


class ConstantContext(NamedTuple):
    """What the context contributes if it is the same for every token."""

    gates: tf.Tensor  # [B, 3 H], of the writer
    hidden: tf.Tensor  # [B, H], of the output's hidden layer


class GRUMemory(NamedTuple):
    """What the generator keeps of an image."""

    keys_values: KeysValues
    summary: tf.Tensor  # [B, H]
    # The same for all images. Transposed once per batch: it costs as much as a step's product.
    output_weights: tf.Tensor  # [E, V]
    constant_context: ConstantContext | None = None  # Of images with a single region.


class GRUState(NamedTuple):
    """States of the two GRUs."""

    reader: tf.Tensor  # [B, K, H]
    writer: tf.Tensor  # [B, K, H]


@keras.saving.register_keras_serializable(package="caption_gan")
class GRUGenerator(Generator):
    """Predicts the next token with two GRUs and attention.

    Word embeddings and output weights are tied (Press & Wolf, 2017): small data overfit less.

    Args:
        vocabulary_size: V.
        embedding_size: E.
        hidden_size: H, of each GRU and of the attention.
        attention_heads: Number of heads; must divide `hidden_size`.
        noise_size: Z; noise enters the initial states.
        dropout: Dropout rate of word embeddings, regions and output features.
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

        self.embedding = self.new_embedding()
        self.region_projection = keras.layers.Dense(hidden_size, name="region_projection")
        # Unnormalised backbone features saturate the initial state; the generator then learns
        # word frequencies only.
        self.region_norm = keras.layers.LayerNormalization(name="region_norm")
        self.first_state = keras.layers.Dense(
            2 * hidden_size, activation="tanh", name="first_state"
        )
        self.reader, self.writer = (
            GRU(GRUCell(hidden_size), return_sequences=True, unroll=True, name=name)
            for name in ("reader", "writer")
        )
        self.attention = RegionAttention(hidden_size, attention_heads, name="attention")
        # A hidden layer: the next word depends on writer state and context jointly.
        self.output_hidden = keras.layers.Dense(
            hidden_size, activation="relu", name="output_hidden"
        )
        self.output_projection = keras.layers.Dense(embedding_size, name="output_projection")
        self.input_dropout = replicas.Dropout(dropout, name="input_dropout")
        self.region_dropout = replicas.Dropout(dropout, name="region_dropout")
        self.output_dropout = replicas.Dropout(dropout, name="output_dropout")

    @classmethod
    def from_settings(cls, config: GeneratorConfig, vocabulary_size: int) -> "GRUGenerator":
        """Creates the generator without its weights; see `build_generator`."""
        return cls(
            vocabulary_size,
            config.embedding_size,
            config.hidden_size,
            config.attention_heads,
            config.noise_size,
            config.dropout,
            name="generator",
        )

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

    def encode(self, regions: Regions, training: bool = False) -> GRUMemory:
        """Encodes regions [B, R, D] once for any number of captions and words."""
        features = self.region_norm(self.region_projection(regions.features))  # [B, R, H]
        features = self.region_dropout(features, training=training)
        constant_context = None
        if features.shape[1] == 1:
            context = self.attention.only_value(features)  # [B, H]
            constant_context = ConstantContext(
                self.writer.cell.project_rest(context), self._hidden_of_context(context)
            )
        return GRUMemory(
            self.attention.project(features, regions.mask),
            masked_mean(features, regions.mask),
            self.embedding.output_weights(features.dtype),
            constant_context,
        )

    def initial_state(self, memory: GRUMemory, noise: tf.Tensor, length: int) -> GRUState:
        """State before the first token, from the image's summary and noise; see `Generator`."""
        summary = tf.repeat(memory.summary[:, None], tf.shape(noise)[1], axis=1)  # [B, K, H]
        inputs = tf.concat([summary, tf.cast(noise, summary.dtype)], axis=-1)  # [B, K, H + Z]
        return GRUState(*tf.split(self.first_state(inputs), 2, axis=-1))

    def predict_features(
        self, embeddings: tf.Tensor, memory: GRUMemory, noise: tf.Tensor, training: bool = False
    ) -> tf.Tensor:
        """Reads captions [B, K, T, E] and predicts features of the same shape; see `Generator`."""
        batch, captions, time, _ = tf.unstack(tf.shape(embeddings))
        flat = tf.reshape(embeddings, [batch * captions, embeddings.shape[2], self.embedding_size])
        flat = self.input_dropout(flat, training=training)  # [B K, T, E]
        state = self.initial_state(memory, noise, embeddings.shape[2])  # [B, K, H] each
        reader, writer = (tf.reshape(part, [-1, self.hidden_size]) for part in state)  # [B K, H]
        read = self.reader(flat, initial_state=reader)  # [B K, T, H]
        constant = memory.constant_context
        if constant is None:
            queries = tf.reshape(read, [batch, captions * time, self.hidden_size])  # [B, K T, H]
            attended, _ = self.attention(queries, memory.keys_values)  # [B, K T, H]
            context = tf.reshape(attended, tf.shape(read))  # [B K, T, H]
            written = self.writer(tf.concat([read, context], -1), initial_state=writer)
            hidden = self.output_hidden(tf.concat([written, context], axis=-1))  # [B K, T, H]
        else:
            gates = tf.repeat(constant.gates, captions, axis=0)  # [B K, 3 H]
            written = self.writer(read, initial_state=writer, constant_gates=gates)
            of_context = tf.repeat(constant.hidden, captions, axis=0)[:, None]  # [B K, 1, H]
            hidden = self._hidden(written, of_context)  # [B K, T, H]
        features = self.output_projection(self.output_dropout(hidden, training=training))
        return tf.reshape(features, [batch, captions, time, self.embedding_size])

    def decode_step_embedded(
        self, embeddings: tf.Tensor, state: GRUState, memory: GRUMemory
    ) -> tuple[tf.Tensor, GRUState, tf.Tensor]:
        """Reads one token of each caption and scores the next; see `Generator`."""
        batch, captions, _ = tf.unstack(tf.shape(embeddings))
        embeddings = tf.reshape(embeddings, [-1, self.embedding_size])  # [B K, E]
        reader, writer = (tf.reshape(part, [-1, self.hidden_size]) for part in state)  # [B K, H]
        _, reader = self.reader.cell(embeddings, reader)
        constant = memory.constant_context
        if constant is None:
            query = tf.reshape(reader, [batch, captions, self.hidden_size])
            attended, weights = self.attention(query, memory.keys_values)  # [B, K, H], [B, K, R]
            context = tf.reshape(attended, [-1, self.hidden_size])  # [B K, H]
            _, writer = self.writer.cell(tf.concat([reader, context], -1), writer)
            hidden = self.output_hidden(tf.concat([writer, context], axis=-1))  # [B K, H]
        else:
            cell, weights = self.writer.cell, tf.ones([batch, captions, 1], self.variable_dtype)
            gates = cell.project(reader) + tf.repeat(constant.gates, captions, axis=0)
            writer = cell.advance(gates, writer)
            hidden = self._hidden(writer, tf.repeat(constant.hidden, captions, axis=0))  # [B K, H]
        features = self.output_projection(hidden)  # [B K, E]
        logits = tf.cast(tf.matmul(features, memory.output_weights), self.variable_dtype)
        logits = tf.reshape(logits, [batch, captions, self.vocabulary_size])
        shape = [batch, captions, self.hidden_size]
        return logits, GRUState(tf.reshape(reader, shape), tf.reshape(writer, shape)), weights

    def _hidden_of_context(self, context: tf.Tensor) -> tf.Tensor:
        """Share [B, H] of the context [B, H] in the output's hidden layer, with the bias."""
        layer, dtype = self.output_hidden, context.dtype
        kernel = tf.cast(layer.kernel, dtype)[self.hidden_size :]
        return tf.matmul(context, kernel) + tf.cast(layer.bias, dtype)

    def _hidden(self, writer: tf.Tensor, of_context: tf.Tensor) -> tf.Tensor:
        """The output's hidden layer [..., H] from writer states and `_hidden_of_context`."""
        kernel = tf.cast(self.output_hidden.kernel, writer.dtype)[: self.hidden_size]
        product = tf.matmul(tf.reshape(writer, [-1, self.hidden_size]), kernel)
        return self.output_hidden.activation(tf.reshape(product, tf.shape(writer)) + of_context)

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
