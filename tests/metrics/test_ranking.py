"""Ranking of right above wrong captions, by hand."""

import numpy as np
import pytest

from caption_gan.metrics.ranking import pairwise_auc


def auc(*images: tuple[list[float], list[bool]]) -> float:
    return pairwise_auc(
        [np.array(scores) for scores, _ in images],
        [np.array(right, bool) for _, right in images],
    ).value


def test_pairs_are_formed_within_an_image_and_pooled():
    # 3 > 1 and 3 > 2 are won; 1 < 2 and 1 = 1 count 0 and a half.
    first = ([3.0, 1.0, 2.0, 1.0], [True, True, False, False])
    assert auc(first) == pytest.approx(2.5 / 4)
    # The scores of another image are far higher; only its own pair counts.
    assert auc(first, ([90.0, 80.0], [True, False])) == pytest.approx(3.5 / 5)
    # No pair: all captions are right, or there is none.
    alone = ([1.0, 2.0], [True, True])
    assert auc(first, alone, ([], [])) == pytest.approx(2.5 / 4)
    assert auc(alone) == 0
