"""The report of a run: one HTML file with figures, curves, captions and where they looked.

Nothing outside the file is needed to read it: no script, font, picture or address.
"""

import base64
import dataclasses
import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import markupsafe
import numpy as np
from PIL import Image

from caption_gan.metrics.tokenization import tokenize
from caption_gan.reporting.curves import (
    frontier_plots,
    length_histogram,
    stage_spans,
    training_curves,
)
from caption_gan.reporting.pages import MEANINGS, new_environment, place
from caption_gan.reporting.pictures import attention_tiles, read_picture
from caption_gan.storage.atomic import replacing

_BEST_AND_WORST = 5
_FREQUENT = 10
_LARGE, _SMALL, _TILE = 480, 320, 160
# Columns of the table of scores; decodings of another name follow these.
_DECODINGS = ("greedy", "beam", "sample", "reference", "nearest", "blind")
_HEADLINES = {
    "fact_accuracy": "captions wholly true",
    "CIDEr": "CIDEr",
    "BLEU-4": "BLEU-4",
    "repeated_token_rate": "repeated words",
    "distinct_captions": "distinct captions",
}


@dataclasses.dataclass(frozen=True)
class ReportImage:
    """An image with what was said of it.

    Attributes:
        image_id: Names the image.
        image: Encoded, in any format that Pillow reads; where it is not, none is shown.
        references: Captions that the data set has of it.
        captions: For each decoding (`greedy`, `sample`, ...) captions with their scores, the mean
            log-probability of a token in nats.
        cider: Of the greedy caption.
        is_true: Whether every statement of the greedy caption is true; None where nobody knows.
        tokens: The T tokens of the greedy caption.
        attention: Where the generator looked when it wrote them, [T, rows, columns].
    """

    image_id: str
    image: bytes
    references: tuple[str, ...]
    captions: Mapping[str, Sequence[tuple[str, float]]]
    cider: float
    is_true: bool | None
    tokens: tuple[str, ...]
    attention: np.ndarray

    @property
    def greedy(self) -> str:
        """The greedy caption; empty where there is none."""
        captions = self.captions.get("greedy", ())
        return captions[0][0] if captions else ""


def write_report(
    path: Path,
    *,
    title: str,
    command: str,
    settings: str,
    metrics: Mapping[str, float],
    history: Mapping[str, Sequence[Mapping[str, float]]],
    images: Sequence[ReportImage],
    notes: Sequence[str],
    intervals: Mapping[str, tuple[float, float]] | None = None,
    not_run: Mapping[str, str] | None = None,
    frontier: Mapping[str, Sequence[Mapping[str, float]]] | None = None,
    collapsed: Sequence[str] = (),
    random_images: int = 24,
) -> None:
    """Writes the report; the file is whole or absent.

    Args:
        path: Of the HTML file; its folder must exist.
        title: Heading of the page.
        command: The command that made the run.
        settings: Resolved settings, YAML.
        metrics: Figures by `<split>/<decoding>/<metric>`.
        history: For each stage its epochs, each a figure by name.
        images: All captioned images of the split; those shown are chosen from them.
        notes: What the reader should know, such as data that were left out.
        intervals: Of 95%, of the figures that have one.
        not_run: Why a figure could not be had, by its name.
        collapsed: Signs of a collapse, which stand before all else.
        frontier: Points of quality and variety by the name of the curve.
        random_images: How many images the gallery shows, evenly chosen.
    """
    best, worst = best_and_worst(images)
    greedy = [image.greedy for image in images]
    chosen = np.linspace(0, len(images) - 1, min(random_images, len(images))).round().astype(int)
    lengths = {
        "generated": [len(tokenize(caption).split()) for caption in greedy],
        "references": [
            len(tokenize(caption).split()) for image in images for caption in image.references
        ],
    }
    curves = training_curves(history)
    # Our own drawings, in which no text of the data's appears.
    drawings = {curve.name: markupsafe.Markup(curve.svg) for curve in curves}
    environment = new_environment()
    html = environment.get_template("report.html.jinja").render(
        title=title,
        command=command,
        settings=settings,
        notes=notes,
        collapsed=collapsed,
        headlines=_headlines(metrics),
        tables=_tables(metrics),
        intervals=intervals or {},
        not_run=dict.fromkeys(
            (name.split("/")[-1], reason) for name, reason in (not_run or {}).items()
        ),
        meanings=MEANINGS,
        stages=stage_spans(history),
        curves=curves,
        drawings=drawings,
        frontier=frontier or {},
        plots=[markupsafe.Markup(plot.svg) for plot in frontier_plots(frontier or {})],
        image_count=len(images),
        best=[_shown(image, _LARGE) | {"attention": _attention(image)} for image in best],
        worst=[_shown(image, _LARGE) | {"attention": _attention(image)} for image in worst],
        gallery=[_shown(images[index], _SMALL) for index in chosen],
        frequent=Counter(greedy).most_common(_FREQUENT),
        distinct=len(set(greedy)),
        truth_known=any(image.is_true is not None for image in images),
        mean_lengths={name: sum(some) / len(some) for name, some in lengths.items() if some},
        histogram=markupsafe.Markup(length_histogram(**lengths)),
    )
    with replacing(path) as temporary:
        # A caption may hold half a surrogate pair, which UTF-8 has no bytes for.
        temporary.write_text(html, encoding="utf-8", errors="replace")


