"""Transformer blocks against NumPy: whole captions, and one token at a time with a cache.

B batch, K captions per image, T time, R regions, D region depth, H hidden, N heads, S size of a
head, F feed-forward width.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

from caption_gan.models.generators.relative_positions import (
    RelativePositionBias,
    distance_buckets,
)
from caption_gan.models.generators.token_attention import TokenCache
from caption_gan.models.generators.transformer_blocks import Normalization, TransformerBlock

B, K, T, R, D, H, N, F = 2, 3, 5, 4, 7, 8, 2, 12
S = H // N
STYLES = {
    "GPT-2": {"normalization": "layer", "use_bias": True, "gated": False},
    "T5": {"normalization": "rms", "use_bias": False, "gated": True},
}
RANDOM = np.random.default_rng(0)
INPUTS = RANDOM.normal(size=(B, K, T, H)).astype(np.float32)
REGIONS = RANDOM.normal(size=(B, R, D)).astype(np.float32)
MASK = np.array([[True] * R, [True, False, True, False]])


def block(style: str, **settings) -> TransformerBlock:
    layer = TransformerBlock(H, N, F, 0.0, **STYLES[style], **settings)
    layer.build((None, None, H), (None, R, D))
    random = np.random.default_rng(1)
    # Random biases and scales: with zeros and ones, a missing one would not be noticed.
    layer.set_weights([random.normal(size=weight.shape) / 2 for weight in layer.get_weights()])
    return layer


def positions() -> RelativePositionBias:
    layer = RelativePositionBias(N)
    layer.build()
    layer.set_weights([np.random.default_rng(2).normal(size=(32, N))])
    return layer


def linear(dense: keras.layers.Dense, inputs: np.ndarray) -> np.ndarray:
    return inputs @ np.array(dense.kernel) + (0 if dense.bias is None else np.array(dense.bias))


def normalized(norm: Normalization, x: np.ndarray) -> np.ndarray:
    if norm.kind == "rms":
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * np.array(norm.gamma)
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return scaled * np.array(norm.gamma) + np.array(norm.beta)


def softmax(scores: np.ndarray) -> np.ndarray:
    exponentials = np.exp(scores - scores.max())
    return exponentials / exponentials.sum()


def by_loops(layer: TransformerBlock, table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Outputs [B, K, T, H] and attention weights [B, K, T, R], one token and head at a time."""
    outputs, weights = np.zeros((B, K, T, H)), np.zeros((B, K, T, R))
    heads = [slice(head * S, (head + 1) * S) for head in range(N)]
    over_regions = layer.region_attention
    for image, caption in np.ndindex(B, K):
        x = INPUTS[image, caption].astype(float)
        projected = linear(
            layer.token_attention.input_projection, normalized(layer.token_norm, x)
        ).reshape(T, 3, H)
        said = np.zeros((T, H))
        for time, (number, head) in [(t, h) for t in range(T) for h in enumerate(heads)]:
            q, k, v = (projected[:, part, head] for part in range(3))
            scores = [
                q[time] @ k[earlier] / np.sqrt(S) + table[time - earlier, number]
                for earlier in range(time + 1)
            ]
            said[time, head] = softmax(np.array(scores)) @ v[: time + 1]
        x = x + linear(layer.token_attention.output_projection, said)

        valid = np.flatnonzero(MASK[image])
        queries = linear(over_regions.query_projection, normalized(layer.region_norm, x))
        keys = linear(over_regions.key_projection, REGIONS[image, valid])
        values = linear(over_regions.value_projection, REGIONS[image, valid])
        seen = np.zeros((T, H))
        for time, head in [(t, h) for t in range(T) for h in heads]:
            row = softmax(keys[:, head] @ queries[time, head] / np.sqrt(S))
            seen[time, head] = row @ values[:, head]
            weights[image, caption, time, valid] += row / N
        x = x + linear(layer.region_output, seen)

        read = normalized(layer.feed_forward_norm, x)
        hidden = linear(layer.expansion, read)
        cubic = hidden + 0.044715 * hidden**3
        hidden = 0.5 * hidden * (1 + np.tanh(np.sqrt(2 / np.pi) * cubic))
        if layer.gated:
            hidden = hidden * linear(layer.gate, read)
        outputs[image, caption] = x + linear(layer.contraction, hidden)
    return outputs, weights


