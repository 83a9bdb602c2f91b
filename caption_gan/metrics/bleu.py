"""BLEU from per-image counts, so that any resample of the images can be scored again.

N images, 10 counts per image: for n from 1 to 4 the matching n-grams and the n-grams of the
caption, then the length of the caption and of the closest reference.
"""

from collections import Counter
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


def count_matches_among(captions: Sequence[str]) -> np.ndarray:
    """Counts [10 K] of each of the K tokenized captions of an image against all others.

    The same as `count_matches`, which would count the n-grams of each caption K times.
    """
    words = [caption.split() for caption in captions]
    ngrams = [_ngrams(of_caption) for of_caption in words]
    # The largest and the second largest number of times that a caption has the n-gram.
    largest: dict[tuple[str, ...], tuple[int, int]] = {}
    for of_caption in ngrams:
        for ngram, count in of_caption.items():
            first, second = largest.get(ngram, (0, 0))
            largest[ngram] = (max(first, count), max(second, min(first, count)))
    counts = np.zeros([len(captions), COUNTS])
    for position, (row, of_caption) in enumerate(zip(counts, ngrams, strict=True)):
        for ngram, count in of_caption.items():
            first, second = largest[ngram]
            # Without this caption: if it has the largest number, the second largest remains.
            row[len(ngram) - 1] += min(count, second if count == first else first)
        length = len(words[position])
        row[4:8] = [max(length - n, 0) for n in range(4)]
        others = [len(other) for other in words[:position] + words[position + 1 :]]
        row[8:] = [length, min(others, key=lambda other: (abs(other - length), other))]
    return counts.reshape(-1)


def _ngrams(words: Sequence[str]) -> Counter[tuple[str, ...]]:
    return Counter(
        tuple(words[start : start + n]) for n in range(1, 5) for start in range(len(words) - n + 1)
    )


def bleu(counts: np.ndarray) -> np.ndarray:
    """BLEU-1 to BLEU-4 [..., 4] of summed counts [..., 10], as pycocoevalcap computes them."""
    matches, ngrams = counts[..., :4], counts[..., 4:8]
    length, closest = counts[..., 8:9], counts[..., 9:]
    # pycocoevalcap's epsilons: no match gives about 0, and an empty caption does not divide by 0.
    precisions = (matches + 1e-15) / (ngrams + 1e-9)
    means = np.cumprod(precisions, axis=-1) ** (1 / np.arange(1, 5))
    ratio = (length + 1e-15) / (closest + 1e-9)
    return means * np.exp(np.minimum(0.0, 1 - 1 / ratio))
