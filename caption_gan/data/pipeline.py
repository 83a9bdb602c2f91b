"""From shards to the batches that networks eat.

B batch, K captions an image, C captions that an image has, T time, R regions, D region depth.
"""

import math
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from caption_gan.config.data import DataConfig
from caption_gan.config.models import EncoderConfig
from caption_gan.data.images import NO_AUTOTUNE, decode_and_resize
from caption_gan.data.service.client import distribute
from caption_gan.data.shards.files import IMAGES_PER_SHARD, PreparedSplit
from caption_gan.data.shards.records import (
    SHARDS_AT_A_TIME,
    parsed,
    read_assigned_shards,
    read_serialized,
)
from caption_gan.text.tokenizer import Tokenizer
from caption_gan.text.vocabulary import PAD_ID

BATCHES_AHEAD = 2
SORTED_BATCHES = 16  # Together they are put in order of length; more is hardly better sorted.
SHUFFLED_BYTES = 2**28  # Of records, where decoded examples do not fit into memory.


class Pipeline:
    """Reads prepared splits as batches.

    Args:
        data: Number of captions an image and the limit of memory.
        encoder: Size of the images, and whether there are cached regions instead.
        cached_shape: (R, D) of cached regions, or of what the encoder has cached in their place.
        tokenizer: Turns captions into token ids.
    """

    def __init__(
        self,
        data: DataConfig,
        encoder: EncoderConfig,
        cached_shape: tuple[int, ...] | None,
        tokenizer: Tokenizer,
    ):
        self.data = data
        self.encoder = encoder
        self.cached_shape = cached_shape
        self.tokenizer = tokenizer

    def training(
        self,
        prepared: PreparedSplit,
        batch_size: int,
        captions: int,
        seed: int,
        by_length: bool = False,
    ) -> tf.data.Dataset:
        """Endlessly varied epochs: shuffled images, a random choice and order of captions.

        Args:
            prepared: The split.
            batch_size: B.
            captions: K.
            seed: Of all that is random. The same seed gives the same epochs, but for several
                workers of `data.service`, whose batches come in no certain order.
            by_length: Whether images with captions of like length come together, for an objective
                that gains from short batches.

        Returns:
            Batches {image uint8 [B, H, W, 3] | regions float16 [B, R, D], token_ids [B, K, T]};
            the images that do not fill the last batch come another epoch.
        """
        images = prepared.images
        if self.data.service is not None:
            dataset = self._from_service(prepared, batch_size, captions, seed, by_length)
        else:
            dataset = self._from_here(prepared, batch_size, captions, seed, by_length)
        dataset = dataset.prefetch(BATCHES_AHEAD)
        return dataset.apply(tf.data.experimental.assert_cardinality(images // batch_size))

    def _from_here(
        self, prepared: PreparedSplit, batch_size: int, captions: int, seed: int, by_length: bool
    ) -> tf.data.Dataset:
        """As `training`."""
        images = prepared.images
        if self._fits_memory(images):
            dataset = self._decoded(read_serialized(prepared)).cache()
            dataset = dataset.shuffle(images, seed=seed)
        else:
            # Shards in another order in each epoch, some in turn, and a buffer of records, which
            # take less memory than what they hold takes decoded.
            dataset = read_serialized(prepared, seed)
            dataset = self._decoded(dataset.shuffle(_buffer(prepared, batch_size), seed=seed))
        dataset = self._varied(dataset, seed, captions)
        if by_length:
            return _sorted_batches(dataset.batch(SORTED_BATCHES * batch_size), batch_size, seed)
        return dataset.batch(batch_size, drop_remainder=True)

    def _from_service(
        self, prepared: PreparedSplit, batch_size: int, captions: int, seed: int, by_length: bool
    ) -> tf.data.Dataset:
        """As `training`, but that workers read shards, decode, choose captions and make batches."""
        # No more than the shards that are mixed, or the first worker would take all of a small set.
        buffer = min(_buffer(prepared, batch_size), SHARDS_AT_A_TIME * IMAGES_PER_SHARD)

        def epoch(epoch_seed: tf.Tensor) -> tf.data.Dataset:
            records = read_assigned_shards(prepared, epoch_seed).shuffle(buffer, seed=epoch_seed)
            examples = self._varied(self._decoded(records), epoch_seed, captions)
            dataset = distribute(examples.batch(batch_size), str(self.data.service))
            # The last batch of each worker is not full.
            if by_length:
                pools = dataset.rebatch(SORTED_BATCHES * batch_size)
                dataset = _sorted_batches(pools, batch_size, epoch_seed)
            else:
                dataset = dataset.rebatch(batch_size, drop_remainder=True)
            # What a worker was reading when it was lost is made up for by images that come again.
            return dataset.repeat().take(prepared.images // batch_size)

        # Workers begin each epoch anew, with nothing random left of the one before: its seed is in
        # the graph that they are sent. (TensorFlow refuses a tensor as a seed if the global seed is
        # 0, which no stage has.)
        epochs = tf.data.Dataset.random(seed, rerandomize_each_iteration=True).take(1)
        return epochs.flat_map(epoch).with_options(NO_AUTOTUNE)

    def _varied(
        self, dataset: tf.data.Dataset, seed: int | tf.Tensor, captions: int
    ) -> tf.data.Dataset:
        """Decoded examples with a random choice of K captions and one view of the image."""
        # A seed for each image of each epoch keeps random choices the same however many threads
        # make them.
        seeds = tf.data.Dataset.random(seed, rerandomize_each_iteration=True)
        dataset = tf.data.Dataset.zip(dataset, seeds)
        return dataset.map(
            lambda decoded, seed: self._choose(decoded, seed, captions),
            num_parallel_calls=tf.data.AUTOTUNE,
        )

    def with_unpaired(
        self, batches: tf.data.Dataset, token_ids: np.ndarray, captions: int, seed: int
    ) -> tf.data.Dataset:
        """Adds text without images to training batches.

        Args:
            batches: Of `training`.
            token_ids: Of all sentences, [S, T].
            captions: K.
            seed: Of the choice.

        Returns:
            Batches with `unpaired` [B, K, T] besides.
        """
        length = token_ids.shape[-1]
        sentences = tf.constant(token_ids)
        seeds = tf.data.Dataset.random(seed + 1, rerandomize_each_iteration=True)

        def add(batch: dict[str, tf.Tensor], seed: tf.Tensor) -> dict[str, tf.Tensor]:
            shape = [tf.shape(batch["token_ids"])[0], captions]
            chosen = tf.random.stateless_uniform(
                shape, [seed, 2], maxval=len(token_ids), dtype=tf.int32
            )
            unpaired = tf.cast(tf.gather(sentences, chosen), tf.int32)
            return batch | {"unpaired": tf.ensure_shape(unpaired, [None, captions, length])}

        return tf.data.Dataset.zip(batches, seeds).map(add)

    def validation(self, prepared: PreparedSplit, batch_size: int) -> tf.data.Dataset:
        """The same batches for every epoch: each image once, with its first captions."""
        images = prepared.images
        dataset = self._decoded(read_serialized(prepared))
        if self._fits_memory(images):
            dataset = dataset.cache()
        dataset = dataset.map(self._first)
        dataset = dataset.batch(batch_size).prefetch(BATCHES_AHEAD)
        return dataset.apply(tf.data.experimental.assert_cardinality(-(-images // batch_size)))

    def references(self, prepared: PreparedSplit) -> Iterator[np.ndarray]:
        """Token ids [C, T] of all captions of one image after another."""
        records = parsed(read_serialized(prepared), with_regions=False)
        captions = records.map(lambda record: self.tokenizer.tokenize(record["captions"]))
        return captions.as_numpy_iterator()

    def _decoded(self, serialized: tf.data.Dataset) -> tf.data.Dataset:
        records = parsed(serialized, with_regions=self.cached_shape is not None)
        return records.map(self._decode, num_parallel_calls=tf.data.AUTOTUNE)

    def _fits_memory(self, images: int) -> bool:
        if self.cached_shape is not None:
            bytes_per_image = 2 * math.prod(self.cached_shape) * (2 if self.encoder.flip else 1)
        else:
            bytes_per_image = 3 * self.encoder.image_height * self.encoder.image_width
        return images * bytes_per_image <= self.data.memory_limit_gib * 2**30

    def _decode(self, record: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Views of the image, and token ids [C, T] of the captions that have a known word."""
        captions = record["captions"]
        usable = self.tokenizer.usable(captions)
        # An image whose captions are all unknown words keeps them: it still has a picture.
        captions = tf.cond(
            tf.reduce_any(usable), lambda: tf.boolean_mask(captions, usable), lambda: captions
        )
        decoded = {"token_ids": self.tokenizer.tokenize(captions)}
        if self.cached_shape is not None:
            regions = tf.io.decode_raw(record["regions"], tf.float16)
            decoded["regions"] = tf.reshape(regions, [-1, *self.cached_shape])  # [views, R, D]
        else:
            decoded["image"] = decode_and_resize(
                record["encoded"], self.encoder.image_height, self.encoder.image_width
            )
        return decoded

    def _choose(
        self, decoded: dict[str, tf.Tensor], seed: tf.Tensor, captions: int
    ) -> dict[str, tf.Tensor]:
        """Picks K captions, all different where there are as many, and one view of the image."""
        available = tf.shape(decoded["token_ids"])[0]
        order = tf.random.experimental.stateless_shuffle(tf.range(available), [seed, 0])
        chosen = tf.gather(order, tf.range(captions) % available)
        batch = {"token_ids": tf.gather(decoded["token_ids"], chosen)}  # [K, T]
        mirrored = tf.random.stateless_uniform([], [seed, 1]) < 0.5
        if self.cached_shape is not None:
            view = tf.where(mirrored, tf.shape(decoded["regions"])[0] - 1, 0)
            batch["regions"] = decoded["regions"][view]
        elif self.encoder.flip:
            image = decoded["image"]
            batch["image"] = tf.cond(mirrored, lambda: image[:, ::-1], lambda: image)
        else:
            batch["image"] = decoded["image"]
        return batch

    def _first(self, decoded: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        available = tf.shape(decoded["token_ids"])[0]
        first = tf.range(self.data.captions_per_image) % available
        batch = {"token_ids": tf.gather(decoded["token_ids"], first)}
        if self.cached_shape is not None:
            return batch | {"regions": decoded["regions"][0]}
        return batch | {"image": decoded["image"]}


def _buffer(prepared: PreparedSplit, batch_size: int) -> int:
    """Number of records that are shuffled."""
    images = prepared.images
    return max(batch_size, min(images, SHUFFLED_BYTES * images // max(prepared.size, 1)))


def _sorted_batches(
    pools: tf.data.Dataset, batch_size: int, seed: int | tf.Tensor
) -> tf.data.Dataset:
    """Batches of images whose longest captions are alike in length, in random order.

    The images of a pool, which are some batches', are sorted, so that no image is left out for its
    length, as it would be where each length waited for a batch of its own.
    """
    seeds = tf.data.Dataset.random(seed + 2, rerandomize_each_iteration=True)

    def in_order(pool: dict[str, tf.Tensor], seed: tf.Tensor) -> dict[str, tf.Tensor]:
        batches = tf.shape(pool["token_ids"])[0] // batch_size
        # What fills no batch is left out before sorting: any length, not the longest.
        lengths = longest_caption(pool["token_ids"])[: batches * batch_size]
        order = tf.reshape(tf.argsort(lengths, stable=True), [batches, batch_size])
        order = tf.random.experimental.stateless_shuffle(order, [seed, 3])
        return {name: tf.gather(values, order) for name, values in pool.items()}

    return tf.data.Dataset.zip(pools, seeds).map(in_order).unbatch()


def longest_caption(token_ids: tf.Tensor) -> tf.Tensor:
    """Number of tokens [B] of the longest of each image's captions [B, K, T]."""
    return tf.reduce_max(tf.math.count_nonzero(token_ids != PAD_ID, axis=-1), axis=-1)
