"""The table of metrics agrees with the evaluation, the monitor and the documentation."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest

from caption_gan.config.run import Config, MonitorConfig
from caption_gan.data.example import CaptionedImage, Example
from caption_gan.evaluation import split_metrics
from caption_gan.evaluation.frontier import COARSE, Frontier
from caption_gan.metrics import java_scores
from caption_gan.metrics.java_scores import Scored
from caption_gan.metrics.metric import mean_of
from caption_gan.metrics.table import METRICS, Place, display_order, shown_in

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
FACTS = json.dumps({"dog": True})
EXAMPLES = [
    Example("a", b"", ("a red dog runs", "a dog runs on grass"), FACTS),
    Example("b", b"", ("a cat sleeps", "the cat is asleep on a sofa"), FACTS),
]
SAMPLES = ["a red dog runs", "a cat"]


class FakeDualEncoder:
    def embed_images(self, images):
        return np.eye(len(images))

    embed_texts = embed_images


def check_facts(caption: str, facts: dict[str, bool]) -> bool:
    return ("dog" in caption) == facts["dog"]


def fake_java_score(captions, references) -> Scored:
    return Scored(dict.fromkeys(captions, 0.5), mean_of([0.5] * len(captions)))


@pytest.fixture
def metrics_of_evaluation(monkeypatch) -> set[str]:
    """The names of all metrics that can be computed for a decoding with samples."""
    monkeypatch.setattr(java_scores, "meteor", fake_java_score)
    monkeypatch.setattr(java_scores, "spice", fake_java_score)
    captions = {"greedy": [(SAMPLES[0], -1.0)], "sample": [(text, -1.0) for text in SAMPLES]}
    images = [CaptionedImage(example, captions, [], np.zeros([0, 1, 1])) for example in EXAMPLES]
    scores = split_metrics.score_images(images, Config(), check_facts, ["a dog"], FakeDualEncoder())
    assert not scores.not_run
    return {name.partition("/")[2] for name in scores.metrics}


def test_evaluation_computes_the_metrics_of_the_pages(metrics_of_evaluation):
    of_critic = {"critic_auc", "likelihood_auc"}  # Of runs with a critic.
    assert metrics_of_evaluation | of_critic == set(shown_in(Place.PAGES))


def test_points_of_the_frontier_have_the_metrics_of_the_frontier():
    computed: set[str] = set()
    for fact_checker in (None, check_facts):
        frontier = Frontier(None, EXAMPLES, fact_checker, 2, 0, COARSE)
        computed |= set(frontier.score([SAMPLES, SAMPLES]))
    assert computed == set(shown_in(Place.FRONTIER))


def test_bounds_are_those_of_the_monitor_settings():
    settings = {field.name for field in dataclasses.fields(MonitorConfig)}
    others = {"every_steps", "images", "samples", "rollbacks", "patience"}
    assert {metric.bound for metric in METRICS if metric.bound} == settings - others


def test_metrics_with_a_bound_are_shown_by_the_monitor():
    assert all(Place.MONITOR in metric.shown for metric in METRICS if metric.bound)


def test_unknown_metrics_come_last():
    names = ["unknown", *reversed([metric.name for metric in METRICS])]
    assert sorted(names, key=display_order) == [metric.name for metric in METRICS] + ["unknown"]


def test_documentation_has_the_table():
    """Prints the rows that the page should have if it has others."""
    places = {
        Place.SUMMARY: "summary",
        Place.PAGES: "pages",
        Place.FRONTIER: "frontier",
        Place.MODEL_CARD: "model card",
        Place.MONITOR: "monitor",
    }
    expected = [
        f"| `{metric.name}` | {metric.meaning} | {metric.better or '-'} | "
        + ", ".join(name for place, name in places.items() if place in metric.shown)
        + " |"
        for metric in METRICS
    ]
    found = re.findall(r"^\| `.*", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert found == expected, "\n".join(expected)
