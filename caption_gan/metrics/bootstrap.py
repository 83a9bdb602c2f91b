"""Confidence intervals of metrics, and significance of the difference between two captioners.

The bootstrap treats the images of a split as a sample of all images that might be captioned, and
draws from them with replacement (Efron, 1979; for pairs of systems Koehn, "Statistical Significance
Tests for Machine Translation Evaluation", 2004).

N images, W resamples of them.
"""

import dataclasses
import math

import numpy as np

from caption_gan.errors import CaptionGANError
from caption_gan.metrics.metric import AnyMetric, DistinctCount, Metric

LEVEL = 0.95
_DEVIATIONS = 1.959964  # 2.5% of a normal distribution lie beyond this on either side.
_BLOCK = 100  # Resamples whose counts are converted to floats at a time.


@dataclasses.dataclass(frozen=True)
class Difference:
    """How much higher one captioner scores than another on the same images.

    Attributes:
        value: The difference.
        low: Lower end of its 95% interval.
        high: Upper end of its 95% interval.
        p: Two-sided p-value: the probability of a difference at least as large if there is none.
    """

    value: float
    low: float
    high: float
    p: float


class Bootstrap:
    """Resamples of images, shared by all metrics so that captioners can be compared in pairs.

    Counts of distinct items are the exception. A resample holds less than two thirds of the images,
    some of them twice, and so has too few distinct items. Their intervals use the jackknife's
    standard error (Quenouille, 1956), from leaving out one image at a time.

    Args:
        images: N.
        samples: W; from 1,000 on, the ends of the intervals hardly change.
        seed: Seed of the resamples.
    """

    def __init__(self, images: int, samples: int = 1000, seed: int = 0):
        generator = np.random.default_rng(seed)
        self.counts = np.zeros([samples, images], np.uint8)  # No image is drawn 256 times.
        for counts in self.counts:
            drawn = generator.integers(0, images, images)
            counts[:] = np.bincount(drawn, minlength=images)

    def interval(self, metric: AnyMetric) -> tuple[float, float]:
        """Lower and upper end of the metric's 95% interval."""
        if isinstance(metric, DistinctCount):
            half = _DEVIATIONS * _standard_error(metric.leave_one_out())
            upper_bound = 1.0 if metric.is_share else math.inf
            return max(metric.value - half, 0.0), min(metric.value + half, upper_bound)
        return _percentiles(self._resampled(metric))

    def difference(self, ours: AnyMetric, theirs: AnyMetric) -> Difference:
        """How much higher ours is than theirs, both over the same images in the same order.

        Raises:
            CaptionGANError: If the numbers of images differ.
        """
        value = ours.value - theirs.value
        if isinstance(ours, DistinctCount) and isinstance(theirs, DistinctCount):
            self._expect_images(len(ours.items), len(theirs.items))
            error = _standard_error(ours.leave_one_out() - theirs.leave_one_out())
            half = _DEVIATIONS * error
            p = math.erfc(abs(value) / error / math.sqrt(2)) if error else float(value == 0)
            return Difference(value, value - half, value + half, p)
        if isinstance(ours, DistinctCount) or isinstance(theirs, DistinctCount):
            raise TypeError("a DistinctCount can only be compared with another DistinctCount")
        self._expect_images(len(ours.per_image), len(theirs.per_image))
        differences = self._resampled(ours) - self._resampled(theirs)
        # Share of the smaller tail; at least one resample, as W resamples cannot show p = 0.
        tail = min(np.mean(differences <= 0), np.mean(differences >= 0))
        p = float(min(1.0, 2 * max(tail, 1 / len(differences))))
        return Difference(value, *_percentiles(differences), p)

    def _expect_images(self, *sizes: int) -> None:
        images = self.counts.shape[1]
        if set(sizes) != {images}:
            raise CaptionGANError(
                f"metrics to compare: expected both over the same {images} images; received "
                f"metrics over {' and '.join(map(str, sizes))} images"
            )

    def _resampled(self, metric: Metric) -> np.ndarray:
        """The values [W] of all resamples."""
        blocks = np.array_split(self.counts, math.ceil(len(self.counts) / _BLOCK))
        return np.concatenate([metric.resampled(block.astype(float)) for block in blocks])


def _percentiles(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _standard_error(leave_one_out: np.ndarray) -> float:
    images = len(leave_one_out)
    spread = np.square(leave_one_out - leave_one_out.mean()).sum()
    return math.sqrt((images - 1) / images * spread)
