"""Small generators for tests.

B batch, K captions per image, V vocabulary, R regions, D region depth.
"""

from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf

from caption_gan.models.encoders.encoder import Regions
from caption_gan.models.generators.attention import KeysValues
from caption_gan.models.generators.generator import Generator
from caption_gan.models.generators.gru import GRUMemory
from tests.captioners import GENERATORS, open_gates


class MarkovGenerator:
    """A generator whose next word depends on the previous word only, by a table of logits.

    Its attention weights are one-hot at the previous word and so identify it; it needs at least V
    regions.
    """

    noise_size = 2
    has_attention = True

    def __init__(self, table: np.ndarray):
        self.table = tf.constant(table, tf.float32)  # [V, V]
        self.vocabulary_size = len(table)
        self.steps = tf.Variable(0)

    def encode(self, regions: Regions) -> GRUMemory:
        features = regions.features
        memory = KeysValues(features[:, None], features[:, None])
        return GRUMemory(memory, tf.reduce_mean(features, 1), output_weights=self.table)

    def initial_state(self, memory: GRUMemory, noise: tf.Tensor, length: int) -> tf.Tensor:
        return tf.zeros([*tf.unstack(tf.shape(noise)[:2]), 1])

    def decode_step(
        self, token_ids: tf.Tensor, states: tf.Tensor, memory: GRUMemory
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        self.steps.assign_add(1)
        weights = tf.one_hot(token_ids, memory.keys_values.keys.shape[2])
        return tf.gather(self.table, token_ids), states, weights


@pytest.fixture(scope="session")
def markov() -> Callable[[np.ndarray], MarkovGenerator]:
    """Makes a generator from logits [V, V]: rows are previous words, columns next words."""
    return MarkovGenerator


@pytest.fixture(scope="session")
def small_generator() -> Callable[..., Generator]:
    """Makes a random generator of 9 words for regions [B, 4, 5]."""

    def make(seed: int = 0, kind: str = "gru", **settings) -> Generator:
        keras.utils.set_random_seed(seed)
        arguments = {
            "vocabulary_size": 9,
            "embedding_size": 6,
            "hidden_size": 8,
            "attention_heads": 2,
            "noise_size": 3,
            "dropout": 0.4,
        }
        generator = GENERATORS[kind](**{**arguments, **settings})
        generator.build((None, 4, 5))
        open_gates(generator)
        # The initial embeddings are so small that all words would be about equally likely.
        shape = (generator.vocabulary_size, generator.embedding_size)
        generator.embedding.assign(np.random.default_rng(seed).normal(size=shape))
        return generator

    return make


@pytest.fixture(scope="session")
def regions() -> np.ndarray:
    """Regions [5, 4, 5] of five images."""
    return np.random.default_rng(1).normal(size=(5, 4, 5)).astype(np.float32)
