"""The table of metrics: name, meaning, and where each metric is shown, in display order."""

import dataclasses
import enum
from typing import Literal


class Place(enum.Flag):
    """Where a metric is shown; "pages" are the report and the comparison of runs."""

    PAGES = enum.auto()
    SUMMARY = enum.auto()
    FRONTIER = enum.auto()
    MODEL_CARD = enum.auto()
    MONITOR = enum.auto()


@dataclasses.dataclass(frozen=True)
class MetricDescription:
    """What readers of a metric need to know.

    Attributes:
        name: As in `metrics.json`, without split and decoding.
        meaning: One sentence, without the full stop.
        better: Which values are better; None if neither are.
        shown: Where the metric is shown.
        headline: Label of its headline in the report; empty if it has none.
        bound: Name of its bound in `MonitorConfig`, beyond which captions count as collapsed;
            empty if it has none.
    """

    name: str
    meaning: str
    better: Literal["higher", "lower"] | None
    shown: Place
    headline: str = ""
    bound: str = ""

    @property
    def description(self) -> str:
        """The meaning, and which values are better."""
        return f"{self.meaning}; {self.better} is better" if self.better else self.meaning


_PAGES, _SUMMARY, _FRONTIER, _CARD, _MONITOR = Place
_MAIN = _PAGES | _SUMMARY | _CARD

METRICS = (
    MetricDescription(
        "CIDEr",
        "n-grams shared with the references, weighted by how informative they are, 0 to 10",
        "higher",
        _MAIN | _FRONTIER | _MONITOR,
        headline="CIDEr",
    ),
    MetricDescription("BLEU-1", "precision of words, 0 to 1", "higher", _PAGES),
    MetricDescription("BLEU-2", "precision of 1- and 2-grams, 0 to 1", "higher", _PAGES),
    MetricDescription("BLEU-3", "precision of 1- to 3-grams, 0 to 1", "higher", _PAGES),
    MetricDescription(
        "BLEU-4",
        "precision of 1- to 4-grams, 0 to 1",
        "higher",
        _MAIN | _MONITOR,
        headline="BLEU-4",
    ),
    MetricDescription(
        "METEOR", "matched words, including synonyms, and their order, 0 to 1", "higher", _MAIN
    ),
    MetricDescription(
        "ROUGE-L", "longest common subsequence with the references, 0 to 1", "higher", _PAGES
    ),
    MetricDescription(
        "SPICE",
        "objects, attributes and relations shared with the references, 0 to 1",
        "higher",
        _PAGES | _SUMMARY,
    ),
    MetricDescription(
        "fact_accuracy",
        "share of captions that are entirely correct",
        "higher",
        _MAIN | _FRONTIER | _MONITOR,
        headline="correct captions",
    ),
    MetricDescription(
        "critic_auc",
        "share of pairs of captions of an image in which the critic ranks the right one higher: "
        "true above false samples, references above those of the most similar image",
        "higher",
        _PAGES | _SUMMARY,
    ),
    MetricDescription(
        "likelihood_auc",
        "the same by the generator's log-probability, for true and false samples",
        "higher",
        _PAGES,
    ),
    MetricDescription(
        "CIDEr_drop",
        "loss in CIDEr when captions are swapped between images, 0 if the image is ignored",
        "higher",
        _PAGES | _SUMMARY,
    ),
    MetricDescription(
        "object_recall",
        "share of the objects agreed on by two references that the caption mentions",
        "higher",
        _MAIN | _FRONTIER,
    ),
    MetricDescription(
        "object_precision",
        "share of the objects in the caption that any reference mentions",
        "higher",
        _MAIN | _FRONTIER,
    ),
    MetricDescription(
        "attribute_recall",
        "share of the attributes, such as colours, agreed on by two references that the caption "
        "mentions",
        "higher",
        _PAGES,
    ),
    MetricDescription(
        "attribute_precision",
        "share of the attributes in the caption that any reference mentions",
        "higher",
        _PAGES,
    ),
    MetricDescription(
        "retrieval_recall@1",
        "share of captions for which a dual encoder ranks their image first",
        "higher",
        _PAGES,
    ),
    MetricDescription(
        "retrieval_recall@5",
        "share of captions for which a dual encoder ranks their image among the first five",
        "higher",
        _PAGES,
    ),
    MetricDescription(
        "retrieval_similarity",
        "cosine of caption and image in a dual encoder's embedding, -1 to 1",
        "higher",
        _PAGES,
    ),
    MetricDescription(
        "repeated_token_rate",
        "share of tokens, punctuation included, that repeat the token or n-gram just before",
        "lower",
        _MAIN | _MONITOR,
        headline="repeated tokens",
        bound="repeated_token_rate",
    ),
    MetricDescription(
        "distinct_captions",
        "share of distinct captions, to be compared with that of the references",
        "higher",
        _MAIN | _MONITOR,
        headline="distinct captions",
        bound="distinct_captions",
    ),
    MetricDescription("mean_length", "mean number of words per caption", None, _PAGES | _FRONTIER),
    MetricDescription(
        "mBLEU-1", "BLEU-1 of samples against the other samples of the image", "lower", _PAGES
    ),
    MetricDescription(
        "mBLEU-2", "BLEU-2 of samples against the other samples of the image", "lower", _PAGES
    ),
    MetricDescription(
        "mBLEU-3", "BLEU-3 of samples against the other samples of the image", "lower", _PAGES
    ),
    MetricDescription(
        "mBLEU-4",
        "BLEU-4 of samples against the other samples of the image",
        "lower",
        _MAIN | _FRONTIER | _MONITOR,
        bound="mbleu",
    ),
    MetricDescription(
        "distinct-1", "distinct words as a share of all words", "higher", _PAGES | _FRONTIER
    ),
    MetricDescription(
        "distinct-2",
        "distinct 2-grams as a share of all 2-grams",
        "higher",
        _PAGES | _FRONTIER | _MONITOR,
        bound="distinct_2",
    ),
    MetricDescription(
        "vocabulary",
        "number of distinct words in all captions",
        "higher",
        _PAGES | _FRONTIER | _MONITOR,
        bound="vocabulary",
    ),
    MetricDescription(
        "novel_captions",
        "share of captions that equal no training caption",
        None,
        _PAGES | _CARD,
    ),
    MetricDescription(
        "novel_5-grams", "share of 5-grams that occur in no training caption", None, _PAGES
    ),
    MetricDescription(
        "image_dependence",
        "share of CIDEr that is lost when captions are swapped between images",
        "higher",
        _MONITOR,
        bound="image_dependence",
    ),
)
DESCRIPTIONS = {metric.name: metric for metric in METRICS}


def shown_in(place: Place) -> list[str]:
    """Names of the metrics that are shown in a place, in display order."""
    return [metric.name for metric in METRICS if place in metric.shown]


def display_order(name: str) -> int:
    """Sort key that puts metrics in display order and unknown names last."""
    names = list(DESCRIPTIONS)
    return names.index(name) if name in names else len(names)
