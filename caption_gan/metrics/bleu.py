"""BLEU from per-image counts, so that any resample of the images can be scored again.

N images, 10 counts per image: for n from 1 to 4 the matching n-grams and the n-grams of the
caption, then the length of the caption and of the closest reference.
"""

from collections.abc import Sequence

import numpy as np
from pycocoevalcap.bleu.bleu_scorer import BleuScorer

COUNTS = 10


def count_matches(captions: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
    """Counts [N, 10] of tokenized captions against their tokenized references."""
    scorer = BleuScorer(n=4)
    for caption, texts in zip(captions, references, strict=True):
        scorer += (caption, texts)
    counts = np.zeros([len(captions), COUNTS])
    for row, found in zip(counts, scorer.ctest, strict=True):
        length = found["testlen"]
        closest = min(found["reflen"], key=lambda other: (abs(other - length), other))
        row[:] = [*found["correct"], *found["guess"], length, closest]
    return counts


def bleu(counts: np.ndarray) -> np.ndarray:
    """BLEU-1 to BLEU-4 [..., 4] of summed counts [..., 10], as pycocoevalcap computes them."""
    matches, ngrams = counts[..., :4], counts[..., 4:8]
    length, closest = counts[..., 8:9], counts[..., 9:]
    # pycocoevalcap's epsilons: no match gives about 0, and an empty caption does not divide by 0.
    precisions = (matches + 1e-15) / (ngrams + 1e-9)
    means = np.cumprod(precisions, axis=-1) ** (1 / np.arange(1, 5))
    ratio = (length + 1e-15) / (closest + 1e-9)
    return means * np.exp(np.minimum(0.0, 1 - 1 / ratio))
