"""When captions count as collapsed: the bounds, for training, evaluation and whoever serves."""

from collections.abc import Mapping

from caption_gan.config.objectives import MonitorConfig

# What a metric may be, by name: `at least` or `at most` the bound of that name in the settings.
AT_LEAST = ("distinct_captions", "distinct_2", "vocabulary", "image_dependence")
AT_MOST = ("repeated_token_rate", "mbleu")


def out_of_bounds(metrics: Mapping[str, float], bounds: MonitorConfig) -> list[str]:
    """Says of each metric that is out of bounds what it is and what the bound is."""
    lines = []
    for name, value in metrics.items():
        if name in AT_LEAST and value < (bound := getattr(bounds, name)):
            lines.append(f"{name} is {value:.3f}, less than {bound}")
        elif name in AT_MOST and value > (bound := getattr(bounds, name)):
            lines.append(f"{name} is {value:.3f}, more than {bound}")
    return lines


def image_dependence(cider: float, drop: float) -> float:
    """The share of CIDEr that is lost when captions are given to other images, 0 at least."""
    return max(drop / cider, 0.0) if cider > 0 else 0.0
