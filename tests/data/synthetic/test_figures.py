"""Charts, their captions and their fact checker."""

import functools
import json
import random
import re
from collections import Counter
from typing import Any

import numpy as np
import pytest

from caption_gan.data.synthetic.dataset import SyntheticSource
from caption_gan.data.synthetic.figure_drawing import PALETTE
from caption_gan.data.synthetic.figures import (
    COLOURS,
    KINDS,
    FiguresDataset,
    true_clauses,
    true_openings,
    true_statements,
)

DATASET = FiguresDataset()
WORDS = DATASET.grammar.words

LINE: dict[str, Any] = {
    "kind": "line",
    "series": [
        {"colour": "green", "shape": "peak", "level": 1},
        {"colour": "red", "shape": "rise", "level": 0},
        {"colour": "blue", "shape": "fall", "level": 0},
    ],
}
BAR: dict[str, Any] = {
    "kind": "bar",
    "groups": 4,
    "series": [
        {"colour": "pink", "shape": "flat", "level": 0},
        {"colour": "cyan", "shape": "flat", "level": 1},
    ],
}
SCATTER: dict[str, Any] = {
    "kind": "scatter",
    "series": [
        {"colour": "purple", "shape": "fall", "level": 0},
        {"colour": "orange", "shape": "cloud", "level": 1},
    ],
}
PIE: dict[str, Any] = {
    "kind": "pie",
    "series": [
        {"colour": "yellow", "share": 26},
        {"colour": "red", "share": 62},
        {"colour": "green", "share": 12},
    ],
}
HISTOGRAM: dict[str, Any] = {
    "kind": "histogram",
    "series": [{"colour": "blue", "shape": "twin"}],
    "marker": {"colour": "red", "place": "left"},
}
AREA: dict[str, Any] = {
    "kind": "area",
    "series": [
        {"colour": "cyan", "shape": "widen", "level": 1},
        {"colour": "pink", "shape": "narrow", "level": 0},
        {"colour": "red", "shape": "widen", "level": 2},
    ],
}
ALL = (LINE, BAR, SCATTER, PIE, HISTOGRAM, AREA)
OPENING = {
    "line": "a line chart",
    "bar": "a bar chart",
    "scatter": "a scatter plot",
    "pie": "a pie chart",
    "histogram": "a histogram",
    "area": "a stacked area chart",
}
NOUN = {
    "line": "line",
    "bar": "bars",
    "scatter": "points",
    "pie": "slice",
    "histogram": "bars",
    "area": "layer",
}

# All true predicates, written by hand.
PREDICATES = {
    "line": {"green peak", "green top", "red rise", "blue fall"},
    "bar": {"pink flat", "pink shortest", "cyan flat", "cyan tallest"},
    "scatter": {
        "purple fall", "purple negative", "purple bottom", "orange cloud", "orange top",
    },
    "pie": {"red largest", "green smallest"},
    "histogram": {"blue twin", "blue dip"},
    "area": {"cyan widen", "pink narrow", "pink bottom", "red widen", "red top"},
}  # fmt: skip
RELATIONS: dict[str, set[str]] = {
    "line": {
        "green above red", "green above blue", "red below green", "blue below green",
        "red cross blue", "blue cross red",
    },
    "bar": {"cyan taller pink", "pink shorter cyan"},
    "scatter": {"orange above purple", "purple below orange"},
    "pie": set(),
    "histogram": set(),
    "area": {
        "cyan above pink", "red above pink", "red above cyan",
        "pink below cyan", "pink below red", "cyan below red",
    },
}  # fmt: skip


def captioned(seed: int) -> tuple[dict[str, Any], str]:
    rng = random.Random(seed)
    facts = DATASET.sample_facts(rng)
    return facts, DATASET.caption(facts, rng)


@functools.cache
def meaning_of_words() -> dict[str, set[tuple[str, str]]]:
    meanings: dict[str, set[tuple[str, str]]] = {}
    for name, values in WORDS.items():
        for value, wordings in values.items():
            for wording in wordings:
                meanings.setdefault(wording, set()).add((name, value))
    return meanings


