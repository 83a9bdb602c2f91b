"""Whether captions are true, for data sets that know what is true of an image."""

from collections.abc import Callable, Sequence
from typing import Any

from caption_gan.errors import CaptionGANError
from caption_gan.metrics.metric import Metric, mean_of

FactChecker = Callable[[str, Any], bool]


def fact_accuracy(captions: Sequence[str], facts: Sequence[Any], is_true: FactChecker) -> Metric:
    """The share of captions all of whose statements are true of their image, in [0, 1].

    A metric of this project's, for its generated data sets. One false word makes a caption false,
    and so does saying nothing that can be checked, as far as `is_true` holds to that.

    Args:
        captions: Raw text, one caption an image.
        facts: What is known of each image, in the same order.
        is_true: Tells whether every statement of a caption is true, given the image's facts.

    Raises:
        CaptionGANError: If there is no caption, or not as many facts as captions.
    """
    if not captions or len(captions) != len(facts):
        raise CaptionGANError(
            "captions and facts: expected the same number of both, at least one; "
            f"received {len(captions)} captions and {len(facts)} facts"
        )
    return mean_of(list(map(is_true, captions, facts)))
