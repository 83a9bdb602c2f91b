"""A folder of images with `metadata.jsonl` or `metadata.csv`, as the Hugging Face Hub knows it.

Read here and not by the library `datasets`, which neither names a line that is malformed nor goes
on without it.
"""

import csv
import io
import json
import os
import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from caption_gan.config.data import DataConfig
from caption_gan.data.skips import Skips
from caption_gan.data.sources.image_files import ImageFile, ImageFileSource
from caption_gan.data.sources.splits import find_in_splits, hold_out, split_name
from caption_gan.errors import CaptionGANError
from caption_gan.storage import filesystem

METADATA = ("metadata.jsonl", "metadata.csv")
CAPTION_COLUMN = re.compile(r"text|captions?(_?\d+)?", re.IGNORECASE)
IMAGE_ENDINGS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")


def open_folder(config: DataConfig, skips: Skips) -> ImageFileSource:
    """Opens a folder of images.

    Args:
        config: `root`, or each of its folders `train`, `val` and `test`, has metadata with a column
            `file_name`, relative to it, and captions in columns `caption`, `captions`, `text`,
            `caption_1` and so on: texts or, in JSON, lists of texts. An image may have several
            rows. A column `split` divides the images; a set without splits, or with only one, is
            divided by `held_out`.
        skips: Counts what cannot be used.

    Raises:
        CaptionGANError: There is no metadata, or it lacks a column.
    """
    root = str(config.root)
    files = find_in_splits(root, METADATA)
    if not files:
        raise CaptionGANError(
            f"data.root: {root} has no {' or '.join(METADATA)}; expected one there, or in each of "
            "its folders train, val and test."
        )
    splits: dict[str, list[ImageFile]] = defaultdict(list)
    for name, path in files.items():
        for split, entries in _entries(path, split_name(name) or "train", skips).items():
            splits[split] += entries
    folders = [os.path.dirname(path) for path in files.values()]
    # Of the folders too: images that were missing may be there the next time.
    fingerprint = [[path, filesystem.modified(path)] for path in [*files.values(), *folders]]
    held_out = hold_out(splits, config.held_out)
    return ImageFileSource(held_out, [*fingerprint, config.held_out], skips)


def _entries(path: str, split: str, skips: Skips) -> dict[str, list[ImageFile]]:
    """Images and captions of each split, in the order of the rows.

    Args:
        path: Of the metadata.
        split: Where images are that do not say.
        skips: Counts what cannot be used.
    """
    folder, file_name = os.path.split(path)
    captions: dict[str, list[str]] = {}
    split_of: dict[str, str] = {}
    named = set()
    columns: dict[str, None] = {}
    for place, row in _rows(path, skips):
        columns |= dict.fromkeys(row)
        image = row.get("file_name")
        if not isinstance(image, str) or not image.strip():
            skips.add(f"rows of {file_name} name no image", place)
            continue
        image = os.path.normpath(image.strip())
        named.add(image)
        own_split = split_name(str(row["split"]).strip()) if row.get("split") else split
        if own_split is None:
            skips.add(f"rows of {file_name} have an unknown split {row['split']!r}", place)
        elif split_of.setdefault(image, own_split) != own_split:
            skips.add(f"rows of {file_name} put their image into a second split", place)
        else:
            captions.setdefault(image, []).extend(_captions(row, file_name, place, skips))
    if "file_name" not in columns or not any(map(CAPTION_COLUMN.fullmatch, columns)):
        raise CaptionGANError(
            f"{path}: expected columns file_name and caption, captions, caption_1 or text; found "
            f"{', '.join(columns) or 'none'}."
        )
    _count_images_without_rows(folder, named, skips)
    splits: dict[str, list[ImageFile]] = defaultdict(list)
    for image, some in captions.items():
        splits[split_of[image]].append(
            ImageFile(image, filesystem.join(folder, image), tuple(some))
        )
    return splits


def _rows(path: str, skips: Skips) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows, each with where it stands."""
    text = filesystem.read_text(path, "a row for each image or caption")
    name = os.path.basename(path)
    if name.endswith(".csv"):
        table = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        number = 0
        try:
            for row in table:
                number = table.line_num
                if None in row or None in row.values():
                    skips.add(
                        f"rows of {name} have more or fewer cells than columns", f"line {number}"
                    )
                else:
                    yield f"line {number}", row
        except csv.Error as error:
            raise CaptionGANError(
                f"{path} is no CSV from line {number + 1} on: {error}; put captions with commas or "
                "line breaks in quotation marks, and double those within."
            ) from None
        return
    for number, line in enumerate(text.split("\n"), 1):
        try:
            content = json.loads(line) if line.strip() else None
        except ValueError:
            content = line
        if isinstance(content, dict):
            yield f"line {number}", content
        elif line.strip():
            skips.add(f"lines of {name} are no JSON objects", f"line {number}")


def _captions(row: dict[str, Any], file_name: str, place: str, skips: Skips) -> Iterator[str]:
    for column, cell in row.items():
        if CAPTION_COLUMN.fullmatch(column):
            for caption in cell if isinstance(cell, list) else [cell]:
                if isinstance(caption, str):
                    yield caption
                elif caption is not None:
                    skips.add(f"captions of {file_name} are no texts", place)


def _count_images_without_rows(folder: str, images: set[str], skips: Skips) -> None:
    for subfolder in sorted({os.path.dirname(image) for image in images} | {""}):
        for name in filesystem.listing(filesystem.join(folder, subfolder)):
            image = filesystem.join(subfolder, name)
            if name.lower().endswith(IMAGE_ENDINGS) and image not in images:
                skips.add("images have no caption", image)
