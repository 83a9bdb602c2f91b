"""Straight-through sampling: sampled tokens forward, the gradient of mixtures backward.

B batch, K captions an image, T time, V vocabulary.
"""

import numpy as np
import pytest
import tensorflow as tf

from caption_gan.models.decoding import relaxation, sampling
from caption_gan.models.decoding.decoder import DecodingOptions
from caption_gan.models.encoders.encoder import Regions
from caption_gan.models.generators.gru import GRUGenerator
from caption_gan.text.vocabulary import END_ID, PAD_ID, START_ID

LENGTH, CAPTIONS = 7, 3
SEED = tf.constant([3, 4])


def rollout(generator: GRUGenerator, regions, temperature: float = 0.7) -> relaxation.Relaxed:
    noise = sampling.draw_noise(generator, len(regions), CAPTIONS, SEED)
    memory = generator.encode(Regions(tf.constant(regions)))
    return relaxation.rollout(generator, memory, noise, temperature, LENGTH, SEED)


def test_rollout_samples_the_same_tokens_as_sample(small_generator, regions):
    """With the same seed and at any temperature, each sampled token being the next input."""
    generator = small_generator()
    expected = sampling.sample(
        generator, Regions(tf.constant(regions)), DecodingOptions(LENGTH, CAPTIONS), SEED
    ).token_ids
    for temperature in (0.1, 1.0):
        token_ids = np.array(rollout(generator, regions, temperature).token_ids)
        assert (token_ids[..., 0] == START_ID).all()
        np.testing.assert_array_equal(token_ids[..., 1:], expected)
    assert len(np.unique(token_ids.reshape(-1, LENGTH), axis=0)) > 5


def test_captions_end_and_are_padded(small_generator, regions):
    token_ids = np.array(rollout(small_generator(), regions).token_ids).reshape(-1, LENGTH)
    for row in token_ids:
        (end,) = np.flatnonzero(row == END_ID)
        assert (row[end + 1 :] == PAD_ID).all()
        assert (row[1:end] > END_ID).all()


def mixtures(embedding, relaxed: relaxation.Relaxed) -> tf.Tensor:
    """A wrong embedding: mixtures, which no real caption has."""
    start = embedding(relaxed.token_ids[..., :1])
    mixed = tf.matmul(relaxed.probabilities, embedding.embeddings.value)
    return tf.concat([start, mixed], axis=-2)


@pytest.mark.parametrize(("embed", "right"), [(relaxation.embed, True), (mixtures, False)])
def test_embeddings_equal_those_of_real_captions(small_generator, regions, embed, right):
    generator = small_generator()
    relaxed = rollout(generator, regions)
    words = embed(generator.embedding, relaxed)
    real = np.array(generator.embedding.embeddings)
    distance = np.linalg.norm(np.array(words)[..., None, :] - real, axis=-1).min(axis=-1)
    assert (distance.max() < 1e-5) == right
    if right:
        np.testing.assert_allclose(words, real[relaxed.token_ids], atol=1e-5)


def test_the_gradient_is_that_of_the_mixture(small_generator, regions):
    """Checked for the last token, on which no other token depends."""
    generator = small_generator()
    relaxed = rollout(generator, regions)
    weights = np.random.default_rng(0).normal(size=generator.embedding_size).astype(np.float32)
    probabilities = relaxed.probabilities
    with tf.GradientTape() as tape:
        tape.watch(probabilities)
        words = relaxation.embed(generator.embedding, relaxed._replace(probabilities=probabilities))
        total = tf.reduce_sum(words * weights)
    expected = np.array(generator.embedding.embeddings) @ weights  # [V]
    gradient = np.array(tape.gradient(total, probabilities))  # [B, K, T - 1, V]
    np.testing.assert_allclose(gradient, np.broadcast_to(expected, gradient.shape), rtol=1e-4)


def test_probabilities_and_embeddings_have_the_gradients_of_the_mixture(small_generator):
    embedding = small_generator().embedding
    matrix = embedding.embeddings.value
    rng = np.random.default_rng(0)
    probabilities = tf.constant(rng.dirichlet(np.ones(matrix.shape[0]), (2, 3)), tf.float32)
    weights = tf.constant(rng.normal(size=(2, 3, matrix.shape[1])), tf.float32)

    def gradients(embed) -> list[np.ndarray]:
        with tf.GradientTape() as tape:
            tape.watch(probabilities)
            total = tf.reduce_sum(weights * embed(probabilities))
        return [np.array(part) for part in tape.gradient(total, [probabilities, matrix])]

    token_ids = tf.argmax(probabilities, axis=-1, output_type=tf.int32)
    actual = gradients(lambda rows: relaxation.straight_through(embedding, rows, token_ids))
    expected = gradients(lambda rows: tf.matmul(rows, matrix))
    for ours, mixture in zip(actual, expected, strict=True):
        np.testing.assert_allclose(ours, mixture, rtol=1e-5, atol=1e-6)


def test_the_gradient_reaches_the_generator_through_all_tokens(small_generator, regions):
    generator = small_generator()
    with tf.GradientTape() as tape:
        relaxed = rollout(generator, regions)
        words = relaxation.embed(generator.embedding, relaxed)
        total = tf.reduce_sum(words[..., 2, :] ** 3)
    gradients = tape.gradient(total, generator.trainable_variables)
    assert all(gradient is not None for gradient in gradients)
    norms = [float(tf.norm(tf.convert_to_tensor(gradient))) for gradient in gradients]
    assert np.isfinite(norms).all()
    assert np.count_nonzero(norms) >= len(norms) - 1  # A shift of all keys changes no attention.


def test_low_temperatures_are_close_to_the_sampled_tokens(small_generator, regions):
    peaks = [
        float(
            tf.reduce_mean(tf.reduce_max(rollout(small_generator(), regions, t).probabilities, -1))
        )
        for t in (0.05, 0.5, 5.0)
    ]
    assert peaks[0] > 0.95
    assert peaks[0] > peaks[1] > peaks[2]
