"""Data sets that list their images: what layouts of files on disk have in common."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from caption_gan.data.example import Example
from caption_gan.data.parallel import map_ahead
from caption_gan.data.skips import SkipError, Skips
from caption_gan.errors import CaptionGANError
from caption_gan.storage import filesystem

SPLITS = ("train", "val", "test")
READERS = 8  # Threads that wait for files, which may be far away.
_SPLIT_NAMES = {
    **{name: "train" for name in ("train", "training")},
    **{name: "val" for name in ("val", "valid", "validation", "dev")},
    **{name: "test" for name in ("test", "testing")},
}


@dataclasses.dataclass(frozen=True)
class Entry:
    """An image that a data set lists.

    Attributes:
        image_id: As in `Example`.
        path: Of the image file.
        captions: As many as there are, raw; may be empty.
    """

    image_id: str
    path: str
    captions: tuple[str, ...] = ()


def read_image(entry: Entry) -> Example:
    """Reads the image of an entry.

    Raises:
        SkipError: The file is not there, or has no caption.
        CaptionGANError: It is there and cannot be read.
    """
    if not entry.captions:
        raise SkipError("images have no caption")
    try:
        return Example(entry.image_id, filesystem.read_bytes(entry.path), entry.captions)
    except FileNotFoundError:
        raise SkipError("images are listed but not there") from None
    except OSError as error:
        # What may be there the next time is not left out.
        raise CaptionGANError(f"{entry.path} cannot be read: {error}.") from error


class ListedSource:
    """Examples that are listed first and read when they are needed.

    Args:
        entries: Of each split, in order. Of entries with the same `image_id` in a split only the
            first is kept; the others are counted in `skips`.
        fingerprint: Something JSON can hold that differs if the examples may differ, such as the
            annotation file's path and `filesystem.modified` of it.
        skips: Counts what cannot be used.
        read: Makes an example of an entry, or raises `SkipError`.
    """

    def __init__(
        self,
        entries: Mapping[str, Sequence[Entry]],
        fingerprint: Any,
        skips: Skips,
        read: Callable[[Entry], Example] = read_image,
    ):
        self.entries = {split: _once(some, skips) for split, some in entries.items()}
        self.fingerprint = fingerprint
        self.skips = skips
        self.read = read

    @property
    def images_of_split(self) -> dict[str, int]:
        """Number of images that each split lists."""
        return {split: len(entries) for split, entries in self.entries.items()}

    def examples(self, split: str, positions: range) -> Iterator[Example]:
        """Yields the split's examples at these positions, without those that were skipped."""
        entries = self.entries[split][positions.start : positions.stop]

        def attempt(entry: Entry) -> Example | SkipError:
            try:
                return self.read(entry)
            except SkipError as reason:
                return reason

        results = map_ahead(attempt, entries, READERS, 4 * READERS)
        for entry, result in zip(entries, results, strict=True):
            if isinstance(result, SkipError):
                self.skips.add(str(result), entry.image_id)
            else:
                yield result


def _once(entries: Sequence[Entry], skips: Skips) -> list[Entry]:
    kept: dict[str, Entry] = {}
    for entry in entries:
        if entry.image_id in kept:
            skips.add("images are listed again", entry.image_id)
        else:
            kept[entry.image_id] = entry
    return list(kept.values())


def split_name(name: str) -> str | None:
    """`train`, `val` or `test` for what data sets call them, e.g. `Validation`; else None."""
    return _SPLIT_NAMES.get(name.lower())


def held_out_splits(names: Iterable[str], share: float) -> dict[str, str]:
    """The split of each image of a data set that has none: by the names alone, hence deterministic.

    Args:
        names: Of the images; all captions of an image are in one split.
        share: Of the images that go to `val`, and as many to `test`: one at least if there are
            three, unless it is 0.
    """
    order = sorted(
        names, key=lambda name: hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
    )
    most = (len(order) - 1) // 2  # One is left to train with.
    held_out = min(max(1, round(share * len(order))), most) if share else 0
    return {
        name: "val" if place < held_out else "test" if place < 2 * held_out else "train"
        for place, name in enumerate(order)
    }


def hold_out(splits: Mapping[str, Sequence[Entry]], share: float) -> dict[str, Sequence[Entry]]:
    """Divides the entries of a data set that has only one split; others stay as they are."""
    if len(splits) > 1:
        return dict(splits)
    (entries,) = splits.values()
    split_of = held_out_splits({entry.image_id for entry in entries}, share)
    return {
        split: [entry for entry in entries if split_of[entry.image_id] == split] for split in SPLITS
    }


def split_folders(root: str, names: Sequence[str]) -> dict[str, str]:
    """The first of these files in a data set's folder, or in each of its folders of splits.

    Files of the whole set go before those of its parts.

    Returns:
        Paths by the folder's name, which is empty for the data set's own.
    """
    for folders in ([""], [name for name in filesystem.listing(root) if split_name(name)]):
        paths = {
            folder: [filesystem.join(root, folder, name) for name in names] for folder in folders
        }
        found = {folder: list(filter(filesystem.is_file, some)) for folder, some in paths.items()}
        if there := {folder: some[0] for folder, some in found.items() if some}:
            return there
    return {}
