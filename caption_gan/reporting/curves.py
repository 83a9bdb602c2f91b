"""Curves of a training and lengths of captions, drawn as SVG that stands within an HTML page.

Colours are left to the page's style sheet, so that the drawings follow its light or dark theme.
"""

import dataclasses
import io
import itertools
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

# Colours that nothing else is drawn in, and what the page puts in their place.
INK, _LINE, TRAINING, VALIDATION = "#010203", "#010204", "#010205", "#010206"
_PAGE_COLOURS = {
    INK: "currentColor",
    _LINE: "var(--line)",
    TRAINING: "var(--series-1)",
    VALIDATION: "var(--series-2)",
}
STYLE: dict[Any, Any] = {
    # Text stays text: it takes the page's font and can be searched for.
    "svg.fonttype": "none",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": _LINE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": _LINE,
    "grid.linewidth": 0.6,
    "xtick.color": _LINE,
    "ytick.color": _LINE,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "font.size": 9,
}
# Not curves: they number and time the epochs.
_NOT_DRAWN = frozenset(["epoch", "seconds"])
_LONGEST = 40


@dataclasses.dataclass(frozen=True)
class Curve:
    """One figure over the epochs of all stages.

    Attributes:
        name: The figure's name, less the `val_` of its validation half.
        training: Its last value on the training split; None where it has none.
        validation: Its last value on the validation split; None where it has none.
        svg: The drawing, an `<svg>` element.
    """

    name: str
    training: float | None
    validation: float | None
    svg: str


def training_curves(history: Mapping[str, Sequence[Mapping[str, float]]]) -> list[Curve]:
    """Draws every figure of a training's history, the loss first and the learning rate last.

    Args:
        history: For each stage its epochs, each a figure by name; `loss` and `val_loss` go into
            one drawing, and so does any such pair.

    Returns:
        One drawing a figure; none where the history holds no number.
    """
    epochs = [epoch for stage in history.values() for epoch in stage]
    names = dict.fromkeys(name for epoch in epochs for name in epoch)
    # Figures of validation are what a stage is judged by, so they come before the rest.
    order = sorted(names, key=lambda name: not name.startswith("val_"))
    bare = dict.fromkeys(name.removeprefix("val_") for name in order)
    figures = [name for name in bare if name not in _NOT_DRAWN]
    figures.sort(key=lambda name: (name == "learning_rate") - (name == "loss"))

    ends, boundaries = 0, []
    for stage in history.values():
        if 0 < ends < len(epochs) and stage:
            boundaries.append(ends + 0.5)
        ends += len(stage)
    drawn = (
        _curve(name, _series(epochs, name), _series(epochs, f"val_{name}"), boundaries)
        for name in figures
    )
    return [curve for curve in drawn if curve is not None]


def stage_spans(history: Mapping[str, Sequence[object]]) -> list[tuple[str, int, int]]:
    """Name, first and last epoch of each stage on the common axis of `training_curves`."""
    spans, end = [], 0
    for name, epochs in history.items():
        if epochs:
            spans.append((name, end + 1, end + len(epochs)))
            end += len(epochs)
    return spans


def length_histogram(generated: Sequence[int], references: Sequence[int]) -> str:
    """Draws how long captions are, beside how long people's are.

    Args:
        generated: Words of each generated caption.
        references: Words of each reference.

    Returns:
        The drawing, an `<svg>` element; lengths above 40 count as 40.
    """
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": "length_histogram"}):
        figure, axes = new_axes(6.0, 2.6)
        for lengths, offset, colour in (
            (references, -0.21, TRAINING),
            (generated, 0.21, VALIDATION),
        ):
            counts = Counter(min(length, _LONGEST) for length in lengths)
            shares = [count / len(lengths) for count in counts.values()]
            axes.bar([length + offset for length in counts], shares, 0.42, color=colour)
        axes.set_xlabel("words")
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        return to_svg(figure)


