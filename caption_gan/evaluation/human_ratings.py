"""What people think of captions: the ratings by which automatic scores are judged.

Hodosh et al., "Framing Image Description as a Ranking Task" (2013), gathered those of Flickr8k;
Anderson et al., "SPICE: Semantic Propositional Image Caption Evaluation" (2016), and Hessel et al.,
"CLIPScore: A Reference-free Evaluation Metric for Image Captioning" (2021), set how they are used.
"""

import io
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from caption_gan.data.skips import Skips
from caption_gan.data.sources.flickr import read_captions
from caption_gan.errors import CaptionGANError
from caption_gan.evaluation.coco_results import (
    captioned,
    has_text,
    parse,
    read_references,
    read_utf8,
)
from caption_gan.metrics import human_correlation, java_scores
from caption_gan.metrics.java_scores import NotRun

EXPERTS = "three ratings from 1 to 4"
CROWD = "the share, the number of yes and the number of no"
PLAIN = '{"image_id": 42, "caption": "a dog", "ratings": [1, 4]}'
FORMS = (
    f"a line a pair: {PLAIN}, or, as in Flickr8k, image, caption#number and either {EXPERTS} or "
    f"{CROWD}, parted by tabs"
)
References = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Rated:
    """An image and a caption, raw, that people rated once or more, higher if it is better."""

    image_id: str
    caption: str
    ratings: tuple[float, ...]


@dataclass(frozen=True)
class Ratings:
    """Rated pairs, none of whose captions is among the references it is compared with.

    Attributes:
        pairs: In the file's order; an image may have several.
        references: Of each rated image, by its id.
        left_out: How many pairs were left out, as their caption is a reference of the image.
        references_left_out: How many references were left out, as they are rated captions.
        tau: The variant of Kendall's rank correlation that the literature reports for them.
    """

    pairs: list[Rated]
    references: dict[str, list[str]]
    left_out: int = 0
    references_left_out: int = 0
    tau: Literal["b", "c"] = "c"


def read_ratings(path: str, references: str) -> Ratings:
    """Rated pairs with the references of their images; the first line tells the form.

    * Flickr8k's `ExpertAnnotations.txt`: image, caption id, three ratings from 1 to 4. Pairs whose
      caption is a reference of the image are left out, as by SPICE's authors (158 of 5,822).
    * Flickr8k's `CrowdFlowerAnnotations.txt`: image, caption id, share of yes, numbers of yes and
      of no. The rating is the share. All pairs stay and references that are rated captions of their
      image are left out instead, and the correlation is tau-b, as by CLIPScore's authors.
    * JSON lines, `{"image_id": 42, "caption": "a dog", "ratings": [1, 4]}`: as the first.

    Args:
        path: The ratings.
        references: For Flickr8k's, its captions, `Flickr8k.token.txt` or `captions.txt`, where the
            caption id `name.jpg#2` means the third caption of that image. For JSON lines, a file
            of captions in COCO's format.

    Raises:
        CaptionGANError: A file is missing or something else, or a line cannot be used.
    """
    text = io.StringIO(read_utf8(path, FORMS), newline=None)
    lines = {
        f"{path}, line {number}": line.strip()
        for number, line in enumerate(text, start=1)
        if line.strip()
    }
    if not lines:
        raise CaptionGANError(f"{path} is empty; expected {FORMS}.")
    where, first = next(iter(lines.items()))
    if first.startswith("{"):
        plain = read_references(references)
        pairs = [_plain(line, plain, where) for where, line in lines.items()]
        return _without_pairs(pairs, plain, path)
    form = _form(first.split("\t")[2:])
    if form is None:
        raise CaptionGANError(f"{where}: expected {FORMS}; found {first[:80]!r}.")
    skips = Skips()
    captions = read_captions(references, skips)
    if skips.all:  # One caption less would give the image's others another number.
        raise CaptionGANError(f"{references}: {skips.lines()[0]}; fetch the file again.")
    pairs = [_flickr(line, form, captions, where) for where, line in lines.items()]
    leave_out = _without_pairs if form == EXPERTS else _without_references
    return leave_out(pairs, captions, path)


def _form(columns: Sequence[str]) -> str | None:
    return next((form for form in (EXPERTS, CROWD) if _ratings(columns, form)), None)


