"""A canvas for charts, and the parts around the data: title, legend, axes and grid."""

import functools
import itertools
import math
import random
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]
Point = tuple[float, float]

INK: Colour = (38, 38, 38)
WHITE: Colour = (255, 255, 255)

# Charts are drawn larger by this factor, then averaged, because Pillow does not anti-alias lines.
_SCALE = 3

_TITLES = ("experiment 1", "run 3", "group B", "trial 12", "test set", "(a)", "sample 7", "control")
_X_LABELS = ("time (s)", "epoch", "steps", "depth (m)", "dose (mg)", "year", "speed", "size", "x")
_Y_LABELS = ("accuracy", "loss", "energy (J)", "signal", "count", "score", "rate (%)", "cost", "y")
_TICK_STEPS = (0.1, 0.2, 0.25, 0.5, 1, 2, 5, 10, 20, 25, 50, 100)


class Box(NamedTuple):
    """A rectangle in pixels."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        return self.right - self.left

    @property
    def height(self) -> float:
        return self.bottom - self.top

    def at(self, x: float, y: float) -> Point:
        """Maps a point of the unit square, whose origin is at the bottom left, into the box."""
        return self.left + x * self.width, self.bottom - y * self.height


@functools.cache
def _font(size: float) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size=size)


class Canvas:
    """Draws anti-aliased shapes; all lengths are in pixels of the finished image."""

    def __init__(self, width: int, height: int, background: Colour):
        self.box = Box(0, 0, width, height)
        self._image = Image.new("RGB", (width * _SCALE, height * _SCALE), background)
        self._draw = ImageDraw.Draw(self._image)

    def line(self, points: Sequence[Point], colour: Colour, width: float) -> None:
        self._draw.line(_scaled(points), colour, round(width * _SCALE), joint="curve")

    def dashes(
        self, points: Sequence[Point], colour: Colour, width: float, dash: float, gap: float
    ) -> None:
        """Draws a dashed line with these lengths of a dash and a gap."""
        travelled = 0.0
        for start, end in itertools.pairwise(points):
            length = math.dist(start, end)
            position = 0.0
            while position < length:
                phase = (travelled + position) % (dash + gap)
                stop = min(length, position + (dash if phase < dash else dash + gap) - phase)
                if phase < dash:
                    part = [_between(start, end, place / length) for place in (position, stop)]
                    self.line(part, colour, width)
                # Always advances, or a phase that is rounded to its end would loop forever.
                position = max(stop, position + 0.01)
            travelled += length

    def polygon(self, points: Sequence[Point], fill: Colour) -> None:
        self._draw.polygon(_scaled(points), fill)

    def rectangle(self, box: Box, fill: Colour | None, edge: Colour | None = None) -> None:
        corners = _scaled([(box.left, box.top), (box.right, box.bottom)])
        self._draw.rectangle(corners, fill, edge, _SCALE if edge else 0)

    def circle(self, centre: Point, radius: float, fill: Colour) -> None:
        self._draw.circle(_scaled([centre])[0], radius * _SCALE, fill)

    def wedge(self, centre: Point, radius: float, start: float, end: float, fill: Colour) -> None:
        """Draws a slice of a pie; angles are in degrees."""
        x, y = centre
        corners = _scaled([(x - radius, y - radius), (x + radius, y + radius)])
        self._draw.pieslice(corners, start, end, fill)

    def marker(self, centre: Point, radius: float, form: str, fill: Colour) -> None:
        """Draws a `circle`, `square`, `triangle` or `diamond`."""
        x, y = centre
        if form == "circle":
            self.circle(centre, radius, fill)
            return
        corners: dict[str, list[Point]] = {
            "square": [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
            "triangle": [(0, -1.2), (1.15, 0.9), (-1.15, 0.9)],
            "diamond": [(0, -1.25), (1.25, 0), (0, 1.25), (-1.25, 0)],
        }
        self.polygon([(x + radius * dx, y + radius * dy) for dx, dy in corners[form]], fill)

    def text(self, position: Point, text: str, size: float, anchor: str = "mm") -> None:
        """Draws a text at one of Pillow's anchors."""
        place = _scaled([position])[0]
        self._draw.text(place, text, INK, _font(size * _SCALE), anchor)

    def vertical_text(self, position: Point, text: str, size: float) -> None:
        """Draws a text from bottom to top, centred at the position."""
        font = _font(size * _SCALE)
        left, top, right, bottom = font.getbbox(text)
        mask = Image.new("L", (math.ceil(right - left), math.ceil(bottom - top)))
        ImageDraw.Draw(mask).text((-left, -top), text, 255, font)
        mask = mask.transpose(Image.Transpose.ROTATE_90)
        x, y = _scaled([position])[0]
        self._image.paste(INK, (int(x - mask.width / 2), int(y - mask.height / 2)), mask)

    def text_width(self, text: str, size: float) -> float:
        return _font(size * _SCALE).getlength(text) / _SCALE

    def picture(self) -> Image.Image:
        return self._image.reduce(_SCALE)


def add_title(canvas: Canvas, box: Box, size: float, rng: random.Random) -> Box:
    """Draws a title above the data in half of the charts; returns the remaining box."""
    if rng.random() < 0.5:
        return box
    canvas.text(((box.left + box.right) / 2, box.top + size * 0.6), rng.choice(_TITLES), size + 1)
    return box._replace(top=box.top + size * 1.5)


