"""Decodes images, in the same way for training, captioning and serving.

Uses TensorFlow operations only, so that it can be part of an exported model.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

# The end of an epoch waits for the tuning thread, which sleeps for up to a minute. Without tuning,
# `AUTOTUNE` in a `map` means one call per core.
NO_AUTOTUNE = tf.data.Options()
NO_AUTOTUNE.autotune.enabled = False

# A JPEG file that begins with a JFIF segment without a thumbnail (20 bytes) and then has tables
# has no EXIF segment. Nearly all files are like this, including those of COCO and Flickr8k.
JFIF, TABLES = b"\xff\xd8\xff\xe0\0\x10", b"\xff\xdb"
# Markers of segments that may precede the tables: of applications, and comments.
BEFORE_TABLES = [bytes([0xFF, kind]) for kind in (*range(0xE0, 0xF0), 0xFE)]
# Bounds the search through a malicious file. A colour profile, the longest sequence of segments
# that may precede EXIF, has at most 255.
MAX_SEGMENTS = 1000

ORIENTATION_TAG = 0x0112  # EXIF 2.3, 4.6.4 A.
# Steps through rows and columns for the orientations 1 to 8; images with the last four are
# transposed first.
ROW_STEPS = (1, 1, -1, -1, 1, 1, -1, -1)
COLUMN_STEPS = (1, -1, -1, 1, 1, -1, -1, 1)
# Limit for a GIF, whose decoder allocates whatever the header claims; other decoders do not.
MAX_PIXELS = 2**28
MAX_ENTRIES = 5461  # Directory entries of 12 bytes in a JPEG segment of 64 KiB.


def decode_image(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes an image as people see it: upright, with white in place of transparency.

    Of 16-bit PNG, the upper 8 bits are used; of an animated GIF, the first frame. Ignored are the
    transparency of GIF (becomes black) and BMP (becomes opaque), and the orientation of PNG and
    WebP.

    Args:
        encoded: PNG, JPEG, GIF, BMP (not of 1, 4 or 16 bits, not compressed) or WebP (not animated)
            bytes, a string scalar.

    Returns:
        Pixels uint8 [height, width, 3].

    Raises:
        tf.errors.InvalidArgumentError: The bytes are not such an image, or are truncated.
    """
    start = tf.io.decode_raw(encoded, tf.uint8, fixed_length=22)
    is_plain = tf.reduce_all(tf.gather(start, [0, 1, 2, 3, 4, 5, 20, 21]) == [*JFIF, *TABLES])
    return tf.cond(is_plain, lambda: _decoded(encoded, channels=3), lambda: _decode_other(encoded))


