"""The records of shards: `tf.train.Example` messages of one schema.

R regions, D region depth.

    image/id        bytes    1
    image/encoded   bytes    1
    image/captions  bytes    one or more
    image/facts     bytes    1; JSON of what is true of the image, empty if that is not known
    image/text      bytes    1; text in the image, empty if nobody has read it
    image/regions   bytes    0 to 2; float16 [R, D] of the image, then of its mirror image
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from caption_gan.data.example import Example
from caption_gan.data.images import NO_AUTOTUNE
from caption_gan.data.shards.files import PreparedSplit, shard_files

SHARDS_AT_A_TIME = 4  # Read in turn, so that a shuffle buffer mixes the images of several shards.


def serialize(example: Example, regions: Sequence[np.ndarray] = ()) -> bytes:
    """One record, of an example and what is cached of its image and of its mirror image [R, D]."""

    def feature(values: Iterable[bytes]) -> tf.train.Feature:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))

    features = {
        "image/id": feature([_utf8(example.image_id)]),
        "image/encoded": feature([example.image]),
        "image/captions": feature(_utf8(caption) for caption in example.captions),
        "image/facts": feature([_utf8(example.facts)]),
        "image/text": feature([_utf8(example.image_text)]),
        "image/regions": feature(array.astype(np.float16).tobytes() for array in regions),
    }
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def _utf8(text: str) -> bytes:
    # JSON files may contain lone surrogates, which UTF-8 cannot encode.
    return text.encode("utf-8", "replace")


def parse(serialized: tf.Tensor, with_regions: bool = True) -> dict[str, tf.Tensor]:
    """Features of a record: scalars `id`, `encoded`, `facts`, `text`; `captions`, `regions` [?].

    Args:
        serialized: One record, a string scalar.
        with_regions: Whether to return `regions`, which are larger than everything else.
    """
    one, several = tf.io.FixedLenFeature([], tf.string), tf.io.RaggedFeature(tf.string)
    schema = {
        "image/id": one,
        "image/encoded": one,
        "image/captions": several,
        "image/facts": one,
        "image/text": one,
    }
    if with_regions:
        schema["image/regions"] = several
    features = tf.io.parse_single_example(serialized, schema)
    return {name.removeprefix("image/"): value for name, value in features.items()}


def read_serialized(prepared: PreparedSplit, shuffle_seed: int | None = None) -> tf.data.Dataset:
    """The serialized records of a split.

    Args:
        prepared: The split.
        shuffle_seed: If given, shards are read in a new order in each epoch, several in turn;
            otherwise records come in the order of the data set.
    """
    names = shard_files(prepared.directory, prepared.split)
    files = tf.data.Dataset.from_tensor_slices(names)
    if shuffle_seed is None:
        return _records(files, names, at_a_time=1)
    return _records(files.shuffle(len(names), seed=shuffle_seed), names, SHARDS_AT_A_TIME)


def read_assigned_shards(prepared: PreparedSplit, epoch_seed: tf.Tensor) -> tf.data.Dataset:
    """The serialized records of the shards that a tf.data service assigns to one worker.

    The list of shards is shuffled as a tensor: `Dataset.shuffle` would have the first worker take
    all shards into its buffer.

    Args:
        prepared: The split.
        epoch_seed: Seed of the order of the shards, a scalar.
    """
    names = shard_files(prepared.directory, prepared.split)
    order = tf.random.experimental.stateless_shuffle(tf.constant(names), [epoch_seed, 4])
    return _records(tf.data.Dataset.from_tensor_slices(order), names, SHARDS_AT_A_TIME)


def _records(files: tf.data.Dataset, names: Sequence[str], at_a_time: int) -> tf.data.Dataset:
    compression = "GZIP" if names and names[0].endswith(".gz") else ""
    dataset = files.interleave(
        lambda file: tf.data.TFRecordDataset(file, compression),
        cycle_length=at_a_time,
        num_parallel_calls=at_a_time,
        deterministic=True,
    )
    return dataset.with_options(NO_AUTOTUNE)


def parse_records(dataset: tf.data.Dataset, with_regions: bool = True) -> tf.data.Dataset:
    """Applies `parse` to each serialized record of a dataset."""
    return dataset.map(
        lambda record: parse(record, with_regions), num_parallel_calls=tf.data.AUTOTUNE
    )


def read_examples(prepared: PreparedSplit) -> Iterator[Example]:
    """The examples of a split, in the order of the data set."""
    records = parse_records(read_serialized(prepared), with_regions=False)
    for record in records.as_numpy_iterator():
        yield Example(
            image_id=record["id"].decode(),
            image=record["encoded"],
            captions=tuple(caption.decode() for caption in record["captions"]),
            facts=record["facts"].decode(),
            image_text=record["text"].decode(),
        )
