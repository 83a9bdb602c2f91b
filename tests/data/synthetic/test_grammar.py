"""Generating and parsing captions."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caption_gan.data.synthetic.grammar import Grammar

WORDS: dict[str, dict[str, tuple[str, ...]]] = {
    "colour": {"red": ("red", "crimson"), "blue": ("blue",)},
    "direction": {"rise": ("goes up", "rises"), "steep": ("goes up steeply",)},
}
OPENINGS = {"chart": ("a chart", "here is a chart"), "toned": ("a {colour} chart",)}
CLAUSES = {
    "trend": ("the {colour} line {direction}", "up: {direction} the {colour} one"),
    "over": ("{colour} is over {colour2}", "under {colour} is {colour2}"),
}
LINKS = (" in which ", ": ")
JOINS = (" and ", ", and ", ", ")
GRAMMAR = Grammar(WORDS, OPENINGS, CLAUSES, LINKS, JOINS)

colours = st.sampled_from(tuple(WORDS["colour"]))
openings = st.one_of(st.just(("chart",)), st.tuples(st.just("toned"), colours))
clauses = st.one_of(
    st.tuples(st.just("trend"), colours, st.sampled_from(tuple(WORDS["direction"]))),
    st.tuples(st.just("over"), colours, colours),
)


@given(openings, st.lists(clauses, min_size=1, max_size=4), st.integers())
def test_parse_inverts_generate(opening, statements, seed):
    caption = GRAMMAR.generate(opening, statements, random.Random(seed))
    assert caption.endswith(".")
    assert GRAMMAR.parse(caption) == (opening, *statements)


@pytest.mark.parametrize("opening", ("a chart", "here is a chart", "a crimson chart"))
@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("join", JOINS)
def test_openings_links_and_joins_combine_freely(opening, link, join):
    caption = f"{opening}{link}the red line rises{join}red is over blue"
    statements = GRAMMAR.parse(caption)
    assert statements is not None
    assert statements[1:] == (("trend", "red", "rise"), ("over", "red", "blue"))


def test_spacing_case_and_the_last_stop_do_not_matter():
    plain = GRAMMAR.parse("a chart in which red is over blue, and the red line rises.")
    assert plain is not None
    for caption in (
        "A chart in which red is over blue, and the red line rises",
        " a  chart in which red is over blue , and the red line rises . ",
    ):
        assert GRAMMAR.parse(caption) == plain


def test_the_longest_wording_is_parsed():
    assert GRAMMAR.parse("a chart: the red line goes up steeply") == (
        ("chart",),
        ("trend", "red", "steep"),
    )


def test_templates_may_order_their_slots_differently():
    assert GRAMMAR.parse("a chart: up: rises the blue one") == (
        ("chart",),
        ("trend", "blue", "rise"),
    )


@pytest.mark.parametrize(
    "caption",
    (
        "",
        ".",
        "a chart",
        "a chart in which",
        "the red line rises",
        "a chart in which the red line",
        "a chart in which the red line rises and",
        "a chart in which the red line rises the blue line rises",
        "a chart and the red line rises",
        "a chart in which the red line rises in which the blue line rises",
        "a chart in which the green line rises",
        "a chart in which the red line risesx",
        "a chart in which the red line rises [UNK]",
        "a [UNK] chart in which the red line rises",
        "a chart in which the red line rises..",
        "xa chart in which the red line rises",
    ),
)
def test_other_text_is_not_parsed(caption):
    assert GRAMMAR.parse(caption) is None


def test_all_wordings_are_generated():
    captions = {
        GRAMMAR.generate(("chart",), [("trend", "red", "rise")], random.Random(seed))
        for seed in range(500)
    }
    # Openings x links x templates x colours x directions.
    assert len(captions) == 2 * 2 * 2 * 2 * 2


def test_generate_needs_one_value_per_slot():
    with pytest.raises(ValueError):
        GRAMMAR.generate(("chart",), [("trend", "red")], random.Random(0))


def test_templates_of_a_name_must_share_slots():
    clauses = {"trend": ("the {colour} line {direction}", "the {colour} line")}
    with pytest.raises(ValueError, match="trend"):
        Grammar(WORDS, OPENINGS, clauses, LINKS, JOINS)


def test_a_wording_must_have_one_meaning():
    words = WORDS | {"colour": {"red": ("red",), "scarlet": ("red",)}}
    with pytest.raises(ValueError, match="colour"):
        Grammar(words, OPENINGS, CLAUSES, LINKS, JOINS)
