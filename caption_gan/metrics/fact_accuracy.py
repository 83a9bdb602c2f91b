"""Fact accuracy: whether captions are correct, for data sets that know the facts."""

from collections.abc import Callable, Sequence
from typing import Any

from caption_gan.errors import CaptionGANError
from caption_gan.metrics.metric import Metric, mean_of

# Returns whether all statements of a caption are correct, given the facts of its image.
FactChecker = Callable[[str, Any], bool]


def fact_accuracy(
    captions: Sequence[str], facts: Sequence[Any], fact_checker: FactChecker
) -> Metric:
    """The share of captions that are entirely correct, in [0, 1].

    One wrong word makes a caption wrong. To the fact checkers of the built-in data sets, a caption
    that they cannot parse is wrong too. This metric is the project's own.

    Args:
        captions: Raw text, one caption per image.
        facts: The facts of each image, in the same order.
        fact_checker: Returns whether a caption is correct, given the facts of its image.

    Raises:
        CaptionGANError: If there is no caption, or the number of facts differs.
    """
    if not captions or len(captions) != len(facts):
        raise CaptionGANError(
            "captions and facts: expected the same number of both, at least one; "
            f"received {len(captions)} captions and {len(facts)} facts"
        )
    return mean_of(list(map(fact_checker, captions, facts)))
