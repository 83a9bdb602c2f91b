"""Draws the charts of `caption_gan.data.synthetic.figures`.

The facts stay visible in an image that is reduced to 64 x 64 pixels. `rng` varies everything that
captions do not mention.
"""

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

from PIL import Image

from caption_gan.data.synthetic.figure_canvas import (
    WHITE,
    Box,
    Canvas,
    Colour,
    Point,
    add_axes,
    add_legend,
    add_title,
)

# Easily distinguished, also if a thin line mixes with the white around it.
PALETTE: dict[str, Colour] = {
    "red": (214, 30, 36),
    "orange": (255, 132, 0),
    "yellow": (232, 204, 12),
    "green": (26, 148, 52),
    "cyan": (0, 194, 214),
    "blue": (28, 72, 208),
    "purple": (112, 34, 160),
    "pink": (242, 74, 190),
}
_SHADE_JITTER = 12

_LEGEND_FORM = {"line": "line", "scatter": "points"}


def draw(facts: Any, rng: random.Random) -> Image.Image:
    """Returns the chart of the facts, an RGB image of 112 to 200 pixels per side."""
    width, height = _size(rng)
    canvas = Canvas(width, height, rng.choice((WHITE, WHITE, WHITE, (250, 249, 246))))
    kind = facts["kind"]
    colours = {item["colour"]: _shade(item["colour"], rng) for item in facts["series"]}
    text_size = rng.uniform(7, 9)
    margin = rng.uniform(2, 5)
    box = Box(margin, margin, width - margin, height - margin)
    box = add_title(canvas, box, text_size, rng)
    if len(colours) > 1:
        form = _LEGEND_FORM.get(kind, "patch")
        box = add_legend(canvas, box, list(colours.values()), form, text_size, rng)
    if kind != "pie":
        box = add_axes(canvas, box, text_size, rng, facts.get("groups", 0))
    _DRAWERS[kind](canvas, box, facts, colours, rng)
    return canvas.picture()


def _size(rng: random.Random) -> tuple[int, int]:
    aspect = math.exp(rng.uniform(math.log(0.8), math.log(1.78)))
    longer = rng.uniform(112 * max(aspect, 1 / aspect), 200)
    return round(longer * min(1, aspect)), round(longer * min(1, 1 / aspect))


def _shade(colour: str, rng: random.Random) -> Colour:
    red, green, blue = (
        min(255, max(0, channel + rng.randint(-_SHADE_JITTER, _SHADE_JITTER)))
        for channel in PALETTE[colour]
    )
    return red, green, blue


def _bands(series: Sequence[Any]) -> list[tuple[float, float]]:
    """Returns the lowest and the highest height, from 0 to 1, of each series.

    Two crossing series share a band, which is twice as high as others so that they are steep.
    """
    levels = [item.get("level", 0) for item in series]
    sizes = [levels.count(level) for level in range(max(levels) + 1)]
    gap = 0.11
    unit = (0.88 - gap * (len(sizes) - 1)) / sum(sizes)
    lows = [0.06 + sum(sizes[:level]) * unit + level * gap for level in range(len(sizes))]
    return [(lows[level], lows[level] + sizes[level] * unit) for level in levels]


def _trend(shape: str, rng: random.Random) -> Callable[[float], float]:
    """Returns a function of this shape from [0, 1] to [0, 1]."""
    power, middle, level = rng.uniform(0.75, 1.4), rng.uniform(0.44, 0.56), rng.uniform(0.35, 0.65)
    width = rng.uniform(0.15, 0.2)

    def hill(x: float) -> float:
        return math.exp(-(((x - middle) / width) ** 2))

    shapes: dict[str, Callable[[float], float]] = {
        "rise": lambda x: x**power,
        "fall": lambda x: (1 - x) ** power,
        "peak": hill,
        "dip": lambda x: 1 - hill(x),
        "flat": lambda x: level,
    }
    return shapes[shape]


