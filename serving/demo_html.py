"""Parts of the demo's page as HTML; `demo.css` says how they look.

T words, R regions of the image: a square grid, row after row, over all of it.
"""

import io
import math
from base64 import b64encode
from collections.abc import Iterable, Sequence
from html import escape

import numpy as np
from PIL import Image

HOW = "Point at a word, or pick it, to see where the model looked when it wrote it."
NO_GRID = "Where the model looked cannot be shown: its regions are no square grid."


def hint(text: str) -> str:
    """What could be here, or why it is not."""
    return f'<p class="hint">{escape(text)}</p>'


def failure(message: str) -> str:
    """What went wrong, in place of what was asked for."""
    return f'<p class="failure" role="alert">{escape(message)}</p>'


def picture(url: str, words: Sequence[str], attention: np.ndarray, score: float) -> str:
    """An image with its caption, each word of which lights what the model looked at.

    Args:
        url: Of the image.
        words: T of the caption's.
        attention: Weights [T, R], none negative.
        score: Of the caption.
    """
    masks = _masks(attention)
    chosen = "".join(_word(url, *each) for each in zip(words, masks, strict=True))
    if not words:
        chosen = hint("The caption is empty.")
    explanation = hint(HOW if any(masks) else NO_GRID) if words else ""
    return (
        f'<figure class="picture"><img src="{escape(url)}" alt="Your picture">'
        f'<figcaption><div class="words" role="radiogroup" aria-label="Words of the caption">'
        f"{chosen}{_score(score)}</div>{explanation}</figcaption></figure>"
    )


def scored(captions: Iterable[str], scores: Iterable[float]) -> str:
    """Captions with their scores, one below the other."""
    rows = (
        f"<li><span>{escape(caption) or hint('(empty)')}</span>{_score(score)}</li>"
        for caption, score in zip(captions, scores, strict=True)
    )
    return f'<ol class="scored">{"".join(rows)}</ol>'


def _score(score: float) -> str:
    return f'<span class="score" title="mean log-probability of a word">{score:.2f}</span>'


def _word(url: str, word: str, mask: str) -> str:
    # All of the image dark and grey, and above it what was looked at, as it is.
    source = escape(url)
    lit = f'<img src="{source}" alt=""><img src="{source}" alt="" style="mask-image: url({mask})">'
    return (
        f'<label><input type="radio" name="word"><span class="word">{escape(word)}</span>'
        f'<span class="lit">{lit if mask else ""}</span></label>'
    )


def _masks(attention: np.ndarray) -> list[str]:
    """An opaque image of the grid for each word, by URL; empty where the regions are no square.

    What is looked at most is opaque, so that even attention leaves the whole image lit.
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
