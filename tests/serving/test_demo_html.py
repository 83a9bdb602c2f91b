"""Parts of the demo's page, as HTML."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from serving import demo_html


def masks(html: str) -> list[np.ndarray]:
    """Opacity of each word's mask, [rows, columns]."""
    found = re.findall(r"base64,([^)]*)\)", html)
    return [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))[..., 1].tolist()
        for text in found
    ]


def test_words_are_lit_relative_to_their_strongest_region():
    weights = np.array([[0.1, 0.2, 0, 0.1], [0.25, 0.25, 0.25, 0.25]], np.float32)
    html = demo_html.picture("file=x", ["red", "star"], weights, -0.5)
    assert masks(html) == [[[128, 255], [0, 128]], [[255, 255], [255, 255]]]
    assert demo_html.HOW in html
    assert "-0.50" in html


@pytest.mark.parametrize("weights", [[0.0] * 4, [np.nan] * 4], ids=["zero", "nan"])
def test_words_that_look_nowhere_leave_the_image_dark(weights):
    html = demo_html.picture("file=x", ["red"], np.array([weights], np.float32), 0)
    assert masks(html) == [[[0, 0], [0, 0]]]


@pytest.mark.parametrize("regions", [0, 6])
def test_regions_that_are_no_square_are_not_shown(regions):
    html = demo_html.picture("file=x", ["red"], np.ones([1, regions], np.float32), 0)
    assert not masks(html)
    assert demo_html.NO_GRID in html


def test_a_caption_may_be_empty():
    html = demo_html.picture("file=x", [], np.ones([0, 4], np.float32), 0)
    assert "The caption is empty." in html
    assert "(empty)" in demo_html.scored([""], [0])


def test_what_is_said_is_text():
    said = '<img src=x onerror="alert()">'
    weights = np.ones([1, 4], np.float32)
    for html in (
        demo_html.picture("file=x", [said], weights, 0),
        demo_html.picture('"><img src=x onerror="alert()', ["red"], weights, 0),
        demo_html.scored([said], [0]),
        demo_html.failure(said),
        demo_html.hint(said),
    ):
        assert "<img src=x" not in html