def _draw_lines(
    canvas: Canvas, box: Box, facts: Any, colours: dict[str, Colour], rng: random.Random
) -> None:
    series = facts["series"]
    count = rng.choice((9, 11, 15, 24))
    roughness = rng.choice((0, 0.03, 0.06))
    width = rng.uniform(3, 4.2)
    inset = rng.uniform(0, 0.06)
    for item, (low, high) in zip(series, _bands(series), strict=True):
        trend = _trend(item["shape"], rng)
        places = [index / (count - 1) for index in range(count)]
        heights = [_clip(trend(x) + rng.uniform(-roughness, roughness)) for x in places]
        points = [
            box.at(inset + x * (1 - 2 * inset), low + y * (high - low))
            for x, y in zip(places, heights, strict=True)
        ]
        colour = colours[item["colour"]]
        style = rng.choice(("solid", "solid", "dashed", "marked"))
        if style == "dashed":
            canvas.dashes(points, colour, width + 0.4, dash=14, gap=3)
        else:
            canvas.line(points, colour, width)
        if style == "marked" and count <= 11:
            form = rng.choice(("circle", "square", "triangle", "diamond"))
            for point in points:
                canvas.marker(point, width * 1.15, form, colour)


def _draw_bars(
    canvas: Canvas, box: Box, facts: Any, colours: dict[str, Colour], rng: random.Random
) -> None:
    series, groups = facts["series"], facts["groups"]
    width = rng.uniform(0.76, 0.9) / groups / len(series)
    edge = rng.choice((None, None, (40, 40, 40), WHITE))
    whiskers = rng.random() < 0.25
    for position, (item, (low, high)) in enumerate(zip(series, _bands(series), strict=True)):
        trend = _trend(item["shape"], rng)
        for group in range(groups):
            height = trend(group / (groups - 1)) + rng.uniform(-0.04, 0.04)
            y = low + _clip(height) * (high - low)
            x = (group + 0.5) / groups + (position - len(series) / 2) * width
            (left, top), (right, bottom) = box.at(x, y), box.at(x + width, 0)
            canvas.rectangle(Box(left, top, right, bottom), colours[item["colour"]], edge)
            if whiskers:
                middle, reach = (left + right) / 2, 0.025 * box.height
                canvas.line([(middle, top - reach), (middle, top + reach)], (40, 40, 40), 1)


def _draw_points(
    canvas: Canvas, box: Box, facts: Any, colours: dict[str, Colour], rng: random.Random
) -> None:
    series = facts["series"]
    count = rng.randint(16, 26)
    radius = rng.uniform(2.6, 3.4)
    forms = rng.choices(("circle", "square", "triangle", "diamond"), (4, 1, 1, 1), k=len(series))
    for item, (low, high), form in zip(series, _bands(series), forms, strict=True):
        colour = colours[item["colour"]]
        trend = _trend(item["shape"], rng) if item["shape"] != "cloud" else None
        centre = rng.uniform(0.35, 0.65)
        for index in range(count):
            if trend:
                # Evenly spread with some jitter, so that both ends are visible.
                place = (index + rng.random()) / count
                x, y = 0.06 + 0.88 * place, _clip(trend(place) + rng.gauss(0, 0.09))
            else:
                angle, reach = rng.uniform(0, math.tau), math.sqrt(rng.random())
                x, y = centre + 0.17 * reach * math.cos(angle), 0.5 + 0.5 * reach * math.sin(angle)
            canvas.marker(box.at(x, low + y * (high - low)), radius, form, colour)


def _draw_layers(
    canvas: Canvas, box: Box, facts: Any, colours: dict[str, Colour], rng: random.Random
) -> None:
    series = sorted(facts["series"], key=lambda item: item["level"])
    thickest = 0.94 / len(series)
    profiles: dict[str, Callable[[float], float]] = {
        "widen": lambda x: 0.15 + 0.85 * x,
        "narrow": lambda x: 1 - 0.85 * x,
    }
    count = rng.choice((6, 10, 16))
    places = [index / (count - 1) for index in range(count)]
    edge = rng.random() < 0.4
    roughness = rng.choice((0, 0.05))
    floor = [0.0] * count
    for item in series:
        profile = profiles[item["shape"]]
        ceiling = [
            y + thickest * (profile(x) + rng.uniform(-roughness, roughness))
            for x, y in zip(places, floor, strict=True)
        ]
        upper = [box.at(x, y) for x, y in zip(places, ceiling, strict=True)]
        lower = [box.at(x, y) for x, y in zip(places, floor, strict=True)]
        canvas.polygon([*upper, *reversed(lower)], colours[item["colour"]])
        if edge:
            canvas.line(upper, WHITE, 1)
        floor = ceiling


