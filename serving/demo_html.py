"""HTML of the demo page; `demo.css` has its styles.

T words, R regions: a square grid over the whole image, in row-major order.
"""

import io
import math
from base64 import b64encode
from collections.abc import Iterable, Sequence
from html import escape

import numpy as np
from PIL import Image

INSTRUCTION = "Point at a word or select it to see what the model attended to."
NO_GRID = "Attention cannot be shown: the image regions are not a square grid."


def hint(text: str) -> str:
    """A note in place of content, or below it."""
    return f'<p class="hint">{escape(text)}</p>'


def error(message: str) -> str:
    """An error message in place of content."""
    return f'<p class="error" role="alert">{escape(message)}</p>'


def captioned_image(url: str, words: Sequence[str], attention: np.ndarray, score: float) -> str:
    """An image with its caption; each word highlights the regions that the model attended to.

    Args:
        url: URL of the image.
        words: Words [T] of the caption.
        attention: Attention weights [T, R], not negative.
        score: Score of the caption.
    """
    masks = _masks(attention)
    caption = "".join(_word(url, word, mask) for word, mask in zip(words, masks, strict=True))
    if not words:
        caption = hint("The caption is empty.")
    note = hint(INSTRUCTION if any(masks) else NO_GRID) if words else ""
    return (
        f'<figure class="captioned-image"><img src="{escape(url)}" alt="Your image">'
        f'<figcaption><div class="words" role="radiogroup" aria-label="Words of the caption">'
        f"{caption}{_score(score)}</div>{note}</figcaption></figure>"
    )


def scored_captions(captions: Iterable[str], scores: Iterable[float]) -> str:
    """A list of captions with their scores."""
    rows = (
        f"<li><span>{escape(caption) or hint('(empty)')}</span>{_score(score)}</li>"
        for caption, score in zip(captions, scores, strict=True)
    )
    return f'<ol class="captions">{"".join(rows)}</ol>'


def _score(score: float) -> str:
    return f'<span class="score" title="mean log-probability per word">{score:.2f}</span>'


def _word(url: str, word: str, mask: str) -> str:
    # The whole image dark and grey, and on top of it the attended regions in colour.
    source = escape(url)
    highlight = (
        f'<img src="{source}" alt=""><img src="{source}" alt="" style="mask-image: url({mask})">'
    )
    return (
        f'<label><input type="radio" name="word"><span class="word">{escape(word)}</span>'
        f'<span class="highlight">{highlight if mask else ""}</span></label>'
    )


def _masks(attention: np.ndarray) -> list[str]:
    """A mask image for each word, as a data URL; empty if the regions are not a square grid.

    Opacity is relative to the largest weight of a word, so uniform attention shows the whole image.
    """
    side = math.isqrt(attention.shape[1])
    if side**2 != attention.shape[1] or not side:
        return [""] * len(attention)
    masks = []
    for weights in np.nan_to_num(attention):
        relative = weights / max(weights.max(), np.finfo(np.float32).tiny)
        opacity = Image.fromarray(np.rint(255 * relative).astype(np.uint8).reshape(side, side))
        buffer = io.BytesIO()
        Image.merge("LA", (opacity, opacity)).save(buffer, format="PNG")
        masks.append(f"data:image/png;base64,{b64encode(buffer.getvalue()).decode()}")
    return masks
