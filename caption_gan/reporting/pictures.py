"""Pictures for reports and logs: attention maps over an image, an image with its captions.

T tokens of a caption; rows x columns is the grid of image regions that the generator attends to.
"""

import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

TILE_WIDTH = 112
_WORDS_A_ROW = 8
_GAP = 8
_WORD_HEIGHT = 24
_CAPTIONED_SIDE = 320
_CAPTIONED_LINE_HEIGHT = 20
_PAPER = (255, 255, 255)
_INK = (32, 36, 42)
# Brightness of regions without attention, as a share of the original.
_UNATTENDED_BRIGHTNESS = 0.35
# How far the region with the most attention moves towards white.
_ATTENDED_LIFT = 0.25
# Pillow's built-in font has only ASCII; this one, from Matplotlib, covers about forty scripts.
_FONT_FILE = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"


def read_picture(image: bytes) -> Image.Image:
    """Decodes an image as the captioner sees it: RGB, without transparency or EXIF rotation.

    Args:
        image: Encoded image in any format that Pillow reads.

    Raises:
        OSError: If the bytes are not an image (`PIL.UnidentifiedImageError`) or are truncated.
    """
    picture: Image.Image = Image.open(io.BytesIO(image))
    if picture.mode.startswith("I"):
        # 16 bits per pixel, of which Pillow would keep the lower 8.
        picture = Image.fromarray((np.asarray(picture).astype(np.uint32) >> 8).astype(np.uint8))
    return picture.convert("RGB")


def png(image: Image.Image) -> bytes:
    """Encodes a picture as PNG."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def attention_tiles(
    image: bytes, attention: np.ndarray, width: int = TILE_WIDTH
) -> list[Image.Image]:
    """Draws the attention for each token over the image.

    Attended regions are bright and in colour, the others dark and grey. Brightness is relative to
    the strongest region of the token, so uniform attention leaves the whole image bright.

    Args:
        image: Encoded image.
        attention: Non-negative weights [T, rows, columns].
        width: Width of a tile in pixels; its height is at most 1.5 times the width.

    Returns:
        T RGB pictures of the same size.

    Raises:
        ValueError: If `attention` does not have three axes or has no regions.
    """
    if attention.ndim != 3 or 0 in attention.shape[1:]:
        raise ValueError(
            "attention: expected an array [T, rows, columns] with at least one region. "
            f"Received shape {attention.shape}."
        )
    picture = _fit(read_picture(image), width, width * 3 // 2)
    pixels = np.asarray(picture, np.float32)  # [height, width, 3]
    grey = np.asarray(picture.convert("L"), np.float32)[..., None]  # [height, width, 1]
    attended = pixels + _ATTENDED_LIFT * (255 - pixels)
    unattended = _UNATTENDED_BRIGHTNESS * grey
    tiles = []
    for weights in np.nan_to_num(attention.astype(np.float32)):
        strongest = weights.max()
        relative = weights / strongest if strongest > 0 else weights  # [rows, columns]
        smooth = Image.fromarray(relative).resize(picture.size, Image.Resampling.BICUBIC)
        # Clips: bicubic interpolation overshoots.
        light = np.clip(np.asarray(smooth), 0, 1)[..., None]  # [height, width, 1]
        tiles.append(
            Image.fromarray(np.rint(light * attended + (1 - light) * unattended).astype(np.uint8))
        )
    return tiles


def attention_picture(image: bytes, tokens: Sequence[str], attention: np.ndarray) -> Image.Image:
    """Draws the attention map of each token of a caption with the token below it.

    Args:
        image: Encoded image.
        tokens: The T tokens, in order.
        attention: Non-negative weights [T, rows, columns].

    Returns:
        An RGB picture with one tile per token, eight tiles per row.

    Raises:
        ValueError: If `tokens` and `attention` differ in T, or `attention` is not
            [T, rows, columns].
    """
    if len(tokens) != len(attention):
        raise ValueError(
            "attention: expected one grid of weights for each token. Received "
            f"{len(attention)} grids for {len(tokens)} tokens."
        )
    # A caption without tokens shows only its image, as a picture cannot be empty.
    tiles = attention_tiles(image, attention) or [
        _fit(read_picture(image), TILE_WIDTH, TILE_WIDTH * 3 // 2)
    ]
    words = tokens or [""]
    columns = min(len(tiles), _WORDS_A_ROW)
    rows = -(-len(tiles) // _WORDS_A_ROW)
    width, height = tiles[0].size
    step_x, step_y = TILE_WIDTH + _GAP, height + _WORD_HEIGHT + _GAP
    sheet = Image.new("RGB", (columns * step_x + _GAP, rows * step_y + _GAP), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for index, (tile, word) in enumerate(zip(tiles, words, strict=True)):
        left = _GAP + index % _WORDS_A_ROW * step_x
        top = _GAP + index // _WORDS_A_ROW * step_y
        sheet.paste(tile, (left + (TILE_WIDTH - width) // 2, top))
        text, font = _fit_word(word, TILE_WIDTH)
        middle = (left + TILE_WIDTH / 2, top + height + _WORD_HEIGHT / 2)
        draw.text(middle, text, fill=_INK, font=font, anchor="mm")
    return sheet


def captioned_picture(image: bytes, lines: Sequence[str]) -> Image.Image:
    """Draws lines of text below an image.

    Args:
        image: Encoded image.
        lines: Texts; each starts a new line and is wrapped to the width of the picture.

    Returns:
        An RGB picture; its width does not depend on the image.
    """
    picture = _fit(read_picture(image), _CAPTIONED_SIDE, _CAPTIONED_SIDE)
    font = _font(14)
    wrapped = [part for line in lines for part in _wrap(line, font, _CAPTIONED_SIDE)]
    text_height = len(wrapped) * _CAPTIONED_LINE_HEIGHT + (_GAP if wrapped else 0)
    size = (_CAPTIONED_SIDE + 2 * _GAP, picture.height + text_height + 2 * _GAP)
    sheet = Image.new("RGB", size, _PAPER)
    sheet.paste(picture, ((sheet.width - picture.width) // 2, _GAP))
    draw = ImageDraw.Draw(sheet)
    for index, text in enumerate(wrapped):
        top = picture.height + 2 * _GAP + index * _CAPTIONED_LINE_HEIGHT
        draw.text((_GAP, top), text, fill=_INK, font=font)
    return sheet


def _fit(picture: Image.Image, width: int, height: int) -> Image.Image:
    """Scales a picture to fit into width x height, with its aspect ratio."""
    scale = min(width / picture.width, height / picture.height)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.LANCZOS)


def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(_FONT_FILE, size)


def _fit_word(word: str, width: int) -> tuple[str, ImageFont.FreeTypeFont]:
    """The word in the largest font that fits, truncated if the smallest does not."""
    word = " ".join(word.split())
    for size in range(14, 9, -1):
        font = _font(size)
        if font.getlength(word) <= width:
            return word, font
    while word and font.getlength(f"{word}…") > width:
        word = word[:-1]
    return f"{word}…", font


def _wrap(line: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Wraps a line between words, and within words that are wider than a line."""
    wrapped = [""]
    for word in line.split():
        longer = f"{wrapped[-1]} {word}".lstrip()
        if font.getlength(longer) <= width:
            wrapped[-1] = longer
            continue
        wrapped.append("")
        for letter in word:
            if font.getlength(wrapped[-1] + letter) > width:
                wrapped.append("")
            wrapped[-1] += letter
    return [part for part in wrapped if part] or [""]
