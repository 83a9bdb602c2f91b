"""Beam search: against a slow reference, exhaustive search and greedy decoding."""

import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
import tensorflow as tf

from caption_gan.models.decoding.beam_search import BLOCK, _largest, beam_search
from caption_gan.models.decoding.decoder import Decoded, DecodingOptions
from caption_gan.models.decoding.sampling import greedy
from caption_gan.models.encoders.encoder import Regions
from caption_gan.text.vocabulary import END_ID, PAD_ID, START_ID, UNK_ID

FORBIDDEN = (PAD_ID, START_ID, UNK_ID)
WORDS = (4, 5, 6)
VOCABULARY = 7
STEPS = 4

Caption = tuple[int, ...]


def random_table(seed: int) -> np.ndarray:
    """Random logits [V, V]; special tokens have a part of the probability."""
    table = np.random.default_rng(seed).normal(0, 1.5, (VOCABULARY, VOCABULARY))
    # A likely end makes captions of all lengths compete.
    table[:, END_ID] += 0.5
    return table


def token_log_probabilities(table: np.ndarray, caption: Caption) -> list[float]:
    logs = table - np.log(np.exp(table).sum(axis=-1, keepdims=True))
    return [float(logs[pair]) for pair in itertools.pairwise((START_ID, *caption))]


def rank(table: np.ndarray, caption: Caption, length_penalty: float) -> float:
    return sum(token_log_probabilities(table, caption)) / len(caption) ** length_penalty


def all_captions(steps: int) -> Iterator[Caption]:
    for length in range(steps):
        for words in itertools.product(WORDS, repeat=length):
            yield (*words, END_ID)


def slow_beam_search(
    table: np.ndarray, steps: int, width: int, length_penalty: float
) -> list[Caption]:
    """Extends the likeliest unfinished captions to full length, without stopping early."""
    growing: list[Caption] = [()]
    ended: list[Caption] = []
    for _ in range(steps):
        ended += [(*caption, END_ID) for caption in growing]
        longer = [(*caption, word) for caption in growing for word in WORDS]
        longer.sort(key=lambda caption: -sum(token_log_probabilities(table, caption)))
        growing = longer[:width]
    ended.sort(key=lambda caption: -rank(table, caption, length_penalty))
    return ended[:width]


def search(
    generator, regions, sequence_length: int, width: int, length_penalty: float = 1.0
) -> Decoded:
    options = DecodingOptions(sequence_length, beam=width, length_penalty=length_penalty)
    decoded = tf.function(lambda: beam_search(generator, regions, options))()
    return Decoded(*(np.array(tensor) for tensor in decoded))


def without_padding(token_ids: np.ndarray) -> list[Caption]:
    """Captions [N, T] without padding, which must come last."""
    captions = []
    for row in token_ids.tolist():
        length = len(row) - row.count(PAD_ID)
        assert not any(row[length:])
        captions.append(tuple(row[:length]))
    return captions


def many_regions(images: int = 1) -> Regions:
    return Regions(tf.zeros([images, VOCABULARY, 1]))


@pytest.mark.parametrize("length_penalty", [0.0, 0.7, 1.0])
def test_a_beam_as_wide_as_the_language_is_exhaustive(markov, length_penalty):
    everything = list(all_captions(STEPS))  # 1 + 3 + 9 + 27
    for seed in range(3):
        table = random_table(seed)
        decoded = search(markov(table), many_regions(), STEPS + 1, len(everything), length_penalty)
        expected = sorted(everything, key=lambda caption: -rank(table, caption, length_penalty))
        assert without_padding(decoded.token_ids[0]) == expected


@pytest.mark.parametrize(("width", "length_penalty"), [(1, 0.0), (1, 1.0), (2, 0.0), (3, 1.0)])
def test_equals_the_slow_reference(markov, width, length_penalty):
    """The reference does not stop early, so this also checks that stopping early loses nothing."""
    for seed in range(6):
        table = random_table(10 + seed)
        decoded = search(markov(table), many_regions(), 7, width, length_penalty)
        expected = slow_beam_search(table, 6, width, length_penalty)
        assert without_padding(decoded.token_ids[0]) == expected, f"seed {seed}"


