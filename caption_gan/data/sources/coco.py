"""COCO 2014 and 2017, and other data sets with captions in COCO's format."""

import functools
import os
import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from caption_gan.config.data import DataConfig
from caption_gan.data.skips import Skips
from caption_gan.data.sources.caption_cells import caption_reader
from caption_gan.data.sources.image_files import ImageFile, ImageFileSource, image_name
from caption_gan.data.sources.json_records import CAPTIONS, ID, NAME, read_records
from caption_gan.data.sources.karpathy import read_karpathy
from caption_gan.data.sources.split_columns import Row, divide
from caption_gan.data.sources.splits import hold_out
from caption_gan.errors import CaptionGANError
from caption_gan.storage import filesystem
from caption_gan.storage.paths import resolve

COLUMNS = ("id", "file_name", "captions")  # Keys of an image that do not say its split.
CAPTION_FILE = re.compile(r"captions_(train|val|test)(\d*)\.json")


def open_coco(config: DataConfig, skips: Skips) -> ImageFileSource:
    """Opens COCO's layout (Lin et al., 2014; Chen et al., 2015).

    Args:
        config: `root` contains `annotations/captions_train2014.json` etc.; the year may be absent.
            Images are in `train2014/`, `images/train2014/` or `images/`. If there is only one file
            of captions, `held_out` divides its images. `karpathy` replaces these files.
        skips: Counts what cannot be used.

    Raises:
        CaptionGANError: A required file or folder is missing or damaged.
    """
    root = str(config.root)
    if config.karpathy is not None:
        path = resolve(config.karpathy)
        folder_of = functools.cache(functools.partial(_image_folder, root))
        splits = read_karpathy(path, folder_of, skips, config.encoding)
        fingerprint: list[Any] = [root, path, filesystem.modified(path), config.held_out]
        return ImageFileSource(hold_out(splits, config.held_out), fingerprint, skips, root)
    year, files = _caption_files(filesystem.join(root, "annotations"))
    listed = {split: _read_captions(path, skips, config.encoding) for split, path in files.items()}
    folders = {
        split: _image_folder(root, split + year, [row.image for row in rows[:5]])
        for split, rows in listed.items()
    }
    for split, folder in folders.items():
        if not filesystem.is_folder(folder):
            raise CaptionGANError(
                f"data.root: {root} has captions but no images for the split {split!r}; expected "
                f"a folder {split}{year}/, images/{split}{year}/ or images/."
            )
    fingerprint = [
        [path, filesystem.modified(path), folders[split]] for split, path in files.items()
    ]
    image_files: dict[str, list[ImageFile]] = defaultdict(list)
    for split, rows in listed.items():
        split_of = {row.image: split for row in rows}
        if len(files) == 1 or config.split_column is not None:
            table, default = os.path.basename(files[split]), split if len(files) > 1 else "train"
            rows, split_of = divide(rows, COLUMNS, config.split_column, table, skips, default)
        for name, _, record in rows:
            path = filesystem.join(folders[split], name)
            image_files[split_of[name]].append(ImageFile(name, path, tuple(record["captions"])))
    fingerprint.append([config.held_out, config.split_column])
    return ImageFileSource(hold_out(image_files, config.held_out), fingerprint, skips, root)


def _caption_files(folder: str) -> tuple[str, dict[str, str]]:
    """The year in the names of the caption files ("" for none), and their paths by split."""
    years: dict[str, dict[str, str]] = defaultdict(dict)
    names = filesystem.listing(folder)
    for name in names:
        if match := CAPTION_FILE.fullmatch(name):
            split, year = match.groups()
            years[year][split] = filesystem.join(folder, name)
    if not years:
        raise CaptionGANError(
            f"{folder} has no file of captions; expected captions_train2014.json and "
            f"captions_val2014.json, for example; found {', '.join(names) or 'nothing'}."
        )
    if len(years) > 1:
        raise CaptionGANError(
            f"{folder} has captions of several years: {', '.join(y or 'none' for y in years)}; "
            "set data.root to a folder with one of them."
        )
    ((year, files),) = years.items()
    missing = [split for split in ("train", "val") if split not in files]
    if missing and len(files) > 1:
        raise CaptionGANError(
            f"{folder} has no captions_{missing[0]}{year}.json; expected it beside "
            f"{' and '.join(map(os.path.basename, files.values()))}."
        )
    return year, files


def _image_folder(root: str, name: str, images: Sequence[str] = ()) -> str:
    """The folder to which names of images are relative; if there is none, where it is expected.

    Args:
        root: The data set's folder.
        name: Name of the folder in COCO, e.g. `train2014`.
        images: Names of a few images. If none of the usual folders has one of them, but `root`
            has, names are relative to `root`.
    """
    below_images, expected = filesystem.join(root, "images", name), filesystem.join(root, name)
    candidates = [below_images, expected, filesystem.join(root, "images")]
    for folder in filter(filesystem.is_folder, (*candidates, root)):
        if any(filesystem.is_file(filesystem.join(folder, image)) for image in images):
            return folder
    return next(filter(filesystem.is_folder, candidates), expected)


def _read_captions(path: str, skips: Skips, encoding: str) -> list[Row]:
    """A row for each image: its record, with its captions."""
    images, annotations = read_records(
        path,
        {
            "images": {"id": ID, "file_name": NAME},
            "annotations": {"image_id": ID, "caption": CAPTIONS},
        },
        skips,
        encoding,
    )
    by_id: dict[str, dict[str, Any]] = {}
    for image in images:
        if image["id"] in by_id:
            skips.add("images have the id of another", image["file_name"])
        by_id.setdefault(image["id"], image)
    captions: dict[str, list[str]] = {key: [] for key in by_id}
    texts = [annotation["caption"] for annotation in annotations]
    read_text = caption_reader(texts, os.path.basename(path), skips)
    for annotation in annotations:
        key = annotation["image_id"]
        if key in captions:
            captions[key] += read_text(annotation["caption"])
        else:
            skips.add("captions are of images that are not listed", f"id {key}")
    if annotations and by_id and not any(captions.values()):
        raise CaptionGANError(
            f"{path}: no image_id of annotations is the id of an image; the first are "
            f"{annotations[0]['image_id']!r} and {next(iter(by_id))!r}."
        )
    names = {key: image_name(record["file_name"]) for key, record in by_id.items()}
    return [
        Row(names[key], names[key], record | {"captions": captions[key]})
        for key, record in by_id.items()
    ]
