"""Sources whose images are files on disk or in a bucket, listed before any image is read."""

import dataclasses
import os
import posixpath
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from caption_gan.data.example import Example
from caption_gan.data.parallel import parallel_map
from caption_gan.data.skips import SkipError, Skips
from caption_gan.errors import CaptionGANError
from caption_gan.storage import filesystem

READERS = 8  # Threads; most of their time they wait for a disk or a network.


@dataclasses.dataclass(frozen=True)
class ImageFile:
    """An image file and its captions, before the image is read.

    Attributes:
        image_id: As in `Example`.
        path: Of the file.
        captions: Raw text; may be empty.
    """

    image_id: str
    path: str
    captions: tuple[str, ...] = ()


def image_name(text: str) -> str:
    """An image's name, its path below the folder of images, in the one spelling used for ids.

    Tables spell a name with `./` or backslashes, and macOS decomposes accents, where other tables
    and files do not.
    """
    return unicodedata.normalize("NFC", posixpath.normpath(text.strip().replace("\\", "/")))


def read_image(file: ImageFile) -> Example:
    """Reads an image file.

    Raises:
        SkipError: The image has no caption.
        FileNotFoundError: The file does not exist.
        OSError: The file exists but cannot be read.
    """
    if not file.captions:
        raise SkipError("images have no caption")
    return Example(file.image_id, filesystem.read_bytes(file.path), file.captions)


class Spellings:
    """Finds files whose paths a table spells otherwise.

    Args:
        root: Folder of the data set.
    """

    def __init__(self, root: str):
        self.root = root
        self.names: dict[str, dict[str, list[str]]] = {}  # By folder and folded name.

    def find(self, path: str) -> str:
        """The only file whose path differs from a missing one in case or in accents' encoding.

        Raises:
            FileNotFoundError: There is none, or there are several.
        """
        folder, name = os.path.split(path)
        if len(folder) > len(self.root) and not filesystem.is_folder(folder):
            folder = self.find(folder)
        if folder not in self.names:
            names = defaultdict(list)
            for present in filesystem.listing(folder):
                names[_folded(present)].append(present)
            self.names[folder] = names
        candidates = self.names[folder].get(_folded(name), [])
        if name not in candidates and len(candidates) != 1:
            raise FileNotFoundError(path)
        return filesystem.join(folder, name if name in candidates else candidates[0])


class ImageFileSource:
    """A `Source` that lists its image files first and reads each when it is needed.

    Args:
        files: Image files of each split, in order. A file that a split lists several times is one
            image with the captions of all. If different files have one `image_id`, the ids of all
            images become their paths below `root`.
        fingerprint: JSON-serializable value that changes whenever the examples may change, such as
            the annotation file's path and its `filesystem.modified`.
        skips: Counts what cannot be used.
        root: Folder of the data set.
        read: Reads an image file as an example, or raises `SkipError`, or `FileNotFoundError` if
            the image is not there.
    """

    def __init__(
        self,
        files: Mapping[str, Sequence[ImageFile]],
        fingerprint: Any,
        skips: Skips,
        root: str,
        read: Callable[[ImageFile], Example] = read_image,
    ):
        listed = {split: _by_path(of_split, root, skips) for split, of_split in files.items()}
        self.files = _with_distinct_ids(listed)
        self.fingerprint = fingerprint
        self.skips = skips
        self.read = read
        self.spellings = Spellings(root)

    @property
    def images_of_split(self) -> dict[str, int]:
        """Number of listed images of each split."""
        return {split: len(files) for split, files in self.files.items()}

    def image_ids(self) -> Iterator[str]:
        """Yields the id of each listed image."""
        return (file.image_id for files in self.files.values() for file in files)

    def examples(self, split: str, positions: range) -> Iterator[Example]:
        """Yields the split's examples at these positions; those that cannot be used are skipped."""
        files = self.files[split][positions.start : positions.stop]
        results = parallel_map(self._read_or_skip, files, READERS, 4 * READERS)
        for file, result in zip(files, results, strict=True):
            if isinstance(result, SkipError):
                self.skips.add(str(result), file.image_id)
            else:
                yield result

    def _read_or_skip(self, file: ImageFile) -> Example | SkipError:
        try:
            try:
                return self.read(file)
            except FileNotFoundError:
                path = self.spellings.find(file.path)
                return self.read(dataclasses.replace(file, path=path))
        except SkipError as error:
            return error
        except FileNotFoundError:
            return SkipError("images are listed but not there")
        except OSError as error:
            # Not skipped: the file may be readable next time, and shards are written only once.
            raise CaptionGANError(f"{file.path} cannot be read: {error}.") from error


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _by_path(files: Sequence[ImageFile], root: str, skips: Skips) -> dict[str, ImageFile]:
    """Image files by their paths below the root, or by their ids if they are not files."""
    by_path: dict[str, ImageFile] = {}
    prefix = root.rstrip("/") + "/"
    for file in files:
        path = posixpath.normpath(file.path.removeprefix(prefix)) if file.path else file.image_id
        if path in by_path:
            skips.add("images are listed again; their captions are joined", file.image_id)
            first = by_path[path]
            more = (caption for caption in file.captions if caption not in first.captions)
            file = dataclasses.replace(first, captions=(*first.captions, *more))
        by_path[path] = file
    return by_path


def _with_distinct_ids(
    splits: Mapping[str, Mapping[str, ImageFile]],
) -> dict[str, list[ImageFile]]:
    """Image files of each split, given by path, with ids that no other file has."""
    path_of: dict[str, str] = {}
    for path, file in (pair for files in splits.values() for pair in files.items()):
        if path_of.setdefault(file.image_id, path) != path:
            return {
                split: [dataclasses.replace(file, image_id=path) for path, file in files.items()]
                for split, files in splits.items()
            }
    return {split: list(files.values()) for split, files in splits.items()}