def frontier_plots(curves: Mapping[str, Sequence[Mapping[str, float]]]) -> list[Curve]:
    """Draws quality, and truth where it is known, against mBLEU-4; up and to the left is better.

    Args:
        curves: Points by the curve's name, in order; each point has figures by name.

    Returns:
        One drawing a figure.
    """
    points = [point for curve in curves.values() for point in curve]
    return [
        _frontier_plot(figure, curves)
        for figure in ("CIDEr", "fact_accuracy")
        if points and all(figure in point for point in points)
    ]


def _frontier_plot(name: str, curves: Mapping[str, Sequence[Mapping[str, float]]]) -> Curve:
    looks = itertools.cycle(
        [(VALIDATION, "-", "o"), (TRAINING, "--", "s"), (INK, ":", "^"), (INK, "-.", "v")]
    )
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": f"frontier {name}"}):
        figure, axes = new_axes(5.4, 3.2)
        axes.xaxis.set_major_locator(MaxNLocator())
        for (label, points), (colour, line, marker) in zip(curves.items(), looks, strict=False):
            across, up = ([point[key] for point in points] for key in ("mBLEU-4", name))
            axes.plot(*(across, up, line), color=colour, marker=marker, markersize=3.5, label=label)
        axes.set_xlabel("mBLEU-4")
        axes.set_ylabel(name)
        axes.legend(frameon=False)
        return Curve(name, None, None, to_svg(figure))


def _series(epochs: Sequence[Mapping[str, float]], name: str) -> list[float]:
    """Values by epoch, NaN where there is none, which leaves a gap in the line."""
    values = [epoch.get(name) for epoch in epochs]
    return [
        float(value) if isinstance(value, (int, float)) and math.isfinite(value) else math.nan
        for value in values
    ]


def _curve(
    name: str, training: list[float], validation: list[float], boundaries: Sequence[float]
) -> Curve | None:
    last = [
        next((value for value in reversed(values) if not math.isnan(value)), None)
        for values in (training, validation)
    ]
    if last == [None, None]:
        return None
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
        figure, axes = new_axes(4.0, 2.3)
        for values, colour, line in (
            (training, TRAINING, "--"),
            (validation, VALIDATION, "-"),
        ):
            # Few epochs are told apart by their points; many would hide the line.
            marker = "o" if len(values) <= 30 else ""
            numbers = range(1, len(values) + 1)
            axes.plot(numbers, values, line, color=colour, marker=marker, markersize=3.5)
        for boundary in boundaries:
            axes.axvline(boundary, color=INK, linewidth=0.8, linestyle=":")
        axes.set_xlabel("epoch")
        axes.set_xlim(0.5, len(training) + 0.5)
        _limit(axes, [value for value in training + validation if not math.isnan(value)], name)
        return Curve(name, last[0], last[1], to_svg(figure))


def _limit(axes: Axes, values: Sequence[float], name: str) -> None:
    """Shows rates and scores from zero; a loss would become a flat line."""
    if min(values) >= 0 and "loss" not in name:
        axes.set_ylim(0, 1.08 * max(values) or 1)


def new_axes(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty drawing, in inches; to be made within `STYLE`."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="none")
    axes = figure.add_subplot()
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure, axes


def to_svg(figure: Figure) -> str:
    """The figure as an element: without what only a file of its own needs, such as addresses."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text, flags=re.S)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text)
    # The size is the page's affair. Groups are numbered alike in every drawing, and a page must
    # not hold one id twice.
    head, rest = text.split(">", 1)
    head = re.sub(r' (width|height|version)="[^"]*"', "", head)
    rest = re.sub(r'<g id="[^"]*"', "<g", rest)
    text = f'{head} aria-hidden="true">{rest}'
    for ours, theirs in _PAGE_COLOURS.items():
        text = text.replace(ours, theirs)
    return re.sub(r"\s*\n\s*", " ", text).strip()
