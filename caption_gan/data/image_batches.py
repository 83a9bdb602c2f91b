"""Decodes batches of images in a served model, where a row may contain any bytes.

B batch, N rows that decode.
"""

import tensorflow as tf

from caption_gan.data.image_errors import describe_undecodable
from caption_gan.data.images import NO_AUTOTUNE, decode_and_resize

NO_BYTES = "no bytes"
NO_IMAGE = "not an image that can be decoded: it is "


def read_images(image_bytes: tf.Tensor, height: int, width: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes a batch of images as training does, and says what is wrong with each row.

    Servers merge the requests of several clients into one batch, and an operation that fails would
    fail all of them. A dataset can continue after an error, and decodes rows in parallel.

    Args:
        image_bytes: Encoded images, string [B]; B may be 0.
        height: Of the decoded images, in pixels.
        width: Of the decoded images, in pixels.

    Returns:
        Pixels, uint8 [B, height, width, 3], black if a row does not decode; and the error of each
        row, string [B], empty if it decodes.
    """
    rows = tf.size(image_bytes, tf.int64)
    decoded = (
        tf.data.Dataset.from_tensor_slices(image_bytes)
        .enumerate()
        .map(
            lambda row, encoded: (row, decode_and_resize(encoded, height, width)),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
        # Clients can send anything; a warning for each bad row would flood the server's log.
        .ignore_errors(log_warning=False)
    )
    # Replaces all rows that do not decode; also gives a batch without good rows an element.
    black = tf.data.Dataset.from_tensors((rows, tf.zeros([height, width, 3], tf.uint8)))
    batch = decoded.concatenate(black).batch(rows + 1).with_options(NO_AUTOTUNE)
    row, pixels = batch.get_single_element()  # [N + 1], [N + 1, height, width, 3]

    last = tf.size(row, tf.int64) - 1  # N
    position = tf.tensor_scatter_nd_update(
        tf.fill([rows + 1], last), row[:, tf.newaxis], tf.range(last + 1)
    )[:-1]  # [B]
    error = tf.cond(
        last == rows,
        lambda: tf.fill(tf.shape(image_bytes), ""),
        lambda: tf.where(position == last, _describe(image_bytes), ""),
    )
    # Avoids a copy of the pixels if all rows decode.
    pixels = tf.cond(last == rows, lambda: pixels[:-1], lambda: tf.gather(pixels, position))
    return tf.ensure_shape(pixels, [None, height, width, 3]), error


def _describe(image_bytes: tf.Tensor) -> tf.Tensor:
    """Explains why rows do not decode, string [B]."""
    reason = tf.strings.join([NO_IMAGE, describe_undecodable(image_bytes)])
    return tf.where(tf.strings.length(image_bytes) == 0, NO_BYTES, reason)
