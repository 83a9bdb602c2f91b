"""A captioner small enough to train in a test.

B batch, K captions an image, T time, R regions, D region depth.
"""

from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf

from caption_gan.models.captioner import Captioner
from caption_gan.models.generator import Generator
from caption_gan.text.vocabulary import END_ID, PAD_ID, START_ID

VOCABULARY = 10
REGIONS = (4, 6)
LENGTH = 6


@keras.saving.register_keras_serializable(package="tests")
class Bending(keras.layers.Layer):
    """An encoder with one weight, for cached regions."""

    pretrained_variables = ()

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.scale = self.add_weight(name="scale", shape=(), initializer="ones")
        self.built = True

    def after_cache(self, cached):
        return self.scale * cached


@pytest.fixture(scope="session")
def small_captioner() -> Callable[..., Captioner]:
    """Makes a random captioner of 10 words for regions [B, 4, 6]."""

    def make(seed: int = 0, **settings) -> Captioner:
        keras.utils.set_random_seed(seed)
        arguments = {
            "embedding_size": 8,
            "hidden_size": 16,
            "attention_heads": 2,
            "noise_size": 3,
            "dropout": 0.2,
        }
        generator = Generator(VOCABULARY, **{**arguments, **settings})
        generator.build((None, *REGIONS))
        return Captioner(Bending(), generator)

    return make


@pytest.fixture(scope="session")
def step_batch() -> dict[str, tf.Tensor]:
    """Eight images with two captions each."""
    rng = np.random.default_rng(0)
    token_ids = rng.integers(4, VOCABULARY, size=(8, 2, LENGTH))
    token_ids[..., 0] = START_ID
    for number, row in enumerate(token_ids.reshape(-1, LENGTH)):
        end = 2 + number % (LENGTH - 2)
        row[end:] = PAD_ID
        row[end] = END_ID
    regions = rng.normal(size=(8, *REGIONS)).astype(np.float32)
    return {"regions": tf.constant(regions), "token_ids": tf.constant(token_ids, tf.int32)}
