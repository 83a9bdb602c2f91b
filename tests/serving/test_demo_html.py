"""HTML of the demo page: highlighted regions, captions, escaped text."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from serving import demo_html


def masks(html: str) -> list[np.ndarray]:
    """Opacity of the mask of each word, [rows, columns]."""
    found = re.findall(r"base64,([^)]*)\)", html)
    return [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))[..., 1].tolist()
        for text in found
    ]


def test_highlights_are_relative_to_the_largest_weight_of_a_word():
    weights = np.array([[0.1, 0.2, 0, 0.1], [0.25, 0.25, 0.25, 0.25]], np.float32)
    html = demo_html.captioned_image("file=x", ["red", "star"], weights, -0.5)
    assert masks(html) == [[[128, 255], [0, 128]], [[255, 255], [255, 255]]]
    assert demo_html.INSTRUCTION in html
    assert "-0.50" in html


@pytest.mark.parametrize("weights", [[0.0] * 4, [np.nan] * 4], ids=["zero", "nan"])
def test_words_without_attention_highlight_nothing(weights):
    html = demo_html.captioned_image("file=x", ["red"], np.array([weights], np.float32), 0)
    assert masks(html) == [[[0, 0], [0, 0]]]


@pytest.mark.parametrize("regions", [0, 6])
def test_regions_that_are_not_a_square_grid_are_not_highlighted(regions):
    html = demo_html.captioned_image("file=x", ["red"], np.ones([1, regions], np.float32), 0)
    assert not masks(html)
    assert demo_html.NO_GRID in html


def test_a_caption_may_be_empty():
    html = demo_html.captioned_image("file=x", [], np.ones([0, 4], np.float32), 0)
    assert "The caption is empty." in html
    assert "(empty)" in demo_html.scored_captions([""], [0])


def test_text_is_escaped():
    text = '<img src=x onerror="alert()">'
    weights = np.ones([1, 4], np.float32)
    for html in (
        demo_html.captioned_image("file=x", [text], weights, 0),
        demo_html.captioned_image('"><img src=x onerror="alert()', ["red"], weights, 0),
        demo_html.scored_captions([text], [0]),
        demo_html.error(text),
        demo_html.hint(text),
    ):
        assert "<img src=x" not in html
