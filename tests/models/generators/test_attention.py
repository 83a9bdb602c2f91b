"""Attention against NumPy and against `keras.layers.MultiHeadAttention`."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from caption_gan.models.generators.attention import RegionAttention

BATCH, QUERIES, REGIONS, DEPTH, HIDDEN, HEADS = 2, 3, 5, 7, 8, 4


@pytest.fixture(scope="module")
def attention() -> RegionAttention:
    keras.utils.set_random_seed(0)
    layer = RegionAttention(HIDDEN, HEADS)
    layer.build((None, None, HIDDEN), (None, REGIONS, DEPTH))
    rng = np.random.default_rng(0)
    # Random biases: with zeros, a missing bias would not be noticed.
    layer.set_weights([rng.normal(size=weight.shape) for weight in layer.get_weights()])
    return layer


@pytest.fixture(scope="module")
def query() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(BATCH, QUERIES, HIDDEN)).astype(np.float32)


@pytest.fixture(scope="module")
def regions() -> np.ndarray:
    return np.random.default_rng(2).normal(size=(BATCH, REGIONS, DEPTH)).astype(np.float32)


def by_loops(attention: RegionAttention, query: np.ndarray, regions: np.ndarray):
    """Context and weights, one image, query and head at a time."""
    dense = [
        (np.array(layer.kernel), np.array(layer.bias))
        for layer in (
            attention.query_projection,
            attention.key_projection,
            attention.value_projection,
        )
    ]
    size = HIDDEN // HEADS
    context = np.zeros((BATCH, QUERIES, HIDDEN))
    mean_weights = np.zeros((BATCH, QUERIES, REGIONS))
    for image in range(BATCH):
        for position in range(QUERIES):
            inputs = (query[image, position], regions[image], regions[image])
            projected = [x @ kernel + bias for x, (kernel, bias) in zip(inputs, dense, strict=True)]
            for head in range(HEADS):
                part = slice(head * size, (head + 1) * size)
                q, k, v = (tensor[..., part] for tensor in projected)
                exponentials = np.exp(k @ q / np.sqrt(size))
                weights = exponentials / exponentials.sum()
                context[image, position, part] = weights @ v
                mean_weights[image, position] += weights / HEADS
    return context, mean_weights


def test_equals_numpy(attention, query, regions):
    context, weights = attention(query, attention.project(regions))
    expected_context, expected_weights = by_loops(attention, query, regions)
    np.testing.assert_allclose(context, expected_context, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(weights, expected_weights, rtol=1e-4, atol=1e-5)


def test_equals_keras(attention, query, regions):
    size = HIDDEN // HEADS
    theirs = keras.layers.MultiHeadAttention(HEADS, size, output_shape=HIDDEN)
    theirs.build((None, None, HIDDEN), (None, REGIONS, DEPTH))
    projections = [
        weight.reshape(*weight.shape[:-1], HEADS, size) for weight in attention.get_weights()
    ]
    identity = np.eye(HIDDEN).reshape(HEADS, size, HIDDEN)
    theirs.set_weights([*projections, identity, np.zeros(HIDDEN)])
    expected, scores = theirs(query, regions, return_attention_scores=True)
    context, weights = attention(query, attention.project(regions))
    np.testing.assert_allclose(context, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(weights, tf.reduce_mean(scores, axis=1), rtol=1e-4, atol=1e-5)


def test_weights_sum_to_one_and_context_lies_between_values(attention, query, regions):
    keys_values = attention.project(regions)
    context, weights = attention(100 * query, keys_values)  # Large scores must not overflow.
    np.testing.assert_allclose(tf.reduce_sum(weights, axis=-1), 1, rtol=1e-5)
    assert np.all(np.array(weights) >= 0)
    values = np.array(attention.value_projection(regions))  # [B, R, H]
    assert np.all(np.array(context) <= values.max(axis=1, keepdims=True) + 1e-4)
    assert np.all(np.array(context) >= values.min(axis=1, keepdims=True) - 1e-4)


def test_one_memory_serves_any_number_of_queries(attention, query, regions):
    keys_values = attention.project(regions)
    together, weights_together = attention(query, keys_values)
    for position in range(QUERIES):
        alone, weights_alone = attention(query[:, position : position + 1], keys_values)
        np.testing.assert_allclose(alone[:, 0], together[:, position], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(
            weights_alone[:, 0], weights_together[:, position], rtol=1e-5, atol=1e-6
        )


def test_attention_does_not_depend_on_the_order_of_regions(attention, query, regions):
    order = [3, 0, 4, 1, 2]
    context, weights = attention(query, attention.project(regions))
    shuffled_context, shuffled_weights = attention(query, attention.project(regions[:, order]))
    np.testing.assert_allclose(shuffled_context, context, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        shuffled_weights, np.array(weights)[..., order], rtol=1e-4, atol=1e-6
    )


def test_config_round_trip(attention, query, regions):
    config = attention.get_config()
    assert (config["hidden_size"], config["heads"]) == (HIDDEN, HEADS)
    twin = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(attention))
    if not twin.built:
        twin.build((None, None, HIDDEN), (None, REGIONS, DEPTH))
    twin.set_weights(attention.get_weights())
    np.testing.assert_array_equal(
        twin(query, twin.project(regions))[0], attention(query, attention.project(regions))[0]
    )


def test_heads_must_divide_the_hidden_size():
    with pytest.raises(ValueError, match="heads=3, hidden_size=8"):
        RegionAttention(8, 3)
