"""Flickr8k and Flickr30k as distributed: a folder of images and a file of captions."""

import csv
import functools
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

from caption_gan.config.data import DataConfig
from caption_gan.data.skips import Skips, shown
from caption_gan.data.sources.caption_cells import caption_reader
from caption_gan.data.sources.image_files import ImageFile, ImageFileSource, image_name
from caption_gan.data.sources.karpathy import read_karpathy
from caption_gan.data.sources.split_columns import Row, divide
from caption_gan.data.sources.splits import hold_out
from caption_gan.data.sources.tables import read_list, separator_of, unquoted_cells
from caption_gan.errors import CaptionGANError
from caption_gan.storage import filesystem, text_files
from caption_gan.storage.paths import resolve

IMAGE_FOLDERS = (
    "Images",
    "images",
    "Flicker8k_Dataset",  # Sic.
    "Flickr8k_Dataset",
    "flickr30k_images",
    "flickr30k-images",
)
CAPTION_FILES = (
    "captions.txt",
    "Flickr8k.token.txt",
    "results_20130124.token",
    "results.csv",
    "flickr_annotations_30k.csv",
)
COLUMNS = ("image", "caption", "comment_number", "sentids", "img_id")
LOOKED_FOR = 5  # Images whose existence shows that a list has names of images.
CAPTION_NUMBER = re.compile(r"#\d+$")
TEXT_FOLDERS = ("", "Flickr8k_text")
SPLIT_LISTS = {
    "train": "Flickr_8k.trainImages.txt",
    "val": "Flickr_8k.devImages.txt",
    "test": "Flickr_8k.testImages.txt",
}


def open_flickr(config: DataConfig, skips: Skips) -> ImageFileSource:
    """Opens the layout of Flickr8k (Hodosh et al., 2013) and Flickr30k (Young et al., 2014).

    Args:
        config: `root` contains one of `IMAGE_FOLDERS` and one of `CAPTION_FILES`. Flickr8k's lists
            of its splits have one file name per line; without them, a column of splits or
            `held_out` divides the images. `karpathy` replaces captions and lists.
        skips: Counts what cannot be used.

    Raises:
        CaptionGANError: A required file or folder is missing or damaged.
    """
    root = str(config.root)
    folder = _find_required("folder of images", filesystem.is_folder, root, IMAGE_FOLDERS)
    if config.karpathy is not None:
        path = resolve(config.karpathy)
        folder_of = functools.cache(functools.partial(_image_folder, root, folder))
        splits = read_karpathy(path, folder_of, skips, config.encoding)
        fingerprint: list[Any] = [folder, path, filesystem.modified(path), config.held_out]
        return ImageFileSource(hold_out(splits, config.held_out), fingerprint, skips, root)
    path = _find_required("file of captions", filesystem.is_file, root, CAPTION_FILES)
    lists = {
        split: found[0]
        for split, name in SPLIT_LISTS.items()
        if (found := _find(filesystem.is_file, root, [name]))
    }
    files = [path, *lists.values()]
    fingerprint = [folder, *([file, filesystem.modified(file)] for file in files)]

    rows = [
        row._replace(image=_path_below(folder, row.image))
        for row in _read_rows(path, skips, config.encoding)
    ]
    file_name = os.path.basename(path)
    names: dict[str, list[str]] = defaultdict(list)
    if lists and config.split_column is None:
        names |= {split: _listed(file, folder, config.encoding) for split, file in lists.items()}
    else:
        rows, split_of = divide(rows, COLUMNS, config.split_column, file_name, skips)
        for image, split in split_of.items():
            names[split].append(image)
    captions: dict[str, list[str]] = defaultdict(list)
    read_text = caption_reader((row.cells["caption"] for row in rows), file_name, skips)
    for row in rows:
        captions[row.image] += read_text(row.cells["caption"])
    splits = {
        split: [
            ImageFile(name, filesystem.join(folder, name), tuple(captions.get(name, ())))
            for name in of_split
        ]
        for split, of_split in names.items()
    }
    if not lists or config.split_column is not None:
        fingerprint.append([config.held_out, config.split_column])
        held_out = hold_out(splits, config.held_out)
        return ImageFileSource(held_out, fingerprint, skips, root)
    for split in ("train", "val"):
        if not splits.get(split):
            raise CaptionGANError(
                f"{lists.get(split, filesystem.join(root, SPLIT_LISTS[split]))}: no images for the "
                f"split {split!r}; expected one file name per line."
            )
    for split, file in lists.items():
        paths = [filesystem.join(folder, name) for name in names[split][:LOOKED_FOR]]
        is_unknown = captions.keys().isdisjoint(names[split])
        if captions and is_unknown and not any(map(filesystem.is_file, paths)):
            raise CaptionGANError(
                f"{file}: no line names an image of {file_name}; expected one file name per line, "
                f"such as {next(iter(captions))}; found {shown(', '.join(names[split]))}."
            )
    return ImageFileSource(splits, fingerprint, skips, root)


