"""Shapes, colours and backgrounds of the synthetic data set `scenes`, as data.

`scene_drawing` places and fills the polygons.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

Colour = tuple[int, int, int]
Polygon = Sequence[tuple[float, float]]


def _ellipse(
    x: float, y: float, width: float, height: float, start: int = 0, end: int = 360
) -> Polygon:
    """Returns points on an ellipse around (x, y), clockwise from the right; angles in degrees."""
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


# Each part is a tone and a polygon in the unit square, y downwards. Kinds differ in their outlines,
# which are all that remains of a small object after the image is resized.
SHAPES: dict[str, tuple[tuple[str, Polygon], ...]] = {
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

PALETTE: dict[str, Colour] = {
    "red": (216, 36, 36),
    "yellow": (250, 214, 20),
    "green": (22, 132, 48),
    "blue": (30, 84, 222),
    "purple": (128, 40, 170),
    "pink": (252, 134, 192),
    "white": (246, 246, 244),
    "black": (30, 30, 34),
}

# Relative to the shorter side of the image. Two large objects fill almost the whole image.
SIZES: dict[str, float] = {"large": 0.42, "small": 0.245}

# Each tone mixes the object's colour with another colour: that colour, and its share.
TONES: dict[str, tuple[Colour, float]] = {
    "body": ((0, 0, 0), 0.0),
    "shade": ((0, 0, 0), 0.22),
    "outline": ((0, 0, 0), 0.6),
    "light": ((255, 255, 255), 0.5),
    "wood": ((112, 74, 44), 1.0),
    "dark": ((52, 46, 50), 1.0),
    "glass": ((224, 234, 240), 1.0),
}


Band = tuple[float, Colour, Colour]
"""Top of a band as a share of the height, and its colours at the top and the bottom."""


class Marks(NamedTuple):
    """Equal shapes at random places between two heights.

    Attributes:
        colour: Of the shapes.
        max_count: Largest number of shapes; at least half as many are drawn.
        top: Smallest height, from 0 at the top to 1.
        bottom: Largest height.
        polygon: Relative to the shorter side of the image.
    """

    colour: Colour
    max_count: int
    top: float
    bottom: float
    polygon: Polygon


_CLOUD: Polygon = [
    *_ellipse(-0.1, 0.0, 0.16, 0.1, 90, 270),
    *_ellipse(0.0, -0.03, 0.18, 0.14, 180, 360),
    *_ellipse(0.1, 0.0, 0.16, 0.1, -90, 90),
]
_DIAMOND: Polygon = [(-0.011, 0), (0, -0.014), (0.011, 0), (0, 0.014)]

# Backgrounds are greyish, so that none has the colour of an object. A sun or moon would be a ball.
BACKGROUNDS: dict[str, tuple[Band | Marks, ...]] = {
    "grass": (
        (0.0, (166, 206, 230), (208, 228, 236)),
        (0.5, (178, 200, 134), (160, 188, 112)),
        Marks((222, 234, 240), 3, 0.08, 0.35, _CLOUD),
        Marks((142, 172, 98), 24, 0.55, 1.0, [(-0.02, 0), (0.0, -0.06), (0.02, 0)]),
    ),
    "beach": (
        (0.0, (186, 218, 232), (222, 234, 232)),
        (0.4, (122, 182, 192), (150, 200, 200)),
        (0.58, (232, 212, 170), (216, 194, 150)),
        Marks((172, 212, 214), 10, 0.43, 0.56, _ellipse(0.0, 0.0, 0.14, 0.012)),
        Marks((200, 176, 134), 22, 0.64, 1.0, _ellipse(0.0, 0.0, 0.024, 0.014)),
    ),
    "night": (
        (0.0, (74, 80, 116), (112, 114, 146)),
        (0.66, (92, 104, 106), (80, 90, 92)),
        Marks((206, 204, 188), 24, 0.0, 0.6, _DIAMOND),
    ),
    "room": (
        (0.0, (206, 204, 188), (196, 192, 176)),
        (0.68, (226, 222, 212), (212, 208, 198)),
        (0.72, (186, 150, 116), (168, 130, 98)),
        Marks((182, 176, 158), 30, 0.0, 0.58, _DIAMOND),
        Marks((156, 120, 90), 8, 0.75, 1.0, _rectangle(-0.25, 0.0, 0.25, 0.008)),
    ),
    "street": (
        (0.0, (206, 210, 216), (222, 222, 222)),
        Marks((192, 196, 204), 6, 0.5, 0.5, _rectangle(-0.07, -0.26, 0.07, 0.0)),
        Marks((204, 206, 212), 5, 0.5, 0.5, _rectangle(-0.05, -0.14, 0.05, 0.0)),
        (0.5, (184, 178, 172), (174, 168, 162)),
        (0.6, (142, 142, 148), (126, 126, 132)),
        Marks((164, 164, 166), 4, 0.8, 0.8, _rectangle(-0.09, -0.012, 0.09, 0.012)),
    ),
}
