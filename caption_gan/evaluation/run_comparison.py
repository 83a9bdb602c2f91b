"""Several captioners on the same images: intervals, differences in pairs, means over seeds."""

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import markupsafe

from caption_gan.config.run import EvaluationConfig
from caption_gan.errors import CaptionGANError
from caption_gan.evaluation.frontier import Points
from caption_gan.evaluation.runs import Evaluation
from caption_gan.metrics.bootstrap import Bootstrap, Difference
from caption_gan.reporting.curves import frontier_plots
from caption_gan.reporting.pages import MEANINGS, new_environment, place
from caption_gan.storage.atomic import replacing


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Evaluations beside each other.

    Attributes:
        evaluations: By the name of the run; the first is what the others are compared with.
        differences: Of each other run, by metric.
        mean: Over runs, by metric.
        deviation: Standard deviation over runs, by metric.
        frontier: Of all runs, by the name of the curve.
    """

    evaluations: Mapping[str, Evaluation]
    differences: Mapping[str, Mapping[str, Difference]]
    mean: Mapping[str, float]
    deviation: Mapping[str, float]
    frontier: Mapping[str, Points]

    def to_json(self) -> dict[str, Any]:
        """What is not in the runs' own metrics."""
        return {
            "differences": {
                name: {metric: dataclasses.asdict(found) for metric, found in some.items()}
                for name, some in self.differences.items()
            },
            "mean": dict(self.mean),
            "standard_deviation": dict(self.deviation),
            "frontier": dict(self.frontier),
        }


def compare(evaluations: Mapping[str, Evaluation]) -> Comparison:
    """Compares evaluations of the same split.

    Args:
        evaluations: At least two, by the name of the run.

    Raises:
        CaptionGANError: They are of different images.
    """
    (first_name, first), *others = evaluations.items()
    for name, other in others:
        if _images(other) != _images(first):
            raise CaptionGANError(
                f"{name} and {first_name} are of different images or references, so that their "
                "metrics cannot be compared; evaluate them one by one."
            )
    bootstrap = Bootstrap(len(first.images), EvaluationConfig().bootstrap_samples)
    every = [evaluation.scores.metrics for evaluation in evaluations.values()]
    shared = [name for name in first.scores.metrics if all(name in some for some in every)]
    values = {name: [some[name].value for some in every] for name in shared}
    return Comparison(
        evaluations,
        {
            name: {
                metric: bootstrap.difference(
                    other.scores.metrics[metric], first.scores.metrics[metric]
                )
                for metric in shared
                # The references' own metrics are the same.
                if metric.split("/")[1] not in ("reference", "blind", "nearest")
            }
            for name, other in others
        },
        {name: statistics.mean(some) for name, some in values.items()},
        {name: statistics.stdev(some) for name, some in values.items()},
        _curves(evaluations),
    )


def _images(evaluation: Evaluation) -> list[tuple[str, tuple[str, ...]]]:
    return [(image.example.image_id, image.example.captions) for image in evaluation.images]


def _curves(evaluations: Mapping[str, Evaluation]) -> dict[str, Points]:
    """The last stage's curves of each run, under the run's name."""
    curves: dict[str, Points] = {}
    for name, evaluation in evaluations.items():
        for points in evaluation.frontier.values():
            if "top_p" in points[0]:
                curves[f"{name}, top-p"] = points
            elif "temperature" in points[0]:
                curves.setdefault(name, points)  # Those of earlier stages follow.
    return curves


def comparison_lines(comparison: Comparison, shown: Sequence[str]) -> list[str]:
    """Differences that matter, and means over runs, for the terminal."""
    lines = []
    first = next(iter(comparison.evaluations))
    for name, found in comparison.differences.items():
        lines += ["", f"{name} less {first}: difference, 95% interval, p (paired bootstrap)"]
        lines += [
            f"{metric:42}{some.value:+9.4f}  [{some.low:+.4f}, {some.high:+.4f}]  {some.p:.3f}"
            for metric, some in found.items()
            if metric.split("/")[2] in shown
        ]
    lines += ["", f"mean and standard deviation over {len(comparison.evaluations)} runs"]
    lines += [
        f"{metric:42}{mean:9.4f}  {comparison.deviation[metric]:.4f}"
        for metric, mean in comparison.mean.items()
        if metric.split("/")[2] in shown
    ]
    return lines


def write_comparison(path: Path, comparison: Comparison, command: str) -> None:
    """Writes the page; the file is whole or absent.

    Raises:
        CaptionGANError: It cannot be written.
    """
    groups: dict[str, list[str]] = {}
    for metric in comparison.mean:
        groups.setdefault(metric.split("/")[1], []).append(metric)
    for metrics in groups.values():
        metrics.sort(key=lambda metric: place(metric.split("/")[2], list(MEANINGS)))
    html = (
        new_environment()
        .get_template("comparison.html.jinja")
        .render(
            command=command,
            comparison=comparison,
            groups=groups,
            meanings=MEANINGS,
            plots=[markupsafe.Markup(plot.svg) for plot in frontier_plots(comparison.frontier)],
        )
    )
    try:
        with replacing(path) as temporary:
            temporary.write_text(html, encoding="utf-8", errors="replace")
    except OSError as error:
        raise CaptionGANError(
            f"Cannot write the comparison to {path}: {error.strerror}; choose another --to. The "
            "runs' own metrics are written."
        ) from error
