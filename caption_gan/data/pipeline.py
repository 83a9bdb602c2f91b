"""Reads shards as batches for training and validation.

B batch, K captions per image in a batch, C captions per image in the data set, T time,
H image height, W image width, R regions, D region depth, S sentences.
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
    parse_records,
    read_assigned_shards,
    read_serialized,
)
from caption_gan.text.tokenizer import Tokenizer
from caption_gan.text.vocabulary import PAD_ID

PREFETCHED_BATCHES = 2
SORTED_BATCHES = 16  # Sorted by length together; with more, lengths are hardly more alike.
SHUFFLE_BUFFER_BYTES = 2**28  # Of records, if decoded examples do not fit into memory.


class Pipeline:
    """Reads prepared splits as batches.

    Args:
        data: Captions per image and the memory limit.
        encoder: Size of the images, and whether they are flipped.
        cached_shape: Shape of what the encoder caches of an image, e.g. (R, D); None if it caches
            nothing and batches contain images.
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
        """Training batches: shuffled images, each with K of its captions chosen at random.

        Args:
            prepared: The split.
            batch_size: B.
            captions: K.
            seed: Seed of all random choices. The same seed gives the same epochs, except with
                several workers of `data.service`, whose batches come in no deterministic order.
            by_length: Whether to batch images with captions of similar length, for objectives that
                are faster with short batches.

        Returns:
            Batches {image uint8 [B, H, W, 3] or regions float16 [B, R, D], token_ids [B, K, T]}.
            Images that do not fill the last batch are left out of that epoch.
        """
        images = prepared.images
        if self.data.service is not None:
            dataset = self._service_batches(prepared, batch_size, captions, seed, by_length)
        else:
            dataset = self._local_batches(prepared, batch_size, captions, seed, by_length)
        dataset = dataset.prefetch(PREFETCHED_BATCHES)
        return dataset.apply(tf.data.experimental.assert_cardinality(images // batch_size))

    def _local_batches(
        self, prepared: PreparedSplit, batch_size: int, captions: int, seed: int, by_length: bool
    ) -> tf.data.Dataset:
        """Training batches made in this process; arguments as in `training`."""
        images = prepared.images
        if self._fits_memory(images):
            dataset = self._decoded(read_serialized(prepared)).cache()
            dataset = dataset.shuffle(images, seed=seed)
        else:
            # Shuffles shards, then records: these take less memory than decoded examples.
            dataset = read_serialized(prepared, seed)
            dataset = dataset.shuffle(_shuffle_buffer_size(prepared, batch_size), seed=seed)
            dataset = self._decoded(dataset)
        dataset = self._with_random_captions(dataset, seed, captions)
        if by_length:
            return _sorted_batches(dataset.batch(SORTED_BATCHES * batch_size), batch_size, seed)
        return dataset.batch(batch_size, drop_remainder=True)

    def _service_batches(
        self, prepared: PreparedSplit, batch_size: int, captions: int, seed: int, by_length: bool
    ) -> tf.data.Dataset:
        """Training batches made by workers of a tf.data service; arguments as in `training`."""
        # At most the shards that are read in turn: the first worker would otherwise fill its buffer
        # with all shards of a small data set.
        buffer_size = min(
            _shuffle_buffer_size(prepared, batch_size), SHARDS_AT_A_TIME * IMAGES_PER_SHARD
        )

        def epoch(epoch_seed: tf.Tensor) -> tf.data.Dataset:
            records = read_assigned_shards(prepared, epoch_seed)
            records = records.shuffle(buffer_size, seed=epoch_seed)
            examples = self._with_random_captions(self._decoded(records), epoch_seed, captions)
            dataset = distribute(examples.batch(batch_size), str(self.data.service))
            # Batches are formed again, because the last one of each worker is not full.
            if by_length:
                pools = dataset.rebatch(SORTED_BATCHES * batch_size)
                dataset = _sorted_batches(pools, batch_size, epoch_seed)
            else:
                dataset = dataset.rebatch(batch_size, drop_remainder=True)
            # Repeats images in place of those that a lost worker was reading.
            return dataset.repeat().take(prepared.images // batch_size)

        # Workers keep no random state from one epoch to the next, so each epoch sends its seed in
        # the graph. (TensorFlow refuses a tensor as a seed if the global seed is 0; no stage's is.)
        epochs = tf.data.Dataset.random(seed, rerandomize_each_iteration=True).take(1)
        return epochs.flat_map(epoch).with_options(NO_AUTOTUNE)

    def _with_random_captions(
        self, dataset: tf.data.Dataset, seed: int | tf.Tensor, captions: int
    ) -> tf.data.Dataset:
        """Chooses K captions and a view of each decoded example at random."""
        # One seed per image and epoch, so that choices do not depend on the number of threads.
        seeds = tf.data.Dataset.random(seed, rerandomize_each_iteration=True)
        dataset = tf.data.Dataset.zip(dataset, seeds)
        return dataset.map(
            lambda decoded, seed: self._choose(decoded, seed, captions),
            num_parallel_calls=tf.data.AUTOTUNE,
        )

    def with_corpus(
        self, batches: tf.data.Dataset, token_ids: np.ndarray, captions: int, seed: int
    ) -> tf.data.Dataset:
        """Adds captions without images to training batches.

        Args:
            batches: As returned by `training`.
            token_ids: Of all sentences, [S, T].
            captions: K.
            seed: Seed of the choice of sentences.

        Returns:
            The batches with an additional entry `corpus_token_ids` [B, K, T].
        """
        length = token_ids.shape[-1]
        sentences = tf.constant(token_ids)
        seeds = tf.data.Dataset.random(seed + 1, rerandomize_each_iteration=True)

        def add(batch: dict[str, tf.Tensor], seed: tf.Tensor) -> dict[str, tf.Tensor]:
            shape = [tf.shape(batch["token_ids"])[0], captions]
            chosen = tf.random.stateless_uniform(
                shape, [seed, 2], maxval=len(token_ids), dtype=tf.int32
            )
            corpus = tf.cast(tf.gather(sentences, chosen), tf.int32)
            return batch | {"corpus_token_ids": tf.ensure_shape(corpus, [None, captions, length])}

        return tf.data.Dataset.zip(batches, seeds).map(add)

    def validation(self, prepared: PreparedSplit, batch_size: int) -> tf.data.Dataset:
        """Validation batches, the same in each epoch: each image once, with its first captions."""
        images = prepared.images
        dataset = self._decoded(read_serialized(prepared))
        if self._fits_memory(images):
            dataset = dataset.cache()
        dataset = dataset.map(self._first_captions)
        dataset = dataset.batch(batch_size).prefetch(PREFETCHED_BATCHES)
        return dataset.apply(tf.data.experimental.assert_cardinality(-(-images // batch_size)))

    def references(self, prepared: PreparedSplit) -> Iterator[np.ndarray]:
        """Yields the token ids [C, T] of all captions of each image."""
        records = parse_records(read_serialized(prepared), with_regions=False)
        captions = records.map(lambda record: self.tokenizer.tokenize(record["captions"]))
        return captions.as_numpy_iterator()

    def _decoded(self, serialized: tf.data.Dataset) -> tf.data.Dataset:
        records = parse_records(serialized, with_regions=self.cached_shape is not None)
        return records.map(self._decode, num_parallel_calls=tf.data.AUTOTUNE)

    def _fits_memory(self, images: int) -> bool:
        if self.cached_shape is not None:
            bytes_per_image = 2 * math.prod(self.cached_shape) * (2 if self.encoder.flip else 1)
        else:
            bytes_per_image = 3 * math.prod(self.encoder.image_size)
        return images * bytes_per_image <= self.data.memory_limit_gib * 2**30

    def _decode(self, record: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Decodes a record: the image or its cached views, and token ids [C, T] of its captions.

        Captions without a known word are left out, unless the image has no others.
        """
        captions = record["captions"]
        usable = self.tokenizer.usable(captions)
        captions = tf.cond(
            tf.reduce_any(usable), lambda: tf.boolean_mask(captions, usable), lambda: captions
        )
        decoded = {"token_ids": self.tokenizer.tokenize(captions)}
        if self.cached_shape is not None:
            regions = tf.io.decode_raw(record["regions"], tf.float16)
            decoded["regions"] = tf.reshape(regions, [-1, *self.cached_shape])  # [views, R, D]
        else:
            decoded["image"] = decode_and_resize(record["encoded"], *self.encoder.image_size)
        return decoded

    def _choose(
        self, decoded: dict[str, tf.Tensor], seed: tf.Tensor, captions: int
    ) -> dict[str, tf.Tensor]:
        """Chooses K captions, different ones if there are K, and one view of the image."""
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

    def _first_captions(self, decoded: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Takes the first captions of an example, and the image as it is."""
        available = tf.shape(decoded["token_ids"])[0]
        first = tf.range(self.data.captions_per_image) % available
        batch = {"token_ids": tf.gather(decoded["token_ids"], first)}
        if self.cached_shape is not None:
            return batch | {"regions": decoded["regions"][0]}
        return batch | {"image": decoded["image"]}


def _shuffle_buffer_size(prepared: PreparedSplit, batch_size: int) -> int:
    """Number of records in the shuffle buffer."""
    images = prepared.images
    return max(batch_size, min(images, SHUFFLE_BUFFER_BYTES * images // max(prepared.size, 1)))


def _sorted_batches(
    pools: tf.data.Dataset, batch_size: int, seed: int | tf.Tensor
) -> tf.data.Dataset:
    """Batches of images whose longest captions have similar lengths, in random order.

    Sorts each pool of `SORTED_BATCHES` batches. Buckets of fixed lengths would instead leave out
    the images of unfilled buckets.
    """
    seeds = tf.data.Dataset.random(seed + 2, rerandomize_each_iteration=True)

    def sort_pool(pool: dict[str, tf.Tensor], seed: tf.Tensor) -> dict[str, tf.Tensor]:
        batches = tf.shape(pool["token_ids"])[0] // batch_size
        # Drops the remainder before sorting, so that it is not always the longest captions.
        lengths = longest_caption(pool["token_ids"])[: batches * batch_size]
        order = tf.reshape(tf.argsort(lengths, stable=True), [batches, batch_size])
        order = tf.random.experimental.stateless_shuffle(order, [seed, 3])
        return {name: tf.gather(values, order) for name, values in pool.items()}

    return tf.data.Dataset.zip(pools, seeds).map(sort_pool).unbatch()


def longest_caption(token_ids: tf.Tensor) -> tf.Tensor:
    """Number of tokens of the longest caption of each image, [B], for token ids [B, K, T]."""
    return tf.reduce_max(tf.math.count_nonzero(token_ids != PAD_ID, axis=-1), axis=-1)
