"""Captions in cells of tables, among them lists that are written as text."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from caption_gan.data.skips import Skips
from caption_gan.data.sources.caption_cells import caption_reader

LISTS = st.lists(st.text(st.characters(exclude_categories=["Cs"])))
WRITTEN = {
    "Python": str,
    "tuples": lambda captions: str(tuple(captions)),
    "JSON": json.dumps,
    "NumPy": lambda captions: str(np.array(captions, object)),
}


def read(cells, skips=None):
    reader = caption_reader(cells, "captions", skips or Skips())
    return [list(reader(cell)) for cell in cells]


@pytest.mark.parametrize("write", WRITTEN.values(), ids=WRITTEN.keys())
@given(captions=LISTS)
def test_lists_are_read_as_they_were_written(write, captions):
    assert read([write(captions)]) == [captions]


@pytest.mark.parametrize(
    ("text", "captions"),
    [
        (" ['a red square', \n \"it's\" ] ", ["a red square", "it's"]),
        ("[u'a', u'b']", ["a", "b"]),
        ("['a', None, nan]", ["a"]),
        ("['a'\n 'b']", ["a", "b"]),
        ('["a", null]', ["a"]),
        ('[{"raw": "a", "tokens": ["a"]}]', ["a"]),
        ("[np.str_('a'), np.str_(\"b's\")]", ["a", "b's"]),
        ("array(['a', 'b'], dtype=object)", ["a", "b"]),
        ("[]", []),
    ],
)
def test_forms_of_lists(text, captions):
    skips = Skips()
    assert read([text, "", None], skips) == [captions, [""], []]
    assert skips.notes == ["1 texts of captions are lists; each item is a caption"]


@pytest.mark.parametrize(
    "text",
    [
        "[laughs] a man",
        "(a) and (b)",
        "['a', 3]",
        "[1, 2]",
        "['a' 'b', 'c']",
        "['a",
        "[__import__('os')]",
        "array(1)",
        "{'raw': 'a'}",
        "3",
    ],
)
def test_other_texts_are_captions(text):
    assert read([text]) == [[text]]


def test_texts_in_lists_may_be_lists():
    assert read([["['a', 'b']"], {"raw": "['c']"}, []]) == [["a", "b"], ["c"], []]


def test_one_other_text_leaves_all_as_they_are():
    cells = ["['a', 'b']", "c", "['d'", ["['e']"], None]
    skips = Skips()
    assert read(cells, skips) == [["['a', 'b']"], ["c"], ["['d'"], ["['e']"], []]
    assert skips.notes == [
        "warning: 3 of 4 texts of captions look like lists of captions, but 2 are no lists, "
        "such as 'c'; each text is one caption"
    ]
    skips = Skips()
    assert read(["a", "[laughs]"], skips) == [["a"], ["[laughs]"]]
    assert not skips.notes