def add_legend(
    canvas: Canvas, box: Box, colours: Sequence[Colour], form: str, size: float, rng: random.Random
) -> Box:
    """Draws a legend beside the data if there is room; returns the remaining box."""
    names = _series_names(len(colours), rng)
    swatch, gap = size * 1.3, size * 0.4
    widths = [swatch + 2 * gap + canvas.text_width(name, size) for name in names]
    side = rng.choice(("none", "none", "top", "top", "bottom", "right", "right"))
    if side == "right" and max(widths) < 0.25 * box.width:
        x, step = box.right - max(widths), size * 1.4
        y = box.top + rng.uniform(0.1, 0.6) * (box.height - step * len(names))
        places = [(x, y + step * row) for row in range(len(names))]
        box = box._replace(right=x - size * 0.5)
    elif side in ("top", "bottom") and sum(widths) < box.width:
        y = box.top + size * 0.5 if side == "top" else box.bottom - size * 0.5
        start = (box.left + box.right - sum(widths)) / 2
        places = [(start + sum(widths[:column]), y) for column in range(len(names))]
        room = size * 1.4
        top = side == "top"
        box = box._replace(top=box.top + room) if top else box._replace(bottom=box.bottom - room)
    else:
        return box
    for (x, y), colour, name in zip(places, colours, names, strict=True):
        if form == "line":
            canvas.line([(x, y), (x + swatch, y)], colour, 2)
        elif form == "points":
            canvas.circle((x + swatch / 2, y), size * 0.35, colour)
        else:
            canvas.rectangle(Box(x, y - size * 0.35, x + swatch, y + size * 0.35), colour)
        canvas.text((x + swatch + gap, y), name, size, "lm")
    return box


def add_axes(canvas: Canvas, box: Box, size: float, rng: random.Random, categories: int = 0) -> Box:
    """Draws axes with ticks, numbers and labels, and in some charts a grid and a grey background.

    Args:
        canvas: The canvas.
        box: Where axes and data go.
        size: Of the text, in pixels.
        rng: Varies the looks.
        categories: If not 0, the horizontal axis has the names of this many groups, no numbers.

    Returns:
        The box for the data.
    """
    y_numbers = _numbers(rng)
    x_numbers = _series_names(categories, rng) if categories else _numbers(rng)
    y_label, x_label = rng.random() < 0.6, rng.random() < 0.6
    tick = rng.choice((1, 2, 3))
    room = max(canvas.text_width(number, size) for number in y_numbers)
    plot = Box(
        box.left + room + tick + 3 + (size * 1.2 if y_label else 0),
        box.top + size * 0.5,
        box.right - size * 0.7,
        box.bottom - size * 1.3 - tick - (size * 1.2 if x_label else 0),
    )
    if y_label:
        place = (box.left + size * 0.5, (plot.top + plot.bottom) / 2)
        canvas.vertical_text(place, rng.choice(_Y_LABELS), size)
    if x_label:
        place = ((plot.left + plot.right) / 2, box.bottom - size * 0.6)
        canvas.text(place, rng.choice(_X_LABELS), size)

    columns = [
        (index + 0.5) / categories if categories else index / (len(x_numbers) - 1)
        for index in range(len(x_numbers))
    ]
    rows = [index / (len(y_numbers) - 1) for index in range(len(y_numbers))]
    grey_panel = rng.random() < 0.25
    if grey_panel:
        canvas.rectangle(plot, (232, 232, 238))
    grid = rng.choice(("none", "rows", "both"))
    grid_colour = WHITE if grey_panel else (218, 218, 218)
    if grid != "none" or grey_panel:
        for row in rows:
            canvas.line([plot.at(0, row), plot.at(1, row)], grid_colour, 1)
    if grid == "both" and not categories:
        for column in columns:
            canvas.line([plot.at(column, 0), plot.at(column, 1)], grid_colour, 1)
    for column, number in zip(columns, x_numbers, strict=True):
        x, y = plot.at(column, 0)
        canvas.line([(x, y), (x, y + tick)], INK, 1)
        canvas.text((x, y + tick + 2), number, size, "mt")
    for row, number in zip(rows, y_numbers, strict=True):
        x, y = plot.at(0, row)
        canvas.line([(x - tick, y), (x, y)], INK, 1)
        canvas.text((x - tick - 2, y), number, size, "rm")
    if rng.random() < 0.5:
        canvas.rectangle(plot, None, INK)
    elif not grey_panel:
        canvas.line([plot.at(0, 1), plot.at(0, 0), plot.at(1, 0)], INK, 1)
    return plot


def _numbers(rng: random.Random) -> list[str]:
    step, start = rng.choice(_TICK_STEPS), rng.choice((0, 0, 0, 1, 2))
    return [f"{step * (start + index):g}" for index in range(rng.randint(3, 5))]


def _series_names(count: int, rng: random.Random) -> list[str]:
    prefix, first = rng.choice((("", "A"), ("", "P"), ("m", "1"), ("v", "2"), ("Q", "1")))
    return [prefix + chr(ord(first) + index) for index in range(count)]


def _scaled(points: Sequence[Point]) -> list[Point]:
    return [(x * _SCALE, y * _SCALE) for x, y in points]


def _between(start: Point, end: Point, share: float) -> Point:
    return start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1])
