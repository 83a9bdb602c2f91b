"""Draws the scenes of the synthetic data set `scenes`: two objects in front of a background."""

import math
import random
from collections.abc import Sequence
from typing import TypedDict

from PIL import Image, ImageChops, ImageDraw

from caption_gan.data.synthetic.scene_appearance import (
    BACKGROUNDS,
    PALETTE,
    SHAPES,
    SIZES,
    TONES,
    Colour,
    Marks,
)


class Thing(TypedDict):
    """An object of a scene."""

    kind: str
    colour: str
    size: str


class Scene(TypedDict):
    """The facts of a scene; `relation` is that of the first object to the second."""

    background: str
    relation: str
    things: list[Thing]


# Scenes are drawn larger by this factor, then averaged, for anti-aliasing.
_OVERSAMPLING = 3


def draw(facts: Scene, rng: random.Random) -> Image.Image:
    """Draws a scene.

    Args:
        facts: The scene.
        rng: Varies the size of the image, places, shades and texture.

    Returns:
        An RGB image of 80 to 140 pixels per side.
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
    """Places the objects so that no other relation than that of the facts is visible.

    Args:
        facts: The scene.
        width: Of the image, in pixels.
        height: Of the image, in pixels.
        rng: Varies the places.

    Returns:
        For each object, the x and y of its centre and the side of its square, in pixels.
    """
    sideways = facts["relation"] in ("left", "right")
    forward = facts["relation"] in ("left", "above")
    length, breadth = (width, height) if sideways else (height, width)
    side = min(width, height)
    margin = 0.03 * side
    extents = [side * SIZES[thing["size"]] for thing in facts["things"]]
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

    for layer in BACKGROUNDS[scenery]:
        if isinstance(layer, Marks):
            for _ in range(rng.randint(layer.max_count // 2, layer.max_count)):
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
    colour = [channel + rng.randint(-9, 9) for channel in PALETTE[thing["colour"]]]
    stretch = rng.uniform(0.93, 1.07)
    wide = extent * min(1, stretch) * rng.choice((-1, 1))
    high = extent * min(1, 1 / stretch)
    parts = [
        (_tone(colour, tone), [(x + wide * (u - 0.5), y + high * (v - 0.5)) for u, v in polygon])
        for tone, polygon in SHAPES[thing["kind"]]
    ]
    # Draws all outlines first, so that fillings cover the outlines between two parts.
    outline = _tone(colour, "outline")
    for _, polygon in parts:
        pen.line([*polygon, *polygon[:2]], outline, width=2 * _OVERSAMPLING, joint="curve")
    for tone, polygon in parts:
        pen.polygon(polygon, tone)


def _tone(colour: Sequence[int], tone: str) -> Colour:
    other, share = TONES[tone]
    red, green, blue = (
        min(255, max(0, round(channel + share * (mixed - channel))))
        for channel, mixed in zip(colour, other, strict=True)
    )
    return red, green, blue


def _textured(image: Image.Image, rng: random.Random) -> Image.Image:
    """Adds noise: fine grain, and larger soft spots."""
    for coarseness, strength in ((1, 5), (9, 8)):
        size = (image.width // coarseness, image.height // coarseness)
        noise = Image.frombytes("L", size, rng.randbytes(size[0] * size[1]))
        noise = noise.resize(image.size, Image.Resampling.BILINEAR)
        noise = noise.point([2 * strength * value // 255 for value in range(256)])
        image = ImageChops.add(image, Image.merge("RGB", [noise] * 3), offset=-strength)
    return image
