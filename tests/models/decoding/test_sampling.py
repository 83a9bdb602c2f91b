"""Greedy decoding and sampling: against slow references and expected frequencies."""

from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from caption_gan.models.decoding.beam_search import beam_search
from caption_gan.models.decoding.constraints import mask_special_tokens
from caption_gan.models.decoding.decoder import Decoded, DecodingOptions
from caption_gan.models.decoding.sampling import greedy, sample, sample_rows, truncate
from caption_gan.models.encoders.encoder import Regions
from caption_gan.models.generators.gru import GRUGenerator
from caption_gan.text.vocabulary import END_ID, PAD_ID, START_ID, UNK_ID
from tests.captioners import REGIONS, captioner

FORBIDDEN = (PAD_ID, START_ID, UNK_ID)
LENGTH = 7
STEPS = LENGTH - 1
WORDS = (4, 5, 6, 7)
NO = -1e9


def softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def many_regions(images: int = 1) -> Regions:
    """Enough regions for the double of 8 words."""
    return Regions(tf.zeros([images, 8, 1]))


@pytest.fixture(scope="module")
def generator(small_generator) -> GRUGenerator:
    """Without noise, so that samples can be scored by teacher forcing."""
    return small_generator(seed=4, noise_size=0)


@pytest.fixture(scope="module")
def forced(generator) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Teacher forcing in a graph: regions [B, R, D] and words [B, K, T] to logits."""

    @tf.function
    def force(regions, token_ids):
        noise = tf.zeros([*tf.unstack(tf.shape(token_ids)[:2]), 0])
        return generator(regions, token_ids, noise)

    return lambda regions, token_ids: np.array(force(tf.constant(regions), tf.constant(token_ids)))


@pytest.fixture(scope="module")
def written(generator, regions) -> Decoded:
    return in_graph(greedy, generator, Regions(regions), LENGTH)


@pytest.fixture(scope="module")
def drawn(generator, regions) -> Decoded:
    return in_graph(
        sample, generator, Regions(regions), LENGTH, samples=20, seed=tf.constant([3, 1])
    )


def in_graph(
    decode: Callable[..., Decoded], generator, regions, length: int, seed=None, **options
) -> Decoded:
    """Decodes in a graph; options are those of `DecodingOptions`."""
    arguments = [] if seed is None else [seed]
    decoded = tf.function(
        lambda: decode(generator, regions, DecodingOptions(length, **options), *arguments)
    )()
    return Decoded(*(np.array(tensor) for tensor in decoded))


def assert_well_formed(token_ids: np.ndarray) -> None:
    """Checks that captions are words, one end token, padding."""
    for caption in token_ids.reshape(-1, token_ids.shape[-1]).tolist():
        end = caption.index(END_ID)
        assert not set(caption[:end]) & {*FORBIDDEN, END_ID}
        assert set(caption[end + 1 :]) <= {PAD_ID}


def assert_scored_by_teacher_forcing(decoded: Decoded, forced, regions: np.ndarray) -> None:
    token_ids = decoded.token_ids
    starts = np.full_like(token_ids[..., :1], START_ID)
    read = np.concatenate([starts, token_ids[..., :-1]], axis=-1)
    probabilities = softmax(forced(regions, read))
    chosen = np.take_along_axis(probabilities, token_ids[..., None], axis=-1)[..., 0]
    mask = token_ids != PAD_ID
    expected = (np.log(chosen) * mask).sum(axis=-1) / mask.sum(axis=-1)
    np.testing.assert_allclose(decoded.scores, expected, rtol=1e-4, atol=1e-4)


def slow_greedy(forced, regions: np.ndarray) -> list[list[int]]:
    """One image and one word at a time, from the logits of teacher forcing."""
    captions = []
    for image in range(len(regions)):
        caption: list[int] = []
        while len(caption) < STEPS - 1 and END_ID not in caption:
            read = [START_ID, *caption] + [PAD_ID] * (STEPS - 1 - len(caption))
            logits = forced(regions[image : image + 1], np.array([[read]], np.int32))
            scores = {
                word: score
                for word, score in enumerate(logits[0, 0, len(caption)])
                if word not in FORBIDDEN
            }
            caption.append(max(scores, key=lambda word: scores[word]))
        if END_ID not in caption:
            caption.append(END_ID)
        captions.append(caption + [PAD_ID] * (STEPS - len(caption)))
    return captions


def test_greedy_equals_the_slow_reference(written, forced, regions):
    captions = slow_greedy(forced, regions)
    assert written.token_ids.shape == (5, 1, STEPS)
    assert written.token_ids[:, 0].tolist() == captions
    assert len(set(map(tuple, captions))) > 1, "images that all read alike would prove little"


def test_captions_are_well_formed(written, drawn):
    assert_well_formed(written.token_ids)
    assert_well_formed(drawn.token_ids)
    assert drawn.token_ids.shape == (5, 20, STEPS)
    lengths = (drawn.token_ids != PAD_ID).sum(axis=-1)
    assert lengths.min() < STEPS == lengths.max()


def test_scores_are_mean_log_probabilities(written, drawn, forced, regions):
    assert_scored_by_teacher_forcing(written, forced, regions)
    assert_scored_by_teacher_forcing(drawn, forced, regions)


def test_scores_do_not_depend_on_temperature_and_truncation(generator, forced, regions):
    decoded = in_graph(
        sample,
        generator,
        Regions(regions),
        LENGTH,
        samples=3,
        seed=tf.constant([0, 0]),
        temperature=0.5,
        top_k=3,
        top_p=0.9,
    )
    assert_scored_by_teacher_forcing(decoded, forced, regions)


def test_an_images_caption_does_not_depend_on_its_batch(generator, written, regions):
    alone = in_graph(greedy, generator, Regions(regions[2:3]), LENGTH)
    assert alone.token_ids[0].tolist() == written.token_ids[2].tolist()
    np.testing.assert_allclose(alone.scores[0], written.scores[2], rtol=1e-4)


def test_eager_equals_graph(generator, written, regions):
    eager = greedy(generator, Regions(tf.constant(regions)), DecodingOptions(LENGTH))
    np.testing.assert_array_equal(eager.token_ids, written.token_ids)
    np.testing.assert_allclose(eager.scores, written.scores, rtol=1e-4)


def test_attention_rows_belong_to_the_tokens(generator, written, regions):
    memory = generator.encode(Regions(regions))
    states = generator.initial_state(memory, tf.zeros([5, 1, 0]), STEPS)
    read = np.full((5, 1), START_ID, np.int32)
    for time in range(STEPS):
        _, states, weights = generator.decode_step(read, states, memory)
        read = written.token_ids[:, :, time]
        inside = read != PAD_ID
        np.testing.assert_allclose(
            written.attention[:, :, time][inside], np.array(weights)[inside], rtol=1e-4, atol=1e-5
        )


def test_the_seed_determines_the_samples(small_generator, regions):
    generator = small_generator(seed=4)

    def draw(*seed: int) -> list:
        decoded = in_graph(
            sample, generator, Regions(regions), LENGTH, samples=4, seed=tf.constant(seed)
        )
        return decoded.token_ids.tolist()

    first = draw(1, 2)
    assert draw(1, 2) == first
    assert draw(1, 3) != first
    assert draw(2, 2) != first
    assert len({tuple(caption) for image in first for caption in image}) > 10


def chi_square(counts: np.ndarray, probabilities: np.ndarray) -> float:
    expected = counts.sum() * probabilities
    return float(((counts - expected) ** 2 / expected).sum())


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_frequencies_follow_the_softmax(markov, temperature):
    row = np.array([5.0, 5.0, 0.3, 5.0, 1.0, 0.0, -0.5, 0.7])  # Forbidden words are likeliest.
    decoded = in_graph(
        sample,
        markov(np.tile(row, (8, 1))),
        many_regions(2),
        4,
        samples=4000,
        seed=tf.constant([0, 0]),
        temperature=temperature,
    )
    possible = [END_ID, *WORDS]
    probabilities = softmax(row[possible] / temperature)
    first, second = decoded.token_ids[..., 0], decoded.token_ids[..., 1]
    # Quantiles 0.999 of chi-square with 4 and 15 degrees of freedom.
    for image in range(2):
        counts = np.array([(first[image] == word).sum() for word in possible])
        assert chi_square(counts, probabilities) < 18.5
    # The second word is independent: a seed used twice would repeat the first.
    pairs = np.array([[(first == a) & (second == b) for b in WORDS] for a in WORDS])
    joint = np.outer(probabilities[1:], probabilities[1:])
    assert chi_square(pairs.sum(axis=(2, 3)).ravel(), (joint / joint.sum()).ravel()) < 37.7
    assert not np.array_equal(first[0], first[1])


def numpy_truncated(logits: list[int], top_k: int, top_p: float) -> set[int]:
    """Positions that remain: the k likeliest, then the smallest set that reaches p, with ties."""
    remaining = set(range(len(logits)))
    if top_k:
        least = sorted(logits, reverse=True)[:top_k][-1]
        remaining = {word for word in remaining if logits[word] >= least}
    if top_p < 1:
        total = sum(np.exp(float(logits[word])) for word in remaining)
        nucleus: list[int] = []
        reached = 0.0
        for word in sorted(remaining, key=lambda word: -logits[word]):
            assume(abs(reached - top_p) > 1e-4)  # Rounding decides.
            if reached < top_p:
                nucleus.append(word)
            reached += np.exp(float(logits[word])) / total
        remaining = {word for word in remaining if logits[word] >= logits[nucleus[-1]]}
    return remaining


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(-3, 3), min_size=1, max_size=8),
    st.integers(0, 10),
    st.floats(0.01, 1.0),
)
def test_truncation_equals_the_reference(logits, top_k, top_p):
    remaining = numpy_truncated(logits, top_k, top_p)
    truncated = np.array(truncate(tf.constant([logits], tf.float32), top_k, top_p))[0]
    assert {int(word) for word in np.flatnonzero(np.isfinite(truncated))} == remaining
    assert all(truncated[word] == logits[word] for word in remaining)


@pytest.mark.parametrize(
    ("top_k", "top_p", "remaining"),
    [
        (0, 1.0, [0, 1, 2, 3]),
        (2, 1.0, [0, 1]),
        (9, 1.0, [0, 1, 2, 3]),
        (0, 0.5, [0]),
        (0, 0.51, [0, 1]),
        (0, 0.81, [0, 1, 2]),
        # Among .5 and .3, the first has 62.5 %.
        (2, 0.6, [0]),
        (2, 0.63, [0, 1]),
    ],
)
def test_truncation_by_hand(top_k, top_p, remaining):
    logits = np.log([[0.5, 0.3, 0.15, 0.05]]).astype(np.float32)
    truncated = np.array(truncate(tf.constant(logits), top_k, top_p))[0]
    assert np.flatnonzero(np.isfinite(truncated)).tolist() == remaining


def test_samples_stay_within_the_truncation(markov):
    row = np.array([9.0, 9.0, -1.0, 9.0, 3.0, 2.0, 1.0, 0.0])
    draw = {"samples": 500, "seed": tf.constant([5, 5])}
    double = markov(np.tile(row, (8, 1)))
    best = in_graph(sample, double, many_regions(), 6, **draw, top_k=2)
    assert set(best.token_ids[:, :, :-1].ravel().tolist()) == {4, 5}
    # Without the special tokens, 4 has 0.64 and 5 has 0.24 of the probability.
    nucleus = in_graph(sample, double, many_regions(), 6, **draw, top_p=0.6)
    assert set(nucleus.token_ids[:, :, :-1].ravel().tolist()) == {4}


def test_top_k_of_one_is_greedy(generator, written, regions):
    decoded = in_graph(
        sample, generator, Regions(regions), LENGTH, samples=2, seed=tf.constant([8, 8]), top_k=1
    )
    for caption in range(2):
        np.testing.assert_array_equal(decoded.token_ids[:, caption], written.token_ids[:, 0])
        np.testing.assert_allclose(decoded.scores[:, caption], written.scores[:, 0], rtol=1e-4)


def test_special_tokens_are_never_decoded(markov):
    rng = np.random.default_rng(0)
    table = rng.normal(size=(8, 8))
    table[:, FORBIDDEN] += 20
    double = markov(table)
    assert_well_formed(in_graph(greedy, double, many_regions(), LENGTH).token_ids)
    draw = {"samples": 200, "seed": tf.constant([1, 1])}
    for truncation in ({}, {"top_k": 3}, {"top_p": 0.9}, {"temperature": 0.1}):
        decoded = in_graph(sample, double, many_regions(), LENGTH, **draw, **truncation)
        assert_well_formed(decoded.token_ids)


@pytest.fixture(scope="module")
def chain() -> np.ndarray:
    """START -> 4 -> 5 -> END, with certainty."""
    table = np.full((8, 8), NO)
    for before, after in ((START_ID, 4), (4, 5), (5, END_ID), (END_ID, END_ID), (PAD_ID, END_ID)):
        table[before, after] = 0
    return table


@pytest.mark.parametrize("graph", [True, False])
def test_stops_when_every_caption_has_ended(markov, chain, graph):
    double = markov(chain)
    if graph:
        decoded = in_graph(greedy, double, many_regions(2), 20)
    else:
        decoded = Decoded(*map(np.array, greedy(double, many_regions(2), DecodingOptions(20))))
    assert int(double.steps) == 3
    for image in range(2):
        assert decoded.token_ids[image, 0].tolist() == [4, 5, END_ID, *[PAD_ID] * 16]
    assert decoded.attention.shape == (2, 1, 19, 8)
    np.testing.assert_allclose(decoded.scores, 0, atol=1e-6)
    assert np.argmax(decoded.attention[0, 0, :3], axis=-1).tolist() == [START_ID, 4, 5]
    assert not np.any(decoded.attention[:, :, 3:])


def test_the_last_position_is_the_end_token(markov, chain):
    table = chain.copy()
    table[5] = [NO, NO, -2, NO, NO, 0, NO, NO]
    decoded = in_graph(greedy, markov(table), many_regions(), 6)
    assert decoded.token_ids[0, 0].tolist() == [4, 5, 5, 5, END_ID]
    # Two certain words, two fives after a five, the end after a five.
    five, end = np.log(softmax(np.array([0.0, -2.0])))
    np.testing.assert_allclose(decoded.scores[0, 0], (2 * five + end) / 5, rtol=1e-5)


def test_generators_without_attention(markov, chain):
    """The captions are the same, and there are no attention weights."""
    attentive, inattentive = markov(chain), markov(chain)
    step = inattentive.decode_step
    inattentive.has_attention = False
    inattentive.decode_step = lambda *arguments: (*step(*arguments)[:2], None)
    options = DecodingOptions(6, beam=2)
    for decode in (greedy, beam_search):
        expected = decode(attentive, many_regions(2), options)
        decoded = decode(inattentive, many_regions(2), options)
        assert decoded.attention is None
        np.testing.assert_array_equal(decoded.token_ids, expected.token_ids)
        np.testing.assert_array_equal(decoded.scores, expected.scores)


@pytest.mark.parametrize("graph", [True, False])
def test_no_images_give_no_captions(generator, graph):
    """Also in a graph without a static batch size, like a served one."""

    def run(decode: Callable[[tf.Tensor], Decoded]) -> Decoded:
        if graph:
            decode = tf.function(decode, input_signature=[tf.TensorSpec([None, 4, 5])])
        return decode(tf.zeros([0, 4, 5]))

    decoded = run(lambda regions: greedy(generator, Regions(regions), DecodingOptions(LENGTH)))
    assert decoded.token_ids.shape == (0, 1, STEPS)
    assert decoded.scores.shape == (0, 1)
    assert decoded.attention.shape == (0, 1, STEPS, 4)
    seed = tf.constant([0, 0])
    drawn = run(
        lambda regions: sample(generator, Regions(regions), DecodingOptions(LENGTH, 3), seed)
    )
    assert drawn.token_ids.shape == (0, 3, STEPS)


def rows_drawn(model, regions, seeds, temperature, top_p, captions=5):
    rows = len(seeds)
    options = DecodingOptions(
        7, captions, tf.constant(temperature, tf.float32), top_p=tf.constant(top_p, tf.float32)
    )
    return sample_rows(model, Regions(regions[:rows]), options, tf.constant(seeds))


def test_rows_are_drawn_by_their_own_seed_temperature_and_nucleus():
    model = captioner(dropout=0.0).generator
    regions = tf.random.stateless_normal([3, *REGIONS], [1, 2])
    settings = [3, 4, 5], [0.5, 1.0, 2.0], [1.0, 0.4, 0.9]
    together = rows_drawn(model, regions, *settings)
    for row in range(3):
        alone = rows_drawn(model, regions[row:], *([values[row]] for values in settings))
        assert np.array_equal(alone.token_ids[0], together.token_ids[row])
        np.testing.assert_allclose(alone.scores[0], together.scores[row], atol=1e-5)


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (1.0, 0.6)])
def test_first_words_of_rows_follow_the_model_probabilities(temperature, top_p):
    model = captioner(dropout=0.0, noise_size=0).generator
    regions = tf.random.stateless_normal([1, *REGIONS], [5, 6])
    noise = tf.zeros([1, 1, 0])
    logits = model(regions, tf.constant([[[START_ID]]]), noise)[:, 0]  # [1, 1, V]
    logits = truncate(mask_special_tokens(logits) / temperature, 0, top_p)[0, 0]
    expected = np.array(tf.nn.softmax(logits))
    drawn = rows_drawn(model, regions, [11], [temperature], [top_p], captions=4000)
    counts = np.bincount(np.array(drawn.token_ids)[0, :, 0], minlength=len(expected))
    assert not counts[expected == 0].any()
    # Three standard errors of 4,000 draws.
    np.testing.assert_allclose(counts / 4000, expected, atol=3 * 0.5 / 4000**0.5)
