"""How well automatic scores of captions agree with what people think of them.

All is over pairs of an image and a caption; an image may be in several.
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
    """Scores each caption by itself, as far as the score is defined for a single caption.

    The scores are those of `caption_gan.metrics.quality`, with the toolkit's BLEU of a sentence: an
    order without a match counts as 1e-15 matches rather than none, so that BLEU-4 still ranks
    captions without a common 4-gram. CIDEr's document frequencies are of all pairs together.

    Args:
        captions: Raw text of each pair's caption.
        references: Raw text of its image's references, in the same order.

    Returns:
        The scores of all pairs by name: `BLEU-1`, `BLEU-4`, `ROUGE-L`, `CIDEr`.

    Raises:
        CaptionGANError: If nothing is given, not as many of the one as of the other, or a pair has
            no reference with a word in it.
    """
    _expect_pairs("captions", captions, "lists of references", references)
    words = functools.cache(tokenize)  # An image's references come with each of its captions.
    candidates = {pair: [words(caption)] for pair, caption in enumerate(captions)}
    targets = {pair: [words(text) for text in texts] for pair, texts in enumerate(references)}
    for pair, texts in targets.items():
        if not any(texts):
            raise CaptionGANError(
                f"references of pair {pair}: expected at least one text with a word in it; "
                f"received {references[pair]!r}"
            )
    _, bleu = Bleu(4).compute_score(targets, candidates, verbose=0)
    _, rouge = Rouge().compute_score(targets, candidates)
    _, cider = Cider().compute_score(targets, candidates)
    scores = {"BLEU-1": bleu[0], "BLEU-4": bleu[3], "ROUGE-L": rouge, "CIDEr": cider}
    return {name: [float(score) for score in some] for name, some in scores.items()}


def correlation(
    scores: Sequence[float], ratings: Sequence[Sequence[float]], variant: Variant = "c"
) -> float | None:
    """Kendall's rank correlation of scores with ratings, in [-1, 1].

    Of two pairs, score and rating may agree which is better (concordant, C), disagree (discordant,
    D), or tie. Tau-c is 2 (C - D) m / (n^2 (m - 1)) for n observations and m distinct scores or
    ratings, whichever are fewer (Stuart, "The Estimation and Comparison of Strengths of
    Association in Contingency Tables", 1953); tau-b is (C - D) / sqrt((C + D + S) (C + D + R)),
    with the pairs S that tie in the score only and R in the rating only (Kendall, "The Treatment of
    Ties in Ranking Problems", 1945).

    Each rating is an observation of its own. Means of a pair's ratings would give higher metrics:
    52.9 instead of 44.9 for SPICE (Hessel et al., "CLIPScore: A Reference-free Evaluation Metric
    for Image Captioning", 2021, appendix A).

    Args:
        scores: One a pair.
        ratings: One or more a pair, in the same order.
        variant: `c` is what the literature reports for Flickr8k's experts, `b` for its crowd.

    Returns:
        The correlation, or None where there is none: all scores, or all ratings, are the same.

    Raises:
        CaptionGANError: If nothing is given, not as many of the one as of the other, or something
            is not a number.
    """
    _expect_pairs("scores", scores, "lists of ratings", ratings)
    repeated = np.repeat(np.asarray(scores, float), [len(some) for some in ratings])
    rated = np.concatenate([np.asarray(some, float) for some in ratings])
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
    """The `correlation` of each score, by name."""
    return {name: correlation(some, ratings, variant) for name, some in scores.items()}


def _expect_pairs(name: str, some: Sequence, other_name: str, others: Sequence) -> None:
    if not len(some) or len(some) != len(others):
        raise CaptionGANError(
            f"{name} and {other_name}: expected the same number of both, at least one; "
            f"received {len(some)} {name} and {len(others)} {other_name}"
        )
