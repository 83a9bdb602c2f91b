"""The synthetic data set `figures`: charts like those in scientific papers.

The facts of a chart are its kind and its series, each with a colour and a shape:

    {"kind": "line", "series": [{"colour": "red", "shape": "rise", "level": 0}, ...]}

All of a series lies above the series of lower `level`; two lines of the same level cross. Series
without levels are not compared, e.g. in some bar charts. A bar chart also has a number of `groups`
of bars. A histogram has one series and a `marker`, a dashed vertical line with a `colour` and a
`place`. A slice of a pie has a `share` in percent instead of shape and level.

A small network should learn the data set within minutes. Each fact is therefore visible in some
part of the image: peaks are narrow, slices differ clearly, series stay level or change clearly.
Captions mention series in the order in which they are seen; captions in another order are parsed
too.
"""

import random
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from caption_gan.data.synthetic import figure_drawing
from caption_gan.data.synthetic.figure_grammar import GRAMMAR
from caption_gan.data.synthetic.grammar import Statement

COLOURS = tuple(figure_drawing.PALETTE)

# The clause for a series of each kind of chart (singular or plural), and its noun.
_NOUN = {
    "line": ("one", "line"),
    "bar": ("many", "bars"),
    "scatter": ("many", "points"),
    "pie": ("one", "slice"),
    "histogram": ("many", "bars"),
    "area": ("one", "layer"),
}
KINDS = tuple(_NOUN)

# The shapes of series in each kind of chart, each with the predicates that state it.
_SHAPES: Mapping[str, Mapping[str, Sequence[str]]] = {
    "line": {shape: (shape,) for shape in ("rise", "fall", "peak", "dip", "flat")},
    "bar": {shape: (shape,) for shape in ("rise", "fall", "flat")},
    "scatter": {"rise": ("rise", "positive"), "fall": ("fall", "negative"), "cloud": ("cloud",)},
    "histogram": {
        "left": ("left",),
        "right": ("right",),
        "peak": ("peak",),
        "twin": ("twin", "dip"),
        "flat": ("flat",),
    },
    "area": {shape: (shape,) for shape in ("widen", "narrow")},
}

# Predicates of the highest and the lowest series; relations to a lower and to a higher series.
_ORDER = {
    "line": ("top", "bottom", "above", "below"),
    "bar": ("tallest", "shortest", "taller", "shorter"),
    "scatter": ("top", "bottom", "above", "below"),
    "area": ("top", "bottom", "above", "below"),
}

# Shares of the slices of a pie, in percent.
_SHARES = ((70, 30), (60, 40), (58, 30, 12), (52, 36, 12))

_COUNT = {2: "two", 3: "three"}
_MAX_WORDS = 19
_PLACES = ("left", "middle", "right")


class FiguresDataset:
    """Charts and their captions; a `SyntheticDataset`."""

    name = "figures"
    grammar = GRAMMAR

    def sample_facts(self, rng: random.Random) -> dict[str, Any]:
        """Returns the facts of a new chart, described in the module's docstring."""
        kind = rng.choice(KINDS)
        if kind == "pie":
            return {"kind": kind, "series": _sample_slices(rng)}
        shapes = tuple(_SHAPES[kind])
        if kind == "histogram":
            colour, marker_colour = rng.sample(COLOURS, 2)
            return {
                "kind": kind,
                "series": [{"colour": colour, "shape": rng.choice(shapes)}],
                "marker": {"colour": marker_colour, "place": rng.choice(_PLACES)},
            }
        # Three sets of bars would have bars of few pixels; three lines have little room to rise and
        # fall, so they are rare.
        threes = {"bar": 0, "line": 1, "scatter": 1, "area": 5}[kind]
        count = rng.choices((2, 3), (5, threes))[0]
        colours = rng.sample(COLOURS, count)
        series: list[dict[str, Any]] = [
            {"colour": colour, "shape": rng.choice(shapes), "level": level}
            for level, colour in enumerate(colours)
        ]
        facts: dict[str, Any] = {"kind": kind, "series": series}
        if kind == "area":
            # The edge between layers that change in opposite ways shows neither change.
            for item in series:
                item["shape"] = series[0]["shape"]
        if kind == "bar":
            facts["groups"] = rng.randint(3, 4)
            _change_or_compare(series, rng)
        if kind == "line" and (len(series) == 3 or rng.random() < 0.3):
            _cross(series, rng)
        # Bars and legends have the order of the series, which must not reveal the levels.
        rng.shuffle(series)
        return facts

    def draw(self, facts: Any, rng: random.Random) -> Image.Image:
        """Returns the chart as an RGB image, 112 to 200 pixels per side."""
        return figure_drawing.draw(facts, rng)

    def caption(self, facts: Any, rng: random.Random) -> str:
        """Returns a caption of two true statements about different series, slices or markers."""
        topics = list(true_clauses(facts).values())
        order = _reading_order(facts)
        while True:
            subjects = {clause[1]: clause for clause in map(rng.choice, rng.sample(topics, 2))}
            # Two statements about one colour would be true of too many other charts.
            if len(subjects) == 2:
                clauses = [subjects[colour] for colour in order if colour in subjects]
                caption = self.grammar.generate(rng.choice(true_openings(facts)), clauses, rng)
                if len(caption.split()) <= _MAX_WORDS:
                    return caption

    def is_true(self, caption: str, facts: Any) -> bool:
        """Whether the caption can be parsed and its opening and all its clauses are true."""
        statements = self.grammar.parse(caption)
        # First what costs less: most captions that are false of a chart name another kind.
        if statements is None or statements[0] not in true_openings(facts):
            return False
        return true_statements(facts).issuperset(statements)