@pytest.mark.parametrize("facts", ALL, ids=lambda facts: facts["kind"])
def test_true_and_false_predicates(facts):
    kind = facts["kind"]
    verbs = WORDS["do" if NOUN[kind] in WORDS["things"] else "does"]
    for colour in COLOURS:
        for value, wordings in verbs.items():
            for wording in wordings:
                caption = f"{OPENING[kind]} where the {colour} {NOUN[kind]} {wording}."
                expected = f"{colour} {value}" in PREDICATES[kind]
                assert DATASET.is_true(caption, facts) == expected, caption


@pytest.mark.parametrize("facts", ALL, ids=lambda facts: facts["kind"])
def test_true_and_false_relations(facts):
    kind = facts["kind"]
    several = NOUN[kind] in WORDS["things"]
    for first in COLOURS:
        for second in COLOURS:
            for value, (wording, *_) in WORDS["compare" if several else "compares"].items():
                ones = "ones" if several else "one"
                clause = f"the {first} {NOUN[kind]} {wording} the {second} {ones}"
                expected = f"{first} {value} {second}" in RELATIONS[kind]
                assert DATASET.is_true(f"{OPENING[kind]} where {clause}", facts) == expected, clause


def test_only_the_histogram_has_a_marker():
    for facts in ALL:
        for colour in COLOURS:
            for place in ("left", "middle", "right"):
                caption = f"{OPENING[facts['kind']]} where a {colour} dashed line marks the {place}"
                expected = facts is HISTOGRAM and colour == "red" and place == "left"
                assert DATASET.is_true(caption, facts) == expected, caption


@pytest.mark.parametrize(
    ("facts", "true", "false"),
    (
        (
            LINE,
            ("a line plot of three series", "a line graph with three curves"),
            ("a line plot of two series", "a line plot of three layers", "a bar chart"),
        ),
        (BAR, ("a bar graph with two sets of bars",), ("a bar graph with three sets of bars",)),
        (SCATTER, ("a scatter plot with two sets of points",), ("a scatter plot of two lines",)),
        (PIE, ("a pie diagram", "a pie chart of three slices"), ("a pie chart of two slices",)),
        (HISTOGRAM, ("a histogram",), ("a histogram of two series", "a bar chart")),
        (AREA, ("a stacked area plot",), ("a stacked area plot of two series", "a line plot")),
    ),
    ids=OPENING,
)
def test_the_opening_must_be_true(facts, true, false):
    clause = next(iter(true_clauses(facts).values()))[0]
    caption = DATASET.grammar.generate(true_openings(facts)[0], [clause], random.Random(0))
    assert DATASET.is_true(caption, facts)
    (rest,) = re.findall(r" where .*", caption)
    for opening in true:
        assert DATASET.is_true(opening + rest, facts)
    for opening in false:
        assert not DATASET.is_true(opening + rest, facts)


def test_generated_captions_are_true_specific_and_short():
    kinds: Counter[str] = Counter()
    for seed in range(1200):
        facts, caption = captioned(seed)
        kinds[facts["kind"]] += 1
        assert DATASET.is_true(caption, json.loads(json.dumps(facts))), (caption, facts)
        assert caption == caption.lower()
        assert 8 <= len(caption.split()) <= 19
        statements = DATASET.grammar.parse(caption)
        assert statements is not None and len(statements) == 3
        assert (
            len({value for statement in statements for value in statement if value in COLOURS}) >= 2
        )
    assert set(kinds) == set(KINDS) and min(kinds.values()) > 120