def test_scores_are_means_per_token_for_any_ranking(markov):
    table = random_table(20)
    for length_penalty in (0.0, 0.5, 1.0):
        decoded = search(markov(table), many_regions(), 6, 4, length_penalty)
        expected = [
            np.mean(token_log_probabilities(table, caption))
            for caption in without_padding(decoded.token_ids[0])
        ]
        np.testing.assert_allclose(decoded.scores[0], expected, rtol=1e-4)


def test_ranked_best_first(markov):
    for length_penalty in (0.0, 0.7, 1.0):
        table = random_table(30)
        decoded = search(markov(table), many_regions(), 6, 5, length_penalty)
        captions = without_padding(decoded.token_ids[0])
        ranks = [rank(table, caption, length_penalty) for caption in captions]
        assert ranks == sorted(ranks, reverse=True)
        assert len(set(captions)) == 5


def test_length_penalty_prefers_longer_captions(markov):
    table = np.full((VOCABULARY, VOCABULARY), -1e9)
    # The end at once has 0.3 and one word before it 0.7 * 0.4: less in all, more a token.
    table[START_ID, [END_ID, 4]] = np.log([0.3, 0.7])
    table[4, [END_ID, 4]] = np.log([0.4, 0.6])
    assert without_padding(search(markov(table), many_regions(), 3, 1, 0.0).token_ids[0]) == [
        (END_ID,)
    ]
    assert without_padding(search(markov(table), many_regions(), 3, 1, 1.0).token_ids[0]) == [
        (4, END_ID)
    ]


def test_width_one_without_penalty_is_never_worse_than_greedy(markov):
    """It follows greedy's words, and ends where that makes the whole caption likeliest.

    So it is greedy's caption or one that breaks off earlier and is likelier; never a longer one,
    for where greedy ends, going on was less likely already.
    """
    earlier = 0
    for seed in range(12):
        table = random_table(40 + seed)
        double = markov(table)
        best = without_padding(search(double, many_regions(), 6, 1, 0.0).token_ids[0])[0]
        likeliest = tuple(
            np.array(greedy(double, many_regions(), DecodingOptions(6)).token_ids)[0, 0].tolist()
        )
        likeliest = likeliest[: likeliest.index(END_ID) + 1]
        if best == likeliest:
            continue
        earlier += 1
        assert len(best) < len(likeliest)
        assert best[:-1] == likeliest[: len(best) - 1]
        assert rank(table, best, 0.0) > rank(table, likeliest, 0.0)
    assert 0 < earlier < 12


def test_width_one_is_greedy_where_words_are_near_certain(markov):
    table = np.full((VOCABULARY, VOCABULARY), -6.0)
    for before, after in itertools.pairwise((START_ID, 5, 4, 6, END_ID)):
        table[before, after] = 0.0
    double = markov(table)
    one = search(double, many_regions(2), 8, 1, 0.0)
    expected = greedy(double, many_regions(2), DecodingOptions(8))
    assert without_padding(one.token_ids[0]) == [(5, 4, 6, END_ID)]
    np.testing.assert_array_equal(one.token_ids, expected.token_ids)
    np.testing.assert_allclose(one.scores, expected.scores, rtol=1e-4)


def test_stops_when_no_better_caption_is_possible(markov):
    table = np.full((VOCABULARY, VOCABULARY), -30.0)
    for before, after in itertools.pairwise((START_ID, 4, END_ID)):
        table[before, after] = 0.0
    double = markov(table)
    search(double, many_regions(), 20, 1, 1.0)
    assert int(double.steps) == 2


def test_continues_while_a_longer_caption_could_be_better(markov):
    """The end at once has 0.3; going on has 0.05, whose mean of two tokens is still worse.

    That of three is better: a bound must reckon with the full length, not with the next one.
    """
    table = np.full((VOCABULARY, VOCABULARY), -30.0)
    table[START_ID, [END_ID, 4, UNK_ID]] = np.log([0.3, 0.05, 0.65])
    for before, after in itertools.pairwise((4, 5, END_ID)):
        table[before, after] = 0.0
    decoded = search(markov(table), many_regions(), 8, 1, 1.0)
    assert without_padding(decoded.token_ids[0]) == [(4, 5, END_ID)]