def _draw_histogram(
    canvas: Canvas, box: Box, facts: Any, colours: dict[str, Colour], rng: random.Random
) -> None:
    (item,) = facts["series"]
    density = _density(item["shape"], rng)
    count = rng.randint(9, 16)
    edge = rng.choice((None, WHITE, (40, 40, 40)))
    tallest = rng.uniform(0.8, 0.92)
    for index in range(count):
        height = density((index + 0.5) / count) * rng.uniform(0.93, 1.05) * tallest
        left, top = box.at(0.02 + 0.96 * index / count, height)
        right, bottom = box.at(0.02 + 0.96 * (index + 1) / count, 0)
        canvas.rectangle(Box(left, top, right, bottom), colours[item["colour"]], edge)
    marker = facts["marker"]
    start = {"left": 0.1, "middle": 0.44, "right": 0.78}[marker["place"]]
    x = start + rng.uniform(0, 0.12)
    ends = [box.at(x, 0), box.at(x, 1)]
    width = rng.uniform(6, 7)
    # A white outline separates the line from bars of a similar colour.
    canvas.line(ends, WHITE, width + 2)
    canvas.dashes(ends, _shade(marker["colour"], rng), width, dash=10, gap=2.5)


def _density(shape: str, rng: random.Random) -> Callable[[float], float]:
    """Returns the relative height of a histogram of this shape at positions from 0 to 1."""
    jitter = rng.uniform(-0.03, 0.03)

    def bell(x: float, middle: float, before: float, after: float) -> float:
        return math.exp(-(((x - middle - jitter) / (before if x < middle else after)) ** 2))

    shapes: dict[str, Callable[[float], float]] = {
        "left": lambda x: bell(x, 0.2, 0.13, 0.38),
        "right": lambda x: bell(x, 0.8, 0.38, 0.13),
        "peak": lambda x: bell(x, 0.5, 0.22, 0.22),
        "twin": lambda x: max(bell(x, 0.22, 0.15, 0.15), bell(x, 0.78, 0.15, 0.15)),
        "flat": lambda x: 0.75,
    }
    return shapes[shape]


def _draw_pie(
    canvas: Canvas, box: Box, facts: Any, colours: dict[str, Colour], rng: random.Random
) -> None:
    radius = min(box.width, box.height) / 2 * rng.uniform(0.88, 0.98)
    centre: Point = ((box.left + box.right) / 2, (box.top + box.bottom) / 2)
    # Clockwise from the top, the largest slice first, as is common.
    angle = rng.uniform(-110, -70)
    edges = []
    for item in sorted(facts["series"], key=lambda item: item["share"], reverse=True):
        end = angle + 3.6 * item["share"]
        canvas.wedge(centre, radius, angle, end, colours[item["colour"]])
        edges.append(math.radians(angle))
        angle = end
    if rng.random() < 0.6:
        for edge in edges:
            rim = (centre[0] + radius * math.cos(edge), centre[1] + radius * math.sin(edge))
            canvas.line([centre, rim], WHITE, 1.5)
    if rng.random() < 0.3:
        canvas.circle(centre, radius * rng.uniform(0.3, 0.5), WHITE)


def _clip(value: float) -> float:
    return min(1.0, max(0.0, value))


_DRAWERS = {
    "line": _draw_lines,
    "bar": _draw_bars,
    "scatter": _draw_points,
    "pie": _draw_pie,
    "histogram": _draw_histogram,
    "area": _draw_layers,
}
