"""Flickr8k as it is distributed: `Images/`, `captions.txt` and one list of file names a split."""

import csv
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from caption_gan.data.example import Example
from caption_gan.data.skips import Skips
from caption_gan.errors import CaptionGANError

IMAGE_FOLDERS = ("Images", "Flicker8k_Dataset")
CAPTIONS_FILE = "captions.txt"
SPLIT_FILES = {
    "train": "Flickr_8k.trainImages.txt",
    "val": "Flickr_8k.devImages.txt",
    "test": "Flickr_8k.testImages.txt",
}


class Flickr8kSource:
    """The Flickr8k layout (Hodosh et al., 2013).

    Args:
        root: The folder. `captions.txt` is CSV with columns `image` and `caption`, a row a caption.
            The split lists hold one file name a line; a split without a list does not exist.
        skips: Counts what cannot be used.

    Raises:
        CaptionGANError: Something that must be there is not.
    """

    def __init__(self, root: Path, skips: Skips):
        self.skips = skips
        self.images = _first_folder(root)
        self.captions = _read_captions(root / CAPTIONS_FILE)
        self.lists = {
            split: (root / name).read_text().split()
            for split, name in SPLIT_FILES.items()
            if (root / name).is_file()
        }
        for split in ("train", "val"):
            if not self.lists.get(split):
                raise CaptionGANError(
                    f"{root / SPLIT_FILES[split]}: no images for the split {split!r}; expected "
                    "one file name a line."
                )
        self.fingerprint = [str(root.resolve()), (root / CAPTIONS_FILE).stat().st_mtime_ns]

    @property
    def images_of_split(self) -> dict[str, int]:
        """Number of images that each split lists."""
        return {split: len(names) for split, names in self.lists.items()}

    def examples(self, split: str) -> Iterator[Example]:
        """Yields the split's examples in the order of its list."""
        for name in self.lists[split]:
            path = self.images / name
            if name not in self.captions:
                self.skips.add(f"images have no caption in {CAPTIONS_FILE}", name)
            elif not path.is_file():
                self.skips.add(f"images are listed but not in {self.images.name}/", name)
            else:
                yield Example(name, path.read_bytes(), tuple(self.captions[name]))


def _first_folder(root: Path) -> Path:
    if not root.is_dir():
        raise CaptionGANError(f"data.root: {root} is not a folder; give the folder of Flickr8k.")
    for name in IMAGE_FOLDERS:
        if (root / name).is_dir():
            return root / name
    raise CaptionGANError(
        f"data.root: {root} has no folder {' or '.join(IMAGE_FOLDERS)}; expected Flickr8k's "
        f"layout: {IMAGE_FOLDERS[0]}/, {CAPTIONS_FILE} and {', '.join(SPLIT_FILES.values())}."
    )


def _read_captions(path: Path) -> dict[str, list[str]]:
    if not path.is_file():
        raise CaptionGANError(f"{path} is missing; expected CSV with columns image,caption.")
    captions: dict[str, list[str]] = defaultdict(list)
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        rows = csv.DictReader(file)
        if rows.fieldnames is None or not {"image", "caption"} <= set(rows.fieldnames):
            raise CaptionGANError(
                f"{path}: the first line must be 'image,caption'; found {rows.fieldnames}."
            )
        for row in rows:
            captions[row["image"]].append(row["caption"] or "")
    return dict(captions)
