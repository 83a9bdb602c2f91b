"""All metrics of captions: quality, variety, signs of collapse, and whether they look."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from caption_gan.config.objectives import MonitorConfig
from caption_gan.metrics import diversity, grounding, java_scores
from caption_gan.metrics.bootstrap import Bootstrap
from caption_gan.metrics.collapse import image_dependence, out_of_bounds
from caption_gan.metrics.java_scores import NotRun
from caption_gan.metrics.metric import DistinctCount, Metric
from caption_gan.metrics.quality import quality

AnyMetric = Metric | DistinctCount
Captions = Sequence[Sequence[str]]


@dataclasses.dataclass
class Scores:
    """Metrics of the same images in the same order.

    Attributes:
        metrics: By name.
        not_run: Why a metric that was asked for could not be had, by its name.
    """

    metrics: dict[str, AnyMetric] = dataclasses.field(default_factory=dict)
    not_run: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def values(self) -> dict[str, float]:
        """The metrics as numbers."""
        return {name: metric.value for name, metric in self.metrics.items()}

    def intervals(self, bootstrap: Bootstrap) -> dict[str, tuple[float, float]]:
        """Their 95% intervals."""
        return {name: bootstrap.interval(metric) for name, metric in self.metrics.items()}

    def add(self, other: "Scores", prefix: str = "") -> None:
        """Takes over others, under names with a prefix."""
        self.metrics |= {prefix + name: metric for name, metric in other.metrics.items()}
        self.not_run |= {prefix + name: reason for name, reason in other.not_run.items()}


def score_captions(
    captions: Mapping[str, str], references: Mapping[str, Sequence[str]], seed: int = 0
) -> Scores:
    """Every metric that one caption an image and its references give.

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
            scores.metrics[name] = scored.metric
    if len(captions) > 1:
        scores.metrics["CIDEr_drop"] = grounding.cider_drop(captions, references, seed)
    scores.metrics |= grounding.mentions(captions, references)
    scores.metrics |= collapse_metrics([[caption] for caption in captions.values()])
    return scores


def collapse_metrics(captions: Captions) -> dict[str, AnyMetric]:
    """What shows first when a generator says the same of every image."""
    return {
        "repeated_token_rate": diversity.repeated_token_rate(captions),
        "distinct_captions": diversity.distinct_captions(captions),
        "mean_length": diversity.mean_length(captions),
    }


def variety(captions: Captions) -> dict[str, AnyMetric]:
    """How varied K captions of each image are, K being at least 2 and the same for all."""
    return {
        **diversity.mbleu(captions),
        "distinct-1": diversity.distinct_n(captions, 1),
        "distinct-2": diversity.distinct_n(captions, 2),
        "vocabulary": diversity.vocabulary_size(captions),
    }


def novelty(captions: Captions, training: Iterable[str]) -> dict[str, AnyMetric]:
    """How much of the captions is not copied from those of the training split."""
    training = list(training)
    return {
        "novel_captions": diversity.novel_captions(captions, training),
        "novel_5-grams": diversity.novel_ngrams(captions, training, 5),
    }


def collapse_signs(values: Mapping[str, float], bounds: MonitorConfig) -> list[str]:
    """Which metrics of `score_captions`, and of `variety`, tell of a collapse.

    Likely captions of like images are alike; only drawn ones must differ.
    """
    metrics = {"repeated_token_rate": values["repeated_token_rate"]}
    if "CIDEr_drop" in values:
        metrics["image_dependence"] = image_dependence(values["CIDEr"], values["CIDEr_drop"])
    if "mBLEU-4" in values:
        metrics["mbleu"] = values["mBLEU-4"]
        metrics["distinct_captions"] = values["distinct_captions"]
    return out_of_bounds(metrics, bounds)
