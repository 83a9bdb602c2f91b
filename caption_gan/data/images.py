"""From encoded bytes to pixels, the same way in training, captioning and serving."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

# The thread that tunes a pipeline sleeps for up to a minute at a time, and the end of an epoch
# waits for it. Untuned, `AUTOTUNE` in a `map` means as many calls at a time as there are cores.
UNTUNED = tf.data.Options()
UNTUNED.autotune.enabled = False


def decode_and_resize(image_bytes: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """Decodes an image and squashes it to one size.

    Args:
        image_bytes: A string scalar: PNG, JPEG, BMP, WebP, or GIF (its first frame).
        height: In pixels.
        width: In pixels.

    Returns:
        uint8 [height, width, 3]. Area-preserving when it shrinks, so that thin lines stay.
    """
    image = tf.io.decode_image(image_bytes, channels=3, expand_animations=False)
    image = tf.image.resize(image, [height, width], antialias=True)
    image = tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8)
    return tf.ensure_shape(image, [height, width, 3])


def is_image(image_bytes: bytes) -> bool:
    """Whether the bytes decode, by the decoder that training uses."""
    try:
        tf.io.decode_image(image_bytes, channels=3, expand_animations=False)
    except tf.errors.InvalidArgumentError:
        return False
    return True


def thumbnails(images: Sequence[bytes], side: int) -> np.ndarray:
    """Pixels of images squashed to side x side: float32 [N, side * side * 3], from 0 to 1."""
    dataset = tf.data.Dataset.from_tensor_slices(list(images)).map(
        lambda encoded: decode_and_resize(encoded, side, side), num_parallel_calls=tf.data.AUTOTUNE
    )
    dataset = dataset.with_options(UNTUNED)
    pixels = np.stack(list(dataset.as_numpy_iterator())).astype(np.float32) / 255
    return pixels.reshape(len(images), -1)
