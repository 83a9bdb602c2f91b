"""Captions that any program wrote, and their references, in the files of COCO's evaluation server.

Chen et al., "Microsoft COCO Captions: Data Collection and Evaluation Server" (2015). Ids are texts
here: a file with the number 42 and one with the text "42" mean the same image.
"""

import itertools
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from caption_gan.config.objectives import MonitorConfig
from caption_gan.config.run import EvaluationConfig
from caption_gan.data.skips import NAMES_SHOWN
from caption_gan.errors import CaptionGANError
from caption_gan.evaluation.text_metrics import Scores, collapse_signs, score_captions
from caption_gan.metrics.bootstrap import Bootstrap
from caption_gan.storage import filesystem

RESULTS = '[{"image_id": 42, "caption": "a dog"}, ...]'
REFERENCES = f'{{"images": [{{"id": 42}}, ...], "annotations": {RESULTS}}}'


@dataclass(frozen=True)
class Matched:
    """The references of captioned images.

    Attributes:
        references: Of exactly the captioned images, by image id, in the order of the captions.
        left_out: How many images of the references have no caption. They do not count, as in the
            official toolkit, whose scores are of the captioned images.
        empty: How many captions are empty; the official toolkit scores them with zero.
    """

    references: dict[str, list[str]]
    left_out: int
    empty: int


def read_results(path: str) -> dict[str, str]:
    """The caption of each image, by image id, in the file's order.

    Raises:
        CaptionGANError: The file is missing or no results, or one of them cannot be used.
    """
    content = parse(read_utf8(path, RESULTS), path, RESULTS)
    if not isinstance(content, list) or not content:
        raise CaptionGANError(f"{path}: expected {RESULTS}; found {_found(content)}.")
    captions: dict[str, str] = {}
    for number, entry in enumerate(content, start=1):
        where = f"{path}, number {number}"
        image_id, caption = captioned(entry, where)
        if image_id in captions:
            first = list(captions).index(image_id) + 1
            raise CaptionGANError(
                f"{where}: image {_short(image_id)} has a caption in number {first}; keep one."
            )
        captions[image_id] = caption
    return captions


def read_references(path: str) -> dict[str, list[str]]:
    """The captions of each image, by image id, in the file's order; none for some, perhaps.

    Raises:
        CaptionGANError: The file is missing or no references, or one of them cannot be used.
    """
    content = parse(read_utf8(path, REFERENCES), path, REFERENCES)
    lists = content if isinstance(content, dict) else {}
    images, annotations = lists.get("images"), lists.get("annotations")
    if not isinstance(images, list) or not isinstance(annotations, list):
        raise CaptionGANError(f"{path}: expected {REFERENCES}; found {_found(content)}.")
    references: dict[str, list[str]] = {}
    for number, image in enumerate(images, start=1):
        where = f"{path}, images, number {number}"
        _expect_keys(image, where, "id")
        references[_as_id(image["id"], where)] = []
    for number, entry in enumerate(annotations, start=1):
        image_id, caption = captioned(entry, f"{path}, annotations, number {number}")
        references.setdefault(image_id, []).append(caption)
    return references


