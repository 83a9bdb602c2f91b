"""From a data set to shards on disk, once: checked images and captions, cached regions."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
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
from caption_gan.storage import filesystem

CONTENT = "content.json"  # What a folder of shards was made from.
# Part of the name of a cached folder. Raise it whenever the same data set would be prepared into
# other bytes: drawn differently, read differently or stored differently.
FORMAT_VERSION = 1


class Preparation:
    """Prepares a data set.

    Args:
        config: Settings of the run.
        encoder: Its regions, or what its frozen layers make of images, go into the shards.
        directory: Where the shards go; a folder of the cache, named after what they are made from,
            if it is not given.

    Raises:
        CaptionGANError: The data set cannot be read, or the folder has shards of something else.
    """

    def __init__(self, config: Config, encoder: Encoder, directory: str | None = None):
        self.config = config
        self.skips = Skips()
        self.source = open_source(config.data, self.skips)
        self.opening = tuple(self.skips.all)
        self.maker = RecordMaker(encoder, config.encoder)
        content = {
            "layout": config.data.source,
            "source": self.source.fingerprint,
            "encoder": cached_content(config, encoder),
        }
        if directory is None:
            digest = hashlib.sha256(json.dumps([FORMAT_VERSION, content]).encode())
            name = f"{config.data.source}-{digest.hexdigest()[:12]}"
            directory = filesystem.join(filesystem.resolve(config.data.cache), name)
        self.directory = directory
        with _writing(directory):
            _claim(directory, content)

    @property
    def splits(self) -> list[str]:
        """Names of the splits that the data set has."""
        return list(self.source.images_of_split)

    def shards(self, split: str) -> list[Shard]:
        """The shards that a split consists of, written or not.

        Raises:
            CaptionGANError: There is no such split.
        """
        images = self.source.images_of_split
        if split not in images:
            raise CaptionGANError(
                f"{self.config.data.source} has no split {split!r}; it has {', '.join(images)}."
            )
        return files.plan_shards(self.directory, split, images[split], self.config.data.gzip)

    def write(self, split: str, wanted: Callable[[Shard], bool]) -> None:
        """Writes those shards of a split that are wanted.

        Raises:
            CaptionGANError: They cannot be written.
        """
        chosen = [shard for shard in self.shards(split) if wanted(shard)]
        total = sum(len(shard.positions) for shard in chosen)
        if not chosen:
            return
        files.remove_abandoned(self.directory, split)
        title = f"preparing {self.config.data.source}/{split}"
        with tqdm(total=total, desc=title, unit=" images") as bar, _writing(self.directory):
            for shard in chosen:
                examples = self._counted(self.source.examples(split, shard.positions), bar)
                shard.write(self.maker.records(examples, self.skips), self.skips)

    def _counted(self, examples: Iterator[Example], bar: tqdm) -> Iterator[Example]:
        for example in examples:
            yield example
            bar.update()

    def captions(self, split: str) -> list[str] | None:
        """All captions of a split; None if it is not prepared."""
        if split not in self.splits or not all(shard.is_whole() for shard in self.shards(split)):
            return None
        return _read(self.directory, split, self.shards(split)).captions

    def prepared(self, split: str) -> PreparedSplit:
        """The split, after what is missing of it has been written.

        Raises:
            CaptionGANError: It cannot be written, or nothing of it can be used.
        """
        self.write(split, lambda shard: not shard.is_whole())
        prepared = _read(self.directory, split, self.shards(split), self.opening)
        if not prepared.images:
            raise CaptionGANError(
                f"The split {split!r} of {self.config.data.source} has no image that can be used."
                + "".join(f" {line}." for line in prepared.skipped)
            )
        return prepared


def prepare_splits(
    config: Config, encoder: Encoder, splits: Sequence[str]
) -> dict[str, PreparedSplit]:
    """The splits, from `data.shards` if it is set, else from the cache, which is filled if need be.

    Raises:
        CaptionGANError: A split is not there, cannot be prepared, or nothing of it can be used.
    """
    if config.data.shards is None:
        preparation = Preparation(config, encoder)
        return {split: preparation.prepared(split) for split in splits}
    directory = filesystem.resolve(config.data.shards)
    _check_content(directory, config.data.source, cached_content(config, encoder))
    return {split: _read_given(directory, split) for split in splits}


def captions_if_prepared(config: Config, encoder: Encoder, split: str) -> list[str] | None:
    """All captions of a split that is prepared; None where that has still to be done."""
    if config.data.shards is None:
        return Preparation(config, encoder).captions(split)
    directory = filesystem.resolve(config.data.shards)
    return _read_given(directory, split).captions if files.find_shards(directory, split) else None


def cached_content(config: Config, encoder: Encoder) -> dict[str, Any]:
    """What the regions in the shards depend on; empty where there are none."""
    key = encoder.cache_key
    return {**key, "flip": config.encoder.flip} if key and encoder.needs_pixels else key


def _read(
    directory: str, split: str, wanted: Sequence[Shard], opening: Sequence[Skip] = ()
) -> PreparedSplit:
    indexes = [index for shard in wanted if (index := shard.read_index())]
    return PreparedSplit(
        directory,
        split,
        [image for index in indexes for image in index.images],
        sum(index.size for index in indexes),
        [*opening, *(skip for index in indexes for skip in index.skips)],
    )


def _read_given(directory: str, split: str) -> PreparedSplit:
    wanted = files.find_shards(directory, split)
    missing = [shard.path for shard in wanted if not shard.is_whole()]
    if missing or not wanted:
        what = f"{missing[0]} is missing or damaged" if missing else f"no split {split!r}"
        raise CaptionGANError(
            f"data.shards: {directory}: {what}; run `python -m caption_gan.prepare --to "
            f"{directory}` with the settings it was begun with."
        )
    return _read(directory, split, wanted)


def _check_content(directory: str, layout: str, expected: dict[str, Any]) -> None:
    path = filesystem.join(directory, CONTENT)
    text = filesystem.read_text(
        path, "a folder that `python -m caption_gan.prepare --to` has filled"
    )
    content = json.loads(text)
    if content["layout"] != layout:
        raise CaptionGANError(
            f"data.shards: {directory} was prepared with data.source {content['layout']!r}, this "
            f"run has {layout!r}; give the settings it was prepared with."
        )
    has = content["encoder"]
    # Whether somebody's regions are the same cannot be told without the files.
    if "regions" in expected and "regions" in has:
        return
    differing = [name for name in {**expected, **has} if expected.get(name) != has.get(name)]
    # Images serve any encoder that computes its regions anew.
    if expected and differing:
        name = differing[0]
        raise CaptionGANError(
            f"data.shards: {directory} was prepared with encoder.{name} {has.get(name)!r}, this "
            f"run has {expected.get(name)!r}; prepare it again or change the setting."
        )


def _claim(directory: str, content: dict[str, Any]) -> None:
    """Notes what the shards of a folder are made from, or checks that it was made from the same."""
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


@contextlib.contextmanager
def _writing(directory: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CaptionGANError(
            f"Cannot write shards to {directory}: {error}. Those that are finished stay; make room "
            "or choose another folder, and start again."
        ) from error