def whole(layer: TransformerBlock, bias: tf.Tensor) -> tuple[np.ndarray, np.ndarray]:
    inputs = INPUTS.reshape(B, K * T, H)
    keys_values = layer.region_attention.project(REGIONS, tf.constant(MASK))
    outputs, weights, _ = layer(inputs, keys_values, bias)
    return np.reshape(outputs, (B, K, T, H)), np.reshape(weights, (B, K, T, R))


@pytest.mark.parametrize("style", STYLES)
def test_equals_numpy(style):
    layer, distances = block(style), positions()
    expected = by_loops(layer, np.array(distances.relative_positions))
    for found, other in zip(whole(layer, distances(length=T)), expected, strict=True):
        np.testing.assert_allclose(found, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("style", STYLES)
def test_one_token_at_a_time_equals_whole_captions(style):
    layer, distances = block(style), positions()
    expected, _ = whole(layer, distances(length=T))
    keys_values = layer.region_attention.project(REGIONS, tf.constant(MASK))
    longest = T + 2  # Places that no token fills change nothing.
    empty = tf.zeros([B * K, N, longest, S])
    cache = TokenCache(empty, empty)
    for time in range(T):
        bias = distances(length=longest, time=tf.constant(time))
        read = INPUTS[:, :, time]
        outputs, _, cache = layer(read, keys_values, bias, cache, tf.constant(time))
        np.testing.assert_allclose(outputs, expected[:, :, time], rtol=1e-5, atol=1e-5)


def test_the_bias_of_scores_decides_what_is_read():
    layer = block("GPT-2")
    alone = tf.where(tf.eye(T, dtype=tf.bool), 0.0, -np.inf)[None]  # Each token reads itself.
    expected, _ = whole(layer, alone)
    changed = INPUTS.copy()
    changed[:, :, 0] += 1
    keys_values = layer.region_attention.project(REGIONS, tf.constant(MASK))
    found = np.reshape(layer(changed.reshape(B, K * T, H), keys_values, alone)[0], (B, K, T, H))
    np.testing.assert_allclose(found[:, :, 1:], expected[:, :, 1:], atol=1e-6)
    assert np.abs(found - expected)[:, :, 0].min(axis=-1).max() > 0.01


def test_buckets_are_those_of_t5():
    """Distances at which a new bucket begins, by the formula of the paper's code."""
    buckets = distance_buckets(np.arange(200))
    assert buckets[:16].tolist() == list(range(16))
    assert (np.diff(buckets) >= 0).all() and (np.diff(buckets) <= 1).all()
    starts = [int(np.argmax(buckets == bucket)) for bucket in range(16, 32)]
    assert starts == [16, 19, 21, 24, 27, 31, 35, 40, 46, 52, 59, 67, 77, 87, 99, 113]
    assert buckets[-1] == 31


def test_a_row_of_the_bias_is_that_of_its_time():
    layer = positions()
    everything = np.array(layer(length=40))  # [N, T, T]
    assert np.isneginf(everything[:, *np.triu_indices(40, 1)]).all()
    assert np.isfinite(everything[:, *np.tril_indices(40)]).all()
    for time in (0, 7, 39):
        np.testing.assert_array_equal(
            layer(length=40, time=tf.constant(time))[:, 0], everything[:, time]
        )
    with pytest.raises(AssertionError):  # Distances count: rows are not all alike.
        np.testing.assert_array_equal(everything[:, 7, :7], everything[:, 8, :7])