def _ratings(columns: Sequence[str], form: str) -> tuple[float, ...] | None:
    """The ratings in the columns after the ids; None if they have another form.

    No columns have both: experts' first number as a share is 1, but neither of the others is none.
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


def _flickr(line: str, form: str, captions: References, where: str) -> Rated:
    columns = [column.strip() for column in line.split("\t")]
    ratings = _ratings(columns[2:], form)
    if ratings is None:
        raise CaptionGANError(
            f"{where}: expected image, caption#number and, as in the first line, {form}, parted by "
            f"tabs; found {line[:80]!r}."
        )
    image_id, caption_id = columns[:2]
    name, _, number = caption_id.rpartition("#")
    numbered = {str(place): caption for place, caption in enumerate(captions.get(name, ()))}
    if number not in numbered:
        raise CaptionGANError(
            f"{where}: {caption_id!r} is not among the captions; expected an image's name, # and "
            "the caption's number from 0, and the captions of the data set that was rated."
        )
    _expect_references(image_id, captions, where)
    return Rated(image_id, numbered[number], ratings)


def _plain(line: str, references: References, where: str) -> Rated:
    entry = parse(line, where, PLAIN)
    image_id, caption = captioned(entry, where)
    ratings = entry.get("ratings")
    if not isinstance(ratings, list) or not ratings or not all(map(_is_number, ratings)):
        raise CaptionGANError(
            f"{where}: the ratings of image {image_id!r} are missing or no numbers; expected "
            f"{PLAIN}."
        )
    _expect_references(image_id, references, where)
    return Rated(image_id, caption, tuple(map(float, ratings)))


def _is_number(value: Any) -> bool:
    # Finite, and no integer that is too large for a float.
    return type(value) in (int, float) and abs(value) < 1e300


def _expect_references(image_id: str, references: References, where: str) -> None:
    if not has_text(references.get(image_id, ())):
        raise CaptionGANError(
            f"{where}: image {image_id!r} has no reference; add one, or remove the line."
        )


def _without_pairs(pairs: Sequence[Rated], references: References, path: str) -> Ratings:
    own = {image_id: set(map(str.strip, texts)) for image_id, texts in references.items()}
    kept = [pair for pair in pairs if pair.caption.strip() not in own[pair.image_id]]
    if not kept:
        raise CaptionGANError(
            f"{path}: every caption is a reference of its image; rate other captions."
        )
    return Ratings(kept, _of_images(kept, references), len(pairs) - len(kept))


def _without_references(pairs: Sequence[Rated], references: References, path: str) -> Ratings:
    rated = defaultdict(set)
    for pair in pairs:
        rated[pair.image_id].add(pair.caption)
    of_images = _of_images(pairs, references)
    kept = {
        image_id: [text for text in texts if text not in rated[image_id]]
        for image_id, texts in of_images.items()
    }
    for image_id, texts in kept.items():
        if not has_text(texts):
            raise CaptionGANError(
                f"{path}: all references of image {image_id!r} are rated captions; remove a line, "
                "so that one is left to compare with."
            )
    left_out = sum(len(of_images[image_id]) - len(texts) for image_id, texts in kept.items())
    return Ratings(list(pairs), kept, references_left_out=left_out, tau="b")


def _of_images(pairs: Iterable[Rated], references: References) -> dict[str, list[str]]:
    return {pair.image_id: list(references[pair.image_id]) for pair in pairs}


def judge(ratings: str, references: str) -> dict[str, Any]:
    """Correlates automatic scores with ratings.

    Args:
        ratings: File of rated captions; see `data/ratings.py` for its forms.
        references: File of the images' references.

    Returns:
        `pairs`, `left_out`, `references_left_out`; `tau`, the variant of Kendall's rank
        correlation; `correlation` by score, None where it is not defined; `not_run` by score.

    Raises:
        CaptionGANError: A file cannot be used.
    """
    rated = read_ratings(ratings, references)
    captions = [pair.caption for pair in rated.pairs]
    targets = [rated.references[pair.image_id] for pair in rated.pairs]
    scores = human_correlation.caption_scores(captions, targets)
    not_run = {}
    # An image may have several captions, so that it is pairs that are numbered.
    by_pair = {str(pair): caption for pair, caption in enumerate(captions)}
    of_pair = dict(zip(by_pair, targets, strict=True))
    for name, score in (("METEOR", java_scores.meteor), ("SPICE", java_scores.spice)):
        scored = score(by_pair, of_pair)
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


def correlation_lines(judged: dict[str, Any]) -> list[str]:
    """For the terminal: the score that agrees best comes first."""
    lines = [f"{judged['pairs']} rated captions; Kendall's tau-{judged['tau']} with the ratings"]
    if judged["left_out"]:
        lines.append(f"{judged['left_out']} left out, as they are references of their image")
    if judged["references_left_out"]:
        lines.append(f"{judged['references_left_out']} references left out, as they are rated")
    found = judged["correlation"].items()
    defined = sorted(((tau, name) for name, tau in found if tau is not None), reverse=True)
    lines += [f"{name:10}{tau:+.3f}" for tau, name in defined]
    lines += [f"{name:10}undefined: all alike" for name, tau in found if tau is None]
    return lines + [f"{name:10}not run: {why}" for name, why in judged["not_run"].items()]
