"""Metrics of a corpus of captions, kept so that they can be had again of other samples of images.

N images, S sums, W samples of images.
"""

import dataclasses
from collections.abc import Callable, Collection, Hashable, Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Metric:
    """A metric that depends on the images through sums over them, as means, ratios and BLEU do.

    Attributes:
        per_image: What each image adds, [N, S].
        from_sums: Maps sums [..., S] to the metric [...].
    """

    per_image: np.ndarray
    from_sums: Callable[[np.ndarray], np.ndarray]

    @property
    def value(self) -> float:
        """The metric of all images."""
        return float(self.from_sums(self.per_image.sum(axis=0)))

    def resampled(self, counts: np.ndarray) -> np.ndarray:
        """The metric [W] of samples that hold each image so many times, [W, N]."""
        return self.from_sums(counts @ self.per_image)


@dataclasses.dataclass(frozen=True)
class DistinctCount:
    """A number of distinct things in all images together, alone or as a share.

    Attributes:
        things: Those of each image.
        is_share: Whether the number is divided by that of all things.
    """

    things: Sequence[Collection[Hashable]]
    is_share: bool

    @property
    def value(self) -> float:
        """The metric of all images."""
        kinds = {thing for some in self.things for thing in some}
        return self._of(len(kinds), sum(map(len, self.things)))

    def leave_one_out(self) -> np.ndarray:
        """The metric [N] of all images but one."""
        images: dict[Hashable, set[int]] = {}
        for image, some in enumerate(self.things):
            for thing in some:
                images.setdefault(thing, set()).add(image)
        only_here = np.zeros(len(self.things), int)
        for found in images.values():
            if len(found) == 1:
                only_here[next(iter(found))] += 1
        total = sum(map(len, self.things))
        return np.array(
            [
                self._of(len(images) - lost, total - len(some))
                for lost, some in zip(only_here, self.things, strict=True)
            ]
        )

    def _of(self, kinds: int, total: int) -> float:
        if not self.is_share:
            return float(kinds)
        return kinds / total if total else 0.0


def mean_of(values: Sequence[float] | np.ndarray) -> Metric:
    """The mean over images of a number of each, [N]."""
    return ratio_of(values, np.ones(len(values)))


def ratio_of(parts: Sequence[float] | np.ndarray, wholes: Sequence[float] | np.ndarray) -> Metric:
    """The sum of the images' parts [N] divided by that of their wholes [N]; 0 for no whole."""
    return Metric(np.stack([parts, wholes], axis=-1).astype(float), _ratio)


def _ratio(sums: np.ndarray) -> np.ndarray:
    parts, wholes = sums[..., 0], sums[..., 1]
    return np.divide(parts, wholes, out=np.zeros_like(parts), where=wholes != 0)
