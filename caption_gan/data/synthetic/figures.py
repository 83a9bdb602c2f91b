"""The built-in data set `figures`: charts in the manner of scientific figures.

The facts of a chart are its kind and its series, each with a colour and a shape:

    {"kind": "line", "series": [{"colour": "red", "shape": "rise", "level": 0}, ...]}

A series lies wholly above those of a lower `level`; two lines of one level cross. Series without
levels are not compared, as in some bar charts (which also know how many `groups` the bars stand
in) and in histograms, which have one series and a `marker`, a dashed upright line with a `colour`
and a `place`. The slices of a pie have a `share` in percent in place of shape and level.

Each fact can be seen somewhere in the picture without measuring the whole of it: peaks are narrow,
slices differ by much, series either keep their level or change by much. Captions speak of the
series in the order in which the eye meets them. A small network does not learn in minutes what
takes more. Captions in any other order are understood all the same.
"""

import random
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from caption_gan.data.synthetic import figure_drawing
from caption_gan.data.synthetic.figure_grammar import GRAMMAR
from caption_gan.data.synthetic.grammar import Statement

COLOURS = tuple(figure_drawing.PALETTE)

# How each kind of chart calls a series: the clause, singular or plural, and its noun.
_NOUN = {
    "line": ("one", "line"),
    "bar": ("many", "bars"),
    "scatter": ("many", "points"),
    "pie": ("one", "slice"),
    "histogram": ("many", "bars"),
    "area": ("one", "layer"),
}
KINDS = tuple(_NOUN)

# The shapes a series may have, each with the predicates that say so.
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

# Predicates of the highest and the lowest series, and relations to a lower and a higher one.
_ORDER = {
    "line": ("top", "bottom", "above", "below"),
    "bar": ("tallest", "shortest", "taller", "shorter"),
    "scatter": ("top", "bottom", "above", "below"),
    "area": ("top", "bottom", "above", "below"),
}

# Percents of slices.
_SHARES = ((70, 30), (60, 40), (58, 30, 12), (52, 36, 12))

_COUNT = {2: "two", 3: "three"}
_MOST_WORDS = 19
_PLACES = ("left", "middle", "right")


class FiguresDataset:
    """Charts, their captions, and whether a caption is true of a chart."""

    name = "figures"
    grammar = GRAMMAR

    def invent(self, rng: random.Random) -> dict[str, Any]:
        """Returns the facts of a chart, see the module's docstring."""
        kind = rng.choice(KINDS)
        if kind == "pie":
            return {"kind": kind, "series": _invent_slices(rng)}
        shapes = tuple(_SHAPES[kind])
        if kind == "histogram":
            colour, marker_colour = rng.sample(COLOURS, 2)
            return {
                "kind": kind,
                "series": [{"colour": colour, "shape": rng.choice(shapes)}],
                "marker": {"colour": marker_colour, "place": rng.choice(_PLACES)},
            }
        # Three sets of bars would leave each bar few pixels, and three lines in one chart little
        # room to rise and fall.
        threes = {"bar": 0, "line": 1, "scatter": 1, "area": 5}[kind]
        count = rng.choices((2, 3), (5, threes))[0]
        colours = rng.sample(COLOURS, count)
        series: list[dict[str, Any]] = [
            {"colour": colour, "shape": rng.choice(shapes), "level": level}
            for level, colour in enumerate(colours)
        ]
        facts: dict[str, Any] = {"kind": kind, "series": series}
        if kind == "area":
            # The edge between layers that change in opposite ways tells little of either.
            for one in series:
                one["shape"] = series[0]["shape"]
        if kind == "bar":
            facts["groups"] = rng.randint(3, 4)
            _change_or_compare(series, rng)
        if kind == "line" and (len(series) == 3 or rng.random() < 0.3):
            _cross(series, rng)
        # Bars and legends follow the order of the series, which must not give the levels away.
        rng.shuffle(series)
        return facts

    def draw(self, facts: Any, rng: random.Random) -> Image.Image:
        """Returns the chart as an RGB image, 112 to 200 pixels a side."""
        return figure_drawing.draw(facts, rng)

    def caption(self, facts: Any, rng: random.Random) -> str:
        """Words two true statements, each on a series (or slice, or marker) of its own."""
        topics = list(true_clauses(facts).values())
        order = _reading_order(facts)
        while True:
            subjects = {clause[1]: clause for clause in map(rng.choice, rng.sample(topics, 2))}
            # Two statements on one colour would be true of too many other charts.
            if len(subjects) == 2:
                clauses = [subjects[colour] for colour in order if colour in subjects]
                caption = self.grammar.write(rng.choice(true_openings(facts)), clauses, rng)
                if len(caption.split()) <= _MOST_WORDS:
                    return caption

    def is_true(self, caption: str, facts: Any) -> bool:
        """Whether the caption parses, names the kind of chart, and all it says holds."""
        statements = self.grammar.read(caption)
        return statements is not None and true_statements(facts).issuperset(statements)


