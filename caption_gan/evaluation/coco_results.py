"""Scores captions of any system, given in the results format of COCO's evaluation server.

Chen et al., "Microsoft COCO Captions: Data Collection and Evaluation Server" (2015). Image ids
become strings: the numbers 42 and 42.0 and the string "42" mean the same image.
"""

import itertools
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from caption_gan.config.run import EvaluationConfig, MonitorConfig
from caption_gan.data.skips import NAMES_SHOWN
from caption_gan.data.sources.json_records import ID
from caption_gan.errors import CaptionGANError
from caption_gan.evaluation.text_metrics import Scores, collapse_signs, score_captions
from caption_gan.metrics.bootstrap import Bootstrap
from caption_gan.storage.text_files import read_text

RESULTS = '[{"image_id": 42, "caption": "a dog"}, ...]'
REFERENCES = f'{{"images": [{{"id": 42}}, ...], "annotations": {RESULTS}}}'


@dataclass(frozen=True)
class MatchedReferences:
    """The references of captioned images.

    Attributes:
        references: References of the captioned images, by image id in the order of the captions.
        left_out: Number of images with references but without caption. As in the official toolkit,
            they do not count.
        empty: Number of empty captions; the official toolkit scores them 0.
    """

    references: dict[str, list[str]]
    left_out: int
    empty: int


def read_results(path: str) -> dict[str, str]:
    """Reads captions by image id, in the order of the file.

    Raises:
        CaptionGANError: If the file is missing, has another format, or has an unusable entry.
    """
    content = parse(read_text(path, RESULTS), path, RESULTS)
    if not isinstance(content, list) or not content:
        raise CaptionGANError(f"{path}: expected {RESULTS}; found {_found(content)}.")
    captions: dict[str, str] = {}
    for number, entry in enumerate(content, start=1):
        where = f"{path}, number {number}"
        image_id, caption = read_entry(entry, where)
        if image_id in captions:
            first = list(captions).index(image_id) + 1
            raise CaptionGANError(
                f"{where}: image {_short(image_id)} has a caption in number {first}; keep one."
            )
        captions[image_id] = caption
    return captions


def read_references(path: str) -> dict[str, list[str]]:
    """Reads references by image id, in the order of the file; an image may have none.

    Raises:
        CaptionGANError: If the file is missing, has another format, or has an unusable entry.
    """
    content = parse(read_text(path, REFERENCES), path, REFERENCES)
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
        image_id, caption = read_entry(entry, f"{path}, annotations, number {number}")
        references.setdefault(image_id, []).append(caption)
    return references


def match_references(
    captions: Mapping[str, str], references: Mapping[str, Sequence[str]]
) -> MatchedReferences:
    """Selects the references of the captioned images.

    Args:
        captions: As returned by `read_results`.
        references: As returned by `read_references`.

    Raises:
        CaptionGANError: If a captioned image has no reference, or only empty ones.
    """
    missing = [key for key in captions if not has_text(references.get(key, ()))]
    if missing:
        example = next(filter(references.get, references), "(none)")
        raise CaptionGANError(
            f"{len(missing)} of {len(captions)} captioned images have no reference, or only empty "
            f"ones: {_listed(missing)}; add references (their image ids look like "
            f"{_short(example)}), or remove these captions."
        )
    return MatchedReferences(
        references={key: list(references[key]) for key in captions},
        left_out=sum(key not in captions for key in references),
        empty=sum(not caption.strip() for caption in captions.values()),
    )


def read_entry(entry: Any, where: str) -> tuple[str, str]:
    """Returns the image id and the caption of an entry.

    Args:
        entry: Parsed JSON.
        where: Names the entry in messages.

    Raises:
        CaptionGANError: If the image id or the caption is missing or unusable.
    """
    _expect_keys(entry, where, "image_id", "caption")
    image_id, caption = _as_id(entry["image_id"], where), entry["caption"]
    if not isinstance(caption, str):
        raise CaptionGANError(
            f"{where}: the caption of image {_short(image_id)} is {_found(caption)}; expected a "
            'string, "" if there is no caption.'
        )
    return image_id, _valid_unicode(caption, f"{where}: the caption of image {_short(image_id)}")


