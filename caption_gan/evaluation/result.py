"""The result of evaluating a captioner on a split, and its summary for the terminal."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from caption_gan.config.run import Config
from caption_gan.data.example import CaptionedImage
from caption_gan.evaluation.frontier import Points
from caption_gan.evaluation.text_metrics import Scores, collapse_signs
from caption_gan.metrics.bootstrap import Bootstrap
from caption_gan.metrics.table import Place, shown_in


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """A captioner's metrics on a split.

    Attributes:
        split: Name of the split.
        images: The images with their captions.
        scores: Metrics by `<split>/<decoding>/<metric>`.
        intervals: 95% confidence intervals by the same names.
        frontier: Points of the quality-diversity frontier by name of the curve.
        collapsed: Signs of collapse, one line each; empty for a healthy captioner.
    """

    split: str
    images: Sequence[CaptionedImage]
    scores: Scores
    intervals: Mapping[str, tuple[float, float]]
    frontier: Mapping[str, Points]
    collapsed: Sequence[str]

    @classmethod
    def of_scores(
        cls,
        split: str,
        images: Sequence[CaptionedImage],
        scores: Scores,
        config: Config,
        frontier: Mapping[str, Points],
    ) -> "Evaluation":
        """Adds confidence intervals and signs of collapse to metrics by `<decoding>/<metric>`."""
        collapsed = _collapse_signs(images[0].captions, scores.values, config)
        named = Scores()
        named.add(scores, f"{split}/")
        bootstrap = Bootstrap(len(images), config.evaluation.bootstrap_samples, config.seed)
        return cls(split, images, named, named.intervals(bootstrap), frontier, collapsed)

    def to_json(self) -> dict[str, Any]:
        """Values by name, then intervals, metrics that did not run, notes and signs of collapse."""
        content: dict[str, Any] = {
            name: round(value, 6) for name, value in self.scores.values.items()
        }
        content["intervals"] = {
            name: [round(end, 6) for end in ends] for name, ends in self.intervals.items()
        }
        content["not_run"] = self.scores.not_run
        content["notes"] = self.scores.notes
        content["collapsed"] = list(self.collapsed)
        return content


def _collapse_signs(
    decodings: Mapping[str, object], values: Mapping[str, float], config: Config
) -> list[str]:
    lines = []
    for decoding in decodings:
        prefix = f"{decoding}/"
        of_decoding = {
            name.removeprefix(prefix): value
            for name, value in values.items()
            if name.startswith(prefix)
        }
        of_decoding["distinct_captions"] /= values["reference/distinct_captions"]
        if decoding != "sample":  # The captions of a beam are always similar to each other.
            of_decoding.pop("mBLEU-4", None)
        lines += [f"{decoding}: {sign}" for sign in collapse_signs(of_decoding, config.monitor)]
    return lines


def summary(evaluation: Evaluation) -> str:
    """The main metrics and a few captions, for the terminal."""
    lines = [f"COLLAPSED: {sign}" for sign in evaluation.collapsed]
    lines += [*metric_lines(evaluation), ""]
    for image in evaluation.images[:: max(1, len(evaluation.images) // 4)][:4]:
        lines += [
            f"{image.example.image_id}: {image.greedy}",
            f"    reference: {image.example.captions[0]}",
        ]
    return "\n".join(lines)


def metric_lines(evaluation: Evaluation) -> list[str]:
    """A table of the main metrics: a column per decoding, with half the width of the interval."""
    split, values = evaluation.split, evaluation.scores.values
    decodings = list(dict.fromkeys(name.split("/")[1] for name in values))
    widths = [max(15, len(decoding) + 2) for decoding in decodings]
    lines = [" " * 20 + "".join(map(str.rjust, decodings, widths))]
    for metric in shown_in(Place.SUMMARY):
        names = [f"{split}/{decoding}/{metric}" for decoding in decodings]
        cells = [_cell(values.get(name), evaluation.intervals.get(name)) for name in names]
        if any(cells):
            lines.append(f"{metric:20}" + "".join(map(str.rjust, cells, widths)).rstrip())
    reasons = {name.split("/")[2]: reason for name, reason in evaluation.scores.not_run.items()}
    lines += [f"{metric:20}  not run: {reason}" for metric, reason in reasons.items()]
    return lines + evaluation.scores.notes


def _cell(value: float | None, ends: tuple[float, float] | None) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" + (f" \N{PLUS-MINUS SIGN}{(ends[1] - ends[0]) / 2:.3f}" if ends else "")
