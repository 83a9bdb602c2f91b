"""Shards on disk: each whole or absent, with an index that says what is in it.

Files are named as TFX names them, with an index beside each:

    Split-train/data_tfrecord-00000-of-00016[.gz]
    Split-train/index-00000-of-00016.json

A shard holds what a data set has at certain positions, so that shards can be written in any order,
by several machines, and again when one of them is damaged.
"""

import dataclasses
import hashlib
import json
import re
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence

import tensorflow as tf

from caption_gan.data.skips import Skip, Skips
from caption_gan.storage import filesystem

IMAGES_PER_SHARD = 1000
ABANDONED_AFTER = 3600  # Seconds since somebody wrote to a file that is not finished.
_INCOMPLETE = "incomplete-"
_CHUNK = 2**20
_INDEX = re.compile(r"index-\d{5}-of-(\d{5})\.json")


@dataclasses.dataclass(frozen=True)
class IndexedImage:
    """What is known of an image without reading it.

    Attributes:
        image_id: As in `Example`.
        digest: Equal for equal images.
        captions: The captions that were kept.
    """

    image_id: str
    digest: str
    captions: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Index:
    """What a shard holds.

    Attributes:
        size: Of the file, in bytes.
        sha256: Of the file.
        images: In the order of the records.
        skips: What stood at the shard's positions and could not be used.
    """

    size: int
    sha256: str
    images: tuple[IndexedImage, ...]
    skips: tuple[Skip, ...]


@dataclasses.dataclass(frozen=True)
class Shard:
    """One shard of a split.

    Attributes:
        folder: `.../Split-<split>`.
        number: From 0.
        shards: Number of shards of the split.
        images: Number of positions of the split.
        gzip: Whether it is compressed.
    """

    folder: str
    number: int
    shards: int
    images: int
    gzip: bool = False

    @property
    def positions(self) -> range:
        """What of the data set goes into it."""
        first, last = (self.images * end // self.shards for end in (self.number, self.number + 1))
        return range(first, last)

    @property
    def path(self) -> str:
        """Of the records."""
        suffix = ".gz" if self.gzip else ""
        return filesystem.join(self.folder, f"data_tfrecord-{self._place}{suffix}")

    @property
    def index_path(self) -> str:
        """Of the index; written last, so that a shard with an index is finished."""
        return filesystem.join(self.folder, f"index-{self._place}.json")

    @property
    def _place(self) -> str:
        return f"{self.number:05d}-of-{self.shards:05d}"

    def read_index(self) -> Index | None:
        """Its index, None if the shard is not finished."""
        try:
            content = json.loads(filesystem.read_bytes(self.index_path))
        except FileNotFoundError:
            return None
        return Index(
            content["size"],
            content["sha256"],
            tuple(
                IndexedImage(name, digest, tuple(some)) for name, digest, some in content["images"]
            ),
            tuple(Skip(*skip) for skip in content["skips"]),
        )

    def is_whole(self, thorough: bool = False) -> bool:
        """Whether the shard is finished and its file is as it was written.

        Args:
            thorough: Compares the checksum besides the size, which reads the whole file.
        """
        index = self.read_index()
        if index is None or not filesystem.is_file(self.path):
            return False
        if tf.io.gfile.stat(self.path).length != index.size:
            return False
        return not thorough or _sha256(self.path) == index.sha256

    def write(self, records: Iterable[tuple[bytes, IndexedImage]], skips: Skips) -> Index:
        """Writes it in one piece.

        Args:
            records: Serialized, with their entry of the index.
            skips: What is skipped while records are made is added to it and kept in the index.

        Raises:
            OSError: The disk is full, or the like; nothing is left of the shard then.
        """
        # No other writer has this name, on whatever machine.
        temporary = filesystem.join(self.folder, f"{_INCOMPLETE}{uuid.uuid4().hex}")
        earlier = len(skips.all)
        images = []
        try:
            with filesystem.as_os_errors():
                tf.io.gfile.makedirs(self.folder)
                writer = tf.io.TFRecordWriter(temporary, "GZIP" if self.gzip else "")
            for record, image in records:
                with filesystem.as_os_errors():
                    writer.write(record)
                images.append(image)
            with filesystem.as_os_errors():
                writer.close()
                size, sha256 = tf.io.gfile.stat(temporary).length, _sha256(temporary)
                tf.io.gfile.rename(temporary, self.path, overwrite=True)
        finally:
            filesystem.remove(temporary)
        index = Index(size, sha256, tuple(images), tuple(skips.all[earlier:]))
        filesystem.write_text(self.index_path, json.dumps(_plain(index), ensure_ascii=False))
        return index


@dataclasses.dataclass(frozen=True)
class PreparedSplit:
    """A split that is ready to be read.

    Attributes:
        directory: Holds `Split-<split>/`.
        split: Its name.
        index: Its images, in the order of the records.
        size: Of all records, in bytes.
        skips: What could not be used.
    """

    directory: str
    split: str
    index: Sequence[IndexedImage] = dataclasses.field(repr=False)
    size: int
    skips: Sequence[Skip] = dataclasses.field(repr=False)

    @property
    def images(self) -> int:
        """Number of images."""
        return len(self.index)

    @property
    def captions(self) -> list[str]:
        """All captions of all images."""
        return [caption for image in self.index for caption in image.captions]

    @property
    def skipped(self) -> list[str]:
        """A line for each kind of thing that could not be used."""
        return Skips(self.skips).lines()


def find_shards(directory: str, split: str) -> list[Shard]:
    """The shards that a folder has, or should have by the names of those that it has."""
    folder = split_folder(directory, split)
    matches = [_INDEX.fullmatch(name) for name in filesystem.listing(folder)]
    counts = {int(match[1]) for match in matches if match}
    gzip = any(path.endswith(".gz") for path in shard_files(directory, split))
    count = max(counts, default=0)
    return [Shard(folder, number, count, 0, gzip) for number in range(count)]


def plan_shards(directory: str, split: str, images: int, gzip: bool) -> list[Shard]:
    """The shards of a split of so many positions."""
    folder = split_folder(directory, split)
    count = max(1, -(-images // IMAGES_PER_SHARD))
    return [Shard(folder, number, count, images, gzip) for number in range(count)]


def split_folder(directory: str, split: str) -> str:
    """Where the shards of a split are."""
    return filesystem.join(directory, f"Split-{split}")


def shard_files(directory: str, split: str) -> list[str]:
    """Paths of the records of a split, in order."""
    folder = split_folder(directory, split)
    names = [name for name in filesystem.listing(folder) if name.startswith("data_tfrecord-")]
    return [filesystem.join(folder, name) for name in names]


def remove_abandoned(directory: str, split: str) -> None:
    """Removes what killed writers have left."""
    folder = split_folder(directory, split)
    for name in filesystem.listing(folder):
        path = filesystem.join(folder, name)
        if name.startswith(_INCOMPLETE):
            age = time.time() - filesystem.modified(path)[0] / 1e9
            if age > ABANDONED_AFTER:
                filesystem.remove(path)


def _plain(index: Index) -> dict[str, object]:
    images = [(image.image_id, image.digest, image.captions) for image in index.images]
    return {
        "size": index.size,
        "sha256": index.sha256,
        "images": images,
        "skips": [dataclasses.astuple(skip) for skip in index.skips],
    }


def _sha256(path: str) -> str:
    digest = hashlib.sha256()
    for chunk in _chunks(path):
        digest.update(chunk)
    return digest.hexdigest()


def _chunks(path: str) -> Iterator[bytes]:
    with tf.io.gfile.GFile(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk
