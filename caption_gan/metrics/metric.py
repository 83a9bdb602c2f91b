"""Corpus metrics that keep what each image contributes, so that resampled images can be scored.

N images, S sums, W resamples of the images.
"""

import dataclasses
from collections.abc import Callable, Collection, Hashable, Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Metric:
    """A metric that is a function of sums over images: means, ratios, BLEU.

    Attributes:
        per_image: What each image adds to the sums, [N, S].
        from_sums: Maps sums [..., S] to values [...].
    """

    per_image: np.ndarray
    from_sums: Callable[[np.ndarray], np.ndarray]

    @property
    def value(self) -> float:
        """The value over all images."""
        return float(self.from_sums(self.per_image.sum(axis=0)))

    def resampled(self, counts: np.ndarray) -> np.ndarray:
        """The values [W] of resamples; `counts` [W, N] says how often each image is drawn."""
        return self.from_sums(counts @ self.per_image)


@dataclasses.dataclass(frozen=True)
class DistinctCount:
    """The number of distinct items in all images together, or its share of all items.

    Attributes:
        items: The items of each image, such as its n-grams.
        is_share: Whether the count is divided by the number of all items.
    """

    items: Sequence[Collection[Hashable]]
    is_share: bool

    @property
    def value(self) -> float:
        """The value over all images."""
        distinct = {item for of_image in self.items for item in of_image}
        return self._value_of(len(distinct), sum(map(len, self.items)))

    def leave_one_out(self) -> np.ndarray:
        """The values [N] over all images but one."""
        images_with: dict[Hashable, set[int]] = {}
        for image, of_image in enumerate(self.items):
            for item in of_image:
                images_with.setdefault(item, set()).add(image)
        only_here = np.zeros(len(self.items), int)
        for images in images_with.values():
            if len(images) == 1:
                only_here[next(iter(images))] += 1
        total = sum(map(len, self.items))
        return np.array(
            [
                self._value_of(len(images_with) - lost, total - len(of_image))
                for lost, of_image in zip(only_here, self.items, strict=True)
            ]
        )

    def _value_of(self, distinct: int, total: int) -> float:
        if not self.is_share:
            return float(distinct)
        return distinct / total if total else 0.0


AnyMetric = Metric | DistinctCount


def mean_of(values: Sequence[float] | np.ndarray) -> Metric:
    """The mean over images of per-image values [N]."""
    return ratio_of(values, np.ones(len(values)))


def ratio_of(
    numerators: Sequence[float] | np.ndarray, denominators: Sequence[float] | np.ndarray
) -> Metric:
    """The sum of the numerators [N] divided by the sum of the denominators [N]; 0 for 0 / 0."""
    return Metric(np.stack([numerators, denominators], axis=-1).astype(float), _ratio)


def _ratio(sums: np.ndarray) -> np.ndarray:
    numerators, denominators = sums[..., 0], sums[..., 1]
    return np.divide(
        numerators, denominators, out=np.zeros_like(numerators), where=denominators != 0
    )
