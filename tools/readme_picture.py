"""Draws README's picture: `python tools/readme_picture.py RUN_FIGURES RUN_SCENES --to X.png`.

RUN_FIGURES is a run on the built-in charts, RUN_SCENES a run on the built-in scenes. The picture
shows a validation image of each with its greedy caption, one sample and a reference, and what the
generator attends to for a few words of the greedy caption. If RUN_FIGURES has several stages, it
also shows their frontier of quality and variety.

T words; rows x columns: grid of image regions.
"""

import argparse
import dataclasses
import io
import json
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from PIL import Image

from caption_gan.data.images import decode_and_resize
from caption_gan.data.skips import Skips
from caption_gan.data.sources.registry import open_source
from caption_gan.errors import CaptionGANError
from caption_gan.models.decoding.text_decoder import TextDecoder
from caption_gan.reporting.pictures import attention_tiles
from caption_gan.run import load_run
from caption_gan.storage.paths import local_path

WORDS = 4  # Attention maps per image.
TEMPERATURE = 0.8
# Words that say nothing about the image.
COMMON = {"a", "an", "the", "this", "image", "picture", "here", "two", "it", "that", "is"}
PREPOSITIONS = {"as", "at", "by", "from", "in", "of", "on", "to", "where", "with"}
FUNCTION_WORDS = COMMON | PREPOSITIONS | {"and", "whereas", "while"}
NAMES = {"maximum_likelihood": "maximum likelihood", "wgan_gp": "then WGAN-GP"}

Points = Sequence[Mapping[str, float]]


@dataclasses.dataclass(frozen=True)
class Described:
    """An image with captions.

    Attributes:
        image: Encoded.
        greedy: Greedy caption.
        sample: Sampled caption.
        reference: Caption of the data set.
        tokens: The T words of the greedy caption.
        attention: Weights [T, rows, columns].
    """

    image: bytes
    greedy: str
    sample: str
    reference: str
    tokens: Sequence[str]
    attention: np.ndarray


def describe(run: Path, position: int) -> Described:
    """Captions of the validation image at a position."""
    config, tokenizer, captioner = load_run(run)
    source = open_source(config.data, Skips())
    (example,) = source.examples("val", range(position, position + 1))
    pixels = decode_and_resize(example.image, *config.encoder.image_size)
    decoding = dataclasses.replace(config.decoding, samples=1, temperature=TEMPERATURE)
    decoder = TextDecoder(captioner, tokenizer, decoding, config.seed)
    ((captions, tokens, attention),) = decoder.describe({"image": tf.expand_dims(pixels, 0)}, 0)
    if attention is None:
        raise CaptionGANError(f"{run}: its generator has no attention; give a run that has.")
    return Described(
        image=example.image,
        greedy=captions["greedy"][0][0],
        sample=captions["sample"][0][0],
        reference=example.captions[0],
        tokens=tokens,
        attention=attention,
    )


def read_frontier(run: Path) -> dict[str, Points]:
    """Curves over temperatures by the name of their stage, in order; empty for a single stage."""
    path = run / "metrics.json"
    metrics = json.loads(path.read_text()) if path.is_file() else {}
    curves = metrics.get("frontier", {}).get("val", {})
    curves = {name: points for name, points in curves.items() if "temperature" in points[0]}
    return {name: curves[name] for name in sorted(curves)}


def shown_words(tokens: Sequence[str]) -> list[int]:
    """Positions of the words whose attention is drawn: spread over the words with a meaning."""
    meaningful = [place for place, token in enumerate(tokens) if is_meaningful(token)]
    places = np.linspace(0, len(meaningful) - 1, min(WORDS, len(meaningful)))
    return [meaningful[round(place)] for place in places]


def is_meaningful(token: str) -> bool:
    return token.isalpha() and token not in FUNCTION_WORDS


def draw_described(figure: SubFigure, described: Described) -> None:
    """Draws an image, its captions and its attention maps side by side."""
    words = shown_words(described.tokens)
    picture, *maps = figure.subplots(
        1, 1 + WORDS, width_ratios=[1.7] + [1] * WORDS, gridspec_kw={"wspace": 0.08}
    )
    picture.imshow(Image.open(io.BytesIO(described.image)).convert("RGB"))
    tiles = attention_tiles(described.image, described.attention, width=160)
    for axes, word in zip(maps, words, strict=False):
        axes.imshow(tiles[word])
        axes.set_title(described.tokens[word], fontsize=9, pad=3)
    for axes in (picture, *maps):
        axes.axis("off")
    captions = {
        "greedy": described.greedy,
        "sample": described.sample,
        "reference": described.reference,
    }
    lines = [
        textwrap.fill(f"{name}: {caption}", 106, subsequent_indent="    ")
        for name, caption in captions.items()
    ]
    figure.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=8.5, linespacing=1.4)


def draw_frontier(axes: Axes, curves: Mapping[str, Points]) -> None:
    """Draws the share of true samples against their mBLEU-4."""
    for name, points in curves.items():
        stage = name.partition("-")[2]
        variety = [point["mBLEU-4"] for point in points]
        accuracy = [point["fact_accuracy"] for point in points]
        axes.plot(
            variety, accuracy, "o-", label=NAMES.get(stage, stage), markersize=3.5, linewidth=1.2
        )
    axes.set_xlabel("mBLEU-4 among the samples of an image\n(lower is more varied)", fontsize=8)
    axes.set_ylabel("true samples", fontsize=8)
    axes.set_title("charts: quality against variety,\ntemperatures 0.3 to 1.2", fontsize=9)
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8)


def draw(images: Sequence[Described], curves: Mapping[str, Points], path: Path) -> None:
    """Writes the picture as PNG."""
    widths = [7.6, 3.2] if curves else [7.6]
    figure = Figure(figsize=(sum(widths), 5.2), layout="constrained")
    grid = figure.add_gridspec(len(images), len(widths), width_ratios=widths)
    for row, image in enumerate(images):
        draw_described(figure.add_subfigure(grid[row, 0]), image)
    if curves:
        draw_frontier(figure.add_subplot(grid[:, 1]), curves)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", dpi=110)


def main() -> None:
    """Reads the command line, draws the picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("figures", type=local_path, metavar="RUN_FIGURES")
    parser.add_argument("scenes", type=local_path, metavar="RUN_SCENES")
    parser.add_argument("--to", type=local_path, required=True, help="PNG file")
    parser.add_argument("--figure", type=int, default=0, help="position in the validation split")
    parser.add_argument("--scene", type=int, default=0, help="position in the validation split")
    arguments = parser.parse_args()
    images = [
        describe(arguments.figures, arguments.figure),
        describe(arguments.scenes, arguments.scene),
    ]
    draw(images, read_frontier(arguments.figures), arguments.to)


if __name__ == "__main__":
    main()
