"""Compares stages with maximum likelihood: `python tools/compare_frontiers.py RUN... [--plot F]`.

RUN are directories of runs with several stages. For each run, prints how its last stage compares
with maximum likelihood in the same run, on the same images:

- seconds of training of each stage;
- quality at several mBLEU-4: CIDEr of single samples or, if captions can be checked, the share of
  false samples. Either captioner is sampled in the better of two ways, at a temperature or from a
  nucleus (top-p): the envelope of its measured points, interpolated linearly; `nan` beyond them;
- samples at temperature 1: their mBLEU-4, and the objects that they name;
- the critic's choice among samples, and how well the critic ranks captions (`critic_auc`);
- metrics of greedy captions, and signs of collapse.

`--control RUN` names a run of maximum likelihood alone that was trained for as many seconds as all
stages together, and evaluated with `--frontier`; give one, or one for each RUN. The stage is then
compared with it too.

`--plot` draws the curves of all runs and controls into an SVG file.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from caption_gan.metrics.envelope import Points, captioner_curves, envelope
from caption_gan.storage.paths import local_path

SPLIT = "val"
# Stage names in a run begin with their number.
CONTROL = "0-maximum_likelihood"
CHOICE = "critic's choice"
VARIETIES = (0.15, 0.2, 0.3, 0.4, 0.5)


class Captioner(NamedTuple):
    """What is compared.

    Attributes:
        label: How lines and the plot name it.
        curves: Its curves over temperatures and, if measured, nuclei.
        greedy: Metrics of its greedy captions.
    """

    label: str
    curves: list[Points]
    greedy: Mapping[str, float]

    def at(self, metric: str, at: float, along: str = "mBLEU-4") -> float:
        """A metric of the better curve where `along` has a value."""
        return float(envelope(self.curves, metric, at, along))

    @property
    def plain(self) -> Mapping[str, float]:
        """The point of temperature 1."""
        return next(
            point for points in self.curves for point in points if point.get("temperature") == 1.0
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line, prints the comparisons."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=local_path, metavar="RUN")
    parser.add_argument(
        "--control",
        nargs="+",
        type=local_path,
        default=[],
        metavar="RUN",
        help="run of maximum likelihood alone, of equal time; one, or one for each RUN",
    )
    parser.add_argument("--plot", type=local_path, help="SVG file to draw the curves into")
    parsed = parser.parse_args(arguments)
    if len(parsed.control) not in (0, 1, len(parsed.runs)):
        parser.error(f"--control: give one run or {len(parsed.runs)}, one for each RUN")
    controls = parsed.control * (len(parsed.runs) if len(parsed.control) == 1 else 1)
    drawn: list[list[Captioner]] = []
    for number, path in enumerate(parsed.runs):
        metrics = read(path)
        ours, *others = captioners(metrics)
        lines = [f"training: {seconds(metrics)}"]
        if controls:
            of_control = read(controls[number], is_control=True)
            (control,) = captioners(of_control)
            others.append(control._replace(label="control"))
            lines.append(f"control {controls[number].name}: {seconds(of_control)}")
        for other in others:
            lines += [*frontier_lines(ours, other), *greedy_lines(ours, other)]
        lines += [*choice_lines(metrics, others), *health_lines(metrics)]
        print(f"{path.name}:", *lines, sep="\n  ")
        drawn.append([ours, *others])
    if parsed.plot:
        plot(drawn, parsed.plot)


def read(run: Path, is_control: bool = False) -> dict[str, Any]:
    """Metrics of a run; ends the program if the run cannot be compared."""
    path = run / "metrics.json"
    if not path.is_file():
        raise SystemExit(f"{run} has no {path.name}; give the directory of a finished run")
    metrics = json.loads(path.read_text())
    curves = metrics.get("frontier", {}).get(SPLIT, {})
    if is_control and list(captioner_curves(curves)) != [CONTROL]:
        raise SystemExit(
            f"{run} is no control; give a run of maximum_likelihood alone, after "
            f"`python -m caption_gan.evaluate {run} --frontier`"
        )
    if CONTROL not in curves:
        raise SystemExit(
            f"{run} has no frontier of maximum likelihood; give a run with several stages, "
            "the first of them maximum_likelihood"
        )
    return metrics


def captioners(metrics: Mapping[str, Any]) -> list[Captioner]:
    """The last stage of a run, and maximum likelihood if that is not the last."""
    curves = captioner_curves(metrics["frontier"][SPLIT])
    last = next(iter(curves))
    found = [Captioner(last, curves[last], of_decoding(metrics, "greedy"))]
    if last != CONTROL:
        greedy = of_decoding(metrics, CONTROL)
        found.append(Captioner("maximum likelihood", curves[CONTROL], greedy))
    return found


def of_decoding(metrics: Mapping[str, Any], decoding: str) -> dict[str, float]:
    """Metrics of one decoding by name."""
    prefix = f"{SPLIT}/{decoding}/"
    return {
        name.removeprefix(prefix): value
        for name, value in metrics.items()
        if name.startswith(prefix)
    }


def seconds(metrics: Mapping[str, Any]) -> str:
    """Seconds of each stage, validation included, and their sum."""
    stages = {
        stage: sum(epoch["seconds"] for epoch in epochs)
        for stage, epochs in metrics.get("history", {}).items()
    }
    parts = [f"{stage} {spent:.0f} s" for stage, spent in stages.items()]
    return ", ".join([*parts, f"together {sum(stages.values()):.0f} s"])


def frontier_lines(ours: Captioner, theirs: Captioner) -> list[str]:
    """The last stage against another captioner at the same variety."""
    lines = []
    if "fact_accuracy" in ours.plain:
        for variety in common_varieties(ours, theirs):
            false, other = (1 - each.at("fact_accuracy", variety) for each in (ours, theirs))
            lines.append(
                f"false samples {false:.4f} at mBLEU-4 {variety:.3f}, {theirs.label} {other:.4f}: "
                f"{ratio(false, other):.2f}"
            )
        false, other = (1 - each.plain["fact_accuracy"] for each in (ours, theirs))
        lines.append(
            f"temperature 1: false samples {false:.4f} at mBLEU-4 {ours.plain['mBLEU-4']:.4f}, "
            f"{theirs.label} {other:.4f} at {theirs.plain['mBLEU-4']:.4f}"
        )
        same = 1 - theirs.at("fact_accuracy", ours.plain["mBLEU-4"])
        lines.append(
            f"{theirs.label} at the mBLEU-4 of that temperature 1: {same:.4f}, "
            f"{ratio(false, same):.2f}"
        )
    else:
        for variety in VARIETIES:
            cider, other = (each.at("CIDEr", variety) for each in (ours, theirs))
            lines.append(
                f"CIDEr {cider:.4f} at mBLEU-4 {variety}, {theirs.label} {other:.4f}: "
                f"{cider - other:+.4f}"
            )
    if "object_recall" in ours.plain:
        recall, precision = ours.plain["object_recall"], ours.plain["object_precision"]
        same = theirs.at("object_precision", recall, along="object_recall")
        lines.append(
            f"temperature 1: object_precision {precision:.4f} at object_recall {recall:.4f}, "
            f"{theirs.label} {theirs.plain['object_precision']:.4f} at "
            f"{theirs.plain['object_recall']:.4f}, and {same:.4f} at the same object_recall: "
            f"{precision - same:+.4f}"
        )
    return lines


def common_varieties(ours: Captioner, theirs: Captioner, count: int = 5) -> np.ndarray:
    """Evenly spaced mBLEU-4 over the range that both captioners reach."""
    ranges = [
        [point["mBLEU-4"] for points in captioner.curves for point in points]
        for captioner in (ours, theirs)
    ]
    low, high = max(map(min, ranges)), min(map(max, ranges))
    return np.linspace(low, high, count) if low <= high else np.empty(0)


def ratio(value: float, other: float) -> float:
    """The quotient; NaN for a division by zero."""
    return value / other if other else float("nan")


def greedy_lines(ours: Captioner, theirs: Captioner) -> list[str]:
    """Metrics of greedy captions of the last stage and of another captioner."""
    return [
        f"greedy {metric} {ours.greedy[metric]:.4f}, {theirs.label} {theirs.greedy[metric]:.4f}: "
        f"{ratio(ours.greedy[metric], theirs.greedy[metric]):.3f}"
        for metric in ("fact_accuracy", "CIDEr", "BLEU-4")
        if metric in ours.greedy and metric in theirs.greedy
    ]


def choice_lines(metrics: Mapping[str, Any], others: Sequence[Captioner]) -> list[str]:
    """The critic's choice against other captioners at the same variety, and its ranking."""
    lines = []
    for point in metrics["frontier"][SPLIT].get(CHOICE, []):
        metric = "fact_accuracy" if "fact_accuracy" in point else "CIDEr"
        line = (
            f"critic's choice among {point['drawn']} samples: {metric} {point[metric]:.4f} at "
            f"mBLEU-4 {point['mBLEU-4']:.4f}"
        )
        for other in others:
            line += f", {other.label} {other.at(metric, point['mBLEU-4']):.4f}"
        if "unchosen_mean_length" in point:
            line += (
                f"; {point['mean_length']:.2f} words, unchosen {point['unchosen_mean_length']:.2f}"
            )
        lines.append(line)
    for decoding in ("sample", "reference"):
        values = of_decoding(metrics, decoding)
        aucs = [f"{name} {values[name]:.4f}" for name in values if name.endswith("_auc")]
        if aucs:
            lines.append(f"ranking of captions, {decoding}: {', '.join(aucs)}")
    return lines


