"""Curves of quality against diversity: values between measured points, and the better of several.

A captioner has a curve over temperatures and one over nuclei. A user takes the better of both, and
so captioners are compared by it.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

Points = Sequence[Mapping[str, float]]  # The points of a curve: metrics by name.

# Ends the name of a captioner's curve over nuclei; the name alone is its curve over temperatures.
TOP_P = ", top-p"


def captioner_curves(curves: Mapping[str, Points]) -> dict[str, list[Points]]:
    """The curves over temperatures and nuclei by name of the captioner, in the given order.

    Other curves, such as that of the critic's choice, are left out.
    """
    by_captioner: dict[str, list[Points]] = {}
    for name, points in curves.items():
        if points and {"temperature", "top_p"} & set(points[0]):
            by_captioner.setdefault(name.removesuffix(TOP_P), []).append(points)
    return by_captioner


def interpolate(
    points: Points, metric: str, at: float | np.ndarray, along: str = "mBLEU-4"
) -> np.ndarray:
    """The metric where a curve has a value of another one, linearly between measured points.

    A temperature above 1 is ignored if a lower one is as varied: it only adds errors.

    Args:
        points: The curve.
        metric: The metric to interpolate.
        at: Values of the metric `along`, of any shape.
        along: The metric along which to interpolate.

    Returns:
        Values in the shape of `at`; NaN beyond the ends of the curve.
    """
    warm = [point for point in points if point.get("temperature", 1.0) <= 1]
    least = min(point[along] for point in warm)
    kept = warm + [point for point in points if point not in warm and point[along] < least]
    kept.sort(key=lambda point: point[along])
    across, up = ([point[name] for point in kept] for name in (along, metric))
    return np.asarray(np.interp(at, across, up, left=np.nan, right=np.nan))


def envelope(
    curves: Iterable[Points], metric: str, at: float | np.ndarray, along: str = "mBLEU-4"
) -> np.ndarray:
    """The largest value of several curves (see `interpolate`); NaN where none has one."""
    values = [interpolate(points, metric, at, along) for points in curves]
    return np.fmax.reduce(values)