def true_statements(facts: Any) -> set[Statement]:
    """Returns all true openings and clauses."""
    return set(true_openings(facts)).union(*true_clauses(facts).values())


def true_openings(facts: Any) -> list[Statement]:
    """Returns all true openings."""
    kind = facts["kind"]
    if kind in ("histogram", "area"):
        return [("plain", kind)]
    count = _COUNT[len(facts["series"])]
    return [("plain", kind), ("counted", kind, count, kind), ("counted", kind, count, "series")]


def true_clauses(facts: Any) -> dict[str, list[Statement]]:
    """Returns all true clauses by topic; a caption takes at most one clause of each topic."""
    kind, series = facts["kind"], facts["series"]
    number, noun = _NOUN[kind]

    def clause(predicate: str, colour: str) -> Statement:
        return (number, colour, noun, predicate)

    if kind == "pie":
        by_share = sorted(series, key=lambda item: item["share"])
        return {
            "largest": [clause("largest", by_share[-1]["colour"])],
            "smallest": [clause("smallest", by_share[0]["colour"])],
        }
    topics = {
        "shape of " + item["colour"]: [
            clause(predicate, item["colour"]) for predicate in _SHAPES[kind][item["shape"]]
        ]
        for item in series
    }
    if "marker" in facts:
        marker = facts["marker"]
        topics["marker"] = [("marker", marker["colour"], marker["place"])]
    if "level" in series[0]:
        topics["order"] = _true_order(kind, series)
    return topics


def _true_order(kind: str, series: Sequence[Mapping[str, Any]]) -> list[Statement]:
    number, noun = _NOUN[kind]
    top, bottom, above, below = _ORDER[kind]
    statements: list[Statement] = []
    for item in series:
        others = [other for other in series if other is not item]
        if all(item["level"] > other["level"] for other in others):
            statements.append((number, item["colour"], noun, top))
        if all(item["level"] < other["level"] for other in others):
            statements.append((number, item["colour"], noun, bottom))
        for other in others:
            difference = item["level"] - other["level"]
            relation = above if difference > 0 else below if difference else "cross"
            clause = f"{number} to another"
            statements.append((clause, item["colour"], noun, relation, other["colour"]))
    return statements


def _reading_order(facts: Any) -> list[str]:
    """Returns the colours from highest series or largest slice down, or from left to right."""

    def place(item: Mapping[str, Any]) -> tuple[int, bool]:
        # Of two lines that cross, the falling one starts higher.
        return -item.get("share", item.get("level", 0)), "level" in item and item["shape"] != "fall"

    marker = [facts["marker"]] if "marker" in facts else []
    return [item["colour"] for item in sorted(facts["series"], key=place) + marker]


def _sample_slices(rng: random.Random) -> list[dict[str, Any]]:
    shares = rng.choice(_SHARES)
    colours = rng.sample(COLOURS, len(shares))
    slices: list[dict[str, Any]] = [
        {"colour": colour, "share": share} for colour, share in zip(colours, shares, strict=True)
    ]
    rng.shuffle(slices)
    return slices


def _change_or_compare(series: list[dict[str, Any]], rng: random.Random) -> None:
    """Makes all bars flat and comparable, or all rise or fall over the whole height."""
    flat = rng.random() < 0.35
    for item in series:
        if flat:
            item["shape"] = "flat"
        else:
            item["shape"] = rng.choice(("rise", "fall"))
            del item["level"]


def _cross(series: list[dict[str, Any]], rng: random.Random) -> None:
    """Makes two neighbouring lines cross: one rises and one falls, on the same level."""
    lower = rng.randrange(len(series) - 1)
    pair = series[lower : lower + 2]
    for item, shape in zip(pair, rng.sample(("rise", "fall"), 2), strict=True):
        item["shape"] = shape
    for item in series[lower + 1 :]:
        item["level"] -= 1
