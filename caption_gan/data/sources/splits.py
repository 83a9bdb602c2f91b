"""Splits of a data set: how they are named, found and, if there are none, made."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence

from caption_gan.data.sources.image_files import ImageFile
from caption_gan.storage import filesystem

SPLITS = ("train", "val", "test")
_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}


def split_name(name: str) -> str | None:
    """`train`, `val` or `test` for a data set's name of a split, e.g. `Validation`; else None."""
    return _NAMES.get(name.lower())


def assign_splits(image_ids: Iterable[str], share: float) -> dict[str, str]:
    """The split of each image of a data set that has no splits.

    Images are ordered by a hash of their ids, so the result is the same on every machine.

    Args:
        image_ids: One per image; all captions of an image are in one split.
        share: Fraction of the images that go to `val`, and again to `test`. Unless it is 0, each
            gets at least one image if there are three or more.
    """
    order = sorted(
        image_ids,
        key=lambda image_id: hashlib.sha256(image_id.encode("utf-8", "surrogatepass")).digest(),
    )
    most = (len(order) - 1) // 2  # Leaves one image to train with.
    held_out = min(max(1, round(share * len(order))), most) if share else 0
    return {
        image_id: "val" if place < held_out else "test" if place < 2 * held_out else "train"
        for place, image_id in enumerate(order)
    }


def hold_out(
    splits: Mapping[str, Sequence[ImageFile]], share: float
) -> dict[str, Sequence[ImageFile]]:
    """Divides the images of a data set that has only one split; several are left as they are."""
    if len(splits) > 1:
        return dict(splits)
    (files,) = splits.values()
    split_of = assign_splits({file.image_id for file in files}, share)
    return {split: [file for file in files if split_of[file.image_id] == split] for split in SPLITS}


def find_in_splits(root: str, names: Sequence[str]) -> dict[str, str]:
    """Finds a file in a data set's folder or, if it is not there, in each folder of a split.

    Args:
        root: The data set's folder.
        names: File names to look for; in each folder the first that exists is taken.

    Returns:
        Path of the file by name of the folder, which is "" for `root` itself.
    """
    for folders in ([""], [name for name in filesystem.listing(root) if split_name(name)]):
        candidates = {
            folder: [filesystem.join(root, folder, name) for name in names] for folder in folders
        }
        found = {
            folder: next(filter(filesystem.is_file, c), "") for folder, c in candidates.items()
        }
        if any(found.values()):
            return {folder: path for folder, path in found.items() if path}
    return {}