def health_lines(metrics: Mapping[str, Any]) -> list[str]:
    """Signs of collapse of the last stage."""
    repeated, distinct, references = (
        metrics[f"{SPLIT}/{name}"]
        for name in (
            "greedy/repeated_token_rate",
            "sample/distinct_captions",
            "reference/distinct_captions",
        )
    )
    return [
        f"repeated-token rate {repeated:.4f}",
        f"distinct captions of samples {distinct:.3f}, of references {references:.3f}",
    ]


def plot(runs: Sequence[Sequence[Captioner]], path: Path) -> None:
    """Draws the curves of all captioners into an SVG file, one colour per label."""
    everyone = [captioner for captioners in runs for captioner in captioners]
    checked = all("fact_accuracy" in captioner.plain for captioner in everyone)
    metric = "fact_accuracy" if checked else "CIDEr"
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.add_subplot()
    colours: dict[str, str] = {}
    for captioner in everyone:
        is_new = captioner.label not in colours
        colour = colours.setdefault(captioner.label, f"C{len(colours)}")
        for points in captioner.curves:
            style, name = ("s--", "top-p") if "top_p" in points[0] else ("o-", "temperature")
            across, up = ([point[each] for point in points] for each in ("mBLEU-4", metric))
            label = f"{captioner.label}, {name}" if is_new else None
            axes.plot(across, up, style, color=colour, label=label, markersize=3, linewidth=1)
        measured = [point["mBLEU-4"] for points in captioner.curves for point in points]
        grid = np.linspace(min(measured), max(measured), 200)
        best = envelope(captioner.curves, metric, grid)
        label = f"{captioner.label}, better of both" if is_new else None
        axes.plot(grid, best, color=colour, label=label, linewidth=5, alpha=0.25)
    axes.set_xlabel("mBLEU-4 among the samples of an image (lower is more varied)")
    axes.set_ylabel(f"{metric} of single samples")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8)
    # Text stays text, and the same metrics give the same file.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": path.name}):
        figure.savefig(path, format="svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