def matched(results: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> Matched:
    """The references of the captioned images, given what the two functions above return.

    Raises:
        CaptionGANError: A captioned image has no reference, or only empty ones.
    """
    lacking = [key for key in results if not has_text(references.get(key, ()))]
    if lacking:
        example = next(filter(references.get, references), "(none)")
        raise CaptionGANError(
            f"{len(lacking)} of {len(results)} captioned images have no reference, or empty ones "
            f"only: {_listed(lacking)}; add references, whose image ids are such as "
            f"{_short(example)}, or leave these captions out."
        )
    return Matched(
        references={key: list(references[key]) for key in results},
        left_out=sum(key not in results for key in references),
        empty=sum(not caption.strip() for caption in results.values()),
    )


def captioned(entry: Any, where: str) -> tuple[str, str]:
    """The image id and the caption of an entry.

    Args:
        entry: As JSON has it; `where` names it in messages.

    Raises:
        CaptionGANError: Either is missing or cannot be used.
    """
    _expect_keys(entry, where, "image_id", "caption")
    image_id, caption = _as_id(entry["image_id"], where), entry["caption"]
    if not isinstance(caption, str):
        raise CaptionGANError(
            f"{where}: the caption of image {_short(image_id)} is {_found(caption)}; expected a "
            'text, which is "" if there is no caption.'
        )
    return image_id, _whole(caption, f"{where}: the caption of image {_short(image_id)}")


def has_text(captions: Sequence[str]) -> bool:
    """Whether one of the captions is not empty."""
    return any(caption.strip() for caption in captions)


def read_utf8(path: str, expected: str) -> str:
    """The content of a text file, of which no byte may be lost, as scores depend on it.

    Raises:
        CaptionGANError: There is no such file, or it is not UTF-8.
    """
    try:
        return filesystem.read_bytes(path).decode("utf-8-sig")
    except FileNotFoundError:
        raise CaptionGANError(f"{path} is missing; expected {expected}.") from None
    except OSError as error:
        raise CaptionGANError(f"{path} cannot be read: {error}; expected {expected}.") from error
    except UnicodeDecodeError as error:
        raise CaptionGANError(
            f"{path} is not UTF-8: {error.reason} at byte {error.start}; save it as UTF-8."
        ) from None


def parse(text: str, where: str, expected: str) -> Any:
    """What a text in JSON holds.

    Raises:
        CaptionGANError: It is no JSON.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CaptionGANError(
            f"{where} is no JSON, or only a part of it: {error}; expected {expected}."
        ) from None


def _as_id(value: Any, where: str) -> str:
    if isinstance(value, str):
        return _whole(value, f"{where}: the image id {_short(value)}")
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise CaptionGANError(
        f"{where}: the image id is {_found(value)}; expected a whole number or a text."
    )


def _expect_keys(entry: Any, where: str, *keys: str) -> None:
    if not isinstance(entry, dict) or not all(key in entry for key in keys):
        raise CaptionGANError(
            f"{where}: expected an object with {' and '.join(keys)}; found {_found(entry)}."
        )


def _whole(text: str, what: str) -> str:
    """A text without halves of characters, which JSON can escape and nothing can write."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise CaptionGANError(
            f"{what} has {text[error.start]!r}, half a character; write the whole or leave it out."
        ) from None
    return text


def _found(value: Any) -> str:
    """Something of JSON for a message, as JSON writes it; the keys of an object."""
    if isinstance(value, dict):
        return f"the keys {_listed(value) or '(none)'}"
    return f"a list of {len(value)}" if isinstance(value, list) else json.dumps(value)[:80]


def _listed(texts: Collection[str]) -> str:
    more = ", ..." if len(texts) > NAMES_SHOWN else ""
    return ", ".join(map(_short, itertools.islice(texts, NAMES_SHOWN))) + more


def _short(text: str) -> str:
    return repr(text)[:80]


@dataclass(frozen=True)
class ScoredResults:
    """Metrics of a results file.

    Attributes:
        scores: By name.
        intervals: Of 95%.
        images: Number of captioned images.
        notes: What does not count, a line each.
        collapsed: Signs of a collapse, a line each.
    """

    scores: Scores
    intervals: dict[str, tuple[float, float]]
    images: int
    notes: list[str]
    collapsed: list[str]

    def to_json(self) -> dict[str, Any]:
        """Metrics by name, and beside them what else is known of them."""
        return {
            **{name: round(value, 6) for name, value in self.scores.values.items()},
            "intervals": {name: list(ends) for name, ends in self.intervals.items()},
            "not_run": self.scores.not_run,
            "images": self.images,
            "notes": self.notes,
            "collapsed": self.collapsed,
        }


def score_results(results: str, references: str) -> ScoredResults:
    """Scores one file of captions against another of references.

    Args:
        results: `[{"image_id": 42, "caption": "a dog"}, ...]`.
        references: COCO's captions format.

    Raises:
        CaptionGANError: A file cannot be used.
    """
    captions = read_results(results)
    found = matched(captions, read_references(references))
    notes = []
    if found.left_out:
        notes.append(f"{found.left_out} images of {references} have no caption and do not count")
    if found.empty:
        notes.append(f"{found.empty} captions are empty and score 0")
    scores = score_captions(captions, found.references)
    bootstrap = Bootstrap(len(captions), EvaluationConfig().bootstrap_samples)
    signs = collapse_signs(scores.values, MonitorConfig())
    return ScoredResults(scores, scores.intervals(bootstrap), len(captions), notes, signs)


def results_lines(scored: ScoredResults) -> list[str]:
    """For the terminal: every metric with its interval."""
    lines = [f"COLLAPSED: {sign}" for sign in scored.collapsed]
    lines.append(f"{scored.images} images; metric, 95% interval")
    for name, value in scored.scores.values.items():
        low, high = scored.intervals[name]
        lines.append(f"{name:22}{value:8.4f}  [{low:.4f}, {high:.4f}]")
    lines += [f"{name:22}not run: {reason}" for name, reason in scored.scores.not_run.items()]
    return [*lines, *scored.notes]
