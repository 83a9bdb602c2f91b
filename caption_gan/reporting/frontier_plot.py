"""Charts of quality against diversity, for the report and the comparison of runs."""

import itertools
from collections.abc import Mapping

import matplotlib
import numpy as np
from matplotlib.ticker import MaxNLocator

from caption_gan.metrics.envelope import Points, captioner_curves, envelope
from caption_gan.reporting.curves import (
    INK,
    STYLE,
    TRAINING,
    VALIDATION,
    Curve,
    new_axes,
    to_svg,
)


def frontier_plots(curves: Mapping[str, Points]) -> list[Curve]:
    """Draws CIDEr and, if available, fact accuracy against mBLEU-4; up and left is better.

    The curves of a captioner have one colour: solid over temperatures, dashed over nuclei, and a
    broad line for the better of both.

    Args:
        curves: Points by name of the curve; each point has values by name of the metric.

    Returns:
        One chart per metric.
    """
    points = [point for curve in curves.values() for point in curve]
    return [
        _plot(metric, curves)
        for metric in ("CIDEr", "fact_accuracy")
        if points and all(metric in point for point in points)
    ]


def _plot(metric: str, curves: Mapping[str, Points]) -> Curve:
    styles = itertools.cycle(zip((VALIDATION, TRAINING, INK) * 2, "osDvP^", strict=True))
    captioners = captioner_curves(curves)
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": f"frontier {metric}"}):
        figure, axes = new_axes(5.4, 3.6)
        axes.xaxis.set_major_locator(MaxNLocator())
        for (name, of_captioner), (colour, marker) in zip(captioners.items(), styles, strict=False):
            for points in of_captioner:
                is_nucleus = "top_p" in points[0]
                x, y = ([point[key] for point in points] for key in ("mBLEU-4", metric))
                axes.plot(
                    *(x, y, "--" if is_nucleus else "-"),
                    color=colour,
                    marker=marker,
                    markersize=3.5,
                    markerfacecolor="none" if is_nucleus else colour,
                    label=f"{name}, top-p" if is_nucleus else name,
                )
            measured = [point["mBLEU-4"] for points in of_captioner for point in points]
            across = np.linspace(min(measured), max(measured), 100)
            best = envelope(of_captioner, metric, across)
            axes.plot(across, best, color=colour, linewidth=7, alpha=0.2)
        for name, points in curves.items():
            if "drawn" in points[0]:
                x, y = ([point[key] for point in points] for key in ("mBLEU-4", metric))
                axes.plot(x, y, ":", color=INK, marker="*", markersize=7, label=name)
        axes.set_xlabel("mBLEU-4")
        axes.set_ylabel(metric)
        axes.legend(frameon=False)
        return Curve(metric, None, None, to_svg(figure))
