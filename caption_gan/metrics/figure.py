"""Figures of a corpus of captions, kept so that they can be had again of other samples of images.

N images, S sums, W samples of images.
"""

import dataclasses
from collections.abc import Callable, Collection, Hashable, Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Figure:
    """A figure that depends on the images through sums over them, as means, ratios and BLEU do.

    Attributes:
        per_image: What each image adds, [N, S].
        of_sums: Maps sums [..., S] to the figure [...].
    """

    per_image: np.ndarray
    of_sums: Callable[[np.ndarray], np.ndarray]

    @property
    def value(self) -> float:
        """The figure of all images."""
        return float(self.of_sums(self.per_image.sum(axis=0)))

    def of_samples(self, counts: np.ndarray) -> np.ndarray:
        """The figure [W] of samples that hold each image so many times, [W, N]."""
        return self.of_sums(counts @ self.per_image)


@dataclasses.dataclass(frozen=True)
class DistinctFigure:
    """A number of distinct things in all images together, alone or as a share.

    Attributes:
        things: Those of each image.
        is_share: Whether the number is divided by that of all things.
    """

    things: Sequence[Collection[Hashable]]
    is_share: bool

    @property
    def value(self) -> float:
        """The figure of all images."""
        kinds = {thing for some in self.things for thing in some}
        return self._of(len(kinds), sum(map(len, self.things)))

    def without_each(self) -> np.ndarray:
        """The figure [N] of all images but one."""
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


def mean_of(values: Sequence[float] | np.ndarray) -> Figure:
    """The mean over images of a number of each, [N]."""
    return share_of(values, np.ones(len(values)))


def share_of(parts: Sequence[float] | np.ndarray, wholes: Sequence[float] | np.ndarray) -> Figure:
    """The sum of the images' parts [N] divided by that of their wholes [N]; 0 for no whole."""
    return Figure(np.stack([parts, wholes], axis=-1).astype(float), _ratio)


def _ratio(sums: np.ndarray) -> np.ndarray:
    parts, wholes = sums[..., 0], sums[..., 1]
    return np.divide(parts, wholes, out=np.zeros_like(parts), where=wholes != 0)
