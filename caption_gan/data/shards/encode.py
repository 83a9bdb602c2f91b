"""From examples to the records of shards: checked captions and images, cached regions.

B batch, R regions, D region depth.
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
from caption_gan.data.images import decode_and_resize, is_image
from caption_gan.data.parallel import parallel_map
from caption_gan.data.shards.files import IndexedImage
from caption_gan.data.shards.records import serialize
from caption_gan.data.skips import Skips
from caption_gan.models.encoders.encoder import Encoder
from caption_gan.text.vocabulary import batched

ENCODING_BATCH = 32

Record = tuple[bytes, IndexedImage]
Seen = TypeVar("Seen")


class RecordMaker:
    """Makes records of examples.

    Args:
        encoder: Its regions, or what its frozen layers make of images, go into the records if the
            settings say so.
        config: Settings of the encoder.
    """

    def __init__(self, encoder: Encoder, config: EncoderConfig):
        self.encoder = encoder
        self.config = config
        size = config.image_height, config.image_width
        self.decode = tf.function(
            lambda encoded: decode_and_resize(encoded, *size),
            input_signature=[tf.TensorSpec([], tf.string)],
        )
        self.encode = tf.function(
            self._encode, input_signature=[tf.TensorSpec([None, *size, 3], tf.uint8)]
        )

    def records(self, examples: Iterable[Example], skips: Skips) -> Iterator[Record]:
        """Yields the records of the examples that can be used, in order.

        Args:
            examples: Are read as records are asked for.
            skips: Gets empty captions, images that do not decode, images without captions.
        """
        examples = _with_captions(examples, skips)
        if not self.encoder.needs_pixels:
            return self._with_precomputed_regions(examples, skips)
        if self.encoder.cache_key:
            return self._with_regions(examples, skips)
        decodable = _checked(examples, lambda example: is_image(example.image) or None, skips)
        return (_record(example) for example, _ in decodable)

    def _with_precomputed_regions(
        self, examples: Iterable[Example], skips: Skips
    ) -> Iterator[Record]:
        decodable = _checked(examples, lambda example: is_image(example.image) or None, skips)
        for example, _ in decodable:
            regions = self.encoder.read(example.image_id)
            if regions is None:
                skips.add(f"images have no regions in {self.config.regions}", example.image_id)
            else:
                yield _record(example, [regions], regions.tobytes())

    def _with_regions(self, examples: Iterable[Example], skips: Skips) -> Iterator[Record]:
        # Decoded once, by threads, while the batch before is encoded.
        decoded = _checked(examples, self._pixels, skips)
        for some in batched(decoded, ENCODING_BATCH):
            views = [view.numpy() for view in self.encode(np.stack([pixels for _, pixels in some]))]
            for (example, _), *regions in zip(some, *views, strict=True):
                yield _record(example, regions)

    def _pixels(self, example: Example) -> np.ndarray | None:
        try:
            return self.decode(example.image).numpy()
        except tf.errors.InvalidArgumentError:
            return None

    def _encode(self, images: tf.Tensor) -> list[tf.Tensor]:
        """Regions [B, R, D] of images and, if asked, of their mirror images."""
        views = [images, tf.image.flip_left_right(images)] if self.config.flip else [images]
        return [tf.cast(self.encoder.before_cache(view), tf.float16) for view in views]


def _record(example: Example, regions: Iterable[np.ndarray] = (), content: bytes = b"") -> Record:
    digest = hashlib.sha256(content or example.image).hexdigest()
    image = IndexedImage(example.image_id, digest, example.captions)
    return serialize(example, list(regions)), image


def _with_captions(examples: Iterable[Example], skips: Skips) -> Iterator[Example]:
    for example in examples:
        captions = tuple(caption for caption in example.captions if caption.strip())
        if len(captions) < len(example.captions):
            empty = len(example.captions) - len(captions)
            skips.add("captions are empty, of", example.image_id, empty)
        if captions:
            yield dataclasses.replace(example, captions=captions)
        else:
            skips.add("images have no caption left", example.image_id)


def _checked(
    examples: Iterable[Example], look: Callable[[Example], Seen | None], skips: Skips
) -> Iterator[tuple[Example, Seen]]:
    """Pairs examples with what threads see in them; those in which it is None are skipped."""
    threads = os.cpu_count() or 1
    pairs = parallel_map(
        lambda example: (example, look(example)), examples, threads, ENCODING_BATCH + threads
    )
    for example, seen in pairs:
        if seen is None:
            skips.add("images do not decode", example.image_id)
        else:
            yield example, seen
