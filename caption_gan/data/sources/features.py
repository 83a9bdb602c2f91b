"""Precomputed image features with captions, in the file format of gan-image-captioning.

    train/features.npy    [N, D] or [N, R, D]: one row per item
    train/captions.en     one line per item, its captions separated by ###
    train/links.txt       one line per item: URL or file name of its image; optional

N items, R regions, D region depth. Rows are only counted here;
`caption_gan.models.encoders.precomputed` reads them.
"""

import functools
import io
from collections import defaultdict
from itertools import chain

import numpy as np
from PIL import Image

from caption_gan.config.data import DataConfig
from caption_gan.data.example import Example
from caption_gan.data.skips import Skips
from caption_gan.data.sources.caption_cells import caption_reader
from caption_gan.data.sources.image_files import ImageFile, ImageFileSource, image_name
from caption_gan.data.sources.splits import find_in_splits, hold_out, split_name
from caption_gan.errors import CaptionGANError
from caption_gan.storage import filesystem, text_files
from caption_gan.storage.text_guesses import other_content

FEATURES, CAPTIONS, LINKS = "features.npy", "captions.en", "links.txt"


def open_features(config: DataConfig, skips: Skips) -> ImageFileSource:
    """Opens precomputed features.

    The id of an image is its folder and row, e.g. `train-000012`, or its row alone if `root` has
    the files. Items with the same link are one image with the features of the first. A grey image
    stands for an image file that does not exist.

    Args:
        config: `root`, or each of its folders `train`, `val` and `test`, contains the files. If
            there is only one folder, `held_out` divides its images.
        skips: Counts what cannot be used.

    Raises:
        CaptionGANError: A file is missing or damaged, or the files differ in their number of items.
    """
    root = str(config.root)
    if "://" in root:
        raise CaptionGANError(
            f"data.root: {root} is not on disk; {FEATURES} is memory-mapped, so copy the "
            "folder to a disk."
        )
    folders = find_in_splits(root, [FEATURES])
    if not folders:
        raise CaptionGANError(
            f"data.root: {root} has no {FEATURES}; expected it there, or in each of its folders "
            "train, val and test."
        )
    splits: dict[str, list[ImageFile]] = defaultdict(list)
    for name in folders:
        prefix = f"{name}-" if name else ""
        folder = filesystem.join(root, name)
        splits[split_name(name) or "train"] += _image_files(folder, prefix, config.encoding, skips)
    files = [
        filesystem.join(root, name, file)
        for name in folders
        for file in (FEATURES, CAPTIONS, LINKS)
    ]
    fingerprint = [[path, filesystem.modified(path)] for path in files]
    held_out = hold_out(splits, config.held_out)
    return ImageFileSource(held_out, [*fingerprint, config.held_out], skips, root, _read)


def _image_files(folder: str, prefix: str, encoding: str, skips: Skips) -> list[ImageFile]:
    path = filesystem.join(folder, FEATURES)
    try:
        rows = len(np.lib.format.open_memmap(path, mode="r"))
    except (OSError, ValueError, TypeError) as error:
        with open(path, "rb") as file:
            found = other_content(file.read(100))
        reason = f"it is {found}" if found else error
        raise CaptionGANError(f"{path} cannot be read: {reason}.") from error
    captions = _lines(filesystem.join(folder, CAPTIONS), rows, encoding)
    links = [""] * rows
    if filesystem.is_file(filesystem.join(folder, LINKS)):
        links = _lines(filesystem.join(folder, LINKS), rows, encoding)
    texts_of = [[text.strip() for text in line.split("###")] for line in captions]
    read_text = caption_reader((text for texts in texts_of for text in texts), CAPTIONS, skips)
    by_link: dict[str, ImageFile] = {}
    for row, (link, of_row) in enumerate(zip(links, texts_of, strict=True)):
        name = f"{prefix}{row:06d}"
        link = image_name(link) if link and "://" not in link else link
        image = filesystem.join(folder, link) if link and "://" not in link else ""
        first = by_link.get(link or name, ImageFile(name, image))
        texts = (*first.captions, *chain(*map(read_text, of_row)))
        by_link[link or name] = ImageFile(first.image_id, first.path, texts)
    return list(by_link.values())


def _lines(path: str, rows: int, encoding: str) -> list[str]:
    """The lines of a text file, one for each row of the features."""
    text = text_files.read_text(path, f"one line for each row of {FEATURES}", encoding)
    lines = text_files.lines(text)
    if len(lines) != rows:  # Carriage returns may be part of captions.
        lines = text.removesuffix("\n").split("\n")
    if len(lines) != rows:
        raise CaptionGANError(
            f"{path} has {len(lines)} lines and {FEATURES} {rows} rows; expected one line per row."
        )
    return [line.strip() for line in lines]


def _read(file: ImageFile) -> Example:
    try:
        image = filesystem.read_bytes(file.path) if file.path else _grey_image()
    except FileNotFoundError:
        image = _grey_image()
    return Example(file.image_id, image, file.captions)


@functools.cache
def _grey_image() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (64, 64), (128, 128, 128)).save(stream, format="PNG")
    return stream.getvalue()
