"""Transformer generators: decoding with their caches equals decoding without one.

B batch, K captions per image, T time, V vocabulary, E embedding.
"""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from caption_gan.distribution import precision
from caption_gan.models.decoding import relaxation
from caption_gan.models.decoding.beam_search import beam_search
from caption_gan.models.decoding.decoder import DecodingOptions
from caption_gan.models.decoding.ensemble import GeneratorEnsemble
from caption_gan.models.decoding.sampling import draw_noise, greedy, sample, sample_rows
from caption_gan.models.encoders.encoder import Regions
from caption_gan.models.generators.generator import Generator
from caption_gan.models.generators.transformer import TransformerGenerator

LENGTH, CAPTIONS = 7, 3
MASK = np.array([[True, True, True, False]] * 4 + [[True] * 4])


class Uncached:
    """A decoder that reads all tokens again at each step, by teacher forcing."""

    has_attention = False

    def __init__(self, generator: Generator):
        self.generator = generator
        self.vocabulary_size = generator.vocabulary_size
        self.noise_size = generator.noise_size
        self.embedding = generator.embedding

    def encode(self, regions: Regions) -> Any:
        return self.generator.encode(regions)

    def initial_state(self, memory: Any, noise: tf.Tensor, length: int) -> Any:
        captions = tf.unstack(tf.shape(noise)[:2])
        read = tf.zeros([*captions, length, self.generator.embedding_size])
        return read, tf.zeros([*captions, 1], tf.int32), tf.convert_to_tensor(noise)

    def decode_step_embedded(self, embeddings: tf.Tensor, state: Any, memory: Any) -> Any:
        read, time, noise = state
        here = tf.range(read.shape[2]) == time  # [B, K, T]
        read = tf.where(here[..., None], embeddings[:, :, None], read)
        features = self.generator.predict_features(read, memory, noise)
        logits = self.embedding.logits(features)  # [B, K, T, V]
        return tf.gather(logits, time[..., 0], batch_dims=2), (read, time + 1, noise), None

    def decode_step(self, token_ids: tf.Tensor, state: Any, memory: Any) -> Any:
        return self.decode_step_embedded(self.embedding(token_ids), state, memory)


KINDS = [
    "transformer",
    "gpt2",
    pytest.param("gpt2_cross_attention", marks=pytest.mark.slow),
]


@pytest.fixture(scope="module", params=KINDS)
def generator(small_generator, request) -> Generator:
    """Without dropout; its captions depend on images and noise."""
    generator = small_generator(seed=4, kind=request.param, dropout=0.0)
    random = np.random.default_rng(1)
    # Random biases and scales: with zeros and ones, a missing one would not be noticed.
    generator.set_weights(
        [value + random.normal(scale=0.4, size=value.shape) for value in generator.get_weights()]
    )
    return generator


@pytest.fixture(scope="module")
def masked(regions) -> Regions:
    return Regions(tf.constant(regions), tf.constant(MASK))


DECODINGS = {
    "greedy": lambda decoder, regions: greedy(decoder, regions, DecodingOptions(LENGTH)),
    "sample": lambda decoder, regions: sample(
        decoder, regions, DecodingOptions(LENGTH, samples=CAPTIONS), tf.constant([1, 2])
    ),
    "a seed per image": lambda decoder, regions: sample_rows(
        decoder,
        regions,
        DecodingOptions(
            LENGTH, samples=CAPTIONS, temperature=tf.fill([5], 1.0), top_p=tf.fill([5], 0.9)
        ),
        tf.range(5),
    ),
    "beam": lambda decoder, regions: beam_search(decoder, regions, DecodingOptions(LENGTH, beam=3)),
    "diverse beam": lambda decoder, regions: beam_search(
        decoder,
        regions,
        DecodingOptions(LENGTH, beam=4, beam_groups=2, diversity_penalty=0.5),
    ),
}


@pytest.mark.parametrize(
    "name",
    [
        "greedy",
        "sample",
        pytest.param("a seed per image", marks=pytest.mark.slow),
        "beam",
        pytest.param("diverse beam", marks=pytest.mark.slow),
    ],
)
def test_decoding_with_a_cache_equals_decoding_without(generator, masked, name):
    # The number of images is unknown when the graph is built, as in an exported model.
    signature = [tf.TensorSpec([None, *generator.regions_shape]), tf.TensorSpec([None, 4], tf.bool)]
    decode = tf.function(
        lambda *regions: DECODINGS[name](generator, Regions(*regions))[:2], signature
    )
    found = decode(*masked[:2])
    expected = DECODINGS[name](Uncached(generator), masked)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-5, atol=1e-5)
    captions = np.unique(np.reshape(found[0], (-1, LENGTH - 1)), axis=0)
    assert len(captions) > 1, "captions that are all alike would prove little"


