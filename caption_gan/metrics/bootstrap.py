"""How sure a metric is: confidence intervals, and whether two captioners really differ.

The images of a split are a sample of all that might be captioned; so would be others drawn from
them with replacement (Efron, 1979; for pairs of systems Koehn, "Statistical Significance Tests for
Machine Translation Evaluation", 2004).

N images, W samples of them.
"""

import dataclasses
import math

import numpy as np

from caption_gan.errors import CaptionGANError
from caption_gan.metrics.metric import DistinctCount, Metric

LEVEL = 0.95
_DEVIATIONS = 1.959964  # Of a normal distribution, to either side of which 2.5% lie.
_TOGETHER = 100  # Samples whose counts are held as real numbers at once.


@dataclasses.dataclass(frozen=True)
class Difference:
    """What one captioner has more of a metric than another, on the same images.

    Attributes:
        value: The difference.
        low: Lower end of its 95% interval.
        high: Upper end.
        p: How likely a difference as large, either way, were if there was none.
    """

    value: float
    low: float
    high: float
    p: float


class Bootstrap:
    """Samples of images, the same for all metrics, so that metrics can be compared in pairs.

    Metrics of distinct things are the exception. A sample with replacement holds less than two
    thirds of the images, some twice, and so too few distinct things; theirs is the jackknife's
    standard error (Quenouille, 1956), from leaving out each image once.

    Args:
        images: N.
        samples: W; from 1,000 on, the ends of the intervals hardly move.
        seed: Of the samples.
    """

    def __init__(self, images: int, samples: int = 1000, seed: int = 0):
        generator = np.random.default_rng(seed)
        self.counts = np.zeros([samples, images], np.uint8)  # No image is drawn 256 times.
        for counts in self.counts:
            drawn = generator.integers(0, images, images)
            counts[:] = np.bincount(drawn, minlength=images)

    def interval(self, metric: Metric | DistinctCount) -> tuple[float, float]:
        """Lower and upper end of a metric's 95% interval."""
        if isinstance(metric, DistinctCount):
            half = _DEVIATIONS * _standard_error(metric.leave_one_out())
            most = 1.0 if metric.is_share else math.inf
            return max(metric.value - half, 0.0), min(metric.value + half, most)
        return _ends(self._of(metric))

    def difference(
        self, ours: Metric | DistinctCount, theirs: Metric | DistinctCount
    ) -> Difference:
        """How much more ours is than theirs, both of the same images in the same order.

        Raises:
            CaptionGANError: They are of different numbers of images.
        """
        value = ours.value - theirs.value
        if isinstance(ours, DistinctCount) and isinstance(theirs, DistinctCount):
            self._expect(len(ours.things), len(theirs.things))
            error = _standard_error(ours.leave_one_out() - theirs.leave_one_out())
            half = _DEVIATIONS * error
            p = math.erfc(abs(value) / error / math.sqrt(2)) if error else float(value == 0)
            return Difference(value, value - half, value + half, p)
        if isinstance(ours, DistinctCount) or isinstance(theirs, DistinctCount):
            raise TypeError("a number of distinct things can only be compared with its like")
        self._expect(len(ours.per_image), len(theirs.per_image))
        drawn = self._of(ours) - self._of(theirs)
        # Of the side that holds less; the samples themselves are never quite none.
        beyond = min(np.mean(drawn <= 0), np.mean(drawn >= 0))
        return Difference(value, *_ends(drawn), float(min(1.0, 2 * max(beyond, 1 / len(drawn)))))

    def _expect(self, *sizes: int) -> None:
        images = self.counts.shape[1]
        if set(sizes) != {images}:
            raise CaptionGANError(
                f"metrics must be of the same {images} images to be compared; they are of "
                f"{' and '.join(map(str, sizes))}"
            )

    def _of(self, metric: Metric) -> np.ndarray:
        """The metric [W] of each sample."""
        blocks = np.array_split(self.counts, math.ceil(len(self.counts) / _TOGETHER))
        return np.concatenate([metric.resampled(block.astype(float)) for block in blocks])


def _ends(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _standard_error(leave_one_out: np.ndarray) -> float:
    images = len(leave_one_out)
    spread = np.square(leave_one_out - leave_one_out.mean()).sum()
    return math.sqrt((images - 1) / images * spread)
