"""The GRU generator: its initial state. What all generators share is in `test_generator.py`."""

from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf

from caption_gan.models.encoders.encoder import Regions
from caption_gan.models.generators.gru import GRUGenerator

CAPTIONS, LENGTH = 3, 5


@pytest.fixture(scope="module")
def generator(small_generator) -> GRUGenerator:
    return small_generator()


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    return np.random.default_rng(3).normal(size=(5, CAPTIONS, 3)).astype(np.float32)


def same(actual, expected) -> None:
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_noise_enters_the_initial_state(generator, regions, noise):
    memory = generator.encode(Regions(regions))
    state = generator.initial_state(memory, noise, LENGTH)
    still = generator.initial_state(memory, np.zeros_like(noise), LENGTH)
    for noisy, quiet in zip(map(np.array, state), map(np.array, still), strict=True):
        assert noisy.shape == quiet.shape == (5, CAPTIONS, generator.hidden_size)
        assert np.abs(noisy[:, 0] - noisy[:, 1]).max(axis=-1).min() > 0.01
        same(quiet[:, 0], quiet[:, 1])


class Unnormalised(GRUGenerator):
    """A wrong generator, without normalisation of regions."""

    def build(self, regions_shape):
        super().build(regions_shape)
        self.region_norm = lambda features: features


def saturation(make: Callable[..., GRUGenerator]) -> float:
    """Mean |h0| for regions like a backbone's: large, positive, similar to each other."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    common = rng.gamma(1.0, 10.0, (1, 1, 64))
    regions = (common + rng.gamma(1.0, 10.0, (6, 9, 64))).astype(np.float32)
    generator = make(9, 6, hidden_size=32, attention_heads=2, noise_size=4, dropout=0.0)
    generator.build(regions.shape)
    states = generator.initial_state(
        generator.encode(Regions(regions)), tf.random.stateless_normal([6, 2, 4], [0, 0]), LENGTH
    )
    return float(tf.reduce_mean(tf.abs(tf.stack(states))))


def test_large_regions_do_not_saturate_the_initial_state():
    assert saturation(GRUGenerator) < 0.8
    assert saturation(Unnormalised) > 0.95
