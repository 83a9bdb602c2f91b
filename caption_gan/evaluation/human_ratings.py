"""Correlates automatic metrics with human ratings of captions.

Hodosh et al., "Framing Image Description as a Ranking Task" (2013), collected the ratings of
Flickr8k. Anderson et al., "SPICE: Semantic Propositional Image Caption Evaluation" (2016), and
Hessel et al., "CLIPScore: A Reference-free Evaluation Metric for Image Captioning" (2021),
established how they are used.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from caption_gan.data.skips import Skips
from caption_gan.data.sources.flickr import read_captions
from caption_gan.data.sources.image_files import image_name
from caption_gan.errors import CaptionGANError
from caption_gan.evaluation.coco_results import (
    has_text,
    parse,
    read_entry,
    read_references,
)
from caption_gan.metrics import human_correlation, java_scores
from caption_gan.metrics.java_scores import NotRun
from caption_gan.storage import text_files

EXPERTS = "three ratings from 1 to 4"
CROWD = "the share, the number of yes and the number of no"
PLAIN = '{"image_id": 42, "caption": "a dog", "ratings": [1, 4]}'
FORMS = (
    f"one pair per line: {PLAIN}, or, as in Flickr8k, image, caption#number and either {EXPERTS} "
    f"or {CROWD}, separated by tabs"
)
References = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class RatedCaption:
    """A raw caption of an image with one or more human ratings; higher is better."""

    image_id: str
    caption: str
    ratings: tuple[float, ...]


@dataclass(frozen=True)
class Ratings:
    """Rated captions; none of them is among the references it is compared with.

    Attributes:
        pairs: Rated captions in the order of the file; an image may have several.
        references: References of each rated image, by image id.
        left_out: Number of pairs left out because their caption is a reference of the image.
        references_left_out: Number of references left out because they are rated captions.
        tau: The variant of Kendall's rank correlation that the literature reports.
    """

    pairs: list[RatedCaption]
    references: dict[str, list[str]]
    left_out: int = 0
    references_left_out: int = 0
    tau: Literal["b", "c"] = "c"


def read_ratings(path: str, references: str) -> Ratings:
    """Reads rated captions and the references of their images; the first line decides the format.

    * Flickr8k's `ExpertAnnotations.txt`: image, caption id, three ratings from 1 to 4. Leaves out
      pairs whose caption is a reference of the image, as SPICE's authors do (158 of 5,822).
    * Flickr8k's `CrowdFlowerAnnotations.txt`: image, caption id, share of yes, numbers of yes and
      of no. The rating is the share. Keeps all pairs, leaves out references that are rated captions
      of their image instead, and uses tau-b, as CLIPScore's authors do.
    * JSON lines, `{"image_id": 42, "caption": "a dog", "ratings": [1, 4]}`: treated like experts.

    Args:
        path: File of ratings.
        references: For Flickr8k its captions, `Flickr8k.token.txt` or `captions.txt`, where the
            caption id `name.jpg#2` means the third caption of that image. For JSON lines a file in
            COCO's caption format.

    Raises:
        CaptionGANError: If a file is missing or has another format, or a line is unusable.
    """
    text = text_files.lines(text_files.read_text(path, FORMS))
    lines = {
        f"{path}, line {number}": line.strip()
        for number, line in enumerate(text, start=1)
        if line.strip()
    }
    if not lines:
        raise CaptionGANError(f"{path} is empty; expected {FORMS}.")
    where, first = next(iter(lines.items()))
    if first.startswith("{"):
        coco = read_references(references)
        pairs = [_read_json_line(line, coco, where) for where, line in lines.items()]
        return _leave_out_pairs(pairs, coco, path)
    form = _form(first.split("\t")[2:])
    if form is None:
        raise CaptionGANError(f"{where}: expected {FORMS}; found {first[:80]!r}.")
    skips = Skips()
    captions = read_captions(references, skips)
    if skips.all:  # A skipped caption would renumber the others of its image.
        raise CaptionGANError(f"{references}: {skips.lines()[0]}; download the file again.")
    pairs = [_read_flickr_line(line, form, captions, where) for where, line in lines.items()]
    leave_out = _leave_out_pairs if form == EXPERTS else _leave_out_references
    return leave_out(pairs, captions, path)


def _form(columns: Sequence[str]) -> str | None:
    return next((form for form in (EXPERTS, CROWD) if _ratings(columns, form)), None)


def _ratings(columns: Sequence[str], form: str) -> tuple[float, ...] | None:
    """Returns the ratings in the columns after the ids; None if the columns have another form.

    No columns have both forms: an expert's rating that is a share is 1, which requires a count of 0
    after it, and experts do not rate 0.
    """
    try:
        share, yes, no = map(float, columns)
    except ValueError:
        return None
    if form == EXPERTS:
        return (share, yes, no) if {share, yes, no} <= {1, 2, 3, 4} else None
    total = yes + no
    is_share = min(yes, no) >= 0 < total < math.inf and abs(share - yes / total) < 0.01  # Rounded.
    return (yes / total,) if is_share else None


def _read_flickr_line(line: str, form: str, captions: References, where: str) -> RatedCaption:
    columns = [column.strip() for column in line.split("\t")]
    ratings = _ratings(columns[2:], form)
    if ratings is None:
        raise CaptionGANError(
            f"{where}: expected image, caption#number and, as in the first line, {form}, separated "
            f"by tabs; found {line[:80]!r}."
        )
    image_id, caption_id = image_name(columns[0]), columns[1]
    name, _, number = caption_id.rpartition("#")
    name = image_name(name)
    numbered = {str(index): caption for index, caption in enumerate(captions.get(name, ()))}
    if number not in numbered:
        raise CaptionGANError(
            f"{where}: {caption_id!r} is not among the captions; expected the name of an image, # "
            "and the number of the caption from 0, and the captions of the rated data set."
        )
    _expect_references(image_id, captions, where)
    return RatedCaption(image_id, numbered[number], ratings)


def _read_json_line(line: str, references: References, where: str) -> RatedCaption:
    entry = parse(line, where, PLAIN)
    image_id, caption = read_entry(entry, where)
    ratings = entry.get("ratings")
    if not isinstance(ratings, list) or not ratings or not all(map(_is_number, ratings)):
        raise CaptionGANError(
            f"{where}: the ratings of image {image_id!r} are missing or not numbers; expected "
            f"{PLAIN}."
        )
    _expect_references(image_id, references, where)
    return RatedCaption(image_id, caption, tuple(map(float, ratings)))


def _is_number(value: Any) -> bool:
    # Refuses NaN, infinity, and integers that are too large for a float.
    return type(value) in (int, float) and abs(value) < 1e300


def _expect_references(image_id: str, references: References, where: str) -> None:
    if not has_text(references.get(image_id, ())):
        raise CaptionGANError(
            f"{where}: image {image_id!r} has no reference; add one, or remove the line."
        )


def _leave_out_pairs(pairs: Sequence[RatedCaption], references: References, path: str) -> Ratings:
    stripped = {image_id: set(map(str.strip, texts)) for image_id, texts in references.items()}
    others = [pair for pair in pairs if pair.caption.strip() not in stripped[pair.image_id]]
    if not others:
        raise CaptionGANError(
            f"{path}: all captions are references of their image; rate other captions."
        )
    return Ratings(others, _references_of(others, references), len(pairs) - len(others))


def _leave_out_references(
    pairs: Sequence[RatedCaption], references: References, path: str
) -> Ratings:
    rated = defaultdict(set)
    for pair in pairs:
        rated[pair.image_id].add(pair.caption)
    all_references = _references_of(pairs, references)
    unrated = {
        image_id: [text for text in texts if text not in rated[image_id]]
        for image_id, texts in all_references.items()
    }
    for image_id, texts in unrated.items():
        if not has_text(texts):
            raise CaptionGANError(
                f"{path}: all references of image {image_id!r} are rated captions; remove "
                "a line so that one reference is left."
            )
    left_out = sum(len(all_references[image_id]) - len(unrated[image_id]) for image_id in unrated)
    return Ratings(list(pairs), unrated, references_left_out=left_out, tau="b")


def _references_of(pairs: Iterable[RatedCaption], references: References) -> dict[str, list[str]]:
    return {pair.image_id: list(references[pair.image_id]) for pair in pairs}


def correlate_with_ratings(ratings: str, references: str) -> dict[str, Any]:
    """Correlates automatic metrics with human ratings.

    Args:
        ratings: File of rated captions; see `read_ratings` for its formats.
        references: File of the references of their images.

    Returns:
        `pairs`, `left_out`, `references_left_out`; `tau`, the variant of Kendall's rank
        correlation; `correlation` by metric, None if undefined; `not_run`, the reason by metric.

    Raises:
        CaptionGANError: If a file is unusable.
    """
    rated = read_ratings(ratings, references)
    captions = [pair.caption for pair in rated.pairs]
    targets = [rated.references[pair.image_id] for pair in rated.pairs]
    scores = human_correlation.caption_scores(captions, targets)
    not_run = {}
    # Scores by pair, not by image: an image may have several captions.
    by_pair = {str(pair): caption for pair, caption in enumerate(captions)}
    targets_by_pair = dict(zip(by_pair, targets, strict=True))
    for name, score in (("METEOR", java_scores.meteor), ("SPICE", java_scores.spice)):
        scored = score(by_pair, targets_by_pair)
        if isinstance(scored, NotRun):
            not_run[name] = scored.reason
        else:
            scores[name] = list(scored.per_image.values())
    return {
        "pairs": len(rated.pairs),
        "left_out": rated.left_out,
        "references_left_out": rated.references_left_out,
        "tau": rated.tau,
        "correlation": human_correlation.correlations(
            scores, [pair.ratings for pair in rated.pairs], rated.tau
        ),
        "not_run": not_run,
    }


def correlation_lines(result: dict[str, Any]) -> list[str]:
    """The correlations for the terminal, highest first."""
    lines = [f"{result['pairs']} rated captions; Kendall's tau-{result['tau']} with the ratings"]
    if result["left_out"]:
        lines.append(f"{result['left_out']} captions left out: they are references of their image")
    if result["references_left_out"]:
        lines.append(
            f"{result['references_left_out']} references left out: they are rated captions"
        )
    found = result["correlation"].items()
    defined = sorted(((tau, name) for name, tau in found if tau is not None), reverse=True)
    lines += [f"{name:10}{tau:+.3f}" for tau, name in defined]
    lines += [
        f"{name:10}undefined: all scores or ratings are equal" for name, tau in found if tau is None
    ]
    return lines + [f"{name:10}not run: {why}" for name, why in result["not_run"].items()]