def test_an_ensemble_gathers_the_caches_of_its_members(small_generator, generator, masked):
    other = small_generator(seed=5, kind="gru", noise_size=2, dropout=0.0)
    options = DecodingOptions(LENGTH, beam=3)
    found, expected = (
        beam_search(GeneratorEnsemble([member, other]), (masked, masked), options).token_ids
        for member in (generator, Uncached(generator))
    )
    np.testing.assert_array_equal(found, expected)


def test_a_rollout_and_its_gradient_equal_those_without_a_cache(generator, masked):
    weights = [w for w in generator.trainable_variables if w is not generator.embedding.embeddings]

    def relaxed(decoder: Any) -> list[np.ndarray]:
        seed = tf.constant([3, 4])
        noise = draw_noise(generator, tf.constant(5), CAPTIONS, seed)
        with tf.GradientTape() as tape:
            memory = generator.encode(masked)
            captions = relaxation.rollout(decoder, memory, noise, tf.constant(0.7), LENGTH, seed)
            loss = tf.reduce_sum(relaxation.embed(generator.embedding, captions)[:, :, -2] ** 3)
        gradients = map(tf.convert_to_tensor, tape.gradient(loss, weights))
        return [np.array(part) for part in (captions.token_ids, *gradients)]

    found, expected = map(relaxed, (generator, Uncached(generator)))
    np.testing.assert_array_equal(found[0], expected[0])
    largest = max(np.abs(part).max() for part in expected[1:])
    assert largest > 1e-3
    for one, other in zip(found[1:], expected[1:], strict=True):
        np.testing.assert_allclose(one / largest, other / largest, atol=1e-5)


def test_no_images_give_no_captions(generator):
    none = Regions(tf.zeros([0, 4, 5]))
    assert greedy(generator, none, DecodingOptions(LENGTH)).token_ids.shape == (0, 1, LENGTH - 1)
    beams = beam_search(generator, none, DecodingOptions(LENGTH, beam=2))
    assert beams.token_ids.shape == (0, 2, LENGTH - 1)


def test_noise_changes_every_token(generator, masked):
    token_ids = tf.constant(np.random.default_rng(2).integers(0, 9, (5, 1, LENGTH)), tf.int32)
    memory = generator.encode(masked)
    quiet, noisy = (
        np.array(generator.teacher_forcing(token_ids, memory, tf.fill([5, 1, 3], value)))
        for value in (0.0, 1.0)
    )
    assert np.abs(noisy - quiet).max(axis=(0, 1, 3)).min() > 0.01


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_keeps_its_masks_and_is_close(generator, regions, policy):
    config = {name: part for name, part in generator.get_config().items() if name != "dtype"}
    with precision.using(policy):
        half = type(generator).from_config(config)
    half.build((None, *generator.regions_shape))
    half.set_weights(generator.get_weights())
    token_ids = np.random.default_rng(2).integers(0, 9, (5, 1, LENGTH)).astype(np.int32)
    noise = tf.zeros([5, 1, 3])
    later = token_ids.copy()
    later[..., -1] = (later[..., -1] + 1) % 9
    blocked = regions.copy()
    blocked[:4, 3] = 1e4
    expected = np.array(generator(regions, token_ids, noise, tf.constant(MASK)))
    found = np.array(half(regions, token_ids, noise, tf.constant(MASK)))
    assert half.blocks[0].compute_dtype == policy.removeprefix("mixed_")
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()
    changed = np.array(half(regions, later, noise, tf.constant(MASK)))
    np.testing.assert_array_equal(changed[:, :, :-1], found[:, :, :-1])
    np.testing.assert_array_equal(half(blocked, token_ids, noise, tf.constant(MASK)), found)


def test_heads_must_divide_the_hidden_size():
    with pytest.raises(ValueError, match="heads=3, hidden_size=8"):
        TransformerGenerator(9, 6, 8, 1, 3, 2, 0, 0.0)
