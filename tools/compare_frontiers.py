"""Compares stages with maximum likelihood: `python tools/compare_frontiers.py RUN... [--plot F]`.

RUN are directories of runs with several stages. For each run, prints how its last stage compares
with maximum likelihood in the same run, on the same images:

- metrics of greedy captions, and signs of collapse;
- if captions can be checked: the share of false samples at temperature 1, and that of maximum
  likelihood at temperature 1 and at the temperature with the same mBLEU-4 (`nan`: there is none);
- otherwise: CIDEr of single samples at several mBLEU-4, and that of maximum likelihood.

`--plot` draws the curves of all runs into an SVG file.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from caption_gan.storage.paths import local_path

SPLIT = "val"
# Stage names in a run begin with their number.
CONTROL = "0-maximum_likelihood"
VARIETIES = (0.15, 0.2, 0.3, 0.4, 0.5)

Points = Sequence[Mapping[str, float]]


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line, prints the comparisons."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=local_path)
    parser.add_argument("--plot", type=local_path, help="SVG file to draw the curves into")
    parsed = parser.parse_args(arguments)
    runs = {path.name: read(path) for path in parsed.runs}
    for name, metrics in runs.items():
        print(f"{name}:")
        for line in [*frontier_lines(metrics), *greedy_lines(metrics)]:
            print(f"  {line}")
    if parsed.plot:
        plot([curves(metrics) for metrics in runs.values()], parsed.plot)


def read(run: Path) -> dict[str, Any]:
    """Metrics of a run; ends the program if the run cannot be compared."""
    path = run / "metrics.json"
    if not path.is_file():
        raise SystemExit(f"{run} has no {path.name}; give the directory of a finished run")
    metrics = json.loads(path.read_text())
    if CONTROL not in metrics.get("frontier", {}).get(SPLIT, {}):
        raise SystemExit(
            f"{run} has no frontier of maximum likelihood; give a run with several stages, "
            "the first of them maximum_likelihood"
        )
    return metrics


def curves(metrics: Mapping[str, Any]) -> dict[str, Points]:
    """The curves of a run over temperatures; that of the last stage comes first."""
    all_curves = metrics["frontier"][SPLIT]
    return {name: points for name, points in all_curves.items() if "temperature" in points[0]}


def at_variety(points: Points, metric: str, variety: float) -> float:
    """The metric at which a curve has that mBLEU-4, interpolated linearly; NaN beyond its ends.

    A temperature above 1 is ignored if a lower one is as varied: it only adds errors.
    """
    ordered = sorted(points, key=lambda point: point["mBLEU-4"])
    least = min(point["mBLEU-4"] for point in points if point["temperature"] <= 1)
    ordered = [point for point in ordered if point["temperature"] <= 1 or point["mBLEU-4"] < least]
    across, up = ([point[name] for point in ordered] for name in ("mBLEU-4", metric))
    return float(np.interp(variety, across, up, left=np.nan, right=np.nan))


def greedy_lines(metrics: Mapping[str, Any]) -> list[str]:
    """Metrics of greedy captions of the last stage and of maximum likelihood; signs of collapse."""
    lines = []
    for metric in ("fact_accuracy", "CIDEr", "BLEU-4"):
        ours, theirs = (metrics.get(f"{SPLIT}/{name}/{metric}") for name in ("greedy", CONTROL))
        if ours is not None and theirs is not None:
            lines.append(f"greedy {metric} {ours:.4f}, before {theirs:.4f}: {ours / theirs:.3f}")
    repeated, distinct, references = (
        metrics[f"{SPLIT}/{name}"]
        for name in (
            "greedy/repeated_token_rate",
            "sample/distinct_captions",
            "reference/distinct_captions",
        )
    )
    lines.append(f"repeated-token rate {repeated:.4f}")
    lines.append(f"distinct captions of samples {distinct:.3f}, of references {references:.3f}")
    return lines


def frontier_lines(metrics: Mapping[str, Any]) -> list[str]:
    """The curve of the last stage against that of maximum likelihood at the same variety."""
    by_stage = curves(metrics)
    ours, theirs = next(iter(by_stage.values())), by_stage[CONTROL]
    if "fact_accuracy" in ours[0]:
        point, before = (
            next(point for point in points if point["temperature"] == 1.0)
            for points in (ours, theirs)
        )
        variety, false = point["mBLEU-4"], 1 - point["fact_accuracy"]
        same_temperature = 1 - before["fact_accuracy"]
        same_variety = 1 - at_variety(theirs, "fact_accuracy", variety)
        return [
            f"false samples {false:.4f} at temperature 1, mBLEU-4 {variety:.4f}",
            f"maximum likelihood at temperature 1 {same_temperature:.4f}, mBLEU-4 "
            f"{before['mBLEU-4']:.4f}: {false / same_temperature:.2f}",
            f"maximum likelihood at the same mBLEU-4 {same_variety:.4f}: "
            f"{false / same_variety:.2f}",
        ]
    lines = []
    for variety in VARIETIES:
        cider, control = (at_variety(points, "CIDEr", variety) for points in (ours, theirs))
        lines.append(
            f"CIDEr {cider:.4f} at mBLEU-4 {variety}, maximum likelihood {control:.4f}: "
            f"{cider - control:+.4f}"
        )
    return lines


def plot(runs: Sequence[Mapping[str, Points]], path: Path) -> None:
    """Draws the curves of all runs into an SVG file, one colour per stage."""
    all_points = [points for run in runs for points in run.values()]
    checked = all("fact_accuracy" in points[0] for points in all_points)
    metric = "fact_accuracy" if checked else "CIDEr"
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.add_subplot()
    colours: dict[str, str] = {}
    for run in runs:
        for stage, points in run.items():
            label = None if stage in colours else stage
            colour = colours.setdefault(stage, f"C{len(colours)}")
            across, up = ([point[name] for point in points] for name in ("mBLEU-4", metric))
            axes.plot(across, up, "o-", color=colour, label=label, markersize=3.5, linewidth=1.2)
    axes.set_xlabel("mBLEU-4 among the samples of an image (lower is more varied)")
    axes.set_ylabel(f"{metric} of single samples")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    # Text stays text, and the same metrics give the same file.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": path.name}):
        figure.savefig(path, format="svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
