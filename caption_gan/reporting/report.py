"""The report of a run: one HTML file with metrics, curves, captions and attention maps.

The file is self-contained: no scripts, and no fonts, images or links from elsewhere.
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

from caption_gan.data.example import CaptionedImage
from caption_gan.metrics.table import DESCRIPTIONS, METRICS, display_order
from caption_gan.metrics.tokenization import tokenize
from caption_gan.reporting.curves import length_histogram, stage_spans, training_curves
from caption_gan.reporting.frontier_plot import frontier_plots
from caption_gan.reporting.pages import new_environment
from caption_gan.reporting.pictures import attention_tiles, read_picture
from caption_gan.storage.atomic import replacing

_BEST_AND_WORST = 5
_FREQUENT = 10
_LARGE, _SMALL, _TILE = 480, 320, 160
# Order of the columns of the metric tables; other decodings follow.
_DECODINGS = ("greedy", "beam", "sample", "reference", "nearest", "blind")


@dataclasses.dataclass(frozen=True)
class StageSamples:
    """Samples of an image from the captioner after each stage.

    Attributes:
        image: The image.
        captions: By stage, captions and whether they are correct; None if that is not known.
    """

    image: CaptionedImage
    captions: Mapping[str, Sequence[tuple[str, bool | None]]]


def write_report(
    path: Path,
    *,
    title: str,
    command: str,
    settings: str,
    metrics: Mapping[str, float],
    history: Mapping[str, Sequence[Mapping[str, float]]],
    images: Sequence[CaptionedImage],
    notes: Sequence[str],
    intervals: Mapping[str, tuple[float, float]] | None = None,
    not_run: Mapping[str, str] | None = None,
    step_curves: Mapping[str, Sequence[Mapping[str, float]]] | None = None,
    parameters: Mapping[str, Mapping[str, tuple[int, int]]] | None = None,
    frontier: Mapping[str, Sequence[Mapping[str, float]]] | None = None,
    stage_samples: Sequence[StageSamples] = (),
    collapsed: Sequence[str] = (),
    metric_notes: Sequence[str] = (),
    gallery_images: int = 24,
) -> None:
    """Writes the report; the file is whole or absent.

    Args:
        path: The HTML file; its folder must exist.
        title: Heading of the page.
        command: The command that repeats the evaluation.
        settings: Resolved settings, YAML.
        metrics: Values by `<split>/<decoding>/<metric>`.
        history: Metrics of each epoch by stage.
        images: All captioned images of the split; the report shows some of them.
        notes: Lines for the reader, such as which data were skipped.
        intervals: 95% confidence intervals by the names of metrics.
        not_run: By the name of a metric, the reason why it could not be computed.
        step_curves: Training metrics within epochs by stage.
        parameters: Numbers of trained and frozen parameters by stage and network.
        frontier: Points of the quality-diversity frontier by name of the curve.
        stage_samples: Samples of all stages for some images, to be shown side by side.
        collapsed: Signs of collapse, shown first.
        metric_notes: Lines on metrics, shown beside them.
        gallery_images: Number of images in the gallery, evenly spaced over the split.
    """
    best, worst = best_and_worst(images)
    greedy = [image.greedy for image in images]
    gallery = np.linspace(0, len(images) - 1, min(gallery_images, len(images))).round().astype(int)
    lengths = {
        "generated": [len(tokenize(caption).split()) for caption in greedy],
        "references": [
            len(tokenize(caption).split()) for image in images for caption in image.example.captions
        ],
    }
    curves = training_curves(history, step_curves or {})
    # Safe: the drawings contain no text from the data.
    drawings = {curve.name: markupsafe.Markup(curve.svg) for curve in curves}
    environment = new_environment()
    html = environment.get_template("report.html.jinja").render(
        title=title,
        command=command,
        settings=settings,
        notes=notes,
        collapsed=collapsed,
        metric_notes=metric_notes,
        headlines=_headlines(metrics),
        tables=_tables(metrics),
        intervals=intervals or {},
        not_run=dict.fromkeys(
            (name.split("/")[-1], reason) for name, reason in (not_run or {}).items()
        ),
        descriptions=DESCRIPTIONS,
        stages=stage_spans(history),
        seconds={
            stage: sum(epoch.get("seconds", 0) for epoch in epochs)
            for stage, epochs in history.items()
        },
        parameters=parameters or {},
        curves=curves,
        drawings=drawings,
        frontier=frontier or {},
        plots=[markupsafe.Markup(plot.svg) for plot in frontier_plots(frontier or {})],
        stage_samples=[
            _template_values(each.image, _SMALL) | {"stages": each.captions}
            for each in stage_samples
        ],
        image_count=len(images),
        best=[_template_values(image, _LARGE) | {"attention": _attention(image)} for image in best],
        worst=[
            _template_values(image, _LARGE) | {"attention": _attention(image)} for image in worst
        ],
        gallery=[_template_values(images[index], _SMALL) for index in gallery],
        frequent=Counter(greedy).most_common(_FREQUENT),
        distinct=len(set(greedy)),
        has_facts=any(image.is_correct is not None for image in images),
        mean_lengths={name: sum(words) / len(words) for name, words in lengths.items() if words},
        histogram=markupsafe.Markup(length_histogram(**lengths)),
    )
    with replacing(path) as temporary:
        # A caption may contain a lone surrogate, which UTF-8 cannot encode.
        temporary.write_text(html, encoding="utf-8", errors="replace")


def best_and_worst(
    images: Sequence[CaptionedImage],
) -> tuple[list[CaptionedImage], list[CaptionedImage]]:
    """Selects the images with the best and the worst greedy captions.

    Ranks captions that the fact checker found wrong below all others, then by CIDEr. No image is in
    both lists; of an odd number of images, the best list takes one more.

    Returns:
        Up to five best, best first, and up to five worst, worst first.
    """

    def quality(image: CaptionedImage) -> tuple[bool, float]:
        cider = -math.inf if math.isnan(image.cider) else image.cider
        return image.is_correct is not False, cider

    ranked = sorted(images, key=quality)
    best_count = min(_BEST_AND_WORST, -(-len(images) // 2))
    worst_count = min(_BEST_AND_WORST, len(images) - best_count)
    return ranked[::-1][:best_count], ranked[:worst_count]


@dataclasses.dataclass(frozen=True)
class _Headline:
    label: str
    metric: str
    decoding: str
    value: float
    other_decodings: list[tuple[str, float]]


@dataclasses.dataclass(frozen=True)
class _Table:
    split: str
    decodings: list[str]
    rows: dict[str, dict[str, float]]


def _tables(metrics: Mapping[str, float]) -> list[_Table]:
    """A table for each split: one row per metric, one column per decoding."""
    splits: dict[str, dict[str, dict[str, float]]] = {}
    for key, value in metrics.items():
        # A key of another form is a metric of its own, without split and decoding.
        split, decoding, metric = key.split("/", 2) if key.count("/") >= 2 else ("", "", key)
        splits.setdefault(split, {}).setdefault(metric, {})[decoding] = value
    tables = []
    for split, rows in splits.items():
        present = dict.fromkeys(decoding for row in rows.values() for decoding in row)
        decodings = [name for name in _DECODINGS if name in present]
        decodings += [name for name in present if name not in _DECODINGS]
        ordered = sorted(rows, key=display_order)
        tables.append(_Table(split, decodings, {metric: rows[metric] for metric in ordered}))
    return tables


def _headlines(metrics: Mapping[str, float]) -> list[_Headline]:
    """The main metrics of the first split, each with its values for the other decodings."""
    headlines = []
    for table in _tables(metrics)[:1]:
        for metric in METRICS:
            if not metric.headline or metric.name not in table.rows:
                continue
            row = table.rows[metric.name]
            # Greedy captions of similar images are similar; it is samples that should differ.
            preferred = "sample" if metric.name == "distinct_captions" else "greedy"
            values = [(name, row[name]) for name in table.decodings if name in row]
            values.sort(key=lambda item: item[0] != preferred)
            (decoding, value), *others = values
            headlines.append(_Headline(metric.headline, metric.name, decoding, value, others))
    return headlines


def _template_values(image: CaptionedImage, side: int) -> dict[str, object]:
    """What the template needs of an image, with a thumbnail of at most `side` pixels."""
    values: dict[str, object] = dict.fromkeys(["source", "width", "height"])
    try:
        picture = read_picture(image.example.image)
    except OSError:
        pass  # The page says "no picture"; the captions are still worth reading.
    else:
        picture.thumbnail((side, side))
        values = {"source": _embedded(picture), "width": picture.width, "height": picture.height}
    others = {
        name: captions for name, captions in image.captions.items() if name != "greedy" and captions
    }
    return values | {"image": image, "others": others}


def _attention(image: CaptionedImage) -> list[tuple[str, str]]:
    """Tokens of the greedy caption with their attention maps."""
    if not image.tokens or image.attention is None:
        return []
    try:
        tiles = attention_tiles(image.example.image, image.attention, _TILE)
    except OSError:
        return []
    return [(token, _embedded(tile)) for token, tile in zip(image.tokens, tiles, strict=True)]


def _embedded(picture: Image.Image) -> str:
    """Encodes a picture as a `data:` URL."""
    # JPEG blurs drawings; PNG files of photographs are several times larger.
    is_drawing = picture.getcolors(256) is not None
    kind, options = ("png", {}) if is_drawing else ("jpeg", {"quality": 82})
    buffer = io.BytesIO()
    picture.save(buffer, format=kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