def true_statements(facts: Any) -> set[Statement]:
    """Returns all that a caption may say."""
    return set(true_openings(facts)).union(*true_clauses(facts).values())


def true_openings(facts: Any) -> list[Statement]:
    """Returns all openings that hold."""
    kind = facts["kind"]
    if kind in ("histogram", "area"):
        return [("plain", kind)]
    count = _COUNT[len(facts["series"])]
    return [("plain", kind), ("counted", kind, count, kind), ("counted", kind, count, "series")]


def true_clauses(facts: Any) -> dict[str, list[Statement]]:
    """Returns all clauses that hold, by topic; one caption needs only one clause of a topic."""
    kind, series = facts["kind"], facts["series"]
    number, noun = _NOUN[kind]

    def says(predicate: str, colour: str) -> Statement:
        return (number, colour, noun, predicate)

    if kind == "pie":
        by_share = sorted(series, key=lambda one: one["share"])
        return {
            "largest": [says("largest", by_share[-1]["colour"])],
            "smallest": [says("smallest", by_share[0]["colour"])],
        }
    topics = {
        "shape of " + one["colour"]: [
            says(predicate, one["colour"]) for predicate in _SHAPES[kind][one["shape"]]
        ]
        for one in series
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
    for one in series:
        others = [other for other in series if other is not one]
        if all(one["level"] > other["level"] for other in others):
            statements.append((number, one["colour"], noun, top))
        if all(one["level"] < other["level"] for other in others):
            statements.append((number, one["colour"], noun, bottom))
        for other in others:
            difference = one["level"] - other["level"]
            relation = above if difference > 0 else below if difference else "cross"
            clause = f"{number} to another"
            statements.append((clause, one["colour"], noun, relation, other["colour"]))
    return statements


def _reading_order(facts: Any) -> list[str]:
    """Returns the colours from the highest series or largest slice on, else from left to right."""

    def place(one: Mapping[str, Any]) -> tuple[int, bool]:
        # Of two lines that cross, the falling one begins higher.
        return -one.get("share", one.get("level", 0)), "level" in one and one["shape"] != "fall"

    marker = [facts["marker"]] if "marker" in facts else []
    return [one["colour"] for one in sorted(facts["series"], key=place) + marker]


def _invent_slices(rng: random.Random) -> list[dict[str, Any]]:
    shares = rng.choice(_SHARES)
    colours = rng.sample(COLOURS, len(shares))
    slices: list[dict[str, Any]] = [
        {"colour": colour, "share": share} for colour, share in zip(colours, shares, strict=True)
    ]
    rng.shuffle(slices)
    return slices


def _change_or_compare(series: list[dict[str, Any]], rng: random.Random) -> None:
    """Makes bars either all flat, so that they compare, or all changing over the whole height."""
    flat = rng.random() < 0.35
    for one in series:
        if flat:
            one["shape"] = "flat"
        else:
            one["shape"] = rng.choice(("rise", "fall"))
            del one["level"]


def _cross(series: list[dict[str, Any]], rng: random.Random) -> None:
    """Lets two neighbouring lines cross: one rises and one falls, on one level."""
    lower = rng.randrange(len(series) - 1)
    pair = series[lower : lower + 2]
    for one, shape in zip(pair, rng.sample(("rise", "fall"), 2), strict=True):
        one["shape"] = shape
    for one in series[lower + 1 :]:
        one["level"] -= 1