def test_one_wrong_word_makes_a_caption_false():
    pattern = re.compile(
        "|".join(rf"\b{word}\b" for word in sorted(meaning_of_words(), key=len, reverse=True))
    )
    for seed in range(150):
        facts, caption = captioned(seed)
        colours_seen = {one["colour"] for one in (*facts["series"], facts.get("marker", {})) if one}
        for match in pattern.finditer(caption):
            for name, value in meaning_of_words()[match[0]]:
                for other, (wording, *_) in WORDS[name].items():
                    swapped = caption[: match.start()] + wording + caption[match.end() :]
                    if other == value or not DATASET.is_true(swapped, facts):
                        continue
                    # Some other values are true too, but none of these classes:
                    assert name not in ("kind", "count", "thing", "things", "place"), swapped
                    assert name != "colour" or other in colours_seen, swapped


def test_captions_of_other_charts_are_mostly_false():
    examples = [captioned(seed) for seed in range(120)]
    fits = 0
    for facts, _ in examples:
        for other, caption in examples:
            if facts is not other and DATASET.is_true(caption, facts):
                assert facts["kind"] == other["kind"]
                fits += 1
    assert fits / len(examples) ** 2 < 0.01


def test_no_caption_is_true_of_many_charts():
    truths = [true_statements(captioned(seed)[0]) for seed in range(1000)]
    meanings = {
        frozenset(DATASET.grammar.parse(captioned(seed)[1]) or ()) for seed in range(5000, 8000)
    }
    assert max(sum(map(meaning.issubset, truths)) for meaning in meanings) < 0.02 * len(truths)


def test_text_that_cannot_be_parsed_is_false():
    true = "a line chart where the red line rises and the blue line falls."
    assert DATASET.is_true(true, LINE)
    for caption in (
        "",
        "a line chart.",
        "a line chart in which",
        "the red line rises and the blue line falls.",
        "a line chart where the red line rises and the blue line.",
        "a line chart where the red line rises the blue line falls.",
        "a line chart where the red line rises and and the blue line falls.",
        "a line chart where the red line rises and the blue line falls and.",
        *(true.replace(word, "[UNK]") for word in set(true.rstrip(".").split())),
        true + " [UNK]",
    ):
        assert not DATASET.is_true(caption, LINE), caption
    assert DATASET.is_true(
        "a line chart where the red line rises, and the red curve climbs .", LINE
    )


def test_openings_links_and_joins_combine_freely():
    grammar = DATASET.grammar
    for kind in WORDS["kind"].values():
        for template in grammar.openings["plain"]:
            for link in grammar.links:
                for join in grammar.joins:
                    clauses = f"the red bars rise{join}the blue line falls{join}the red dots drop"
                    caption = template.format(kind=kind[0]) + link + clauses
                    statements = grammar.parse(caption)
                    assert statements is not None and len(statements) == 4, caption


def test_images_have_the_size_of_figures_and_show_all_colours():
    for seed in range(120):
        rng = random.Random(seed)
        facts = DATASET.sample_facts(rng)
        image = DATASET.draw(facts, rng)
        assert image.mode == "RGB"
        assert all(112 <= side <= 200 for side in image.size), image.size
        assert 0.78 <= image.width / image.height <= 1.82
        pixels = np.asarray(image, np.float32)
        shown = [one["colour"] for one in facts["series"]]
        shown += [facts["marker"]["colour"]] if "marker" in facts else []
        for colour in shown:
            distance = np.abs(pixels - PALETTE[colour]).max(axis=-1)
            assert (distance < 30).sum() > 60, (seed, colour, facts)


def test_the_same_seed_gives_the_same_bytes_in_another_process():
    source = SyntheticSource(DATASET, {"train": 3, "val": 1}, processes=1)
    train = list(source.examples("train", range(source.images_of_split["train"])))
    assert train == [source.example("train", index) for index in range(3)]
    assert len({example.image for example in (*train, source.example("val", 0))}) == 4
    other = SyntheticSource(DATASET, {"train": 3}, seed=1)
    assert other.example("train", 0).image != train[0].image
    for example in train:
        assert len(set(example.captions)) == 5
        assert all(
            DATASET.is_true(caption, json.loads(example.facts)) for caption in example.captions
        )
