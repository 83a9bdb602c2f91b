"""Compares several captioners on the same images: paired differences, means over runs."""

import dataclasses
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import markupsafe

from caption_gan.config.run import EvaluationConfig
from caption_gan.errors import CaptionGANError
from caption_gan.evaluation.frontier import Points
from caption_gan.evaluation.result import Evaluation
from caption_gan.metrics.bootstrap import Bootstrap, Difference
from caption_gan.metrics.envelope import TOP_P
from caption_gan.metrics.table import DESCRIPTIONS, Place, display_order, shown_in
from caption_gan.reporting.frontier_plot import frontier_plots
from caption_gan.reporting.pages import new_environment
from caption_gan.storage.atomic import replacing


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A comparison of evaluations with the first one.

    Attributes:
        evaluations: Evaluations by name of the run; the first one is the baseline.
        differences: Differences of the other runs to the first, by name of the run and metric.
        mean: Mean over runs, by metric.
        deviation: Standard deviation over runs, by metric.
        frontier: Frontiers of all runs, by name of the curve.
    """

    evaluations: Mapping[str, Evaluation]
    differences: Mapping[str, Mapping[str, Difference]]
    mean: Mapping[str, float]
    deviation: Mapping[str, float]
    frontier: Mapping[str, Points]

    def to_json(self) -> dict[str, Any]:
        """What the comparison adds to the metrics of the runs."""
        return {
            "differences": {
                run: {name: dataclasses.asdict(difference) for name, difference in of_run.items()}
                for run, of_run in self.differences.items()
            },
            "mean": dict(self.mean),
            "standard_deviation": dict(self.deviation),
            "frontier": dict(self.frontier),
        }


def compare(evaluations: Mapping[str, Evaluation]) -> Comparison:
    """Compares evaluations of the same split.

    Args:
        evaluations: At least two evaluations, by name of the run.

    Raises:
        CaptionGANError: If the images or references differ.
    """
    (first_name, first), *others = evaluations.items()
    for name, other in others:
        if _images(other) != _images(first):
            raise CaptionGANError(
                f"{name} and {first_name} were evaluated on different images or references and "
                "cannot be compared; evaluate them one by one."
            )
    bootstrap = Bootstrap(len(first.images), EvaluationConfig().bootstrap_samples)
    runs = [evaluation.scores.metrics for evaluation in evaluations.values()]
    shared = [name for name in first.scores.metrics if all(name in metrics for metrics in runs)]
    values = {name: [metrics[name].value for metrics in runs] for name in shared}
    return Comparison(
        evaluations,
        {
            name: {
                metric: bootstrap.difference(
                    other.scores.metrics[metric], first.scores.metrics[metric]
                )
                for metric in shared
                # These do not depend on the captioner.
                if metric.split("/")[1] not in ("reference", "blind", "nearest")
            }
            for name, other in others
        },
        {name: statistics.mean(of_runs) for name, of_runs in values.items()},
        {name: statistics.stdev(of_runs) for name, of_runs in values.items()},
        _curves(evaluations),
    )


def _images(evaluation: Evaluation) -> list[tuple[str, tuple[str, ...]]]:
    return [(image.example.image_id, image.example.captions) for image in evaluation.images]


def _curves(evaluations: Mapping[str, Evaluation]) -> dict[str, Points]:
    """The curves of the last stage of each run, by name of the run."""
    curves: dict[str, Points] = {}
    for name, evaluation in evaluations.items():
        for points in evaluation.frontier.values():
            # The last stage comes first.
            if "top_p" in points[0]:
                curves.setdefault(f"{name}{TOP_P}", points)
            elif "temperature" in points[0]:
                curves.setdefault(name, points)
    return curves


def comparison_lines(comparison: Comparison) -> list[str]:
    """Differences and means over runs of the main metrics, for the terminal."""
    shown = shown_in(Place.SUMMARY)
    lines = []
    first = next(iter(comparison.evaluations))
    for run, differences in comparison.differences.items():
        lines += ["", f"{run} minus {first}: difference, 95% interval, p-value (paired bootstrap)"]
        lines += [
            f"{name:46}{difference.value:+9.4f}  "
            f"[{difference.low:+.4f}, {difference.high:+.4f}]  {difference.p:.3f}"
            for name, difference in differences.items()
            if name.split("/")[2] in shown
        ]
    lines += ["", f"mean and standard deviation over {len(comparison.evaluations)} runs"]
    lines += [
        f"{name:46}{mean:9.4f}  {comparison.deviation[name]:.4f}"
        for name, mean in comparison.mean.items()
        if name.split("/")[2] in shown
    ]
    return lines


def write_comparison(path: Path, comparison: Comparison, command: str) -> None:
    """Writes the page; the file is whole or absent.

    Args:
        path: The HTML file.
        comparison: What to show.
        command: The command that was called, to be shown on the page.

    Raises:
        CaptionGANError: If the file cannot be written.
    """
    by_decoding: dict[str, list[str]] = {}
    for name in comparison.mean:
        by_decoding.setdefault(name.split("/")[1], []).append(name)
    for names in by_decoding.values():
        names.sort(key=lambda name: display_order(name.split("/")[2]))
    html = (
        new_environment()
        .get_template("comparison.html.jinja")
        .render(
            command=command,
            comparison=comparison,
            by_decoding=by_decoding,
            descriptions=DESCRIPTIONS,
            plots=[markupsafe.Markup(plot.svg) for plot in frontier_plots(comparison.frontier)],
        )
    )
    try:
        with replacing(path) as temporary:
            temporary.write_text(html, encoding="utf-8", errors="replace")
    except OSError as error:
        raise CaptionGANError(
            f"Cannot write the comparison to {path}: {error.strerror}; choose another --to. The "
            "metrics of the runs themselves are written."
        ) from error
