"""Karpathy's splits of COCO, Flickr8k and Flickr30k: one JSON file with images and captions."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from caption_gan.data import storage
from caption_gan.data.listed import SPLITS, Entry, split_name
from caption_gan.data.skips import Skips
from caption_gan.errors import CaptionGANError


def read_karpathy(path: str, folder: Callable[[str], str], skips: Skips) -> dict[str, list[Entry]]:
    """The splits that the file has; `restval` is part of `train`, as in the literature.

    Args:
        path: The file, e.g. `dataset_coco.json`.
        folder: The folder of an image, given its `filepath`, which is empty if there is none.
        skips: Counts images of other splits.

    Raises:
        CaptionGANError: It is missing, damaged, or something else.
    """
    keys = {"filename": str, "split": str, "sentences": list}
    (images,) = read_lists(path, {"images": keys})
    splits: dict[str, list[Entry]] = {split: [] for split in SPLITS}
    for image in images:
        name = image["filename"]
        split = "train" if image["split"] == "restval" else split_name(image["split"])
        if split is None:
            skips.add(f"images are of an unknown split {image['split']!r}", name)
            continue
        check_records(path, f"sentences of {name}", image["sentences"], {"raw": str})
        captions = tuple(sentence["raw"] for sentence in image["sentences"])
        image_path = storage.join(folder(image.get("filepath") or ""), name)
        splits[split].append(Entry(name, image_path, captions))
    return {split: entries for split, entries in splits.items() if entries}


def read_lists(
    path: str, keys: Mapping[str, Mapping[str, type | tuple[type, ...]]]
) -> list[list[dict[str, Any]]]:
    """Lists of records in a JSON object.

    Args:
        path: The file.
        keys: Those of the lists, each with the keys and types that its records must have.

    Raises:
        CaptionGANError: The file is missing, is no JSON, or lacks one of the keys.
    """
    text = storage.read_text(path, f"JSON with the keys {', '.join(keys)}")
    try:
        content = json.loads(text)
    except ValueError as error:
        raise CaptionGANError(
            f"{path} is no JSON, or only a part of it: {error}; fetch the file again."
        ) from None
    if not isinstance(content, dict):
        content = {}
    if not all(isinstance(content.get(name), list) for name in keys):
        raise CaptionGANError(
            f"{path}: expected a JSON object with the lists {', '.join(keys)}; "
            f"found the keys {', '.join(content) or '(none)'}."
        )
    for name in keys:
        check_records(path, name, content[name], keys[name])
    return [content[name] for name in keys]


def check_records(
    path: str, name: str, records: list[Any], keys: Mapping[str, type | tuple[type, ...]]
) -> None:
    """Checks that records have the keys and types.

    Raises:
        CaptionGANError: One has not; `path` and `name` tell where.
    """
    for number, record in enumerate(records, start=1):
        record = record if isinstance(record, dict) else {}
        for key, types in keys.items():
            if not isinstance(record.get(key), types):
                raise CaptionGANError(
                    f"{path}: {name}, number {number}: {key!r} is missing or of the wrong type; "
                    f"found the keys {', '.join(record) or '(none)'}."
                )