def best_and_worst(
    images: Sequence[ReportImage],
) -> tuple[list[ReportImage], list[ReportImage]]:
    """Chooses the images whose greedy captions are best and worst.

    One order decides both: a caption known to be untrue is worse than any other, then CIDEr
    counts. No image is in both lists; the best have the first pick.

    Returns:
        Up to five best, best first, and up to five worst, worst first.
    """

    def merit(image: ReportImage) -> tuple[bool, float]:
        cider = -math.inf if math.isnan(image.cider) else image.cider
        return image.is_true is not False, cider

    ranked = sorted(images, key=merit)
    best_count = min(_BEST_AND_WORST, -(-len(images) // 2))
    worst_count = min(_BEST_AND_WORST, len(images) - best_count)
    return ranked[::-1][:best_count], ranked[:worst_count]


@dataclasses.dataclass(frozen=True)
class _Headline:
    label: str
    metric: str
    decoding: str
    value: float
    beside: list[tuple[str, float]]


@dataclasses.dataclass(frozen=True)
class _Table:
    split: str
    decodings: list[str]
    rows: dict[str, dict[str, float]]


def _tables(metrics: Mapping[str, float]) -> list[_Table]:
    """A table for each split: a row a metric, a column a decoding."""
    splits: dict[str, dict[str, dict[str, float]]] = {}
    for key, value in metrics.items():
        # A key of another form keeps its place and its name.
        split, decoding, metric = key.split("/", 2) if key.count("/") >= 2 else ("", "", key)
        splits.setdefault(split, {}).setdefault(metric, {})[decoding] = value
    known = list(MEANINGS)
    tables = []
    for split, rows in splits.items():
        found = dict.fromkeys(decoding for row in rows.values() for decoding in row)
        decodings = sorted(found, key=lambda name: place(name, _DECODINGS))
        ordered = sorted(rows, key=lambda metric: place(metric, known))
        tables.append(_Table(split, decodings, {metric: rows[metric] for metric in ordered}))
    return tables


def _headlines(metrics: Mapping[str, float]) -> list[_Headline]:
    """What one looks at first, each with the same figure of other decodings beside it."""
    headlines = []
    for table in _tables(metrics)[:1]:
        for metric, label in _HEADLINES.items():
            row = {name: table.rows.get(metric, {}).get(name) for name in table.decodings}
            known = {name: value for name, value in row.items() if value is not None}
            # Greedy captions of like images are alike; it is samples that should differ.
            first = "sample" if metric == "distinct_captions" else "greedy"
            decoding = first if first in known else next(iter(known), None)
            if decoding is not None:
                beside = [(name, value) for name, value in known.items() if name != decoding]
                value = known[decoding]
                headlines.append(_Headline(label, metric, decoding, value, beside))
    return headlines


def _shown(image: ReportImage, side: int) -> dict[str, object]:
    """What the template needs of an image, its picture at most `side` pixels wide or high."""
    shown: dict[str, object] = dict.fromkeys(["source", "width", "height"])
    try:
        picture = read_picture(image.image)
    except OSError:
        shown["source"] = None  # The page says "no picture"; the captions are still worth reading.
    else:
        picture.thumbnail((side, side))
        shown = {"source": _embedded(picture), "width": picture.width, "height": picture.height}
    others = {name: some for name, some in image.captions.items() if name != "greedy" and some}
    return shown | {"of": image, "others": others}


def _attention(image: ReportImage) -> list[tuple[str, str]]:
    """Tokens of the greedy caption with their pictures."""
    try:
        tiles = attention_tiles(image.image, image.attention, _TILE) if image.tokens else []
    except OSError:
        return []
    return [(token, _embedded(tile)) for token, tile in zip(image.tokens, tiles, strict=True)]


def _embedded(picture: Image.Image) -> str:
    """The picture as a `data:` address."""
    # JPEG blurs drawings, and PNG is several times as large for photographs.
    is_drawing = picture.getcolors(256) is not None
    kind, options = ("png", {}) if is_drawing else ("jpeg", {"quality": 82})
    buffer = io.BytesIO()
    picture.save(buffer, format=kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
