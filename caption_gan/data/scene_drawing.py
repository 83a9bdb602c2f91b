"""Draws the scenes of the built-in data set `scenes`: two coloured objects before a background.

What is drawn is data: `SILHOUETTES`, `PAINTS` and `SCENERY` say how each kind, colour and
background looks, the functions below them only place and fill polygons.
"""

import math
import random
from collections.abc import Sequence
from typing import NamedTuple, TypedDict

from PIL import Image, ImageChops, ImageDraw

Colour = tuple[int, int, int]
Polygon = Sequence[tuple[float, float]]


class Thing(TypedDict):
    """An object of a scene."""

    kind: str
    colour: str
    size: str


class Scene(TypedDict):
    """The facts of a scene; the first thing stands in `relation` to the second."""

    background: str
    relation: str
    things: list[Thing]


def _ellipse(
    x: float, y: float, width: float, height: float, start: int = 0, end: int = 360
) -> Polygon:
    """Returns points on an ellipse about (x, y), clockwise from the right; angles in degrees."""
    angles = [math.radians(start + (end - start) * step / 24) for step in range(25)]
    return [(x + width / 2 * math.cos(a), y + height / 2 * math.sin(a)) for a in angles]


def _rectangle(left: float, top: float, right: float, bottom: float) -> Polygon:
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def _star(inner: float) -> Polygon:
    angles = [math.radians(36 * corner - 90) for corner in range(10)]
    radii = [0.52, inner] * 5
    return [
        (0.5 + radius * math.cos(angle), 0.53 + radius * math.sin(angle))
        for radius, angle in zip(radii, angles, strict=True)
    ]


# Each part is a tone and a polygon in a unit square, y downwards. Kinds differ in their outlines,
# since a small object keeps little more than that when the image is squashed.
SILHOUETTES: dict[str, tuple[tuple[str, Polygon], ...]] = {
    "ball": (
        ("shade", _ellipse(0.5, 0.5, 1.0, 1.0)),
        ("body", _ellipse(0.46, 0.46, 0.86, 0.86)),
        ("light", _ellipse(0.34, 0.3, 0.26, 0.2)),
    ),
    "box": (
        ("body", _rectangle(0.05, 0.2, 0.95, 1.0)),
        ("shade", _rectangle(0.0, 0.04, 1.0, 0.28)),
        ("light", _rectangle(0.42, 0.28, 0.58, 0.52)),
    ),
    "star": (
        ("shade", _star(0.23)),
        ("body", [(0.5 + (x - 0.5) * 0.82, 0.53 + (y - 0.53) * 0.82) for x, y in _star(0.23)]),
    ),
    "tree": (
        ("wood", _rectangle(0.4, 0.74, 0.6, 1.0)),
        ("body", [(0.06, 0.8), (0.5, 0.36), (0.94, 0.8)]),
        ("shade", [(0.3, 0.56), (0.5, 0.36), (0.7, 0.56), (0.5, 0.66)]),
        ("body", [(0.14, 0.56), (0.5, 0.16), (0.86, 0.56)]),
        ("shade", [(0.34, 0.34), (0.5, 0.16), (0.66, 0.34), (0.5, 0.43)]),
        ("body", [(0.22, 0.34), (0.5, 0.0), (0.78, 0.34)]),
    ),
    "house": (
        ("body", _rectangle(0.12, 0.42, 0.88, 1.0)),
        ("shade", [(0.0, 0.46), (0.5, 0.02), (1.0, 0.46)]),
        ("dark", _rectangle(0.54, 0.62, 0.74, 1.0)),
        ("glass", _rectangle(0.24, 0.6, 0.42, 0.78)),
    ),
    "car": (
        ("body", [(0.2, 0.52), (0.32, 0.22), (0.68, 0.22), (0.84, 0.52)]),
        ("body", [(0.0, 0.76), (0.0, 0.54), (0.1, 0.48), (0.9, 0.48), (1.0, 0.58), (1.0, 0.76)]),
        ("glass", [(0.3, 0.48), (0.37, 0.29), (0.49, 0.29), (0.49, 0.48)]),
        ("glass", [(0.54, 0.48), (0.54, 0.29), (0.64, 0.29), (0.73, 0.48)]),
        ("dark", _ellipse(0.24, 0.76, 0.26, 0.26)),
        ("dark", _ellipse(0.76, 0.76, 0.26, 0.26)),
        ("glass", _ellipse(0.24, 0.76, 0.1, 0.1)),
        ("glass", _ellipse(0.76, 0.76, 0.1, 0.1)),
    ),
    "fish": (
        ("shade", [(0.3, 0.26), (0.48, 0.06), (0.62, 0.28)]),
        ("shade", [(0.7, 0.5), (1.0, 0.18), (0.92, 0.5), (1.0, 0.82)]),
        ("body", _ellipse(0.42, 0.5, 0.84, 0.58)),
        ("light", [(0.4, 0.42), (0.58, 0.5), (0.4, 0.6)]),
        ("glass", _ellipse(0.2, 0.43, 0.14, 0.14)),
        ("dark", _ellipse(0.19, 0.43, 0.07, 0.07)),
    ),
    "cup": (
        (
            "body",
            [*_ellipse(0.6, 0.5, 0.8, 0.5, -90, 90), *_ellipse(0.6, 0.5, 0.48, 0.24, 90, -90)],
        ),
        ("body", [(0.0, 0.12), (0.68, 0.12), (0.58, 0.96), (0.1, 0.96)]),
        ("shade", _ellipse(0.34, 0.12, 0.68, 0.16)),
        ("light", [(0.1, 0.28), (0.18, 0.28), (0.22, 0.84), (0.16, 0.84)]),
    ),
}

