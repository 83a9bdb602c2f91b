"""How well scores rank right captions above wrong ones of the same image."""

from collections.abc import Sequence

import numpy as np

from caption_gan.metrics.metric import Metric, ratio_of


def pairwise_auc(scores: Sequence[np.ndarray], is_right: Sequence[np.ndarray]) -> Metric:
    """The share of pairs of a right and a wrong caption in which the right one scores higher.

    Pairs are formed within an image and pooled over images; equal scores count as half. It is the
    area under the ROC curve of a single image, and does not reward scores that merely tell easy
    images from hard ones. 0.5 is chance; 0 if there is no pair.

    Args:
        scores: Scores of the captions of each image.
        is_right: Whether each of these captions is right.
    """
    wins, pairs = [], []
    for of_image, right in zip(scores, is_right, strict=True):
        difference = of_image[right][:, np.newaxis] - of_image[~right]  # [right, wrong]
        wins.append(np.sum(difference > 0) + 0.5 * np.sum(difference == 0))
        pairs.append(difference.size)
    return ratio_of(wins, pairs)
