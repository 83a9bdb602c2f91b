"""Prepares a data set: writes its checked images, captions and cached regions to shards, once."""

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import tensorflow as tf
from tqdm import tqdm

from caption_gan.config.run import Config
from caption_gan.data.example import Example
from caption_gan.data.shards import files
from caption_gan.data.shards.encode import RecordMaker
from caption_gan.data.shards.files import PreparedSplit, Shard
from caption_gan.data.skips import Skip, Skips
from caption_gan.data.sources.registry import open_source
from caption_gan.errors import CaptionGANError
from caption_gan.models.encoders.encoder import Encoder
from caption_gan.storage import filesystem, text_files
from caption_gan.storage.paths import resolve

CONTENT = "content.json"  # Says what the shards of a folder were made from.
# Part of the name of a folder in the cache. Raise it whenever the same data set would be prepared
# differently: other images, captions, splits, features of a record or names of files.
FORMAT_VERSION = 2


class Preparation:
    """Prepares a data set.

    Args:
        config: Settings of the run.
        encoder: If it has a `cache_key`, the shards contain what it caches of each image.
        directory: Folder for the shards; by default a folder in `data.cache` that is named after
            the data set, the encoder and `FORMAT_VERSION`.

    Raises:
        CaptionGANError: The data set cannot be read, or the folder has shards of something else.
    """

    def __init__(self, config: Config, encoder: Encoder, directory: str | None = None):
        self.config = config
        self.skips = Skips()
        self.source = open_source(config.data, self.skips)
        self.source_skips = tuple(self.skips.all)
        if not encoder.needs_pixels:
            encoder.check_names(self.source.image_ids())
        self.maker = RecordMaker(encoder, config.encoder)
        content: dict[str, Any] = {
            "layout": config.data.source,
            "source": self.source.fingerprint,
            "encoder": cached_content(config, encoder),
        }
        if config.data.encoding != text_files.UTF_8:
            content["encoding"] = config.data.encoding
        if directory is None:
            key = json.dumps([FORMAT_VERSION, content], sort_keys=True)
            name = f"{config.data.source}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
            directory = filesystem.join(resolve(config.data.cache), name)
        self.directory = directory
        with _explain_os_errors(directory):
            _check_or_write_content(directory, content)

    @property
    def splits(self) -> list[str]:
        """Names of the data set's splits."""
        return list(self.source.images_of_split)

    def shards(self, split: str) -> list[Shard]:
        """All shards of a split, written or not.

        Raises:
            CaptionGANError: The data set has no such split.
        """
        images = self.source.images_of_split
        if split not in images:
            raise _no_such_split(self.config, split, images, self.skips)
        return files.plan_shards(self.directory, split, images[split], self.config.data.gzip)

    def write(self, split: str, is_wanted: Callable[[Shard], bool]) -> None:
        """Writes those shards of a split for which `is_wanted` is true.

        Raises:
            CaptionGANError: The shards cannot be written.
        """
        shards = [shard for shard in self.shards(split) if is_wanted(shard)]
        if not shards:
            return
        files.remove_abandoned(self.directory, split)
        total = sum(len(shard.positions) for shard in shards)
        title = f"preparing {self.config.data.source}/{split}"
        with (
            tqdm(total=total, desc=title, unit=" images") as progress,
            _explain_os_errors(self.directory),
        ):
            for shard in shards:
                examples = _counted(self.source.examples(split, shard.positions), progress)
                shard.write(self.maker.records(examples, self.skips), self.skips)

    def if_prepared(self, split: str) -> PreparedSplit | None:
        """A split; None if it is not prepared."""
        if split not in self.splits or not all(shard.is_complete() for shard in self.shards(split)):
            return None
        return _read_split(self.directory, split, self.shards(split), self.source_skips)

    def prepared(self, split: str) -> PreparedSplit:
        """A split, of which missing shards are written first.

        Raises:
            CaptionGANError: Shards cannot be written, or the split has no usable image.
        """
        self.write(split, lambda shard: not shard.is_complete())
        prepared = _read_split(self.directory, split, self.shards(split), self.source_skips)
        prepared = dataclasses.replace(prepared, notes=self.skips.notes)
        if not prepared.images:
            raise CaptionGANError(
                f"The split {split!r} of {self.config.data.source} has no image that can be used."
                + "".join(f" {line}." for line in prepared.skipped)
            )
        return prepared


def prepare_splits(
    config: Config,
    encoder: Encoder,
    splits: Sequence[str],
    check: Callable[[str, int], None] = lambda split, images: None,
) -> dict[str, PreparedSplit]:
    """Reads prepared splits from `data.shards` or, if it is not set, prepares them in the cache.

    Args:
        config: Settings of the run.
        encoder: As in `Preparation`.
        splits: Names of splits.
        check: Called with each split and the number of its images, some of which may turn out to
            be unusable, before the first split is prepared; an error then costs no time.

    Raises:
        CaptionGANError: A split does not exist, cannot be prepared, or has no usable image.
    """
    if config.data.shards is None:
        preparation = Preparation(config, encoder)
        for split in splits:
            preparation.shards(split)  # Raises an error if there is no such split.
            check(split, preparation.source.images_of_split[split])
        return {split: preparation.prepared(split) for split in splits}
    directory = resolve(config.data.shards)
    _check_content(directory, config.data.source, cached_content(config, encoder))
    return {split: read_complete_split(directory, split) for split in splits}