PAINTS: dict[str, Colour] = {
    "red": (216, 36, 36),
    "yellow": (250, 214, 20),
    "green": (22, 132, 48),
    "blue": (30, 84, 222),
    "purple": (128, 40, 170),
    "pink": (252, 134, 192),
    "white": (246, 246, 244),
    "black": (30, 30, 34),
}

# Relative to the shorter side of the image. Two large objects fill nearly all of it.
EXTENTS: dict[str, float] = {"large": 0.42, "small": 0.245}

# A tone mixes the object's colour with another: what with, and the other's share.
_TONES: dict[str, tuple[Colour, float]] = {
    "body": ((0, 0, 0), 0.0),
    "shade": ((0, 0, 0), 0.22),
    "outline": ((0, 0, 0), 0.6),
    "light": ((255, 255, 255), 0.5),
    "wood": ((112, 74, 44), 1.0),
    "dark": ((52, 46, 50), 1.0),
    "glass": ((224, 234, 240), 1.0),
}


# From which share of the height downwards, and the colours at its upper and its lower end.
_Band = tuple[float, Colour, Colour]


class _Marks(NamedTuple):
    """Shapes strewn between two heights; the polygon is in shares of the image's shorter side."""

    colour: Colour
    most: int
    top: float
    bottom: float
    polygon: Polygon


_CLOUD: Polygon = [
    *_ellipse(-0.1, 0.0, 0.16, 0.1, 90, 270),
    *_ellipse(0.0, -0.03, 0.18, 0.14, 180, 360),
    *_ellipse(0.1, 0.0, 0.16, 0.1, -90, 90),
]
_DIAMOND: Polygon = [(-0.011, 0), (0, -0.014), (0.011, 0), (0, 0.014)]

# Greyish tones throughout, so that no background has the colour of an object. No sun and no moon:
# they would be balls.
SCENERY: dict[str, tuple[_Band | _Marks, ...]] = {
    "grass": (
        (0.0, (166, 206, 230), (208, 228, 236)),
        (0.5, (178, 200, 134), (160, 188, 112)),
        _Marks((222, 234, 240), 3, 0.08, 0.35, _CLOUD),
        _Marks((142, 172, 98), 24, 0.55, 1.0, [(-0.02, 0), (0.0, -0.06), (0.02, 0)]),
    ),
    "beach": (
        (0.0, (186, 218, 232), (222, 234, 232)),
        (0.4, (122, 182, 192), (150, 200, 200)),
        (0.58, (232, 212, 170), (216, 194, 150)),
        _Marks((172, 212, 214), 10, 0.43, 0.56, _ellipse(0.0, 0.0, 0.14, 0.012)),
        _Marks((200, 176, 134), 22, 0.64, 1.0, _ellipse(0.0, 0.0, 0.024, 0.014)),
    ),
    "night": (
        (0.0, (74, 80, 116), (112, 114, 146)),
        (0.66, (92, 104, 106), (80, 90, 92)),
        _Marks((206, 204, 188), 24, 0.0, 0.6, _DIAMOND),
    ),
    "room": (
        (0.0, (206, 204, 188), (196, 192, 176)),
        (0.68, (226, 222, 212), (212, 208, 198)),
        (0.72, (186, 150, 116), (168, 130, 98)),
        _Marks((182, 176, 158), 30, 0.0, 0.58, _DIAMOND),
        _Marks((156, 120, 90), 8, 0.75, 1.0, _rectangle(-0.25, 0.0, 0.25, 0.008)),
    ),
    "street": (
        (0.0, (206, 210, 216), (222, 222, 222)),
        _Marks((192, 196, 204), 6, 0.5, 0.5, _rectangle(-0.07, -0.26, 0.07, 0.0)),
        _Marks((204, 206, 212), 5, 0.5, 0.5, _rectangle(-0.05, -0.14, 0.05, 0.0)),
        (0.5, (184, 178, 172), (174, 168, 162)),
        (0.6, (142, 142, 148), (126, 126, 132)),
        _Marks((164, 164, 166), 4, 0.8, 0.8, _rectangle(-0.09, -0.012, 0.09, 0.012)),
    ),
}

# Everything is drawn this many times too large and then reduced, for smooth edges.
_OVERSAMPLING = 3


