"""Bounds beyond which a captioner counts as collapsed; used in training, evaluation and serving."""

from collections.abc import Mapping

from caption_gan.config.objectives import MonitorConfig

# Metrics with a lower and with an upper bound; `MonitorConfig` has the bounds by the same names.
AT_LEAST = ("distinct_captions", "distinct_2", "vocabulary", "image_dependence")
AT_MOST = ("repeated_token_rate", "mbleu")


def out_of_bounds(values: Mapping[str, float], bounds: MonitorConfig) -> list[str]:
    """Returns one line for each metric that is out of bounds, with its value and the bound."""
    lines = []
    for name, value in values.items():
        if name in AT_LEAST and value < (bound := getattr(bounds, name)):
            lines.append(f"{name} is {value:.3f}, less than {bound}")
        elif name in AT_MOST and value > (bound := getattr(bounds, name)):
            lines.append(f"{name} is {value:.3f}, more than {bound}")
    return lines


def image_dependence(cider: float, drop: float) -> float:
    """The share of CIDEr that is lost when captions are swapped between images; at least 0."""
    return max(drop / cider, 0.0) if cider > 0 else 0.0
