"""From a data set to shards on disk, once: checked images and captions, cached regions.

R regions, D region depth.
"""

import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from caption_gan.config import Config
from caption_gan.data import records
from caption_gan.data.example import Example
from caption_gan.data.images import decode_and_resize, is_image
from caption_gan.data.skips import Skips
from caption_gan.data.sources import Source, open_source
from caption_gan.errors import CaptionGANError
from caption_gan.models.precomputed_encoder import PrecomputedEncoder

ENCODING_BATCH = 32


@dataclasses.dataclass(frozen=True)
class PreparedSplit:
    """A split that is ready to be read.

    Attributes:
        directory: Holds `Split-<split>/`.
        split: Its name.
        images: Number of images in the shards.
        skipped: A line for each kind of thing that could not be used.
    """

    directory: Path
    split: str
    images: int
    skipped: tuple[str, ...]


def prepare_split(config: Config, split: str, encoder: keras.Model) -> PreparedSplit:
    """Returns a split's shards, writing them if they are not in the cache.

    Args:
        config: Settings of the run.
        split: `train`, `val` or `test`.
        encoder: Its regions, or what its frozen layers make of images, go into the shards.

    Raises:
        CaptionGANError: The data cannot be read, or nothing of the split can be used.
    """
    skips = Skips()
    source = open_source(config.data, skips)
    if split not in source.images_of_split:
        raise CaptionGANError(
            f"{config.data.source} has no split {split!r}; it has "
            f"{', '.join(source.images_of_split)}."
        )
    name = f"{config.data.source}-{_digest(config, source, encoder)}"
    directory = Path(config.data.cache).expanduser() / name
    summary = directory / f"Split-{split}" / "summary.json"
    if not summary.is_file():
        _write(config, source, skips, split, encoder, directory)
    content = json.loads(summary.read_text())
    return PreparedSplit(directory, split, content["images"], tuple(content["skipped"]))


def _digest(config: Config, source: Source, encoder: keras.Model) -> str:
    """Names the cache folder after all that its content depends on."""
    parts = [source.fingerprint]
    if isinstance(encoder, PrecomputedEncoder):
        parts += [encoder.fingerprint()]
    elif config.encoder.cached:
        settings = config.encoder
        parts += [settings.backbone, settings.image_height, settings.image_width, settings.flip]
        parts += [settings.weights, settings.frozen_up_to]
        if Path(settings.weights).is_file():
            parts += [Path(settings.weights).stat().st_mtime_ns]
    digest = hashlib.sha256(json.dumps(parts).encode())
    # What the code draws or keeps is part of the content.
    for path in sorted(Path(records.__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _write(
    config: Config,
    source: Source,
    skips: Skips,
    split: str,
    encoder: keras.Model,
    directory: Path,
) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    # Written under another name and renamed, so that a half-written split is never found.
    temporary = Path(tempfile.mkdtemp(prefix="writing-", dir=directory))
    try:
        expected = source.images_of_split[split]
        examples = tqdm(
            _usable(source.examples(split), skips),
            total=expected,
            desc=f"preparing {config.data.source}/{split}",
            unit=" images",
        )
        if isinstance(encoder, PrecomputedEncoder):
            serialized = _with_precomputed_regions(examples, encoder, skips)
        elif config.encoder.cached:
            serialized = _with_regions(examples, encoder, config)
        else:
            serialized = (records.serialize(example) for example in examples)
        counter = _Counter()
        records.write_split(temporary, split, counter.count(serialized), expected)
        if not counter.total:
            raise CaptionGANError(
                f"The split {split!r} of {config.data.source} has no image that can be used. "
                + " ".join(f"{line}." for line in skips.lines())
            )
        folder = temporary / f"Split-{split}"
        summary = {"images": counter.total, "skipped": skips.lines()}
        (folder / "summary.json").write_text(json.dumps(summary, indent=2))
        target = directory / folder.name
        if not target.exists():  # Another run may have been faster.
            os.rename(folder, target)
    except OSError as error:
        raise CaptionGANError(
            f"data.cache: cannot write to {directory}: {error.strerror}; choose another folder."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


class _Counter:
    """Counts what passes through a generator."""

    def __init__(self):
        self.total = 0

    def count(self, items: Iterator[bytes]) -> Iterator[bytes]:
        for item in items:
            self.total += 1
            yield item


def _usable(examples: Iterator[Example], skips: Skips) -> Iterator[Example]:
    """Drops empty captions, images that do not decode and images without captions."""
    for example in examples:
        captions = tuple(caption for caption in example.captions if caption.strip())
        if len(captions) < len(example.captions):
            empty = len(example.captions) - len(captions)
            skips.add("captions are empty, of", example.image_id, empty)
        if not is_image(example.image):
            skips.add("images do not decode", example.image_id)
        elif not captions:
            skips.add("images have no caption left", example.image_id)
        else:
            yield dataclasses.replace(example, captions=captions)


def _with_precomputed_regions(
    examples: Iterator[Example], encoder: PrecomputedEncoder, skips: Skips
) -> Iterator[bytes]:
    """Serializes examples with regions from files; those without are skipped."""
    for example in examples:
        regions = encoder.read(example.image_id)
        if regions is None:
            skips.add(f"images have no regions in {encoder.folder}", example.image_id)
        else:
            yield records.serialize(example, [regions])


def _with_regions(
    examples: Iterator[Example], encoder: keras.Model, config: Config
) -> Iterator[bytes]:
    """Serializes examples with the regions of their images and, if asked, mirror images."""
    height, width = config.encoder.image_height, config.encoder.image_width

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def encode(image_bytes: tf.Tensor) -> list[tf.Tensor]:
        images = tf.map_fn(
            lambda encoded: decode_and_resize(encoded, height, width),
            image_bytes,
            fn_output_signature=tf.TensorSpec([height, width, 3], tf.uint8),
        )
        views = [images, tf.image.flip_left_right(images)] if config.encoder.flip else [images]
        return [tf.cast(encoder.before_cache(view), tf.float16) for view in views]  # [B, R, D]

    batch: list[Example] = []

    def flush() -> Iterator[bytes]:
        views = [view.numpy() for view in encode([example.image for example in batch])]
        for example, *regions in zip(batch, *views, strict=True):
            yield records.serialize(example, [np.asarray(array) for array in regions])
        batch.clear()

    for example in examples:
        batch.append(example)
        if len(batch) == ENCODING_BATCH:
            yield from flush()
    if batch:
        yield from flush()
