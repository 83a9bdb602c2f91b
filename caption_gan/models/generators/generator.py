"""Generators predict the next token of a caption; `build_generator` chooses one by the settings.

B batch, K captions per image, T time, V vocabulary, R regions, D region depth, E embedding,
Z noise.
"""

from typing import Any, TypeAlias

import keras
import tensorflow as tf

from caption_gan.config.models import GeneratorConfig
from caption_gan.models.encoders.encoder import Regions
from caption_gan.text.embeddings import WordEmbedding

# Nested structures of tensors (`tf.nest`), of which each generator defines its own.
Memory: TypeAlias = Any  # What a generator keeps of B images: tensors [B, ...] and shared weights.
State: TypeAlias = Any  # What it keeps of K captions per image so far: tensors [B, K, ...].


class Generator(keras.Model):
    """Base class of generators: regions and the tokens so far to logits of the next token.

    A subclass implements `encode`, `initial_state`, `predict_features` and `decode_step_embedded`.
    The output weights are the word embeddings, transposed (Press & Wolf, 2017): the logit of a
    token is the product of a feature vector [E] and its embedding.

    To add a generator: write a subclass in a module of its own, give it a name in
    `GeneratorConfig.kind` and a line in `build_generator`.

    Attributes:
        vocabulary_size: V.
        embedding_size: E.
        hidden_size: Width of the hidden layers.
        noise_size: Z; zero if captions of an image differ by sampling alone.
        has_attention: Whether `decode_step` returns attention weights.
        regions_shape: (R, D) that the generator was built for.
        embedding: The word embeddings. `embedding(token_ids)` looks up,
            `embedding.output_weights` gives the output weights [E, V].
        lora_rank: Rank of the matrices that are trained in place of the weights; 0 if these are
            trained themselves. See `lora.enable_lora`.
    """

    vocabulary_size: int
    embedding_size: int
    hidden_size: int
    noise_size: int
    has_attention = True
    regions_shape: tuple[int, ...]
    embedding: WordEmbedding
    lora_rank = 0

    @property
    def lora_layers(self) -> list[keras.layers.Dense]:
        """Layers to which `lora.enable_lora` adds matrices."""
        raise NotImplementedError

    @property
    def new_variables(self) -> list[keras.Variable]:
        """Variables beside those of a pretrained network; `lora.enable_lora` trains them too."""
        return []

    @classmethod
    def from_settings(cls, config: GeneratorConfig, vocabulary_size: int) -> "Generator":
        """Creates the generator without its weights; see `build_generator`."""
        raise NotImplementedError

    def encode(self, regions: Regions, training: bool = False) -> Memory:
        """Encodes regions [B, R, D] once for any number of captions and tokens."""
        raise NotImplementedError

    def initial_state(self, memory: Memory, noise: tf.Tensor, length: int) -> State:
        """State before the first token.

        Args:
            memory: Of the B images.
            noise: [B, K, Z].
            length: Most tokens that `decode_step` will read, T.
        """
        raise NotImplementedError

    def predict_features(
        self, embeddings: tf.Tensor, memory: Memory, noise: tf.Tensor, training: bool = False
    ) -> tf.Tensor:
        """Reads whole captions given as word embeddings.

        Args:
            embeddings: [B, K, T, E].
            memory: Of the B images.
            noise: [B, K, Z].
            training: Whether dropout is active.

        Returns:
            Features [B, K, T, E]; their products with the word embeddings are the logits of the
            token at t + 1.
        """
        raise NotImplementedError

    def decode_step_embedded(
        self, embeddings: tf.Tensor, state: State, memory: Memory
    ) -> tuple[tf.Tensor, State, tf.Tensor | None]:
        """Reads one token of each of K captions per image and scores the next.

        Args:
            embeddings: Word embeddings [B, K, E].
            state: Of these captions.
            memory: Of the B images.

        Returns:
            Logits [B, K, V], the next state, and attention weights [B, K, R] or None.
        """
        raise NotImplementedError

    def decode_step(
        self, token_ids: tf.Tensor, state: State, memory: Memory
    ) -> tuple[tf.Tensor, State, tf.Tensor | None]:
        """Reads one token [B, K] of each caption; see `decode_step_embedded`."""
        return self.decode_step_embedded(self.embedding(token_ids), state, memory)

    def teacher_forcing(
        self, token_ids: tf.Tensor, memory: Memory, noise: tf.Tensor, training: bool = False
    ) -> tf.Tensor:
        """Scores every next token of given captions at once.

        Args:
            token_ids: [B, K, T], the tokens that are read.
            memory: Of the B images.
            noise: [B, K, Z].
            training: Whether dropout is active.

        Returns:
            Logits [B, K, T, V]; those at t score the token at t + 1.
        """
        embeddings = self.embedding(token_ids)  # [B, K, T, E]
        features = self.predict_features(embeddings, memory, noise, training)
        return tf.cast(self.embedding.logits(features), self.variable_dtype)

    def new_embedding(self) -> WordEmbedding:
        """Creates the word embeddings; a subclass assigns them to `embedding`."""
        return WordEmbedding(
            self.vocabulary_size,
            self.embedding_size,
            # Vectors of length 1: smaller output weights slow down the start of training.
            embeddings_initializer=keras.initializers.RandomNormal(
                stddev=self.embedding_size**-0.5
            ),
            # Full precision: relaxed captions and the gradient penalty interpolate embeddings.
            dtype=self.variable_dtype,
            name="embedding",
        )

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


def build_generator(
    config: GeneratorConfig, vocabulary_size: int, regions_shape: tuple[int, int]
) -> Generator:
    """Builds the generator that the settings name, with random weights.

    Args:
        config: The settings.
        vocabulary_size: V.
        regions_shape: (R, D) of the encoder.
    """
    # Imported here because these modules import the base class.
    from caption_gan.models.generators.gpt2 import GPT2Generator
    from caption_gan.models.generators.gru import GRUGenerator
    from caption_gan.models.generators.transformer import TransformerGenerator

    generators: dict[str, type[Generator]] = {
        "gru": GRUGenerator,
        "transformer": TransformerGenerator,
        "gpt2": GPT2Generator,
    }
    generator = generators[config.kind].from_settings(config, vocabulary_size)
    generator.build((None, *regions_shape))
    return generator
