"""Karpathy's splits of COCO, Flickr8k and Flickr30k: one JSON file of images and captions."""

import os
from collections.abc import Callable
from itertools import chain

from caption_gan.data.skips import Skips, shown
from caption_gan.data.sources.caption_cells import caption_reader, captions_of
from caption_gan.data.sources.image_files import ImageFile, image_name
from caption_gan.data.sources.json_records import CAPTIONS, LIST, NAME, read_records
from caption_gan.data.sources.split_columns import split_of_value
from caption_gan.data.sources.splits import SPLITS
from caption_gan.errors import CaptionGANError
from caption_gan.storage import filesystem


def read_karpathy(
    path: str, folder: Callable[[str], str], skips: Skips, encoding: str | None = None
) -> dict[str, list[ImageFile]]:
    """Image files of each split that is not empty; `restval` is part of `train`, as usual.

    Args:
        path: The file, e.g. `dataset_coco.json`.
        folder: Returns the folder of an image, given its `filepath` or "" if it has none.
        skips: Counts images of unknown splits, and images and captions that cannot be used.
        encoding: As in `text_files.read_text`.

    Raises:
        CaptionGANError: The file is missing, damaged or of another format.
    """
    schema = {"filename": NAME, "split": NAME, "sentences": LIST}
    (images,) = read_records(path, {"images": schema}, skips, encoding)
    texts = (text for image in images for text in captions_of(image["sentences"]))
    read_text = caption_reader(texts, os.path.basename(path), skips)
    splits: dict[str, list[ImageFile]] = {split: [] for split in SPLITS}
    for image in images:
        name = image_name(image["filename"])
        split = split_of_value(image["split"].strip())
        if split is None:
            skips.add(f"images are of an unknown split {image['split']!r}", name)
            continue
        captions: list[str] = []
        for sentence in image["sentences"]:
            if CAPTIONS.read(sentence) is not None:
                captions += chain(*map(read_text, captions_of(sentence)))
            else:
                skips.add("sentences have no raw text", f"{shown(sentence)} of {name}")
        filepath = image.get("filepath")
        below = filepath.replace("\\", "/").strip() if isinstance(filepath, str) else ""
        image_path = filesystem.join(folder(below), name)
        splits[split].append(ImageFile(name, image_path, tuple(captions)))
    used = {split: entries for split, entries in splits.items() if entries}
    if images and not any(entry.captions for entries in used.values() for entry in entries):
        reasons = "".join(f" {line}." for line in skips.lines())
        raise CaptionGANError(f"{path}: no image of a known split has a caption.{reasons}")
    return used