def test_attention_rows_belong_to_the_tokens(markov):
    """Captions move between beams, and their attention with them."""
    decoded = search(markov(random_table(50)), many_regions(), 6, 5)
    for caption, attention in zip(
        without_padding(decoded.token_ids[0]), decoded.attention[0], strict=True
    ):
        weights = attention[: len(caption)]
        np.testing.assert_allclose(weights.sum(axis=-1), 1)
        assert tuple(weights.argmax(axis=-1)) == (START_ID, *caption[:-1])


def test_fewer_captions_than_beams(markov):
    """There are only four captions of at most one word."""
    decoded = search(markov(random_table(60)), many_regions(), 3, 6)
    captions = without_padding(decoded.token_ids[0])
    assert sorted(captions[:4]) == sorted(all_captions(2))
    assert captions[4:] == [(), ()]
    assert np.all(np.isneginf(decoded.scores[0, 4:]))
    assert np.all(np.isfinite(decoded.scores[0, :4]))


@pytest.fixture(scope="module")
def found(small_generator, regions) -> tuple:
    generator = small_generator(seed=6)
    return generator, search(generator, Regions(regions), 7, 3)


def test_of_a_real_generator_scores_equal_teacher_forcing(found, regions):
    generator, decoded = found
    token_ids = decoded.token_ids  # [B, W, T]
    assert token_ids.shape == (5, 3, 6)
    assert not np.isin(token_ids, (START_ID, UNK_ID)).any()
    starts = np.full_like(token_ids[..., :1], START_ID)
    read = np.concatenate([starts, token_ids[..., :-1]], axis=-1)
    logits = generator(regions, read, np.zeros((5, 3, 3), np.float32))
    logs = np.array(tf.nn.log_softmax(logits))
    chosen = np.take_along_axis(logs, token_ids[..., None], axis=-1)[..., 0]
    mask = token_ids != PAD_ID
    expected = (chosen * mask).sum(axis=-1) / mask.sum(axis=-1)
    np.testing.assert_allclose(decoded.scores, expected, rtol=1e-4, atol=1e-4)
    assert np.all(np.diff(decoded.scores, axis=1) <= 1e-6)


def test_images_of_a_batch_do_not_mix(found, regions):
    generator, decoded = found
    assert len({tuple(image.ravel().tolist()) for image in decoded.token_ids}) > 1
    alone = search(generator, Regions(regions[3:4]), 7, 3)
    np.testing.assert_array_equal(alone.token_ids[0], decoded.token_ids[3])
    np.testing.assert_allclose(alone.attention[0], decoded.attention[3], rtol=1e-3, atol=1e-5)


def test_no_images_give_no_captions(found):
    generator, _ = found
    decode: Callable[[tf.Tensor], Sequence[tf.Tensor]] = tf.function(
        lambda regions: beam_search(generator, Regions(regions), DecodingOptions(7, beam=2)),
        input_signature=[tf.TensorSpec([None, 4, 5])],
    )
    shapes = [tuple(tensor.shape) for tensor in decode(tf.zeros([0, 4, 5]))]
    assert shapes == [(0, 2, 6), (0, 2), (0, 2, 6, 4)]


@pytest.mark.parametrize(
    ("size", "count"),
    [(7, 3), (7, 7), (BLOCK, 4), (3 * BLOCK, 2), (3 * BLOCK + 1, 6), (10 * BLOCK - 1, 6)],
)
def test_largest_equals_top_k(size, count):
    """Also with equal values, with all large values in few blocks, and with many of -inf."""
    random = np.random.default_rng(size)
    for values in (
        random.normal(size=(3, 2, size)),
        random.integers(0, 5, (3, 2, size)),
        np.where(random.random((3, 2, size)) < 2 / size, 1.0, -np.inf),
    ):
        values = values.astype(np.float32)
        # A stable sort puts the first of equal values first.
        places = np.argsort(-values, axis=-1, kind="stable")[..., :count]
        largest, found = _largest(tf.constant(values), count)
        np.testing.assert_array_equal(found, places)
        np.testing.assert_array_equal(largest, np.take_along_axis(values, places, axis=-1))
