"""Images of one region: the context is constant, and nothing else differs.

Two copies of the region give the same context by way of the attention.
"""

import numpy as np
import pytest
import tensorflow as tf

from caption_gan.models.encoders.encoder import Regions
from caption_gan.models.generators.gru import GRUGenerator

IMAGES, CAPTIONS, LENGTH = 5, 3, 4


@pytest.fixture(scope="module")
def generator(small_generator) -> GRUGenerator:
    generator = small_generator()
    random = np.random.default_rng(0)
    # Random biases too: with zeros, a missing bias would not be noticed.
    generator.set_weights([random.normal(scale=0.5, size=w.shape) for w in generator.get_weights()])
    return generator


@pytest.fixture(scope="module")
def regions_with_copy(generator) -> list[tf.Tensor]:
    shape = (IMAGES, 1, generator.regions_shape[1])
    single = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    return [tf.constant(single), tf.constant(np.repeat(single, 2, axis=1))]


def derivatives(generator: GRUGenerator, features: tf.Tensor) -> list[tf.Tensor]:
    """Features of the words, their gradients, and the gradients of a gradient penalty."""
    random = np.random.default_rng(2)
    shape = (IMAGES, CAPTIONS, LENGTH)
    words = tf.constant(random.normal(size=(*shape, generator.embedding_size)), tf.float32)
    noise = tf.constant(random.normal(size=(*shape[:2], generator.noise_size)), tf.float32)
    weights = [w for w in generator.trainable_variables if w is not generator.embedding.embeddings]
    with tf.GradientTape() as outer:
        memory = generator.encode(Regions(features))
        with tf.GradientTape(persistent=True) as inner:
            inner.watch(words)
            total = tf.reduce_sum(generator.predict_features(words, memory, noise) ** 2)
        slope = inner.gradient(total, words)
        penalty = tf.reduce_sum(slope**2)
        loss = total + penalty
    return [total, slope, penalty, *outer.gradient(loss, weights)]


def test_derivatives_equal_those_with_attention(generator, regions_with_copy):
    found, expected = (derivatives(generator, features) for features in regions_with_copy)
    for one, other in zip(found, expected, strict=True):
        scale = max(float(tf.reduce_max(tf.abs(other))), 1.0)
        np.testing.assert_allclose(one / scale, other / scale, atol=1e-4)


def test_word_by_word_equals_that_with_attention(generator, regions_with_copy):
    noise = tf.zeros([IMAGES, CAPTIONS, generator.noise_size])
    memories = [generator.encode(Regions(features)) for features in regions_with_copy]
    states = [generator.initial_state(memory, noise, LENGTH) for memory in memories]
    tokens = tf.constant(np.random.default_rng(3).integers(0, 9, (LENGTH, IMAGES, CAPTIONS)))
    for token in tokens:
        (logits, one, weights), (expected, two, others) = (
            generator.decode_step(token, state, memory)
            for state, memory in zip(states, memories, strict=True)
        )
        np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(tf.reduce_sum(others, -1), weights[..., 0], rtol=1e-5)
        states = [one, two]