def decode_and_resize(image_bytes: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """Decodes an image and resizes it, without keeping its aspect ratio.

    Args:
        image_bytes: Encoded image, a string scalar; see `decode_image`.
        height: Of the result, in pixels.
        width: Of the result, in pixels.

    Returns:
        Pixels uint8 [height, width, 3], anti-aliased, so that thin lines remain visible.

    Raises:
        tf.errors.InvalidArgumentError: As in `decode_image`.
    """
    image = decode_image(image_bytes)
    image = tf.image.resize(image, [height, width], antialias=True)
    image = tf.cast(tf.round(image), tf.uint8)  # Weighted means are between 0 and 255.
    return tf.ensure_shape(image, [height, width, 3])


def is_image(image_bytes: bytes) -> bool:
    """Whether `decode_image` can decode the bytes."""
    try:
        decode_image(image_bytes)
    except tf.errors.InvalidArgumentError:
        return False
    return True


def thumbnails(images: Sequence[bytes], side: int) -> np.ndarray:
    """Pixels of N images resized to side x side: float32 [N, side * side * 3], from 0 to 1."""
    dataset = tf.data.Dataset.from_tensor_slices(list(images)).map(
        lambda encoded: decode_and_resize(encoded, side, side), num_parallel_calls=tf.data.AUTOTUNE
    )
    dataset = dataset.with_options(NO_AUTOTUNE)
    pixels = np.stack(list(dataset.as_numpy_iterator())).astype(np.float32) / 255
    return pixels.reshape(len(images), -1)


def _decoded(encoded: tf.Tensor, channels: int = 0) -> tf.Tensor:
    """Pixels uint8 [height, width, channels]; 0 keeps the number of channels of the file."""
    return tf.io.decode_image(encoded, channels=channels, expand_animations=False)


def _slice(text: tf.Tensor, position: tf.Tensor | int, count: tf.Tensor | int) -> tf.Tensor:
    """Bytes at a position; fewer, or none, at the end of the text."""
    # Clipped because the operation's error message would contain all the bytes.
    position = tf.clip_by_value(position, 0, tf.strings.length(text))
    return tf.strings.substr(text, position, count)


# Not inlined, because plain images would pay for skipping its many operations.
@tf.function(
    input_signature=[tf.TensorSpec([], tf.string)],
    autograph=False,
    experimental_attributes={"_noinline": True},
)
def _decode_other(encoded: tf.Tensor) -> tf.Tensor:
    start = _slice(encoded, 0, 2)
    image = tf.case(
        [
            (start == b"\xff\xd8", lambda: _decode_jpeg(encoded)),
            (start == b"\x89P", lambda: _decode_png(encoded)),
            (start == b"BM", lambda: _decode_bmp(encoded)),
            (start == b"RI", lambda: _decode_webp(encoded)),
            (start == b"GI", lambda: _decode_gif(encoded)),
        ],
        default=lambda: _reject(encoded),
    )
    return _on_white(tf.ensure_shape(image, [None, None, None]))


def _reject(encoded: tf.Tensor) -> tf.Tensor:
    # Never tries other formats of TensorFlow: the decoder of one allocates exabytes.
    with tf.control_dependencies(
        [tf.debugging.Assert(False, ["not an image of a supported format"])]
    ):
        return tf.zeros([1, 1, 3], tf.uint8)


def _decode_gif(encoded: tf.Tensor) -> tf.Tensor:
    # GIF89a, section 18: width and height of the screen, which contains all frames.
    size = tf.io.decode_raw(_slice(encoded, 6, 4), tf.uint16, fixed_length=4)
    fits = tf.reduce_prod(tf.cast(size, tf.int64)) <= MAX_PIXELS
    return tf.cond(fits, lambda: _decoded(encoded), lambda: _reject(encoded))


def _decode_jpeg(encoded: tf.Tensor) -> tf.Tensor:
    # EXIF 2.3, 4.5.4: the APP1 segment that begins with "Exif". It should come first, but other
    # segments precede it in many files.
    def is_exif(position: tf.Tensor) -> tf.Tensor:
        is_app1 = _slice(encoded, position, 2) == b"\xff\xe1"
        return is_app1 & (_slice(encoded, position + 4, 6) == b"Exif\0\0")

    def is_skipped(position: tf.Tensor) -> tf.Tensor:
        marker = _slice(encoded, position, 2)
        return tf.reduce_any(marker == BEFORE_TABLES) & ~is_exif(position)

    def length(position: tf.Tensor) -> tf.Tensor:
        digits = _slice(encoded, position + 2, 2)
        return tf.cast(tf.io.decode_raw(digits, tf.uint16, little_endian=False)[0], tf.int32)

    (position,) = tf.while_loop(
        is_skipped,
        lambda position: (position + 2 + length(position),),
        (tf.constant(2),),
        maximum_iterations=MAX_SEGMENTS,
    )
    image = _decoded(encoded, channels=3)

    def upright() -> tf.Tensor:
        tiff = _slice(encoded, position + 10, tf.maximum(length(position) - 8, 0))
        return _make_upright(image, _orientation(tiff))

    return tf.cond(is_exif(position), upright, lambda: image)


def _decode_png(encoded: tf.Tensor) -> tf.Tensor:
    # By default the decoder reads the transparency of palettes, but ignores a single transparent
    # grey or colour. With 4 channels it reads both, but makes opaque images of few bits
    # transparent. So 4 channels are requested only if there is a tRNS chunk.
    def kind(position: tf.Tensor) -> tf.Tensor:
        return _slice(encoded, position + 4, 4)

    def length(position: tf.Tensor) -> tf.Tensor:
        digits = _slice(encoded, position, 4)
        return 12 + tf.io.decode_raw(digits, tf.int32, little_endian=False)[0]

    (position,) = tf.while_loop(
        lambda position: tf.reduce_all(kind(position) != [b"tRNS", b"IDAT", b""]),
        lambda position: (position + length(position),),
        (tf.constant(8),),
        maximum_iterations=MAX_SEGMENTS,
    )
    return tf.cond(
        kind(position) == b"tRNS",
        lambda: _decoded(encoded, channels=4),
        lambda: _decoded(encoded),
    )


def _decode_bmp(encoded: tf.Tensor) -> tf.Tensor:
    image = _decoded(encoded, channels=3)

    def coloured() -> tf.Tensor:
        # The decoder returns palette indices. The palette follows the header: blue, green, red, 0.
        header_size = tf.io.decode_raw(_slice(encoded, 14, 4), tf.int32)[0]
        colours = _slice(encoded, 14 + header_size, 4 * 256)
        palette = tf.io.decode_raw(colours, tf.uint8, fixed_length=4 * 256)
        palette = tf.reshape(palette, [256, 4])[:, 2::-1]
        return tf.gather(palette, tf.cast(image[..., 0], tf.int32))

    bits_per_pixel = _slice(encoded, 28, 2)
    return tf.cond(bits_per_pixel == b"\x08\0", coloured, lambda: image)


def _decode_webp(encoded: tf.Tensor) -> tf.Tensor:
    # Rejects animations. TensorFlow 2.21 writes their four channels into memory for three, which
    # crashes the process; with four channels, a few bytes could make it fill all memory. Animations
    # have a VP8X header with flag 2 in byte 20.
    flags = tf.io.decode_raw(_slice(encoded, 20, 1), tf.uint8)
    is_animation = (_slice(encoded, 12, 4) == b"VP8X") & tf.reduce_any(flags & 2 != 0)
    return _decoded(tf.where(is_animation, b"", encoded))


def _orientation(tiff: tf.Tensor) -> tf.Tensor:
    """Orientation in an EXIF segment, int32 [], from 1 to 8; 1 if it is absent or invalid.

    Args:
        tiff: The bytes after "Exif", a string scalar. TIFF 6.0, section 2: byte order, the number
            42 and the offset of the first directory, which has the number of its entries and then
            the entries. An entry of 12 bytes is tag, type, count and, if it is small, the value.
    """
    is_little_endian = _slice(tiff, 0, 4) == b"II*\0"
    is_tiff = is_little_endian | (_slice(tiff, 0, 4) == b"MM\0*")

    def words(text: tf.Tensor, count: int) -> tf.Tensor:
        """16-bit numbers [count]; 0 beyond the end of the text."""
        little, big = (
            tf.io.decode_raw(text, tf.uint16, little_endian=order, fixed_length=2 * count)
            for order in (True, False)
        )
        return tf.cast(tf.where(is_little_endian, little, big), tf.int32)

    size = tf.strings.length(tiff)
    start = tf.reduce_sum(words(tiff, 4)[2:] * tf.where(is_little_endian, [1, 2**16], [2**16, 1]))
    start = tf.where(
        (start >= 0) & (start < size), start, size
    )  # Overflows to negative from 2**31 on.
    directory = words(_slice(tiff, start, size), 1 + 6 * MAX_ENTRIES)
    entries = tf.reshape(directory[1:], [MAX_ENTRIES, 6])[: directory[0]]
    value = tf.reduce_max(tf.where(entries[:, 0] == ORIENTATION_TAG, entries[:, 4], 0))
    return tf.where(is_tiff & (value >= 1) & (value <= 8), value, 1)


def _make_upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Applies an EXIF orientation to an image [height, width, 3]."""
    image = tf.transpose(image, tf.where(orientation > 4, [1, 0, 2], [0, 1, 2]))
    row_step = tf.gather(ROW_STEPS, orientation - 1)
    column_step = tf.gather(COLUMN_STEPS, orientation - 1)
    return image[::row_step, ::column_step]


def _on_white(image: tf.Tensor) -> tf.Tensor:
    """Grey, grey with alpha, RGB or RGBA [height, width, 1 to 4] to RGB [height, width, 3]."""

    def blended() -> tf.Tensor:
        # 16 bits take half the memory of floats. With y = x + 128, (y + y // 256) // 256 is exactly
        # round(x / 255).
        colours, alpha = (tf.cast(part, tf.uint16) for part in (image[..., :-1], image[..., -1:]))
        weighted = colours * alpha + (255 * (255 - alpha) + 128)
        return tf.cast((weighted + weighted // 256) // 256, tf.uint8)

    shape = tf.shape(image)
    image = tf.cond(shape[2] % 2 == 0, blended, lambda: image)
    return tf.broadcast_to(image, [shape[0], shape[1], 3])
