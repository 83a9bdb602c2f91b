"""Generators of every kind: what their predictions depend on, and their gradients."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from caption_gan.models.encoders.encoder import Regions
from caption_gan.models.generators.generator import Generator

CAPTIONS, LENGTH = 3, 5


@pytest.fixture(scope="module", params=["gru", "transformer", "gpt2", "gpt2_cross_attention"])
def kind(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def generator(small_generator, kind) -> Generator:
    return small_generator(kind=kind)


@pytest.fixture(scope="module")
def token_ids() -> np.ndarray:
    """Words [5, K, T] that are read."""
    return np.random.default_rng(2).integers(0, 9, (5, CAPTIONS, LENGTH)).astype(np.int32)


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    return np.random.default_rng(3).normal(size=(5, CAPTIONS, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def logits(generator, regions, token_ids, noise) -> np.ndarray:
    return np.array(generator(regions, token_ids, noise))


def same(actual, expected) -> None:
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_teacher_forcing_equals_word_by_word(generator, regions, token_ids, noise, logits):
    memory = generator.encode(Regions(regions))
    states = generator.initial_state(memory, noise, LENGTH)
    for time in range(LENGTH):
        now, states, attention = generator.decode_step(token_ids[..., time], states, memory)
        same(now, logits[:, :, time])
        assert (attention is not None) == generator.has_attention
        if generator.has_attention:
            same(tf.reduce_sum(attention, axis=-1), np.ones((5, CAPTIONS)))


def test_logits_depend_on_earlier_words_only(generator, regions, token_ids, noise, logits):
    for time in range(LENGTH):
        other = token_ids.copy()
        other[..., time] = (other[..., time] + 1) % generator.vocabulary_size
        changed = np.array(generator(regions, other, noise))
        same(changed[:, :, :time], logits[:, :, :time])
        # All later logits change.
        assert np.abs(changed - logits)[:, :, time:].max(axis=(0, 1, 3)).min() > 1e-3


def test_captions_together_equal_each_alone(generator, regions, token_ids, noise, logits):
    for caption in range(CAPTIONS):
        part = slice(caption, caption + 1)
        same(generator(regions, token_ids[:, part], noise[:, part]), logits[:, part])
    for image in range(len(regions)):
        part = slice(image, image + 1)
        same(generator(regions[part], token_ids[part], noise[part]), logits[part])


def test_the_image_changes_the_logits(generator, regions, token_ids, noise, logits):
    other = np.array(generator(regions[::-1], token_ids, noise))
    assert np.abs(other - logits)[[0, 1, 3, 4]].max(axis=(1, 2, 3)).min() > 0.01


def test_masked_regions_change_nothing(generator, regions, token_ids, noise, logits):
    """Padding with any content gives the logits of the regions without it."""
    padding = np.random.default_rng(5).normal(scale=100.0, size=(5, 3, 5)).astype(np.float32)
    padded = np.concatenate([regions, padding], axis=1)
    mask = np.arange(padded.shape[1]) < regions.shape[1]
    masked = Regions(tf.constant(padded), tf.constant([mask] * len(regions)))
    memory = generator.encode(masked)
    same(generator.teacher_forcing(token_ids, memory, noise), logits)
    same(generator(padded, token_ids, noise, regions_mask=masked.mask), logits)
    assert np.abs(generator(padded, token_ids, noise) - logits).max() > 1e-2
    states = generator.initial_state(memory, noise, LENGTH)
    now, _, attention = generator.decode_step(token_ids[..., 0], states, memory)
    same(now, logits[:, :, 0])
    if generator.has_attention:
        assert not np.any(np.array(attention)[..., ~mask])


def test_the_gradient_of_masked_regions_is_zero(generator, regions, token_ids, noise):
    features = tf.constant(regions)
    mask = tf.constant([[True, False, True, False]] * len(regions))
    with tf.GradientTape() as tape:
        tape.watch(features)
        memory = generator.encode(Regions(features, mask))
        loss = tf.reduce_sum(generator.teacher_forcing(token_ids, memory, noise) ** 2)
    gradient = np.array(tape.gradient(loss, features))
    assert not gradient[:, 1::2].any()
    assert gradient[:, ::2].all()


def test_dropout_in_training_only(generator, regions, token_ids, noise, logits):
    same(generator(regions, token_ids, noise, training=False), logits)
    first, second = (
        np.array(generator(regions, token_ids, noise, training=True)) for _ in range(2)
    )
    assert np.abs(first - logits).mean() > 0.01
    assert np.abs(first - second).mean() > 0.01


def test_output_weights_are_the_word_vectors(generator, regions, token_ids, noise, logits):
    large = [
        weight.path for weight in generator.weights if generator.vocabulary_size in weight.shape
    ]
    assert large == [generator.embedding.embeddings.path]
    word = 5
    before = np.array(generator.embedding.embeddings)
    after = before.copy()
    after[word] *= -2
    without = np.where(token_ids == word, word + 1, token_ids)  # The word is not read.
    expected = np.array(generator(regions, without, noise))
    expected[..., word] *= -2
    try:
        generator.embedding.assign(after)
        same(generator(regions, without, noise), expected)
    finally:
        generator.embedding.assign(before)


def test_frozen_word_vectors_get_no_gradient(small_generator, kind, regions, token_ids, noise):
    generator = small_generator(kind=kind)
    assert any(weight is generator.embedding.embeddings for weight in generator.trainable_variables)
    count = len(generator.trainable_variables)
    generator.embedding.trainable = False
    assert len(generator.trainable_variables) == count - 1
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(generator(regions, token_ids, noise) ** 2)
    gradients = tape.gradient(loss, generator.trainable_variables)
    assert all(gradient is not None for gradient in gradients)
    assert not any(
        weight is generator.embedding.embeddings for weight in generator.trainable_variables
    )


def test_every_weight_gets_a_gradient(small_generator, kind, regions, token_ids, noise):
    generator = small_generator(kind=kind)
    with tf.GradientTape() as tape:
        log_probabilities = tf.nn.log_softmax(generator(regions, token_ids, noise))
        loss = tf.reduce_sum(log_probabilities[..., 4])
    for weight, gradient in zip(
        generator.trainable_variables,
        tape.gradient(loss, generator.trainable_variables),
        strict=True,
    ):
        # A softmax is invariant to a constant in all scores, such as the bias of the keys.
        if "key_projection/bias" not in weight.path:
            largest = tf.reduce_max(tf.abs(tf.convert_to_tensor(gradient)))
            assert float(largest) > 0, weight.path


def test_config_round_trip(generator, regions, token_ids, noise, logits):
    config = generator.get_config()
    own = set(config) - set(keras.Model().get_config())
    assert {name: config[name] for name in own} == {name: getattr(generator, name) for name in own}
    assert {"vocabulary_size", "hidden_size", "noise_size", "dropout"} <= own
    twin = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(generator))
    if not twin.built:
        twin.build((None, *regions.shape[1:]))
    twin.set_weights(generator.get_weights())
    np.testing.assert_array_equal(twin(regions, token_ids, noise), logits)
