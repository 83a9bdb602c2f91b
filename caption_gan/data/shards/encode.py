"""Turns examples into the records of shards: checks captions and images, computes cached regions.

B batch, H image height, W image width, R regions, D region depth.
"""

import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np
import tensorflow as tf

from caption_gan.config.models import EncoderConfig
from caption_gan.data.example import Example
from caption_gan.data.image_errors import why_undecodable
from caption_gan.data.images import decode_and_resize, is_image
from caption_gan.data.parallel import parallel_map
from caption_gan.data.shards.files import IndexedImage
from caption_gan.data.shards.records import serialize
from caption_gan.data.skips import Skips
from caption_gan.models.encoders.encoder import Encoder
from caption_gan.text.vocabulary import batched

ENCODING_BATCH = 32
# How Python, pandas and databases write that there is no text.
MISSING = frozenset(("nan", "NaN", "None", "null", "NULL", "<NA>", "#N/A", "N/A", "n/a"))

Record = tuple[bytes, IndexedImage]
"""A serialized example and its entry in the index of the shard."""

Decoded = TypeVar("Decoded")


class RecordMaker:
    """Makes records of examples.

    Args:
        encoder: If it has a `cache_key`, the records contain what it caches of each image.
        config: Settings of the encoder.
    """

    def __init__(self, encoder: Encoder, config: EncoderConfig):
        self.encoder = encoder
        self.config = config
        size = config.image_size
        self.decode = tf.function(
            lambda encoded: decode_and_resize(encoded, *size),
            input_signature=[tf.TensorSpec([], tf.string)],
        )
        self.encode = tf.function(
            self._encode, input_signature=[tf.TensorSpec([None, *size, 3], tf.uint8)]
        )

    def records(self, examples: Iterable[Example], skips: Skips) -> Iterator[Record]:
        """Yields a record for each usable example, in order.

        Args:
            examples: Read as records are asked for.
            skips: Counts empty captions, images that do not decode and images without captions.
        """
        examples = _without_empty_captions(examples, skips)
        if not self.encoder.needs_pixels:
            return self._with_precomputed_regions(examples, skips)
        if self.encoder.cache_key:
            return self._with_encoded_regions(examples, skips)
        return (_record(example) for example, _ in _decoded(examples, _check_image, skips))

    def _with_precomputed_regions(
        self, examples: Iterable[Example], skips: Skips
    ) -> Iterator[Record]:
        for example, _ in _decoded(examples, _check_image, skips):
            regions = self.encoder.read(example.image_id)
            if regions is None:
                skips.add(f"images have no regions in {self.config.regions}", example.image_id)
            else:
                yield _record(example, [regions], identity=regions.tobytes())

    def _with_encoded_regions(self, examples: Iterable[Example], skips: Skips) -> Iterator[Record]:
        # Threads decode the next batch while this one is encoded.
        decoded = _decoded(examples, self._pixels, skips)
        for batch in batched(decoded, ENCODING_BATCH):
            images = np.stack([pixels for _, pixels in batch])  # [B, H, W, 3]
            views = [view.numpy() for view in self.encode(images)]
            for (example, _), *regions in zip(batch, *views, strict=True):
                yield _record(example, regions)

    def _pixels(self, example: Example) -> np.ndarray | None:
        """Pixels [H, W, 3] of an image; None if it does not decode."""
        try:
            return self.decode(example.image).numpy()
        except tf.errors.InvalidArgumentError:
            return None

    def _encode(self, images: tf.Tensor) -> list[tf.Tensor]:
        """What is cached [B, R, D] of images and, if `encoder.flip`, of their mirror images."""
        views = [images, tf.image.flip_left_right(images)] if self.config.flip else [images]
        return [tf.cast(self.encoder.before_cache(view), tf.float16) for view in views]


def _record(example: Example, regions: Iterable[np.ndarray] = (), identity: bytes = b"") -> Record:
    """A record of an example.

    Args:
        example: The example.
        regions: What is cached of the image and of its mirror image.
        identity: Bytes by which equal images are found, if not those of the image.
    """
    digest = hashlib.sha256(identity or example.image).hexdigest()
    image = IndexedImage(example.image_id, digest, example.captions)
    return serialize(example, list(regions)), image


def _without_empty_captions(examples: Iterable[Example], skips: Skips) -> Iterator[Example]:
    for example in examples:
        written = [caption for caption in example.captions if caption.strip()]
        captions = tuple(caption for caption in written if caption.strip() not in MISSING)
        if empty := len(example.captions) - len(written):
            skips.add("captions are empty, of", example.image_id, empty)
        if missing := len(written) - len(captions):
            reason = "captions are a missing value written as text (nan, None, null), of"
            skips.add(reason, example.image_id, missing)
        if damaged := sum("\ufffd" in caption for caption in captions):
            skips.add(
                "captions are kept with characters that were lost before (U+FFFD), of",
                example.image_id,
                damaged,
            )
        if captions:
            yield dataclasses.replace(example, captions=captions)
        else:
            skips.add("images have no caption left", example.image_id)


def _decoded(
    examples: Iterable[Example], decode: Callable[[Example], Decoded | None], skips: Skips
) -> Iterator[tuple[Example, Decoded]]:
    """Pairs each example with its decoded image; skips images that do not decode.

    Args:
        examples: The examples.
        decode: Called in threads; returns None if the image does not decode.
        skips: Counts images that do not decode.
    """
    threads = os.cpu_count() or 1
    pairs = parallel_map(
        lambda example: (example, decode(example)), examples, threads, ENCODING_BATCH + threads
    )
    for example, decoded in pairs:
        if decoded is None:
            reason = why_undecodable(example.image)
            skips.add(f"images do not decode ({reason})", example.image_id)
        else:
            yield example, decoded


def _check_image(example: Example) -> bool | None:
    """True if the image decodes, else None."""
    return is_image(example.image) or None
