"""Measures decoding: `python tools/benchmark_images.py --images FOLDER [--side 224] [--rounds 50]`.

Measures alternately, on the JPEG files of a folder:

- reading a batch of 32 as a served model does, also with one corrupt row, against a data set and
  `tf.map_fn`, in which a corrupt row fails the whole batch;
- a pass over the images with the decoding of training, against TensorFlow's plain decoder, which
  ignores orientation and transparency; and over one image, which shows the cost of starting.

Prints median milliseconds, and the median ratio to the first row of each part.
"""

import argparse
import statistics
from collections.abc import Callable, Mapping
from itertools import islice

import tensorflow as tf
from measuring import alternate

from caption_gan.data.image_batches import read_images
from caption_gan.data.images import NO_AUTOTUNE, decode_and_resize
from caption_gan.storage.paths import local_path

BATCH = 32


def print_times(calls: Mapping[str, Callable[[], object]], rounds: int) -> None:
    """Prints the median time of each call, and its ratio to the first call."""
    seconds = alternate(calls, rounds, warm_up=1)
    first = next(iter(seconds.values()))
    for name, times in seconds.items():
        ratios = [one / other for one, other in zip(times, first, strict=True)]
        median = 1000 * statistics.median(times)
        print(f"{name:44}{median:10.2f} ms{statistics.median(ratios):8.3f}")


def plain_decode_and_resize(encoded: tf.Tensor, side: int) -> tf.Tensor:
    """Decodes with TensorFlow's plain decoder."""
    image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    image = tf.image.resize(image, [side, side], antialias=True)
    return tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8)


def serving(images: list[bytes], side: int, rounds: int) -> None:
    """Compares ways to decode one batch inside a tf.function."""

    def compiled(read: Callable[[tf.Tensor], object]) -> Callable[[tf.Tensor], object]:
        return tf.function(read, input_signature=[tf.TensorSpec([None], tf.string)])

    @compiled
    def in_a_data_set(batch: tf.Tensor) -> tf.Tensor:
        dataset = tf.data.Dataset.from_tensor_slices(batch).map(
            lambda encoded: decode_and_resize(encoded, side, side),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
        dataset = dataset.batch(tf.size(batch, tf.int64)).with_options(NO_AUTOTUNE)
        return dataset.get_single_element()

    @compiled
    def in_a_loop(batch: tf.Tensor) -> tf.Tensor:
        return tf.map_fn(
            lambda encoded: decode_and_resize(encoded, side, side),
            batch,
            fn_output_signature=tf.uint8,
        )

    read = compiled(lambda batch: read_images(batch, side, side))
    good = tf.constant(images[:BATCH])
    bad = tf.constant([*images[: BATCH - 1], images[BATCH - 1][:1000]])
    calls = {
        "data set, a corrupt row fails it": lambda: in_a_data_set(good),
        "read_images": lambda: read(good),
        "read_images, one of 32 is corrupt": lambda: read(bad),
        "tf.map_fn, a corrupt row fails it": lambda: in_a_loop(good),
    }
    print_times(calls, rounds)


def training(images: list[bytes], side: int, rounds: int) -> None:
    """Compares passes over the images with those of the plain decoder."""

    def pass_through(decode: Callable[[tf.Tensor], tf.Tensor], count: int) -> Callable[[], None]:
        dataset = tf.data.Dataset.from_tensor_slices(images[:count]).map(
            decode, num_parallel_calls=tf.data.AUTOTUNE
        )
        dataset = dataset.batch(BATCH).with_options(NO_AUTOTUNE)

        def read_all() -> None:
            for _ in dataset:
                pass

        return read_all

    for count in (1, len(images)):
        calls = {
            f"plain decoder, {count} images": pass_through(
                lambda encoded: plain_decode_and_resize(encoded, side), count
            ),
            f"decode_and_resize, {count} images": pass_through(
                lambda encoded: decode_and_resize(encoded, side, side), count
            ),
        }
        print_times(calls, rounds)


def main() -> None:
    """Reads the command line, prints the measurements."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=local_path, required=True, help="folder of .jpg files")
    parser.add_argument("--count", type=int, default=1000, help="number of images to read")
    parser.add_argument("--side", type=int, default=224, help="image height and width, pixels")
    parser.add_argument("--rounds", type=int, default=50)
    arguments = parser.parse_args()
    paths = islice(sorted(arguments.images.glob("*.jpg")), arguments.count)
    images = [path.read_bytes() for path in paths]
    if len(images) < BATCH:
        parser.error(f"{arguments.images} holds {len(images)} .jpg files; {BATCH} are needed")
    serving(images, arguments.side, arguments.rounds)
    training(images, arguments.side, max(arguments.rounds // 5, 3))


if __name__ == "__main__":
    main()
