"""Bounds beyond which a captioner counts as collapsed; used in training, evaluation and serving."""

from collections.abc import Mapping

from caption_gan.config.run import MonitorConfig
from caption_gan.metrics.table import METRICS

_BETTER = {metric.bound: metric.better for metric in METRICS if metric.bound}


def out_of_bounds(values: Mapping[str, float], bounds: MonitorConfig) -> list[str]:
    """Returns one line for each metric that is out of bounds, with its value and the bound.

    Args:
        values: Values by the names of the bounds; values without a bound are left out.
        bounds: Minima of metrics of which higher is better, and maxima of the others.
    """
    lines = []
    for name, value in values.items():
        if name not in _BETTER:
            continue
        bound = getattr(bounds, name)
        if _BETTER[name] == "higher" and value < bound:
            lines.append(f"{name} is {value:.3f}, less than {bound}")
        elif _BETTER[name] == "lower" and value > bound:
            lines.append(f"{name} is {value:.3f}, more than {bound}")
    return lines


def image_dependence(cider: float, drop: float) -> float:
    """The share of CIDEr that is lost when captions are swapped between images; at least 0."""
    return max(drop / cider, 0.0) if cider > 0 else 0.0