def check_split(config: Config, split: str) -> None:
    """Checks that a split is there, without preparing it.

    Raises:
        CaptionGANError: The data set or its shards cannot be opened, or have no such split.
    """
    if config.data.shards is not None:
        read_complete_split(resolve(config.data.shards), split)
        return
    skips = Skips()
    images = open_source(config.data, skips).images_of_split
    if split not in images:
        raise _no_such_split(config, split, images, skips)


def split_if_prepared(config: Config, encoder: Encoder, split: str) -> PreparedSplit | None:
    """A split; None if it is not prepared."""
    if config.data.shards is None:
        return Preparation(config, encoder).if_prepared(split)
    directory = resolve(config.data.shards)
    if not files.find_shards(directory, split):
        return None
    return read_complete_split(directory, split)


def cached_content(config: Config, encoder: Encoder) -> dict[str, Any]:
    """What the regions in the shards depend on; empty if the shards have no regions."""
    key = encoder.cache_key
    return {**key, "flip": config.encoder.flip} if key and encoder.needs_pixels else key


def _no_such_split(
    config: Config, split: str, splits: Iterable[str], skips: Skips
) -> CaptionGANError:
    # The notes say how the data set was divided.
    notes = "".join(f" Note: {note}." for note in skips.notes)
    return CaptionGANError(
        f"{config.data.source} has no split {split!r}; it has {', '.join(splits)}.{notes}"
    )


def _read_split(
    directory: str, split: str, shards: Sequence[Shard], source_skips: Sequence[Skip] = ()
) -> PreparedSplit:
    indexes = [index for shard in shards if (index := shard.read_index())]
    return PreparedSplit(
        directory,
        split,
        [image for index in indexes for image in index.images],
        sum(index.size for index in indexes),
        [*source_skips, *(skip for index in indexes for skip in index.skips)],
    )


def read_complete_split(directory: str, split: str) -> PreparedSplit:
    """Reads a split of `data.shards`.

    Raises:
        CaptionGANError: A shard is missing or damaged.
    """
    shards = files.find_shards(directory, split)
    missing = [shard.path for shard in shards if not shard.is_complete()]
    if missing or not shards:
        problem = f"{missing[0]} is missing or damaged" if missing else f"no split {split!r}"
        raise CaptionGANError(
            f"data.shards: {directory}: {problem}; run `python -m caption_gan.prepare --to "
            f"{directory}` again with the same settings to complete it."
        )
    return _read_split(directory, split, shards)


def _check_content(directory: str, layout: str, encoder: dict[str, Any]) -> None:
    """Raises an error if the shards of `data.shards` do not fit the data set or the encoder."""
    path = filesystem.join(directory, CONTENT)
    if not filesystem.is_file(path):
        raise CaptionGANError(
            f"data.shards: {path} is missing; give a folder that `python -m caption_gan.prepare "
            "--to` filled: --data.shards FOLDER, or --data.shards null to read data.root."
        )
    content = json.loads(filesystem.read_bytes(path))
    if content["layout"] != layout:
        raise CaptionGANError(
            f"data.shards: {directory} was prepared with data.source {content['layout']!r}, this "
            f"run has {layout!r}; use the settings it was prepared with."
        )
    prepared = content["encoder"]
    # Precomputed regions cannot be compared without their files, which may not be here.
    if "regions" in encoder and "regions" in prepared:
        return
    names = {**encoder, **prepared}
    differing = [name for name in names if encoder.get(name) != prepared.get(name)]
    # An encoder that caches nothing needs only the images, whatever regions the shards have.
    if encoder and differing:
        name = differing[0]
        raise CaptionGANError(
            f"data.shards: {directory} was prepared with encoder.{name} {prepared.get(name)!r}, "
            f"this run has {encoder.get(name)!r}; prepare it again or change the setting."
        )


def _check_or_write_content(directory: str, content: dict[str, Any]) -> None:
    """Writes what a new folder's shards are made from; checks it in an existing folder."""
    path = filesystem.join(directory, CONTENT)
    if not filesystem.is_file(path):
        with filesystem.as_os_errors():
            tf.io.gfile.makedirs(directory)
        filesystem.write_text(path, json.dumps(content, indent=2))
    elif json.loads(filesystem.read_bytes(path)) != json.loads(json.dumps(content)):
        raise CaptionGANError(
            f"{directory} has shards of other data or for another encoder (see {CONTENT}); choose "
            "another folder."
        )


def _counted(examples: Iterator[Example], progress: tqdm) -> Iterator[Example]:
    for example in examples:
        yield example
        progress.update()


@contextlib.contextmanager
def _explain_os_errors(directory: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CaptionGANError(
            f"Cannot write shards to {directory}: {error}. Finished shards remain; free some space "
            "or choose another folder, and run the same command again."
        ) from error
