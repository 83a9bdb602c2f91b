"""Tells whether later stages were worth it: `python tools/compare_frontiers.py RUN... [--plot F]`.

RUN are folders of runs of several stages. For each one prints what its last stage reaches against
maximum likelihood in the same run, both on the same images:

- figures of greedy captions, and signs of collapse;
- where captions can be checked: the share of false ones among samples at temperature 1, and that
  of maximum likelihood at temperature 1 and at the one that gives the same mBLEU-4 (`nan`: none
  does);
- else CIDEr of single samples at several mBLEU-4, and that of maximum likelihood.

`--plot` draws all runs' curves over temperatures into an SVG file.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

SPLIT = "val"
# A stage's name in a run begins with its number.
CONTROL = "0-maximum_likelihood"
VARIETIES = (0.15, 0.2, 0.3, 0.4, 0.5)

Points = Sequence[Mapping[str, float]]


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line, prints a line a figure and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--plot", type=Path, help="SVG file to draw the curves into")
    parsed = parser.parse_args(arguments)
    runs = {path.name: read(path) for path in parsed.runs}
    for name, figures in runs.items():
        print(f"{name}:")
        for line in [*frontier_lines(figures), *greedy_lines(figures)]:
            print(f"  {line}")
    if parsed.plot:
        plot([curves(figures) for figures in runs.values()], parsed.plot)


def read(run: Path) -> dict[str, Any]:
    """The figures of a run that can be compared; ends the program for others."""
    path = run / "metrics.json"
    if not path.is_file():
        raise SystemExit(f"{run} has no {path.name}; give the folder of a run that has ended")
    figures = json.loads(path.read_text())
    if CONTROL not in figures.get("frontier", {}).get(SPLIT, {}):
        raise SystemExit(
            f"{run} has nothing to compare with; give a run of several stages whose first one is "
            "maximum_likelihood"
        )
    return figures


def curves(figures: Mapping[str, Any]) -> dict[str, Points]:
    """The curves of a run over temperatures; the last stage's is the first."""
    every = figures["frontier"][SPLIT]
    return {name: points for name, points in every.items() if "temperature" in points[0]}


def at_variety(points: Points, figure: str, variety: float) -> float:
    """The figure where a curve has that mBLEU-4, between its points; NaN beyond its ends.

    Temperatures above 1 do not count where a cooler one is as varied: they only add errors.
    """
    ordered = sorted(points, key=lambda point: point["mBLEU-4"])
    least = min(point["mBLEU-4"] for point in points if point["temperature"] <= 1)
    ordered = [point for point in ordered if point["temperature"] <= 1 or point["mBLEU-4"] < least]
    across, up = ([point[name] for point in ordered] for name in ("mBLEU-4", figure))
    return float(np.interp(variety, across, up, left=np.nan, right=np.nan))


def greedy_lines(figures: Mapping[str, Any]) -> list[str]:
    """Greedy captions of the last stage and of maximum likelihood; signs of collapse."""
    lines = []
    for metric in ("fact_accuracy", "CIDEr", "BLEU-4"):
        ours, theirs = (figures.get(f"{SPLIT}/{name}/{metric}") for name in ("greedy", CONTROL))
        if ours is not None and theirs is not None:
            lines.append(f"greedy {metric} {ours:.4f}, before {theirs:.4f}: {ours / theirs:.3f}")
    repeated, distinct, references = (
        figures[f"{SPLIT}/{name}"]
        for name in (
            "greedy/repeated_token_rate",
            "sample/distinct_captions",
            "reference/distinct_captions",
        )
    )
    lines.append(f"repeated-token rate {repeated:.4f}")
    lines.append(f"distinct captions of samples {distinct:.3f}, of references {references:.3f}")
    return lines


def frontier_lines(figures: Mapping[str, Any]) -> list[str]:
    """The last stage's curve against maximum likelihood's at the same variety."""
    every = curves(figures)
    ours, theirs = next(iter(every.values())), every[CONTROL]
    if "fact_accuracy" in ours[0]:
        point, before = (
            next(point for point in points if point["temperature"] == 1.0)
            for points in (ours, theirs)
        )
        variety, false = point["mBLEU-4"], 1 - point["fact_accuracy"]
        as_warm = 1 - before["fact_accuracy"]
        as_varied = 1 - at_variety(theirs, "fact_accuracy", variety)
        return [
            f"false samples {false:.4f} at temperature 1, mBLEU-4 {variety:.4f}",
            f"maximum likelihood at temperature 1 {as_warm:.4f}, mBLEU-4 "
            f"{before['mBLEU-4']:.4f}: {false / as_warm:.2f}",
            f"maximum likelihood at the same mBLEU-4 {as_varied:.4f}: {false / as_varied:.2f}",
        ]
    lines = []
    for variety in VARIETIES:
        reached, control = (at_variety(points, "CIDEr", variety) for points in (ours, theirs))
        lines.append(
            f"CIDEr {reached:.4f} at mBLEU-4 {variety}, maximum likelihood {control:.4f}: "
            f"{reached - control:+.4f}"
        )
    return lines


def plot(runs: Sequence[Mapping[str, Points]], path: Path) -> None:
    """Draws the curves of all runs, one colour a stage, into an SVG file."""
    every = [points for some in runs for points in some.values()]
    figure_name = "fact_accuracy" if all("fact_accuracy" in p[0] for p in every) else "CIDEr"
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.add_subplot()
    colours: dict[str, str] = {}
    for some in runs:
        for stage, points in some.items():
            label = None if stage in colours else stage
            colour = colours.setdefault(stage, f"C{len(colours)}")
            across, up = ([point[name] for point in points] for name in ("mBLEU-4", figure_name))
            axes.plot(across, up, "o-", color=colour, label=label, markersize=3.5, linewidth=1.2)
    axes.set_xlabel("mBLEU-4 among an image's samples (less is more varied)")
    axes.set_ylabel(f"{figure_name} of single samples")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    # Text stays text, and the same figures give the same file.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": path.name}):
        figure.savefig(path, format="svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
