"""Metrics of captions that need only text: quality, grounding, diversity, signs of collapse."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence

from caption_gan.config.run import MonitorConfig
from caption_gan.metrics import diversity, grounding, java_scores
from caption_gan.metrics.bootstrap import Bootstrap
from caption_gan.metrics.collapse import image_dependence, out_of_bounds
from caption_gan.metrics.java_scores import NotRun, Scored
from caption_gan.metrics.metric import AnyMetric
from caption_gan.metrics.quality import quality, why_cider_is_zero
from caption_gan.metrics.repetition import repeated_token_rate
from caption_gan.text.scripts import are_unspaced

Captions = Sequence[Sequence[str]]
JavaScore = Callable[[Mapping[str, str], Mapping[str, Sequence[str]]], Scored | NotRun]


@dataclasses.dataclass
class Scores:
    """Metrics over the same images in the same order.

    Attributes:
        metrics: Metrics by name.
        not_run: By name of a metric, the reason why it could not be computed.
        notes: What readers of the metrics need to know, such as a CIDEr that can only be 0.
    """

    metrics: dict[str, AnyMetric] = dataclasses.field(default_factory=dict)
    not_run: dict[str, str] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)

    @property
    def values(self) -> dict[str, float]:
        """Values by name."""
        return {name: metric.value for name, metric in self.metrics.items()}

    def intervals(self, bootstrap: Bootstrap) -> dict[str, tuple[float, float]]:
        """95% confidence intervals by name."""
        return {name: bootstrap.interval(metric) for name, metric in self.metrics.items()}

    def add(self, other: "Scores", prefix: str = "") -> None:
        """Adds other scores, with a prefix to the names of their metrics."""
        self.metrics |= {prefix + name: metric for name, metric in other.metrics.items()}
        self.not_run |= {prefix + name: reason for name, reason in other.not_run.items()}
        self.notes += [note for note in other.notes if note not in self.notes]


def score_captions(
    captions: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    seed: int = 0,
    java: bool = True,
) -> Scores:
    """Computes all metrics that need only one caption per image and the references.

    Args:
        captions: Raw text of each image's caption, by image id.
        references: Raw text of each image's references, by the same ids.
        seed: Seed of the swap of captions for `CIDEr_drop`.
        java: Whether to compute METEOR and SPICE, which run in Java and take long.

    Raises:
        CaptionGANError: If there is no image, the ids differ, or an image has no reference that
            contains a word.
    """
    scores = Scores({**quality(captions, references)})
    java_metrics: dict[str, JavaScore] = {"METEOR": java_scores.meteor}
    if is_english := not are_unspaced(text for texts in references.values() for text in texts):
        java_metrics["SPICE"] = java_scores.spice
    else:  # METEOR runs: it matches equal characters.
        reason = "it knows English words, and the references are in a script without spaces"
        scores.not_run |= dict.fromkeys(("SPICE", *grounding.MENTIONS), reason)
        scores.notes.append("metrics compare characters: the script has no spaces between words")
    for name, score in java_metrics.items() if java else ():
        scored = score(captions, references)
        if isinstance(scored, NotRun):
            scores.not_run[name] = scored.reason
        else:
            scores.metrics[name] = scored.metric
    if why_zero := why_cider_is_zero(references):
        scores.notes.append(why_zero)
    else:
        scores.metrics["CIDEr_drop"] = grounding.cider_drop(captions, references, seed)
    if is_english:
        scores.metrics |= grounding.mentions(captions, references)
    scores.metrics |= collapse_metrics([[caption] for caption in captions.values()])
    return scores


def collapse_metrics(captions: Captions) -> dict[str, AnyMetric]:
    """Metrics that show first that a generator collapses onto few words or one caption."""
    return {
        "repeated_token_rate": repeated_token_rate(captions),
        "distinct_captions": diversity.distinct_captions(captions),
        "mean_length": diversity.mean_length(captions),
    }


def sample_diversity(captions: Captions) -> dict[str, AnyMetric]:
    """Diversity of K captions per image; K is at least 2 and the same for all images."""
    return {
        **diversity.mbleu(captions),
        "distinct-1": diversity.distinct_n(captions, 1),
        "distinct-2": diversity.distinct_n(captions, 2),
        "vocabulary": diversity.vocabulary_size(captions),
    }


def novelty(captions: Captions, training: Iterable[str]) -> dict[str, AnyMetric]:
    """The shares of captions and of 5-grams that do not occur in the training captions."""
    training = list(training)
    return {
        "novel_captions": diversity.novel_captions(captions, training),
        "novel_5-grams": diversity.novel_ngrams(captions, training, 5),
    }


def collapse_signs(values: Mapping[str, float], bounds: MonitorConfig) -> list[str]:
    """Returns one line for each sign of collapse.

    Args:
        values: Values of `score_captions`. With those of `sample_diversity`, the captions of an
            image and of all images must differ too: only samples must, as the most likely captions
            of similar images are similar.
        bounds: Bounds of the metrics.
    """
    checked = {"repeated_token_rate": values["repeated_token_rate"]}
    if "CIDEr_drop" in values:
        checked["image_dependence"] = image_dependence(values["CIDEr"], values["CIDEr_drop"])
    if "mBLEU-4" in values:
        checked["mbleu"] = values["mBLEU-4"]
        checked["distinct_captions"] = values["distinct_captions"]
    return out_of_bounds(checked, bounds)
