"""Scores captions in COCO's results format, whoever wrote them."""

import dataclasses
from typing import Any

from caption_gan.config.objectives import MonitorConfig
from caption_gan.config.run import EvaluationConfig
from caption_gan.evaluation.coco_results_file import matched, read_references, read_results
from caption_gan.evaluation.scoring import Scores, score_captions, signs_in
from caption_gan.metrics.intervals import Bootstrap


@dataclasses.dataclass(frozen=True)
class ScoredFile:
    """Figures of a results file.

    Attributes:
        scores: By name.
        intervals: Of 95%.
        images: Number of captioned images.
        notes: What does not count, a line each.
        collapsed: Signs of a collapse, a line each.
    """

    scores: Scores
    intervals: dict[str, tuple[float, float]]
    images: int
    notes: list[str]
    collapsed: list[str]

    def to_json(self) -> dict[str, Any]:
        """Figures by name, and beside them what else is known of them."""
        return {
            **{name: round(value, 6) for name, value in self.scores.values.items()},
            "intervals": {name: list(ends) for name, ends in self.intervals.items()},
            "not_run": self.scores.not_run,
            "images": self.images,
            "notes": self.notes,
            "collapsed": self.collapsed,
        }


def score_file(results: str, references: str) -> ScoredFile:
    """Scores one file of captions against another of references.

    Args:
        results: `[{"image_id": 42, "caption": "a dog"}, ...]`.
        references: COCO's captions format.

    Raises:
        CaptionGANError: A file cannot be used.
    """
    captions = read_results(results)
    found = matched(captions, read_references(references))
    notes = []
    if found.left_out:
        notes.append(f"{found.left_out} images of {references} have no caption and do not count")
    if found.empty:
        notes.append(f"{found.empty} captions are empty and score 0")
    scores = score_captions(captions, found.references)
    bootstrap = Bootstrap(len(captions), EvaluationConfig().bootstrap)
    signs = signs_in(scores.values, MonitorConfig())
    return ScoredFile(scores, scores.intervals(bootstrap), len(captions), notes, signs)


def score_file_lines(scored: ScoredFile) -> list[str]:
    """For the terminal: every figure with its interval."""
    lines = [f"COLLAPSED: {sign}" for sign in scored.collapsed]
    lines.append(f"{scored.images} images; figure, 95% interval")
    for name, value in scored.scores.values.items():
        low, high = scored.intervals[name]
        lines.append(f"{name:22}{value:8.4f}  [{low:.4f}, {high:.4f}]")
    lines += [f"{name:22}not run: {reason}" for name, reason in scored.scores.not_run.items()]
    return [*lines, *scored.notes]
