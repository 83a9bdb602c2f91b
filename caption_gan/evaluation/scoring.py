"""All figures of captions: quality, variety, signs of collapse, and whether they look."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from caption_gan.config.objectives import MonitorConfig
from caption_gan.metrics import diversity, grounding, java_scores
from caption_gan.metrics.collapse import crossed, image_dependence
from caption_gan.metrics.figure import DistinctFigure, Figure
from caption_gan.metrics.intervals import Bootstrap
from caption_gan.metrics.java_scores import NotRun
from caption_gan.metrics.quality import quality

AnyFigure = Figure | DistinctFigure
Captions = Sequence[Sequence[str]]


@dataclasses.dataclass
class Scores:
    """Figures of the same images in the same order.

    Attributes:
        figures: By name.
        not_run: Why a figure that was asked for could not be had, by its name.
    """

    figures: dict[str, AnyFigure] = dataclasses.field(default_factory=dict)
    not_run: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def values(self) -> dict[str, float]:
        """The figures as numbers."""
        return {name: figure.value for name, figure in self.figures.items()}

    def intervals(self, bootstrap: Bootstrap) -> dict[str, tuple[float, float]]:
        """Their 95% intervals."""
        return {name: bootstrap.interval(figure) for name, figure in self.figures.items()}

    def add(self, other: "Scores", prefix: str = "") -> None:
        """Takes over others, under names with a prefix."""
        self.figures |= {prefix + name: figure for name, figure in other.figures.items()}
        self.not_run |= {prefix + name: reason for name, reason in other.not_run.items()}


def score_captions(
    captions: Mapping[str, str], references: Mapping[str, Sequence[str]], seed: int = 0
) -> Scores:
    """Every figure that one caption an image and its references give.

    Args:
        captions: Raw text of each image's caption, by image id.
        references: Raw text of each image's references, by the same ids.
        seed: Deals the captions to other images, for `CIDEr_drop`.

    Raises:
        CaptionGANError: If nothing is given, the ids differ, or an image has no reference with a
            word in it.
    """
    scores = Scores({**quality(captions, references)})
    for name, score in (("METEOR", java_scores.meteor), ("SPICE", java_scores.spice)):
        scored = score(captions, references)
        if isinstance(scored, NotRun):
            scores.not_run[name] = scored.reason
        else:
            scores.figures[name] = scored.figure
    if len(captions) > 1:
        scores.figures["CIDEr_drop"] = grounding.cider_drop(captions, references, seed)
    scores.figures |= grounding.named(captions, references)
    scores.figures |= signs_of_collapse([[caption] for caption in captions.values()])
    return scores


def signs_of_collapse(captions: Captions) -> dict[str, AnyFigure]:
    """What shows first when a generator says the same of every image."""
    return {
        "repeated_token_rate": diversity.repeated_token_rate(captions),
        "distinct_captions": diversity.distinct_captions(captions),
        "mean_length": diversity.mean_length(captions),
    }


def variety(captions: Captions) -> dict[str, AnyFigure]:
    """How varied K captions of each image are, K being at least 2 and the same for all."""
    return {
        **diversity.mbleu(captions),
        "distinct-1": diversity.distinct_n(captions, 1),
        "distinct-2": diversity.distinct_n(captions, 2),
        "vocabulary": diversity.vocabulary_size(captions),
    }


def novelty(captions: Captions, training: Iterable[str]) -> dict[str, AnyFigure]:
    """How much of the captions is not copied from those of the training split."""
    training = list(training)
    return {
        "novel_captions": diversity.novel_captions(captions, training),
        "novel_5-grams": diversity.novel_ngrams(captions, training, 5),
    }


def signs_in(values: Mapping[str, float], bounds: MonitorConfig) -> list[str]:
    """Which figures of `score_captions`, and of `variety`, tell of a collapse.

    Likely captions of like images are alike; only drawn ones must differ.
    """
    figures = {"repeated_token_rate": values["repeated_token_rate"]}
    if "CIDEr_drop" in values:
        figures["image_dependence"] = image_dependence(values["CIDEr"], values["CIDEr_drop"])
    if "mBLEU-4" in values:
        figures["mbleu"] = values["mBLEU-4"]
        figures["distinct_captions"] = values["distinct_captions"]
    return crossed(figures, bounds)
