"""What a captioner reaches that does not see, or does not understand, the image."""

import json
from collections.abc import Sequence

import numpy as np

from caption_gan.data.example import Example
from caption_gan.data.images import thumbnails
from caption_gan.metrics.fact_accuracy import FactChecker, fact_accuracy
from caption_gan.metrics.metric import Metric


def baselines(
    examples: Sequence[Example],
    training: Sequence[Example],
    is_true: FactChecker,
    constants: int = 500,
    side: int = 32,
) -> dict[str, Metric]:
    """What a captioner reaches that does not see, or does not understand, the image.

    Args:
        examples: Of the split.
        training: Of the training split.
        is_true: Tells whether a caption is true of facts.
        constants: Number of training captions that are tried as the one caption for all images.
        side: Images are compared as thumbnails of so many pixels a side.

    Returns:
        `blind/fact_accuracy`: of the best constant caption;
        `nearest/fact_accuracy`: of the captions of the training image with the smallest
        Euclidean distance in pixels.
    """
    facts = [json.loads(example.facts) for example in examples]
    blind = max(
        (
            fact_accuracy([example.captions[0]] * len(facts), facts, is_true)
            for example in training[:constants]
        ),
        key=lambda metric: metric.value,
    )
    ours, theirs = (
        thumbnails([example.image for example in some], side) for some in (examples, training)
    )
    # Of |a - b|^2 = |a|^2 - 2 a.b + |b|^2 the first term is the same for every neighbour.
    nearest = np.argmin((theirs**2).sum(axis=1) - 2 * ours @ theirs.T, axis=1)
    captions = [training[index].captions[0] for index in nearest]
    return {
        "blind/fact_accuracy": blind,
        "nearest/fact_accuracy": fact_accuracy(captions, facts, is_true),
    }
