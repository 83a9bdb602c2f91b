"""The grammar of the captions of charts, see `caption_gan.data.synthetic.figures`."""

from collections.abc import Mapping, Sequence

from caption_gan.data.synthetic.figure_drawing import PALETTE
from caption_gan.data.synthetic.grammar import Grammar

# Phrases are short and their informative words close together. In long captions, most of what a
# network learns first is the choice among synonyms; it learns late to look at the image.

_IRREGULAR = {"are": "is", "have": "has", "go": "goes", "cross": "crosses"}

# Plural, as in "the red bars rise"; `_singulars` derives the singular, "rises".
_PREDICATES: Mapping[str, Sequence[str]] = {
    "rise": ("rise", "climb", "go up"),
    "fall": ("fall", "drop", "go down"),
    "peak": ("peak midway", "peak in between"),
    "dip": ("dip midway", "dip in between"),
    "flat": ("stay flat", "stay level"),
    "positive": ("correlate positively",),
    "negative": ("correlate negatively",),
    "cloud": ("form a cloud", "are uncorrelated"),
    "left": ("lean left", "peak early"),
    "right": ("lean right", "peak late"),
    "twin": ("have two peaks", "form two humps"),
    "widen": ("widen", "grow", "get thicker"),
    "narrow": ("narrow", "shrink", "get thinner"),
    "top": ("lie highest", "stay on top"),
    "bottom": ("lie lowest", "stay at the bottom"),
    "tallest": ("are tallest", "reach highest"),
    "shortest": ("are shortest", "stay lowest"),
    "largest": ("are largest", "take the biggest share"),
    "smallest": ("are smallest", "take the least share"),
}
_RELATIONS: Mapping[str, Sequence[str]] = {
    "above": ("lie above", "stay above"),
    "below": ("lie below", "stay below"),
    "cross": ("cross", "intersect"),
    "taller": ("exceed", "are taller than"),
    "shorter": ("stay under", "are shorter than"),
}


def _singular(phrase: str) -> str:
    verb, *rest = phrase.split()
    default = verb + ("es" if verb.endswith("ch") else "s")
    return " ".join([_IRREGULAR.get(verb, default), *rest])


def _singulars(phrases: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    return {value: tuple(map(_singular, wordings)) for value, wordings in phrases.items()}


GRAMMAR = Grammar(
    words={
        "kind": {
            "line": ("line chart", "line plot", "line graph"),
            "bar": ("bar chart", "bar graph"),
            "scatter": ("scatter plot", "scatter chart"),
            "pie": ("pie chart", "pie diagram"),
            "histogram": ("histogram",),
            # No kind begins with a vowel, because the article before it is always "a".
            "area": ("stacked area chart", "stacked area plot"),
        },
        "count": {"two": ("two",), "three": ("three",)},
        "group": {
            "series": ("series",),
            "line": ("lines", "curves"),
            "bar": ("sets of bars",),
            "scatter": ("sets of points",),
            "pie": ("slices",),
        },
        "colour": {colour: (colour,) for colour in PALETTE},
        "thing": {
            "line": ("line", "curve"),
            "slice": ("slice", "wedge"),
            "layer": ("layer", "band", "area"),
        },
        "things": {"bars": ("bars",), "points": ("points", "dots", "markers")},
        "does": _singulars(_PREDICATES),
        "do": _PREDICATES,
        "compares": _singulars(_RELATIONS),
        "compare": _RELATIONS,
        "place": {"left": ("left",), "middle": ("middle", "centre"), "right": ("right",)},
    },
    openings={
        "plain": ("a {kind}",),
        "counted": ("a {kind} of {count} {group}", "a {kind} with {count} {group}"),
    },
    clauses={
        "one": ("the {colour} {thing} {does}",),
        "many": ("the {colour} {things} {do}",),
        "one to another": ("the {colour} {thing} {compares} the {colour2} one",),
        "many to another": ("the {colour} {things} {compare} the {colour2} ones",),
        "marker": (
            "a {colour} dashed line marks the {place}",
            "a {colour} dashed line stands at the {place}",
        ),
    },
    links=(" where ", ", where "),
    joins=(" and ", ", while ", ", whereas ", ", and "),
)
