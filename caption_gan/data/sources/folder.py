"""A folder of images with `metadata.jsonl`, `.csv` or `.json`, like the Hub's ImageFolder format.

Not read with the library `datasets`, which neither names nor skips a malformed line.
"""

import csv
import json
import os
import re
import textwrap
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from caption_gan.config.data import DataConfig
from caption_gan.data.skips import Skips, shown
from caption_gan.data.sources.caption_cells import caption_reader
from caption_gan.data.sources.image_files import ImageFile, ImageFileSource, image_name
from caption_gan.data.sources.json_records import read_array
from caption_gan.data.sources.split_columns import Row, divide
from caption_gan.data.sources.splits import find_in_splits, hold_out, split_name
from caption_gan.data.sources.tables import separator_of, unquoted_cells
from caption_gan.errors import CaptionGANError
from caption_gan.storage import filesystem, text_files

METADATA = ("metadata.jsonl", "metadata.csv", "metadata.json")
CAPTION_COLUMN = re.compile(r"text|captions?(_?\d+)?", re.IGNORECASE)
IMAGE_ENDINGS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")


def open_folder(config: DataConfig, skips: Skips) -> ImageFileSource:
    """Opens a folder of images.

    Args:
        config: `root`, or each of its folders `train`, `val` and `test`, contains the metadata: a
            column `file_name` with paths relative to the folder, and captions in columns `caption`,
            `captions`, `text`, `caption_1` etc., as strings or, in JSON, lists of strings. An image
            may have several rows. A column of splits divides the images; without splits, or with
            only one, `held_out` divides them.
        skips: Counts what cannot be used.

    Raises:
        CaptionGANError: There is no metadata, or a column is missing.
    """
    root = str(config.root)
    files = find_in_splits(root, METADATA)
    if not files:
        raise CaptionGANError(
            f"data.root: {root} has no {' or '.join(METADATA)}; expected one there, or in each of "
            f"its folders train, val and test; found {_some(filesystem.listing(root))}."
        )
    splits: dict[str, list[ImageFile]] = defaultdict(list)
    for name, path in files.items():
        found = _image_files(path, split_name(name) or "train", config, skips)
        for split, image_files in found.items():
            splits[split] += image_files
    folders = [os.path.dirname(path) for path in files.values()]
    # Includes the folders, because images that are missing now may be added later.
    fingerprint = [[path, filesystem.modified(path)] for path in [*files.values(), *folders]]
    settings = [config.held_out, config.split_column]
    held_out = hold_out(splits, config.held_out)
    return ImageFileSource(held_out, [*fingerprint, settings], skips, root)


def _image_files(
    path: str, split: str, config: DataConfig, skips: Skips
) -> dict[str, list[ImageFile]]:
    """Image files of each split, in the order of the rows.

    Args:
        path: The metadata.
        split: Split of the images without a value in the column of splits.
        config: The settings.
        skips: Counts what cannot be used.
    """
    folder, file_name = os.path.split(path)
    columns: dict[str, None] = {}
    rows = list(_rows(path, skips, config.encoding))
    if not rows:
        raise CaptionGANError(
            f"{path} has no row that can be used; expected the columns file_name and caption. "
            f"{'. '.join(skips.lines())}".rstrip()
        )
    for _, row in rows:
        columns |= dict.fromkeys(row)
    readers = {
        column: caption_reader(
            (row.get(column) for _, row in rows), f"the column {column} of {file_name}", skips
        )
        for column in columns
        if CAPTION_COLUMN.fullmatch(column)
    }
    if "file_name" not in columns or not readers:
        raise CaptionGANError(
            f"{path}: expected columns file_name and caption, captions, caption_1 or text; found "
            f"{_some(columns)}. {'. '.join(skips.lines())}".rstrip()
        )
    rows_of_images = []
    for place, row in rows:
        image = row.get("file_name")
        if isinstance(image, str) and image.strip():
            rows_of_images.append(Row(image_name(image), place, row))
        else:
            skips.add(f"rows of {file_name} name no image", f"{place} ({shown(image)})")
    used, split_of = divide(
        rows_of_images, {"file_name", *readers}, config.split_column, file_name, skips, split
    )
    captions: dict[str, list[str]] = defaultdict(list)
    for image, place, of_row in used:
        texts = captions[image]
        cells = [(readers[column], cell) for column, cell in of_row.items() if column in readers]
        for caption in (caption for read, cell in cells for caption in read(cell)):
            if isinstance(caption, str):
                texts.append(caption)
            else:
                name = f"{place} ({shown(caption)})"
                skips.add(f"captions of {file_name} are not texts", name)
    if not captions:
        raise CaptionGANError(f"{path}: no row can be used. {'. '.join(skips.lines())}.")
    _count_images_without_rows(folder, {row.image for row in rows_of_images}, skips)
    files: dict[str, list[ImageFile]] = defaultdict(list)
    for image, texts in captions.items():
        files[split_of[image]].append(
            ImageFile(image, filesystem.join(folder, image), tuple(texts))
        )
    return files


