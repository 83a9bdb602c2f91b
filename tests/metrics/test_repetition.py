"""Repetition: values computed by hand, real captions, and collapses of many kinds."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caption_gan.config.run import MonitorConfig
from caption_gan.data.synthetic.figures import FiguresDataset
from caption_gan.data.synthetic.scenes import ScenesDataset
from caption_gan.metrics.collapse import out_of_bounds
from caption_gan.metrics.repetition import repeated_token_rate


def rate(*captions: str) -> float:
    """The rate over images with one caption each."""
    return repeated_token_rate([[caption] for caption in captions]).value


def is_collapsed(*captions: str) -> bool:
    return bool(out_of_bounds({"repeated_token_rate": rate(*captions)}, MonitorConfig()))


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a a a a", 1.0),
        ("A a", 1.0),
        ("a dog , , , ,", 3 / 5),
        ("a dog,,,,", 3 / 5),
        ("a dog. . . .", 3 / 5),
        ("a dog a dog a dog", 4 / 5),
        ("a red square. a red square.", 4 / 7),
        ("a red square, a red square", 3 / 6),
        ("a dog and a dog", 0.0),
        ("a dog and a dog and a dog and", 6 / 8),
        ("a fork, a knife, a blue spoon, a blue cup", 0.0),
        ("a dog, a dog", 2 / 4),
        ("a dog and a cat and a dog", 0.0),
        ("a man in a shirt in a car", 0.0),
        ("one dog is left of another dog", 0.0),
        ("a dog runs ...", 0.0),
        ("dogsogsogsogsogs", 4 / 5),
        ("dog", 0.0),
        ("", 0.0),
    ],
)
def test_by_hand(caption, expected):
    assert rate(caption) == pytest.approx(expected)


def test_captions_are_pooled_and_never_joined():
    assert rate("dog", "dog", "") == 0.0
    assert rate("a a a", "a dog runs") == pytest.approx(2 / 4)
    assert repeated_token_rate([["a a a", "a dog runs"]]).value == pytest.approx(2 / 4)
    assert repeated_token_rate([]).value == 0.0


def real_captions(dataset: FiguresDataset | ScenesDataset, count: int) -> list[str]:
    rng = random.Random(0)
    return [dataset.caption(dataset.sample_facts(rng), rng) for _ in range(count)]


REAL = real_captions(ScenesDataset(), 150) + real_captions(FiguresDataset(), 150)


def test_real_captions_are_healthy():
    assert not is_collapsed(*REAL)
    assert rate(*REAL) < MonitorConfig().repeated_token_rate / 20
    # What people write now and then.
    assert not is_collapsed(*REAL[:20], "a very very big dog ...", "no, no, no!", "wow!!!")


@given(
    st.sampled_from([", ,", ". .", "the the", "- -", "! !", "[UNK] [UNK]", "a dog a dog"]),
    st.integers(2, 6),
    st.sampled_from(["{caption} {tail}", "{tail} {caption}", "{tail}"]),
)
def test_repeated_tails_are_collapsed(unit, times, form):
    tail = " ".join([unit] * times)
    captions = [form.format(caption=caption, tail=tail) for caption in REAL[:30]]
    assert is_collapsed(*captions)


@pytest.mark.parametrize("between", [" ", ". ", ", ", " - "])
@pytest.mark.parametrize("times", [2, 3])
def test_whole_captions_said_again_are_collapsed(between, times):
    captions = [caption.rstrip(".") for caption in REAL[:30]]
    assert is_collapsed(*(between.join([caption] * times) for caption in captions))
