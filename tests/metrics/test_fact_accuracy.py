"""Fact accuracy with a fact checker that knows the words that are correct."""

import pytest

from caption_gan.errors import CaptionGANError
from caption_gan.metrics.fact_accuracy import fact_accuracy

CAPTIONS = ["a red dog", "a blue dog", "a red cat", "dog"]
FACTS = [{"red", "dog"}, {"red", "dog"}, {"red", "cat"}, set()]


def check_words(caption: str, facts: set[str]) -> bool:
    return set(caption.split()) - {"a"} <= facts


def test_fact_accuracy_is_the_share_of_correct_captions() -> None:
    assert fact_accuracy(CAPTIONS, FACTS, check_words).value == 0.5


@pytest.mark.parametrize("captions", [[], CAPTIONS[:2]])
def test_different_numbers_of_captions_and_facts_are_refused(captions: list[str]) -> None:
    with pytest.raises(CaptionGANError, match="captions and facts"):
        fact_accuracy(captions, FACTS, check_words)
