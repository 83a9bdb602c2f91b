"""TFRecord shards of examples: the only `tf.train.Example` schema.

R regions, D region depth.

    image/id        bytes    1
    image/encoded   bytes    1
    image/captions  bytes    one or more
    image/facts     bytes    1; empty unless the data set knows what is true of the image
    image/regions   bytes    0 to 2; float16 [R, D] of the image, then of its mirror image

Files are named as TFX names them: `Split-train/data_tfrecord-00000-of-00004`.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from caption_gan.data.example import Example
from caption_gan.data.images import UNTUNED

IMAGES_PER_SHARD = 2000


def serialize(example: Example, regions: Sequence[np.ndarray] = ()) -> bytes:
    """One record, from an example and its regions [R, D], if any."""

    def feature(values: Iterable[bytes]) -> tf.train.Feature:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))

    features = {
        "image/id": feature([example.image_id.encode()]),
        "image/encoded": feature([example.image]),
        "image/captions": feature(caption.encode() for caption in example.captions),
        "image/facts": feature([example.facts.encode()]),
        "image/regions": feature(array.astype(np.float16).tobytes() for array in regions),
    }
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def parse(serialized: tf.Tensor, with_regions: bool = True) -> dict[str, tf.Tensor]:
    """The features of one record: scalars `id`, `encoded`, `facts`; `captions`, `regions` [?]."""
    one, several = tf.io.FixedLenFeature([], tf.string), tf.io.RaggedFeature(tf.string)
    schema = {
        "image/id": one,
        "image/encoded": one,
        "image/captions": several,
        "image/facts": one,
    }
    # Regions are larger than all the rest together.
    if with_regions:
        schema["image/regions"] = several
    features = tf.io.parse_single_example(serialized, schema)
    return {name.removeprefix("image/"): value for name, value in features.items()}


def write_split(directory: Path, split: str, records: Iterable[bytes], count: int) -> None:
    """Writes a split of at most `count` records as shards of about equal size."""
    folder = directory / f"Split-{split}"
    folder.mkdir(parents=True)
    shards = max(1, round(count / IMAGES_PER_SHARD))
    writers = [
        tf.io.TFRecordWriter(str(folder / f"data_tfrecord-{shard:05d}-of-{shards:05d}"))
        for shard in range(shards)
    ]
    for position, record in enumerate(records):
        writers[position % shards].write(record)
    for writer in writers:
        writer.close()


def read_split(directory: Path, split: str, with_regions: bool = True) -> tf.data.Dataset:
    """The parsed records of a split, in the order in which they were written."""
    files = sorted(str(path) for path in (directory / f"Split-{split}").glob("data_tfrecord-*"))
    # Records were dealt to the shards in turn; they are collected in the same way.
    dataset = tf.data.Dataset.from_tensor_slices(files)
    dataset = dataset.interleave(tf.data.TFRecordDataset, cycle_length=len(files), block_length=1)
    dataset = dataset.map(
        lambda record: parse(record, with_regions), num_parallel_calls=tf.data.AUTOTUNE
    )
    return dataset.with_options(UNTUNED)


def read_examples(directory: Path, split: str) -> Iterator[Example]:
    """The examples of a split."""
    for record in read_split(directory, split, with_regions=False).as_numpy_iterator():
        yield Example(
            image_id=record["id"].decode(),
            image=record["encoded"],
            captions=tuple(caption.decode() for caption in record["captions"]),
            facts=record["facts"].decode(),
        )
