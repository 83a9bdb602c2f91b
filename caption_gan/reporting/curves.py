"""Charts as SVG elements for HTML pages: training curves, frontiers, caption lengths.

The style sheet of the page sets the colours, so that charts follow its light or dark theme.
"""

import dataclasses
import io
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

# Placeholder colours, and the CSS colours of the page that replace them.
INK, _LINE, TRAINING, VALIDATION = "#010203", "#010204", "#010205", "#010206"
_PAGE_COLOURS = {
    INK: "currentColor",
    _LINE: "var(--line)",
    TRAINING: "var(--series-1)",
    VALIDATION: "var(--series-2)",
}
STYLE: dict[Any, Any] = {
    # Keeps text as text: it uses the font of the page and can be searched.
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
# Values in the history that are not metrics.
_NOT_DRAWN = frozenset(["epoch", "seconds"])
# Charts that come before all others.
_FIRST = ("loss", "margin", "mismatched_margin", "penalty")
_LONGEST = 40


@dataclasses.dataclass(frozen=True)
class Curve:
    """The chart of one metric over the epochs of all stages.

    Attributes:
        name: Name of the metric, without the prefix `val_`.
        training: Last value on the training split; None if there is none.
        validation: Last value on the validation split; None if there is none.
        svg: The chart, an `<svg>` element.
    """

    name: str
    training: float | None
    validation: float | None
    svg: str


def training_curves(
    history: Mapping[str, Sequence[Mapping[str, float]]],
    step_curves: Mapping[str, Sequence[Mapping[str, float]]],
) -> list[Curve]:
    """Draws all metrics of the training history: the loss, the critic's margins, then others.

    Args:
        history: Metrics of each epoch by stage. A pair such as `loss` and `val_loss` goes into one
            chart.
        step_curves: Training metrics within epochs by stage, which replace those of whole epochs.

    Returns:
        One chart per metric that has a finite value.
    """
    epochs = [epoch for stage in history.values() for epoch in stage]
    names = dict.fromkeys(name for epoch in epochs for name in epoch)
    # Validation metrics come first: stages are compared by them.
    order = sorted(names, key=lambda name: not name.startswith("val_"))
    unprefixed = dict.fromkeys(name.removeprefix("val_") for name in order)
    metrics = [name for name in unprefixed if name not in _NOT_DRAWN]
    metrics.sort(key=lambda name: _FIRST.index(name) if name in _FIRST else len(_FIRST))
    metrics.sort(key=lambda name: name == "learning_rate")
    drawn = (_curve(name, history, step_curves) for name in metrics)
    return [curve for curve in drawn if curve is not None]


def stage_spans(history: Mapping[str, Sequence[object]]) -> list[tuple[str, int, int]]:
    """Name, first and last epoch of each stage on the axis of `training_curves`."""
    spans, end = [], 0
    for name, epochs in history.items():
        if epochs:
            spans.append((name, end + 1, end + len(epochs)))
            end += len(epochs)
    return spans


def length_histogram(generated: Sequence[int], references: Sequence[int]) -> str:
    """Draws a histogram of caption lengths, generated captions next to references.

    Args:
        generated: Number of words of each generated caption.
        references: Number of words of each reference.

    Returns:
        The chart, an `<svg>` element; lengths above 40 count as 40.
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


def _series(
    name: str,
    history: Mapping[str, Sequence[Mapping[str, float]]],
    step_curves: Mapping[str, Sequence[Mapping[str, float]]],
) -> tuple[list[float], list[float]]:
    """Epochs since the start of the run, and the metric then; NaN, a gap, where there is none."""
    x: list[float] = []
    y: list[float] = []
    for stage, first, last in stage_spans(history):
        points = [
            (first - 1 + point["epoch"], point[name])
            for point in step_curves.get(stage, [])
            if name in point
        ] or [
            (number, epoch.get(name, math.nan))
            for number, epoch in zip(range(first, last + 1), history[stage], strict=True)
        ]
        for at, value in points:
            x.append(at)
            y.append(float(value) if math.isfinite(value) else math.nan)
    return x, y


def _curve(
    name: str,
    history: Mapping[str, Sequence[Mapping[str, float]]],
    step_curves: Mapping[str, Sequence[Mapping[str, float]]],
) -> Curve | None:
    training, validation = (
        _series(name, history, step_curves),
        _series(f"val_{name}", history, {}),
    )
    finite = [
        [value for value in values if not math.isnan(value)] for _, values in (training, validation)
    ]
    if not any(finite):
        return None
    spans = stage_spans(history)
    # The stages that have the metric: a critic's would fill a corner of the whole run's chart.
    shown = [
        (first, last)
        for stage, first, last in spans
        if any({name, f"val_{name}"} & set(epoch) for epoch in history[stage])
    ]
    start, end = shown[0][0] - 1, shown[-1][1]
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
        figure, axes = new_axes(4.0, 2.3)
        for (x, y), colour, line in (
            (training, TRAINING, "--"),
            (validation, VALIDATION, "-"),
        ):
            # Markers show single epochs; with many epochs they would hide the line.
            marker = "o" if len(y) <= 30 else ""
            axes.plot(x, y, line, color=colour, marker=marker, markersize=3.5)
        for _, first, _ in spans:
            if start < first - 1 < end:
                axes.axvline(first - 1, color=INK, linewidth=0.8, linestyle=":")
        axes.set_xlabel("epoch")
        axes.set_xlim(start, end + 0.03 * (end - start))  # The last marker is whole.
        _limit(axes, [value for values in finite for value in values], name)
        last_training, last_validation = (values[-1] if values else None for values in finite)
        return Curve(name, last_training, last_validation, to_svg(figure))


def _limit(axes: Axes, values: Sequence[float], name: str) -> None:
    """Starts the axis of rates and scores at zero; a loss would become a flat line."""
    if min(values) >= 0 and "loss" not in name:
        axes.set_ylim(0, 1.08 * max(values) or 1)


def new_axes(width: float, height: float) -> tuple[Figure, Axes]:
    """Returns an empty chart of a size in inches; call it within `rc_context(STYLE)`."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="none")
    axes = figure.add_subplot()
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return figure, axes


def to_svg(figure: Figure) -> str:
    """The figure as an `<svg>` element, without the parts that only a separate file needs."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text, flags=re.S)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text)
    # The page sets the size. All charts number their groups alike, but ids must be unique within
    # a page.
    head, rest = text.split(">", 1)
    head = re.sub(r' (width|height|version)="[^"]*"', "", head)
    rest = re.sub(r'<g id="[^"]*"', "<g", rest)
    text = f'{head} aria-hidden="true">{rest}'
    for placeholder, colour in _PAGE_COLOURS.items():
        text = text.replace(placeholder, colour)
    return re.sub(r"\s*\n\s*", " ", text).strip()