def has_text(captions: Sequence[str]) -> bool:
    """Whether one of the captions is not empty."""
    return any(caption.strip() for caption in captions)


def parse(text: str, where: str, expected: str) -> Any:
    """Parses JSON.

    Args:
        text: The JSON.
        where: Names the text in messages.
        expected: The format to name in messages.

    Raises:
        CaptionGANError: If the text is not valid JSON.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CaptionGANError(
            f"{where} is not valid or not complete JSON: {error}; expected {expected}."
        ) from None


def _as_id(value: Any, where: str) -> str:
    image_id = ID.read(value)
    if image_id is None:
        raise CaptionGANError(
            f"{where}: the image id is {_found(value)}; expected an integer or a string."
        )
    return _valid_unicode(image_id, f"{where}: the image id {_short(image_id)}")


def _expect_keys(entry: Any, where: str, *keys: str) -> None:
    if not isinstance(entry, dict) or not all(key in entry for key in keys):
        raise CaptionGANError(
            f"{where}: expected an object with {' and '.join(keys)}; found {_found(entry)}."
        )


def _valid_unicode(text: str, what: str) -> str:
    """Refuses lone surrogates, which JSON can escape but which cannot be encoded."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise CaptionGANError(
            f"{what} has the lone surrogate {text[error.start]!r}; write the whole character or "
            "remove it."
        ) from None
    return text


def _found(value: Any) -> str:
    """Describes a JSON value for a message: an object by its keys."""
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
    """The metrics of a results file.

    Attributes:
        scores: Metrics by name.
        intervals: 95% confidence intervals by name.
        images: Number of captioned images.
        notes: Lines on images that do not count, on empty captions and on metrics.
        collapsed: Signs of collapse, one line each.
    """

    scores: Scores
    intervals: dict[str, tuple[float, float]]
    images: int
    notes: list[str]
    collapsed: list[str]

    def to_json(self) -> dict[str, Any]:
        """Values by name, then intervals, metrics that did not run, notes and signs of collapse."""
        return {
            **{name: round(value, 6) for name, value in self.scores.values.items()},
            "intervals": {name: list(ends) for name, ends in self.intervals.items()},
            "not_run": self.scores.not_run,
            "images": self.images,
            "notes": self.notes,
            "collapsed": self.collapsed,
        }


def score_results(results: str, references: str) -> ScoredResults:
    """Scores a file of captions against a file of references.

    Args:
        results: File in the form `[{"image_id": 42, "caption": "a dog"}, ...]`.
        references: File in COCO's caption format.

    Raises:
        CaptionGANError: If a file is unusable.
    """
    captions = read_results(results)
    matched = match_references(captions, read_references(references))
    notes = []
    if matched.left_out:
        notes.append(f"{matched.left_out} images of {references} have no caption and do not count")
    if matched.empty:
        notes.append(f"{matched.empty} captions are empty and score 0")
    scores = score_captions(captions, matched.references)
    bootstrap = Bootstrap(len(captions), EvaluationConfig().bootstrap_samples)
    notes += scores.notes
    signs = collapse_signs(scores.values, MonitorConfig())
    return ScoredResults(scores, scores.intervals(bootstrap), len(captions), notes, signs)


def results_lines(scored: ScoredResults) -> list[str]:
    """All metrics with their intervals, for the terminal."""
    lines = [f"COLLAPSED: {sign}" for sign in scored.collapsed]
    lines.append(f"{scored.images} images; metric, value, 95% interval")
    for name, value in scored.scores.values.items():
        low, high = scored.intervals[name]
        lines.append(f"{name:22}{value:8.4f}  [{low:.4f}, {high:.4f}]")
    lines += [f"{name:22}not run: {reason}" for name, reason in scored.scores.not_run.items()]
    return [*lines, *scored.notes]
