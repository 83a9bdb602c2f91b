"""Shard files: each is complete or absent, and has an index that lists its images.

Names follow TFX, with an index for each shard:

    Split-train/data_tfrecord-00000-of-00016[.gz]
    Split-train/index-00000-of-00016.json

A shard holds a fixed range of positions of the data set. Shards can therefore be written in any
order, by several machines, and again if one is damaged.
"""

import dataclasses
import functools
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
ABANDONED_AFTER = 3600  # Seconds since an incomplete file was last written to.
_INCOMPLETE = "incomplete-"
_CHUNK = 2**20  # Bytes.
_INDEX = re.compile(r"index-\d{5}-of-(\d{5})\.json")


@dataclasses.dataclass(frozen=True)
class IndexedImage:
    """An entry of an index.

    Attributes:
        image_id: As in `Example`.
        digest: Digest of the image.
        captions: The captions in the record.
    """

    image_id: str
    digest: str
    captions: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Index:
    """What a shard contains.

    Attributes:
        size: Of the file, in bytes.
        sha256: Of the file.
        images: In the order of the records.
        skips: What could not be used at the shard's positions.
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
        gzip: Whether the file is compressed.
    """

    folder: str
    number: int
    shards: int
    images: int
    gzip: bool = False

    @property
    def positions(self) -> range:
        """Positions of the data set that the shard holds."""
        first, last = (self.images * end // self.shards for end in (self.number, self.number + 1))
        return range(first, last)

    @property
    def path(self) -> str:
        """Path of the records."""
        suffix = ".gz" if self.gzip else ""
        return filesystem.join(self.folder, f"data_tfrecord-{self._place}{suffix}")

    @property
    def index_path(self) -> str:
        """Path of the index, which is written last: a shard with an index is finished."""
        return filesystem.join(self.folder, f"index-{self._place}.json")

    @property
    def _place(self) -> str:
        return f"{self.number:05d}-of-{self.shards:05d}"

    def read_index(self) -> Index | None:
        """The index; None if the shard is not finished."""
        try:
            content = json.loads(filesystem.read_bytes(self.index_path))
        except FileNotFoundError:
            return None
        return Index(
            content["size"],
            content["sha256"],
            tuple(
                IndexedImage(image_id, digest, tuple(captions))
                for image_id, digest, captions in content["images"]
            ),
            tuple(Skip(*skip) for skip in content["skips"]),
        )

    def is_complete(self, verify_checksum: bool = False) -> bool:
        """Whether the shard is finished and its file is as it was written.

        Args:
            verify_checksum: Whether to compare the checksum too, which reads the whole file;
                otherwise only the size is compared.
        """
        index = self.read_index()
        if index is None or not filesystem.is_file(self.path):
            return False
        if tf.io.gfile.stat(self.path).length != index.size:
            return False
        return not verify_checksum or _sha256(self.path) == index.sha256

    def write(self, records: Iterable[tuple[bytes, IndexedImage]], skips: Skips) -> Index:
        """Writes the records, then the index; if it fails, no part of the shard remains.

        Args:
            records: Serialized records with their index entries.
            skips: Receives what is skipped while the records are made; the index stores it.

        Raises:
            OSError: A file cannot be written, e.g. because the disk is full.
        """
        # Unique across machines that write to the same folder.
        temporary = filesystem.join(self.folder, f"{_INCOMPLETE}{uuid.uuid4().hex}")
        earlier_skips = len(skips.all)
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
        index = Index(size, sha256, tuple(images), tuple(skips.all[earlier_skips:]))
        filesystem.write_text(self.index_path, json.dumps(_to_json(index), ensure_ascii=False))
        return index


@dataclasses.dataclass(frozen=True)
class PreparedSplit:
    """A split whose shards are all written.

    Attributes:
        directory: Contains `Split-<split>/`.
        split: Name of the split.
        index: The images, in the order of the records.
        size: Of all records, in bytes.
        skips: What could not be used.
        notes: Lines that say how the data set was read where its files leave a choice.
    """

    directory: str
    split: str
    index: Sequence[IndexedImage] = dataclasses.field(repr=False)
    size: int
    skips: Sequence[Skip] = dataclasses.field(repr=False)
    notes: Sequence[str] = ()

    @property
    def images(self) -> int:
        """Number of images."""
        return len(self.index)

    @property
    def captions(self) -> list[str]:
        """All captions of all images."""
        return [caption for image in self.index for caption in image.captions]

    @functools.cached_property
    def digest(self) -> str:
        """Digest of images and captions; their order and place do not matter."""
        images = sorted((image.digest, *image.captions) for image in self.index)
        return hashlib.sha256(json.dumps(images).encode()).hexdigest()

    @property
    def skipped(self) -> list[str]:
        """One line per reason for which something could not be used."""
        return Skips(self.skips).lines()


def plan_shards(directory: str, split: str, images: int, gzip: bool) -> list[Shard]:
    """The shards, written or not, of a split with this number of positions."""
    folder = split_folder(directory, split)
    count = max(1, -(-images // IMAGES_PER_SHARD))
    return [Shard(folder, number, count, images, gzip) for number in range(count)]


def find_shards(directory: str, split: str) -> list[Shard]:
    """The shards of a folder, including missing ones; their number is part of each file's name."""
    folder = split_folder(directory, split)
    matches = [_INDEX.fullmatch(name) for name in filesystem.listing(folder)]
    counts = {int(match[1]) for match in matches if match}
    gzip = any(path.endswith(".gz") for path in shard_files(directory, split))
    count = max(counts, default=0)
    return [Shard(folder, number, count, 0, gzip) for number in range(count)]


def split_folder(directory: str, split: str) -> str:
    """The folder of a split's shards."""
    return filesystem.join(directory, f"Split-{split}")


def shard_files(directory: str, split: str) -> list[str]:
    """Paths of the files of records that a split has, in order."""
    folder = split_folder(directory, split)
    names = [name for name in filesystem.listing(folder) if name.startswith("data_tfrecord-")]
    return [filesystem.join(folder, name) for name in names]


def remove_abandoned(directory: str, split: str) -> None:
    """Removes incomplete files of processes that were killed."""
    folder = split_folder(directory, split)
    for name in filesystem.listing(folder):
        path = filesystem.join(folder, name)
        if name.startswith(_INCOMPLETE):
            age = time.time() - filesystem.modified(path)[0] / 1e9
            if age > ABANDONED_AFTER:
                filesystem.remove(path)


def _to_json(index: Index) -> dict[str, object]:
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
