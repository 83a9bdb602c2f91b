"""Fact accuracy that a captioner reaches without seeing, or without understanding, the image."""

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
    fact_checker: FactChecker,
    constants: int = 500,
    side: int = 32,
) -> dict[str, Metric]:
    """Fact accuracy of the best constant caption and of nearest-neighbour captions.

    Args:
        examples: Examples of the split.
        training: Examples of the training split.
        fact_checker: Returns whether a caption is correct, given the facts of its image.
        constants: Number of training captions to try as the same caption for all images.
        side: Side in pixels of the thumbnails on which images are compared.

    Returns:
        `blind/fact_accuracy`: of the best constant caption, chosen on this split.
        `nearest/fact_accuracy`: of the captions of the training images with the smallest Euclidean
        distance in pixels.
    """
    facts = [json.loads(example.facts) for example in examples]
    blind = max(
        (
            fact_accuracy([example.captions[0]] * len(facts), facts, fact_checker)
            for example in training[:constants]
        ),
        key=lambda metric: metric.value,
    )
    queries, candidates = (
        thumbnails([example.image for example in of_split], side)
        for of_split in (examples, training)
    )
    # In |a - b|^2 = |a|^2 - 2 a.b + |b|^2, |a|^2 does not change which neighbour is nearest.
    nearest = np.argmin((candidates**2).sum(axis=1) - 2 * queries @ candidates.T, axis=1)
    captions = [training[index].captions[0] for index in nearest]
    return {
        "blind/fact_accuracy": blind,
        "nearest/fact_accuracy": fact_accuracy(captions, facts, fact_checker),
    }
