"""Features that somebody else's network has computed, in the files of gan-image-captioning.

    train/features.npy    [N, D] or [N, R, D]: a row an item
    train/captions.en     a line an item, with ### between its captions
    train/links.txt       a line an item: the URL or file name of its image; may be absent

Here rows are only counted; `caption_gan.models.encoders.precomputed` reads them.
"""

import functools
import io
from collections import defaultdict

import numpy as np
from PIL import Image

from caption_gan.config.data import DataConfig
from caption_gan.data.example import Example
from caption_gan.data.skips import Skips
from caption_gan.data.sources.image_files import ImageFile, ImageFileSource
from caption_gan.data.sources.splits import find_in_splits, hold_out, split_name
from caption_gan.errors import CaptionGANError
from caption_gan.storage import filesystem

FEATURES, CAPTIONS, LINKS = "features.npy", "captions.en", "links.txt"


def open_features(config: DataConfig, skips: Skips) -> ImageFileSource:
    """Opens precomputed features.

    Images are named after the folder and the row, `train-000012`, or the row alone. Items with the
    same link are one image, whose row is that of the first. Where its file is not there, a grey
    image takes its place.

    Args:
        config: `root`, or each of its folders `train`, `val` and `test`, has the files. One folder
            is divided by `held_out`.
        skips: Counts what cannot be used.

    Raises:
        CaptionGANError: A file is missing or damaged, or their items do not match.
    """
    root = str(config.root)
    if "://" in root:
        raise CaptionGANError(
            f"data.root: {root} is not on disk; {FEATURES} is mapped into memory, so copy the "
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
        splits[split_name(name) or "train"] += _entries(filesystem.join(root, name), prefix)
    files = [
        filesystem.join(root, name, file)
        for name in folders
        for file in (FEATURES, CAPTIONS, LINKS)
    ]
    fingerprint = [[path, filesystem.modified(path)] for path in files]
    held_out = hold_out(splits, config.held_out)
    return ImageFileSource(held_out, [*fingerprint, config.held_out], skips, _read)


def _entries(folder: str, prefix: str) -> list[ImageFile]:
    path = filesystem.join(folder, FEATURES)
    try:
        rows = len(np.lib.format.open_memmap(path, mode="r"))
    except (OSError, ValueError, TypeError) as error:
        raise CaptionGANError(f"{path} cannot be read: {error}.") from error
    captions = _lines(filesystem.join(folder, CAPTIONS), rows)
    links = [""] * rows
    if filesystem.is_file(filesystem.join(folder, LINKS)):
        links = _lines(filesystem.join(folder, LINKS), rows)
    entries: dict[str, ImageFile] = {}
    for row, (link, line) in enumerate(zip(links, captions, strict=True)):
        name = f"{prefix}{row:06d}"
        image = filesystem.join(folder, link) if link and "://" not in link else ""
        first = entries.get(link or name, ImageFile(name, image))
        texts = (*first.captions, *(text.strip() for text in line.split("###")))
        entries[link or name] = ImageFile(first.image_id, first.path, texts)
    return list(entries.values())


def _lines(path: str, rows: int) -> list[str]:
    text = filesystem.read_text(path, f"a line for each row of {FEATURES}")
    lines = [line.strip() for line in text.removesuffix("\n").split("\n")]
    if len(lines) != rows:
        raise CaptionGANError(
            f"{path} has {len(lines)} lines and {FEATURES} {rows} rows; expected a line a row."
        )
    return lines


def _read(entry: ImageFile) -> Example:
    try:
        image = filesystem.read_bytes(entry.path) if entry.path else _grey()
    except FileNotFoundError:
        image = _grey()
    return Example(entry.image_id, image, entry.captions)


@functools.cache
def _grey() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (64, 64), (128, 128, 128)).save(stream, format="PNG")
    return stream.getvalue()
