"""Diversity metrics: values computed by hand, then properties that hold for any captions."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocoevalcap.bleu.bleu import Bleu

from caption_gan.errors import CaptionGANError
from caption_gan.metrics import diversity
from caption_gan.metrics.bleu import count_matches, count_matches_among
from caption_gan.metrics.diversity import mbleu


def one_each(metric: Callable, captions: Sequence[str], *arguments) -> float:
    """The value for images with one caption each."""
    return metric([[caption] for caption in captions], *arguments).value


distinct_captions = partial(one_each, diversity.distinct_captions)
distinct_n = partial(one_each, diversity.distinct_n)
vocabulary_size = partial(one_each, diversity.vocabulary_size)
mean_length = partial(one_each, diversity.mean_length)
novel_captions = partial(one_each, diversity.novel_captions)
novel_ngrams = partial(one_each, diversity.novel_ngrams)


def mbleu_value(samples: Sequence[Sequence[str]], n: int = 4) -> float:
    return mbleu(samples)[f"mBLEU-{n}"].value


CAPTIONS = ["A dog runs.", "a dog, a dog", "a a a cat", "A DOG RUNS"]


def test_distinct_captions() -> None:
    assert distinct_captions(CAPTIONS) == pytest.approx(3 / 4)


def test_distinct_n() -> None:
    # 14 words, 4 of them distinct; 10 bigrams, of which a-dog, dog-runs, dog-a, a-a, a-cat.
    assert distinct_n(CAPTIONS, 1) == pytest.approx(4 / 14)
    assert distinct_n(CAPTIONS, 2) == pytest.approx(5 / 10)
    assert distinct_n(CAPTIONS, 9) == 0.0
    with pytest.raises(CaptionGANError, match="received 0"):
        distinct_n(CAPTIONS, 0)


def test_vocabulary_size() -> None:
    assert vocabulary_size(CAPTIONS) == 4


def test_mean_length() -> None:
    assert mean_length(CAPTIONS) == pytest.approx(14 / 4)


def test_novel_captions() -> None:
    assert novel_captions(CAPTIONS, ["a dog runs!", "a cat"]) == pytest.approx(2 / 4)
    assert novel_captions(CAPTIONS, []) == 1.0


def test_novel_ngrams() -> None:
    # `a dog` and `dog runs` are not novel: 2 + 2 + 0 + 2 of 10 bigrams.
    assert novel_ngrams(CAPTIONS, iter(["a dog runs!", "a cow"]), 2) == pytest.approx(4 / 10)
    assert novel_ngrams(CAPTIONS, [], 2) == 1.0
    assert novel_ngrams(["a dog"], [], 5) == 0.0


def test_grouping_captions_by_image_changes_nothing() -> None:
    for metric in (
        diversity.distinct_captions,
        diversity.vocabulary_size,
        diversity.mean_length,
        lambda captions: diversity.distinct_n(captions, 2),
        lambda captions: diversity.novel_captions(captions, ["a dog runs"]),
    ):
        assert metric([CAPTIONS[:2], CAPTIONS[2:]]).value == one_each(metric, CAPTIONS)


def test_mbleu_by_hand() -> None:
    # In both directions 3 of 4 words and 2 of 3 bigrams match, and the lengths agree.
    samples = [["a red dog runs", "a red dog sleeps"]]
    assert mbleu_value(samples, n=1) == pytest.approx(3 / 4, abs=1e-6)
    assert mbleu_value(samples, n=2) == pytest.approx((3 / 4 * 2 / 3) ** 0.5, abs=1e-6)


def test_mbleu_of_extremes() -> None:
    assert mbleu_value([["a red dog runs", "A red dog runs."]] * 2) == pytest.approx(1.0)
    assert mbleu_value([["a red dog runs", "two blue cats sleep"]]) < 1e-3
    assert mbleu_value([["", "."], ["", ""]]) == pytest.approx(0.0)


def test_mbleu_pools_counts_over_images() -> None:
    """BLEU is corpus-level: a mean of per-image BLEU would be 0.5."""
    samples = [["a b c d e f", "a b c d e f"], ["p q", "r s"]]
    # Of 8 words 6 match, of 6 bigrams 5, of 4 trigrams 4, of 3 four-grams 3.
    assert mbleu_value(samples) == pytest.approx((6 / 8 * 5 / 6) ** 0.25, abs=1e-6)


def test_mbleu_is_the_mean_of_pycocoevalcap_corpus_bleu() -> None:
    samples = [["a red dog", "a dog runs", "red dog runs"], ["two cats", "two red cats", "cats"]]
    expected = []
    for held_out in range(3):
        candidates = {image: [texts[held_out]] for image, texts in enumerate(samples)}
        others = {
            image: [text for k, text in enumerate(texts) if k != held_out]
            for image, texts in enumerate(samples)
        }
        expected.append(Bleu(4).compute_score(others, candidates, verbose=0)[0][1])
    assert mbleu_value(samples, n=2) == pytest.approx(sum(expected) / 3)


@pytest.mark.parametrize("samples", [[], [["a"]], [["a", "b"], ["a", "b", "c"]]])
def test_mbleu_refuses_wrong_numbers_of_samples(samples: list[list[str]]) -> None:
    with pytest.raises(CaptionGANError, match="captions: expected"):
        mbleu(samples)


def test_no_captions_give_zero() -> None:
    for metric in (distinct_captions, vocabulary_size, mean_length):
        assert metric([]) == 0
    assert distinct_n([], 2) == novel_captions([], ["a"]) == 0.0


caption_texts = st.lists(st.sampled_from(["a", "dog", "runs", "red", "."]), max_size=6).map(
    " ".join
)


@given(
    st.lists(caption_texts, max_size=8).flatmap(lambda c: st.tuples(st.just(c), st.permutations(c)))
)
def test_bounds_and_order(pair: tuple[list[str], list[str]]) -> None:
    captions, shuffled = pair
    shares: list[Callable[[list[str]], float]] = [
        distinct_captions,
        lambda texts: distinct_n(texts, 2),
        lambda texts: novel_captions(texts, ["a dog", "red"]),
    ]
    for share in shares:
        assert 0.0 <= share(captions) <= 1.0
        assert share(captions) == share(shuffled)
    assert vocabulary_size(captions) == vocabulary_size(shuffled) <= 4
    assert mean_length(captions) == mean_length(shuffled)


caption_samples = st.lists(st.lists(caption_texts, min_size=3, max_size=3), min_size=1, max_size=4)


@given(caption_samples)
def test_counts_among_captions_equal_those_against_references(
    samples: list[list[str]],
) -> None:
    for texts in samples:
        expected = [
            count_matches([text], [texts[:place] + texts[place + 1 :]])[0]
            for place, text in enumerate(texts)
        ]
        assert count_matches_among(texts).tolist() == np.concatenate(expected).tolist()


@given(caption_samples)
def test_mbleu_bounds_and_order(samples: list[list[str]]) -> None:
    metric = mbleu_value(samples)
    assert 0.0 <= metric <= 1.0 + 1e-9
    assert mbleu_value(samples[::-1]) == pytest.approx(metric, abs=1e-9)
    assert mbleu_value([texts[::-1] for texts in samples]) == pytest.approx(metric, abs=1e-9)
