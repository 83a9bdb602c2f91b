"""Rank correlation of automatic metrics with human ratings of captions.

A pair is an image with one caption; an image may occur in several pairs.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge
from scipy import stats

from caption_gan.errors import CaptionGANError
from caption_gan.metrics.tokenization import tokenize

Variant = Literal["b", "c"]


def caption_scores(
    captions: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, list[float]]:
    """Scores each caption by itself with the metrics that are defined for a single caption.

    The metrics are those of `caption_gan.metrics.quality`, with pycocoevalcap's sentence BLEU: it
    counts an order without a match as 1e-15 matches instead of none, so that BLEU-4 still ranks
    captions that share no 4-gram with the references. CIDEr takes document frequencies over all
    pairs together.

    Args:
        captions: Raw text of the caption of each pair.
        references: Raw text of the references of each pair's image, in the same order.

    Returns:
        One score per pair by metric: `BLEU-1`, `BLEU-4`, `ROUGE-L`, `CIDEr`.

    Raises:
        CaptionGANError: If there is no pair, the numbers of captions and lists of references
            differ, or a pair has no reference that contains a word.
    """
    _expect_pairs("captions", captions, "lists of references", references)
    words = functools.cache(tokenize)  # The references of an image recur in all of its pairs.
    candidates = {pair: [words(caption)] for pair, caption in enumerate(captions)}
    targets = {pair: [words(text) for text in texts] for pair, texts in enumerate(references)}
    for pair, texts in targets.items():
        if not any(texts):
            raise CaptionGANError(
                f"references of pair {pair}: expected at least one text that contains a word; "
                f"received {references[pair]!r}"
            )
    _, bleu = Bleu(4).compute_score(targets, candidates, verbose=0)
    _, rouge = Rouge().compute_score(targets, candidates)
    _, cider = Cider().compute_score(targets, candidates)
    scores = {"BLEU-1": bleu[0], "BLEU-4": bleu[3], "ROUGE-L": rouge, "CIDEr": cider}
    return {name: [float(score) for score in values] for name, values in scores.items()}


def correlation(
    scores: Sequence[float], ratings: Sequence[Sequence[float]], variant: Variant = "c"
) -> float | None:
    """Kendall's rank correlation of scores with ratings, in [-1, 1].

    Two observations are concordant (C) if score and rating rank them alike, discordant (D) if they
    rank them in opposite order, and otherwise tied.

    * Tau-c is 2 (C - D) m / (n^2 (m - 1)) for n observations and m distinct scores or ratings,
      whichever are fewer (Stuart, "The Estimation and Comparison of Strengths of Association in
      Contingency Tables", 1953).
    * Tau-b is (C - D) / sqrt((C + D + S) (C + D + R)), where S are tied in the score only and R in
      the rating only (Kendall, "The Treatment of Ties in Ranking Problems", 1945).

    Each single rating is one observation. Averaging the ratings of a pair would give higher values:
    52.9 instead of 44.9 for SPICE (Hessel et al., "CLIPScore: A Reference-free Evaluation Metric
    for Image Captioning", 2021, appendix A).

    Args:
        scores: One per pair.
        ratings: One or more per pair, in the same order.
        variant: `c`, as the literature reports for Flickr8k's experts, or `b`, as for its crowd.

    Returns:
        The correlation; None if it is undefined because all scores or all ratings are equal.

    Raises:
        CaptionGANError: If there is no pair, the numbers of scores and lists of ratings differ, or
            a value is NaN.
    """
    _expect_pairs("scores", scores, "lists of ratings", ratings)
    repeated = np.repeat(np.asarray(scores, float), [len(of_pair) for of_pair in ratings])
    rated = np.concatenate([np.asarray(of_pair, float) for of_pair in ratings])
    if np.isnan(repeated).any() or np.isnan(rated).any():
        raise CaptionGANError(
            "scores and ratings: expected numbers; received NaN, which has no rank"
        )
    if min(len(np.unique(repeated)), len(np.unique(rated))) < 2:
        return None
    return float(stats.kendalltau(repeated, rated, variant=variant).statistic)


def correlations(
    scores: Mapping[str, Sequence[float]],
    ratings: Sequence[Sequence[float]],
    variant: Variant = "c",
) -> dict[str, float | None]:
    """The `correlation` of each metric with the ratings, by name."""
    return {name: correlation(values, ratings, variant) for name, values in scores.items()}


def _expect_pairs(name: str, values: Sequence, other_name: str, others: Sequence) -> None:
    if not len(values) or len(values) != len(others):
        raise CaptionGANError(
            f"{name} and {other_name}: expected the same number of both, at least one; "
            f"received {len(values)} {name} and {len(others)} {other_name}"
        )