def draw(facts: Scene, rng: random.Random) -> Image.Image:
    """Draws a scene.

    Args:
        facts: What is to be seen.
        rng: Varies size, shape, places, shades and texture of the picture.

    Returns:
        An RGB image of 80 to 140 pixels a side.
    """
    width = rng.randint(80, 140)
    height = rng.randint(max(80, math.ceil(width / 1.5)), min(140, math.floor(width / 0.75)))
    canvas = _background(facts["background"], width, height, rng)
    pen = ImageDraw.Draw(canvas)
    for thing, place in zip(facts["things"], arrange(facts, width, height, rng), strict=True):
        _draw_thing(pen, thing, place, rng)
    return _textured(canvas.reduce(_OVERSAMPLING), rng)


def arrange(
    facts: Scene, width: int, height: int, rng: random.Random
) -> list[tuple[float, float, float]]:
    """Finds places for the things such that their relation is the only one to be seen.

    Args:
        facts: What is to be seen.
        width: Of the image, in pixels.
        height: Of the image, in pixels.
        rng: Varies the places.

    Returns:
        For each thing its centre's x and y and the side of the square it fills, in pixels.
    """
    sideways = facts["relation"] in ("left", "right")
    forward = facts["relation"] in ("left", "above")
    length, breadth = (width, height) if sideways else (height, width)
    side = min(width, height)
    margin = 0.03 * side
    extents = [side * EXTENTS[thing["size"]] for thing in facts["things"]]
    first, second = extents if forward else reversed(extents)

    distance = max(0.34 * length, (first + second) / 2 + 0.05 * side)
    slack = length - 2 * margin - (first + second) / 2 - distance
    before, between = sorted((rng.uniform(0, slack), rng.uniform(0, slack)))
    start = margin + first / 2 + before
    along = [start, start + distance + between - before]
    if not forward:
        along.reverse()

    edges = [margin + extent / 2 for extent in extents]
    middle = rng.uniform(max(edges), breadth - max(edges))
    offsets = [breadth * rng.uniform(-0.05, 0.05) for _ in extents]
    across = [
        min(max(middle + offset, edge), breadth - edge)
        for offset, edge in zip(offsets, edges, strict=True)
    ]
    xs, ys = (along, across) if sideways else (across, along)
    return list(zip(xs, ys, extents, strict=True))


def _background(scenery: str, width: int, height: int, rng: random.Random) -> Image.Image:
    size = (width * _OVERSAMPLING, height * _OVERSAMPLING)
    canvas = Image.new("RGB", size)
    pen = ImageDraw.Draw(canvas)
    shift = rng.uniform(-0.06, 0.06)
    brightness = rng.randint(-8, 8)

    def row(share: float) -> float:
        return (share + shift) * size[1] if share else 0

    for layer in SCENERY[scenery]:
        if isinstance(layer, _Marks):
            for _ in range(rng.randint(layer.most // 2, layer.most)):
                x, y = rng.uniform(0, size[0]), row(rng.uniform(layer.top, layer.bottom))
                scale = min(size) * rng.uniform(0.8, 1.2)
                pen.polygon(
                    [(x + scale * u, y + scale * v) for u, v in layer.polygon], layer.colour
                )
        else:
            top, upper, lower = layer
            ends = bytes(channel + brightness for channel in upper + lower)
            area = (size[0], size[1] - round(row(top)))
            gradient = Image.frombytes("RGB", (1, 2), ends).resize(area, Image.Resampling.BILINEAR)
            canvas.paste(gradient, (0, size[1] - area[1]))
    return canvas


def _draw_thing(
    pen: ImageDraw.ImageDraw, thing: Thing, place: tuple[float, float, float], rng: random.Random
) -> None:
    x, y, extent = (_OVERSAMPLING * value for value in place)
    colour = [channel + rng.randint(-9, 9) for channel in PAINTS[thing["colour"]]]
    stretch = rng.uniform(0.93, 1.07)
    wide = extent * min(1, stretch) * rng.choice((-1, 1))
    high = extent * min(1, 1 / stretch)
    parts = [
        (_tone(colour, tone), [(x + wide * (u - 0.5), y + high * (v - 0.5)) for u, v in polygon])
        for tone, polygon in SILHOUETTES[thing["kind"]]
    ]
    # All outlines come first: the fillings then cover those between two parts.
    outline = _tone(colour, "outline")
    for _, polygon in parts:
        pen.line([*polygon, *polygon[:2]], outline, width=2 * _OVERSAMPLING, joint="curve")
    for tone, polygon in parts:
        pen.polygon(polygon, tone)


def _tone(colour: Sequence[int], tone: str) -> Colour:
    other, share = _TONES[tone]
    red, green, blue = (
        min(255, max(0, round(own + share * (mixed - own))))
        for own, mixed in zip(colour, other, strict=True)
    )
    return red, green, blue


def _textured(image: Image.Image, rng: random.Random) -> Image.Image:
    """Adds fine grain and soft, larger blotches."""
    for coarseness, strength in ((1, 5), (9, 8)):
        size = (image.width // coarseness, image.height // coarseness)
        noise = Image.frombytes("L", size, rng.randbytes(size[0] * size[1]))
        noise = noise.resize(image.size, Image.Resampling.BILINEAR)
        noise = noise.point([2 * strength * value // 255 for value in range(256)])
        image = ImageChops.add(image, Image.merge("RGB", [noise] * 3), offset=-strength)
    return image