def _rows(path: str, skips: Skips, encoding: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the rows of the metadata, each with its line, e.g. `line 12`."""
    text = text_files.read_text(path, "one row for each image or caption", encoding)
    name = os.path.basename(path)
    if name.endswith(".csv"):
        yield from _csv_rows(path, text, skips)
        return
    elements = read_array(text, path)
    if elements is not None:
        places = [(f"number {number}", element) for number, element in enumerate(elements, 1)]
    else:
        places = [
            (f"line {number}", _json_or_text(line))
            for number, line in enumerate(text_files.lines(text), 1)
            if line.strip()
        ]
    whole = _json_or_text(text) if not any(isinstance(row, dict) for _, row in places) else None
    if isinstance(whole, dict):  # A single object on several lines.
        places = [("line 1", whole)]
    for place, row in places:
        if isinstance(row, dict):
            yield place, row
        else:
            skips.add(f"rows of {name} are not JSON objects", f"{place} ({shown(row)})")


def _json_or_text(text: str) -> Any:
    try:
        # NaN, which Python writes for cells that pandas left empty, becomes None.
        return json.loads(text, parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        return text


def _csv_rows(path: str, text: str, skips: Skips) -> Iterator[tuple[str, dict[str, str]]]:
    lines = text_files.lines(text)
    separator = separator_of(lines[0] if lines else "")
    table = csv.reader((f"{line}\n" for line in lines), strict=True, delimiter=separator)
    columns = [column.strip() for column in next(table, [])]
    caption = [column for column in columns if CAPTION_COLUMN.fullmatch(column)]
    # Commas are only in captions if the other columns are the image and the split.
    has_commas_in_one = (
        separator == "," and len(caption) == 1 and {*columns} <= {"file_name", "split", *caption}
    )
    number = 1
    try:
        for cells in table:
            line, is_one_line = lines[number], table.line_num == number + 1
            if len(cells) > len(columns) and has_commas_in_one and is_one_line:
                cells = unquoted_cells(line, columns, caption[0]) or cells
            number = table.line_num
            if len(cells) == len(columns):
                yield f"line {number}", dict(zip(columns, cells, strict=True))
            elif cells:
                skips.add(
                    f"rows of {os.path.basename(path)} have more or fewer cells than columns; "
                    "put captions with commas into quotation marks",
                    f"line {number} ({shown(line)})",
                )
    except csv.Error as error:
        raise CaptionGANError(
            f"{path} is not valid CSV from line {number + 1} on: {error}; quote captions with "
            "commas or line breaks, and double the quotation marks in them."
        ) from None


def _some(names: Iterable[str]) -> str:
    return textwrap.shorten(", ".join(names), 100, placeholder=" ...") or "none"


def _count_images_without_rows(folder: str, images: set[str], skips: Skips) -> None:
    present = [
        image_name(filesystem.join(subfolder, name))
        for subfolder in sorted({os.path.dirname(image) for image in images} | {""})
        for name in filesystem.listing(filesystem.join(folder, subfolder))
        if name.lower().endswith(IMAGE_ENDINGS)
    ]
    # The row of a missing image may spell the case otherwise.
    missing = {image.casefold() for image in images.difference(present)}
    for image in present:
        if image not in images and image.casefold() not in missing:
            skips.add("images have no caption", image)
