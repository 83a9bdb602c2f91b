"""Decoding constraints, diverse beams and ensembles against slow references."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from caption_gan.models.decoding.beam_search import beam_search
from caption_gan.models.decoding.constraints import DecodingConstraints
from caption_gan.models.decoding.decoder import DecodingOptions
from caption_gan.models.decoding.ensemble import GeneratorEnsemble
from caption_gan.models.decoding.sampling import greedy, sample
from caption_gan.models.encoders.encoder import Regions
from caption_gan.text.vocabulary import END_ID, PAD_ID, START_ID

VOCABULARY = 9
WORDS = range(4, VOCABULARY)
T = 6


def table_of(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1.5, (VOCABULARY, VOCABULARY))


def allowed(caption: list[int], minimum_length: int, ngram: int) -> set[int]:
    """Tests each word in turn."""
    words = set(WORDS)
    if ngram:
        said = [caption[start : start + ngram] for start in range(len(caption) - ngram + 1)]
        words = {w for w in words if [*caption[len(caption) - ngram + 1 :], w] not in said}
    return words if len(caption) < minimum_length and words else {*words, END_ID}


@settings(max_examples=150, deadline=None)
@given(
    captions=st.lists(st.lists(st.sampled_from((4, 5)), min_size=4, max_size=4), min_size=1),
    minimum_length=st.integers(0, 6),
    ngram=st.integers(0, 7),
)
def test_allowed_tokens_equal_the_reference(captions, minimum_length, ngram):
    written = np.full((1, len(captions), T), PAD_ID, np.int32)
    written[0, :, :4] = captions
    logits = tf.random.stateless_normal([1, 1, VOCABULARY], [0, 1])
    logits = tf.repeat(logits, len(captions), axis=1)
    given_logits = np.array(logits)[0, 0]
    for time in range(5):
        constraints = DecodingConstraints(minimum_length, ngram)
        found = np.array(constraints.apply(logits, tf.constant(written), time))[0]
        for row, caption in zip(found, captions, strict=True):
            expected = allowed(caption[:time], minimum_length, ngram)
            assert set(np.flatnonzero(np.isfinite(row))) == expected
            for word in expected:
                assert row[word] == given_logits[word]


def slow_greedy(table: np.ndarray, constraints: DecodingConstraints, steps: int) -> list[int]:
    caption: list[int] = []
    while len(caption) < steps - 1:
        row = table[caption[-1] if caption else START_ID]
        word = max(allowed(caption, *constraints), key=lambda word: row[word])
        if word == END_ID:
            break
        caption.append(word)
    caption.append(END_ID)
    return caption + [PAD_ID] * (steps - len(caption))


@pytest.mark.parametrize(
    "constraints",
    [
        DecodingConstraints(0, 1),
        DecodingConstraints(0, 2),
        DecodingConstraints(4, 0),
        DecodingConstraints(6, 2),
    ],
)
def test_greedy_captions_satisfy_the_constraints(markov, constraints):
    broken = 0
    for seed in range(5):
        double, regions = markov(table_of(seed)), Regions(tf.zeros([1, VOCABULARY, 1]))
        options = DecodingOptions(T + 3, constraints=constraints)
        decode = tf.function(lambda: greedy(double, regions, options).token_ids)  # noqa: B023
        expected = slow_greedy(table_of(seed), constraints, T + 2)
        assert np.array(decode())[0, 0].tolist() == expected
        broken += expected != slow_greedy(table_of(seed), DecodingConstraints(), T + 2)
    assert broken, "constraints that change nothing would prove little"


def test_samples_and_beams_satisfy_the_constraints(markov):
    table = table_of(7)
    table[:, END_ID] += 2
    double, regions = markov(table), Regions(tf.zeros([2, VOCABULARY, 1]))
    constraints = DecodingConstraints(minimum_length=3, no_repeat_ngram_size=2)
    options = DecodingOptions(9, samples=30, beam=4, constraints=constraints)
    drawn = tf.function(lambda: sample(double, regions, options, tf.constant([1, 2])))()
    found = tf.function(lambda: beam_search(double, regions, options))()
    for caption in np.concatenate([drawn.token_ids, found.token_ids], axis=1).reshape(-1, 8):
        words = caption[: caption.tolist().index(END_ID)].tolist()
        assert len(words) >= 3
        pairs = list(itertools.pairwise(words))
        assert len(set(pairs)) == len(pairs)


def slow_diverse(table, steps, groups, each, diversity) -> list[list[int]]:
    logs = table - np.log(np.exp(table).sum(axis=-1, keepdims=True))

    def total(caption):
        return sum(logs[pair] for pair in itertools.pairwise([START_ID, *caption]))

    growing, ended = [[[]] for _ in range(groups)], [[] for _ in range(groups)]
    for _ in range(steps):
        chosen: list[int] = []
        for group in range(groups):
            ended[group] += [[*caption, END_ID] for caption in growing[group]]
            longer = [[*caption, word] for caption in growing[group] for word in WORDS]
            lost = {word: diversity * chosen.count(word) for word in WORDS}
            longer.sort(key=lambda caption: -total(caption) + lost[caption[-1]])
            growing[group] = longer[:each]
            chosen += [caption[-1] for caption in growing[group]]
    best = [
        sorted(captions, key=lambda caption: -total(caption) / len(caption))[:each]
        for captions in ended
    ]
    return sorted(itertools.chain(*best), key=lambda caption: -total(caption) / len(caption))


@pytest.mark.parametrize(("groups", "each", "diversity"), [(2, 2, 0.7), (3, 1, 2.0), (2, 1, 0.0)])
def test_diverse_beams_equal_the_slow_reference(markov, groups, each, diversity):
    for seed in range(4):
        double, regions = markov(table_of(seed)), Regions(tf.zeros([1, VOCABULARY, 1]))
        options = DecodingOptions(
            T + 1, beam=groups * each, beam_groups=groups, diversity_penalty=diversity
        )
        search = tf.function(
            lambda: beam_search(double, regions, options)  # noqa: B023
        )
        expected = slow_diverse(table_of(seed), T, groups, each, diversity)
        found = [[word for word in row if word] for row in np.array(search().token_ids)[0].tolist()]
        assert found == expected


def test_a_larger_diversity_penalty_gives_more_distinct_captions(markov):
    def distinct(diversity: float) -> int:
        found = 0
        for seed in range(6):
            double, regions = markov(table_of(20 + seed)), Regions(tf.zeros([1, VOCABULARY, 1]))
            options = DecodingOptions(T + 1, beam=4, beam_groups=4, diversity_penalty=diversity)
            decoded = beam_search(double, regions, options)
            found += len({tuple(row) for row in np.array(decoded.token_ids)[0].tolist()})
        return found

    assert distinct(0.0) == 6  # The four groups of one beam find the same caption.
    assert distinct(3.0) > 12


def test_an_ensemble_of_one_is_its_member(small_generator, regions):
    member = small_generator(seed=3)
    together = GeneratorEnsemble([member])
    options = DecodingOptions(7, beam=3)
    for decode in (greedy, beam_search):
        alone = decode(member, Regions(regions), options)
        found = decode(together, (Regions(regions),), options)
        np.testing.assert_array_equal(alone.token_ids, found.token_ids)
        np.testing.assert_allclose(alone.scores, found.scores, rtol=1e-4)


def test_an_ensemble_averages_probabilities(small_generator, regions):
    members = [small_generator(seed=seed, noise_size=seed) for seed in (1, 2)]
    together = GeneratorEnsemble(members)
    noise = np.random.default_rng(0).normal(size=(5, 2, 3)).astype(np.float32)
    read = np.array([[4, 5]] * 5, np.int32)
    memory = together.encode((Regions(regions), Regions(2 * regions)))
    states = together.initial_state(memory, noise, 1)
    logits, after, weights = together.decode_step(read, states, memory)

    expected, expected_weights = np.zeros((5, 2, 9)), np.zeros((5, 2, 4))
    inputs = (regions, 2 * regions)
    for member, features, part in zip(
        members, inputs, (noise[..., :1], noise[..., 1:]), strict=True
    ):
        member_memory = member.encode(Regions(features))
        state = member.initial_state(member_memory, part, 1)
        member_logits, _, member_weights = member.decode_step(read, state, member_memory)
        expected += np.array(tf.nn.softmax(member_logits)) / 2
        expected_weights += np.array(member_weights) / 2
    np.testing.assert_allclose(np.exp(logits), expected, rtol=1e-4)
    np.testing.assert_allclose(weights, expected_weights, rtol=1e-4)
    assert [part.shape for part in tf.nest.flatten(after)] == [(5, 2, 8)] * 4