def _image_folder(root: str, folder: str, filepath: str) -> str:
    """The folder of images with this `filepath` in Karpathy's file, where most have none."""
    candidates = [filesystem.join(folder, filepath), filesystem.join(root, filepath)]
    return next(filter(filesystem.is_folder, candidates), folder) if filepath else folder


def _listed(path: str, folder: str, encoding: str) -> list[str]:
    """Paths of the images in a list of a split, below the folder of images.

    A list of captions (`name.jpg#0`) has several entries for an image.
    """
    names = read_list(path, "one file name per line", encoding)
    images = [_path_below(folder, CAPTION_NUMBER.sub("", name)) for name in names]
    return list(dict.fromkeys(images)) if any(map(CAPTION_NUMBER.search, names)) else images


def _path_below(folder: str, name: str) -> str:
    """Returns an image's path below the folder of images, with which the name may begin."""
    return f"/{image_name(name)}".rpartition(f"/{os.path.basename(folder)}/")[2].lstrip("/")


def _find(exists: Callable[[str], bool], root: str, names: Iterable[str]) -> list[str]:
    """Paths of those of the names that exist in the data set's folder or in its folder of texts."""
    paths = (filesystem.join(root, folder, name) for folder in TEXT_FOLDERS for name in names)
    return [path for path in paths if exists(path)]


def _find_required(
    kind: str, exists: Callable[[str], bool], root: str, names: Iterable[str]
) -> str:
    """The first path that `_find` finds; an error if there is none."""
    if found := _find(exists, root, names):
        return found[0]
    raise CaptionGANError(
        f"data.root: {root} has no {kind}; expected {', '.join(names)}, there or in "
        f"{TEXT_FOLDERS[1]}/; found {', '.join(filesystem.listing(root)[:10]) or 'nothing'}."
    )


def read_captions(path: str, skips: Skips, encoding: str | None = None) -> dict[str, list[str]]:
    """Captions by file name of the image, in the order of the file; see `_read_rows`."""
    captions: dict[str, list[str]] = defaultdict(list)
    for row in _read_rows(path, skips, encoding):
        captions[row.image].append(row.cells["caption"])
    return dict(captions)


def _read_rows(path: str, skips: Skips, encoding: str | None) -> list[Row]:
    """Rows of a file of captions.

    Args:
        path: One of `CAPTION_FILES`.
        skips: Counts malformed lines.
        encoding: As in `text_files.read_text`.

    Returns:
        Rows with the column `caption` and the other columns of the file.

    Raises:
        CaptionGANError: The file cannot be read, or its first line is not as expected.
    """
    file_name = os.path.basename(path)
    lines = text_files.lines(text_files.read_text(path, "captions", encoding))
    if "token" in file_name:
        separator, columns, header_lines = "\t", ["image", "caption"], 0
    else:
        header = lines[0] if lines else ""
        separator, header_lines = separator_of(header), 1
        columns = [column.strip(' "') for column in header.split(separator)]
        names = {"image_name": "image", "comment": "caption", "filename": "image", "raw": "caption"}
        columns = [names.get(column, column) for column in columns]
        if not {"image", "caption"} <= set(columns):
            raise CaptionGANError(
                f"{path}: the first line must be 'image,caption' or 'image_name| comment_number| "
                f"comment'; found {header[:80].strip()!r}."
            )
    rows = []
    for number, line in enumerate(lines[header_lines:], header_lines + 1):
        row = _row(line, separator, columns)
        image = CAPTION_NUMBER.sub("", row.get("image", "").strip())
        if image:
            row["caption"] = row["caption"].strip()
            rows.append(Row(image_name(image), f"line {number}", row))
        elif line.strip():
            problem = "have stray quotation marks" if '"' in line else "are malformed"
            skips.add(f"lines of {file_name} {problem}", f"line {number} ({shown(line)})")
    if skips.all and not rows:
        raise CaptionGANError(f"{path}: no line can be used. {'. '.join(skips.lines())}.")
    return rows


def _row(line: str, separator: str, columns: list[str]) -> dict[str, str]:
    """Values by column of one line; empty if the line is malformed."""
    if separator in ",;":
        try:
            # Parses one line at a time: an unmatched quotation mark spoils only its own line.
            values = next(csv.reader([line], strict=True, delimiter=separator), [])
        except csv.Error:
            values = []
        if len(values) != len(columns) and separator == ",":
            values = unquoted_cells(line, columns, "caption") or []
    else:
        values = line.split(separator, len(columns) - 1)
    return dict(zip(columns, values, strict=True)) if len(values) == len(columns) else {}
