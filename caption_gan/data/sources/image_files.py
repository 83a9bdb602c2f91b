"""Sources whose images are files on disk or in a bucket, listed before any image is read."""

import dataclasses
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


def read_image(file: ImageFile) -> Example:
    """Reads an image file.

    Raises:
        SkipError: The file does not exist, or the image has no caption.
        CaptionGANError: The file exists but cannot be read.
    """
    if not file.captions:
        raise SkipError("images have no caption")
    try:
        return Example(file.image_id, filesystem.read_bytes(file.path), file.captions)
    except FileNotFoundError:
        raise SkipError("images are listed but not there") from None
    except OSError as error:
        # Not skipped: the file may be readable next time, and shards are written only once.
        raise CaptionGANError(f"{file.path} cannot be read: {error}.") from error


class ImageFileSource:
    """A `Source` that lists its image files first and reads each when it is needed.

    Args:
        files: Image files of each split, in order. Of several with the same `image_id` in a split
            only the first is used; the others are counted in `skips`.
        fingerprint: JSON-serializable value that changes whenever the examples may change, such as
            the annotation file's path and its `filesystem.modified`.
        skips: Counts what cannot be used.
        read: Reads an image file as an example, or raises `SkipError`.
    """

    def __init__(
        self,
        files: Mapping[str, Sequence[ImageFile]],
        fingerprint: Any,
        skips: Skips,
        read: Callable[[ImageFile], Example] = read_image,
    ):
        self.files = {split: _without_repeats(listed, skips) for split, listed in files.items()}
        self.fingerprint = fingerprint
        self.skips = skips
        self.read = read

    @property
    def images_of_split(self) -> dict[str, int]:
        """Number of listed images of each split."""
        return {split: len(files) for split, files in self.files.items()}

    def examples(self, split: str, positions: range) -> Iterator[Example]:
        """Yields the split's examples at these positions; those that cannot be used are skipped."""
        files = self.files[split][positions.start : positions.stop]

        def read_or_skip(file: ImageFile) -> Example | SkipError:
            try:
                return self.read(file)
            except SkipError as error:
                return error

        results = parallel_map(read_or_skip, files, READERS, 4 * READERS)
        for file, result in zip(files, results, strict=True):
            if isinstance(result, SkipError):
                self.skips.add(str(result), file.image_id)
            else:
                yield result


def _without_repeats(files: Sequence[ImageFile], skips: Skips) -> list[ImageFile]:
    by_id: dict[str, ImageFile] = {}
    for file in files:
        if file.image_id in by_id:
            skips.add("images are listed again", file.image_id)
        else:
            by_id[file.image_id] = file
    return list(by_id.values())
