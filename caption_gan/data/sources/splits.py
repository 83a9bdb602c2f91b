"""Splits of a data set: how they are named, found and, if there are none, made."""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence

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


def assign_held_out(
    image_ids: Iterable[str], share: float, present: Collection[str]
) -> dict[str, str]:
    """As `assign_splits`, but nothing is held out for splits that are present."""
    split_of = assign_splits(set(image_ids), share)
    return {name: "train" if split in present else split for name, split in split_of.items()}


def hold_out(
    splits: Mapping[str, Sequence[ImageFile]], share: float
) -> Mapping[str, Sequence[ImageFile]]:
    """Divides the images of a data set that has only one split, or no `val` but `train`.

    Splits that exist are left as they are, and test images are never trained on.
    """
    name = "train" if "train" in splits else "val"
    if name not in splits or ("val" in splits and len(splits) > 1):
        return {split: splits[split] for split in SPLITS if split in splits}
    files = splits[name]
    split_of = assign_held_out((file.image_id for file in files), share, set(splits) - {name})
    divided: dict[str, list[ImageFile]] = {split: [] for split in SPLITS}
    for file in files:
        divided[split_of[file.image_id]].append(file)
    return divided | {split: list(of) for split, of in splits.items() if split != name}


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
