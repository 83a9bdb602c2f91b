"""From encoded bytes to pixels, the same way in training, captioning and serving.

Everything is TensorFlow's own operations, so that it can be part of an exported model.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

# The thread that tunes a pipeline sleeps for up to a minute at a time, and the end of an epoch
# waits for it. Untuned, `AUTOTUNE` in a `map` means as many calls at a time as there are cores.
NO_AUTOTUNE = tf.data.Options()
NO_AUTOTUNE.autotune.enabled = False

# A JPEG file's beginning with a JFIF segment without a thumbnail, 20 bytes, and what nearly always
# follows: tables, after which there is no EXIF segment. COCO and Flickr8k are such files.
JFIF, TABLES = b"\xff\xd8\xff\xe0\0\x10", b"\xff\xdb"
# Segments of applications and comments.
BEFORE_TABLES = [bytes([0xFF, kind]) for kind in (*range(0xE0, 0xF0), 0xFE)]
# Ends the walk through a file that was made to be walked through forever. A colour profile, the
# longest thing that may come before what is looked for, has at most 255 segments.
MOST_BLOCKS = 1000

ORIENTATION_TAG = 0x0112  # EXIF 2.3, 4.6.4 A.
# How an image is read for each orientation from 1 to 8, after the last four have had rows and
# columns exchanged.
ROW_STEPS = (1, 1, -1, -1, 1, 1, -1, -1)
COLUMN_STEPS = (1, -1, -1, 1, 1, -1, -1, 1)
# Of a GIF, whose decoder asks for whatever its header claims; other formats' decoders do not.
MOST_PIXELS = 2**28
MOST_ENTRIES = 5461  # As many directory entries of 12 bytes as a segment of a JPEG file holds.


def decode_image(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes an image as people see it: upright, and on white paper where it is transparent.

    16-bit PNG keeps its upper 8 bits. Of an animated GIF the first frame is seen. Not seen are
    transparency in GIF (black) and BMP (opaque), and an orientation in PNG and WebP.

    Args:
        encoded: PNG, JPEG, GIF, BMP (not of 1, 4 or 16 bits, not compressed), WebP (not animated).

    Returns:
        uint8 [height, width, 3], from 0 to 255.

    Raises:
        tf.errors.InvalidArgumentError: The bytes are no such image, or not all of it.
    """
    start = tf.io.decode_raw(encoded, tf.uint8, fixed_length=22)
    is_plain = tf.reduce_all(tf.gather(start, [0, 1, 2, 3, 4, 5, 20, 21]) == [*JFIF, *TABLES])
    return tf.cond(is_plain, lambda: _decoded(encoded, channels=3), lambda: _decode_other(encoded))


def decode_and_resize(image_bytes: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """Decodes an image and squashes it to one size.

    Args:
        image_bytes: A string scalar, of `decode_image`'s formats.
        height: In pixels.
        width: In pixels.

    Returns:
        uint8 [height, width, 3]. Area-preserving when it shrinks, so that thin lines stay.

    Raises:
        tf.errors.InvalidArgumentError: As in `decode_image`.
    """
    image = decode_image(image_bytes)
    image = tf.image.resize(image, [height, width], antialias=True)
    image = tf.cast(tf.round(image), tf.uint8)  # Weighted means: none is beyond 0 or 255.
    return tf.ensure_shape(image, [height, width, 3])


def is_image(image_bytes: bytes) -> bool:
    """Whether the bytes decode, by the decoder that training uses."""
    try:
        decode_image(image_bytes)
    except tf.errors.InvalidArgumentError:
        return False
    return True


def thumbnails(images: Sequence[bytes], side: int) -> np.ndarray:
    """Pixels of images squashed to side x side: float32 [N, side * side * 3], from 0 to 1."""
    dataset = tf.data.Dataset.from_tensor_slices(list(images)).map(
        lambda encoded: decode_and_resize(encoded, side, side), num_parallel_calls=tf.data.AUTOTUNE
    )
    dataset = dataset.with_options(NO_AUTOTUNE)
    pixels = np.stack(list(dataset.as_numpy_iterator())).astype(np.float32) / 255
    return pixels.reshape(len(images), -1)


def _decoded(encoded: tf.Tensor, channels: int = 0) -> tf.Tensor:
    """uint8 [height, width, channels], as many as the file has where that is 0."""
    return tf.io.decode_image(encoded, channels=channels, expand_animations=False)


def _part(text: tf.Tensor, position: tf.Tensor | int, count: tf.Tensor | int) -> tf.Tensor:
    """As many bytes at a position as there are; none beyond the end."""
    # Left to fail, the operation writes all the bytes into its message, which is no text then.
    position = tf.clip_by_value(position, 0, tf.strings.length(text))
    return tf.strings.substr(text, position, count)


# Inlined, it would cost every plain image the time to pass over its operations.
@tf.function(
    input_signature=[tf.TensorSpec([], tf.string)],
    autograph=False,
    experimental_attributes={"_noinline": True},
)
def _decode_other(encoded: tf.Tensor) -> tf.Tensor:
    start = _part(encoded, 0, 2)
    image = tf.case(
        [
            (start == b"\xff\xd8", lambda: _decode_jpeg(encoded)),
            (start == b"\x89P", lambda: _decode_png(encoded)),
            (start == b"BM", lambda: _decode_bmp(encoded)),
            (start == b"RI", lambda: _decode_webp(encoded)),
            (start == b"GI", lambda: _decode_gif(encoded)),
        ],
        default=lambda: _refuse(encoded),
    )
    return _on_white(tf.ensure_shape(image, [None, None, None]))


def _refuse(encoded: tf.Tensor) -> tf.Tensor:
    # TensorFlow has decoders of its own for some more beginnings, one of which asks for exabytes.
    with tf.control_dependencies([tf.debugging.Assert(False, ["no image of a known format"])]):
        return tf.zeros([1, 1, 3], tf.uint8)


def _decode_gif(encoded: tf.Tensor) -> tf.Tensor:
    # GIF89a, 18: width and height of the screen, which holds every frame.
    size = tf.io.decode_raw(_part(encoded, 6, 4), tf.uint16, fixed_length=4)
    fits = tf.reduce_prod(tf.cast(size, tf.int64)) <= MOST_PIXELS
    return tf.cond(fits, lambda: _decoded(encoded), lambda: _refuse(encoded))


def _decode_jpeg(encoded: tf.Tensor) -> tf.Tensor:
    # EXIF 2.3, 4.5.4: the segment APP1 that begins with "Exif". It should be the first, but
    # others come before it in many files.
    def is_exif(position: tf.Tensor) -> tf.Tensor:
        is_app1 = _part(encoded, position, 2) == b"\xff\xe1"
        return is_app1 & (_part(encoded, position + 4, 6) == b"Exif\0\0")

    def is_passed(position: tf.Tensor) -> tf.Tensor:
        marker = _part(encoded, position, 2)
        return tf.reduce_any(marker == BEFORE_TABLES) & ~is_exif(position)

    def length(position: tf.Tensor) -> tf.Tensor:
        digits = _part(encoded, position + 2, 2)
        return tf.cast(tf.io.decode_raw(digits, tf.uint16, little_endian=False)[0], tf.int32)

    (position,) = tf.while_loop(
        is_passed,
        lambda position: (position + 2 + length(position),),
        (tf.constant(2),),
        maximum_iterations=MOST_BLOCKS,
    )
    image = _decoded(encoded, channels=3)

    def upright() -> tf.Tensor:
        tiff = _part(encoded, position + 10, tf.maximum(length(position) - 8, 0))
        return _turn(image, _orientation(tiff))

    return tf.cond(is_exif(position), upright, lambda: image)


def _decode_png(encoded: tf.Tensor) -> tf.Tensor:
    # Left to itself the decoder reads the transparency of palettes, but passes over that of one
    # grey or one colour. Asked for it where there is none, it makes images of few bits transparent.
    def kind(position: tf.Tensor) -> tf.Tensor:
        return _part(encoded, position + 4, 4)

    def length(position: tf.Tensor) -> tf.Tensor:
        digits = _part(encoded, position, 4)
        return 12 + tf.io.decode_raw(digits, tf.int32, little_endian=False)[0]

    (position,) = tf.while_loop(
        lambda position: tf.reduce_all(kind(position) != [b"tRNS", b"IDAT", b""]),
        lambda position: (position + length(position),),
        (tf.constant(8),),
        maximum_iterations=MOST_BLOCKS,
    )
    return tf.cond(
        kind(position) == b"tRNS",
        lambda: _decoded(encoded, channels=4),
        lambda: _decoded(encoded),
    )


def _decode_bmp(encoded: tf.Tensor) -> tf.Tensor:
    image = _decoded(encoded, channels=3)

    def coloured() -> tf.Tensor:
        # The decoder gives the numbers of colours. These follow the header, as blue, green, red, 0.
        header_size = tf.io.decode_raw(_part(encoded, 14, 4), tf.int32)[0]
        colours = _part(encoded, 14 + header_size, 4 * 256)
        palette = tf.io.decode_raw(colours, tf.uint8, fixed_length=4 * 256)
        palette = tf.reshape(palette, [256, 4])[:, 2::-1]
        return tf.gather(palette, tf.cast(image[..., 0], tf.int32))

    bits_per_pixel = _part(encoded, 28, 2)
    return tf.cond(bits_per_pixel == b"\x08\0", coloured, lambda: image)


def _decode_webp(encoded: tf.Tensor) -> tf.Tensor:
    # TensorFlow 2.21 writes four channels of an animation into memory for three, which ends the
    # process; told that there are four, it can be made to fill any memory by few bytes. So an
    # animation is refused. Its header is of the kind VP8X, with 2 among the flags in byte 20.
    flags = tf.io.decode_raw(_part(encoded, 20, 1), tf.uint8)
    is_animation = (_part(encoded, 12, 4) == b"VP8X") & tf.reduce_any(flags & 2 != 0)
    return _decoded(tf.where(is_animation, b"", encoded))


def _orientation(tiff: tf.Tensor) -> tf.Tensor:
    """Orientation in an EXIF segment: int32 [], from 1 to 8; 1 where it is not told or not so.

    Args:
        tiff: What follows "Exif", a string scalar. TIFF 6.0, section 2: byte order, 42, where the
            first directory begins; there the number of entries, and entries of 12 bytes, which are
            tag, type, count and, if it is small, the value.
    """
    is_little_endian = _part(tiff, 0, 4) == b"II*\0"
    is_tiff = is_little_endian | (_part(tiff, 0, 4) == b"MM\0*")

    def words(text: tf.Tensor, count: int) -> tf.Tensor:
        """Numbers of 2 bytes [count]; what is beyond the end is 0."""
        little, big = (
            tf.io.decode_raw(text, tf.uint16, little_endian=order, fixed_length=2 * count)
            for order in (True, False)
        )
        return tf.cast(tf.where(is_little_endian, little, big), tf.int32)

    size = tf.strings.length(tiff)
    start = tf.reduce_sum(words(tiff, 4)[2:] * tf.where(is_little_endian, [1, 2**16], [2**16, 1]))
    start = tf.where((start >= 0) & (start < size), start, size)  # Negative from 2**31 on.
    directory = words(_part(tiff, start, size), 1 + 6 * MOST_ENTRIES)
    entries = tf.reshape(directory[1:], [MOST_ENTRIES, 6])[: directory[0]]
    value = tf.reduce_max(tf.where(entries[:, 0] == ORIENTATION_TAG, entries[:, 4], 0))
    return tf.where(is_tiff & (value >= 1) & (value <= 8), value, 1)


def _turn(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Makes an image [height, width, 3] upright."""
    image = tf.transpose(image, tf.where(orientation > 4, [1, 0, 2], [0, 1, 2]))
    row_step = tf.gather(ROW_STEPS, orientation - 1)
    column_step = tf.gather(COLUMN_STEPS, orientation - 1)
    return image[::row_step, ::column_step]


def _on_white(image: tf.Tensor) -> tf.Tensor:
    """Grey, grey and alpha, RGB or RGBA [height, width, 1 to 4] to RGB [height, width, 3]."""

    def composed() -> tf.Tensor:
        # In 16 bits, which takes half the memory of floats. y = x + 128 makes (y + y / 256) / 256
        # exactly x / 255, rounded.
        colours, alpha = (tf.cast(part, tf.uint16) for part in (image[..., :-1], image[..., -1:]))
        weighted = colours * alpha + (255 * (255 - alpha) + 128)
        return tf.cast((weighted + weighted // 256) // 256, tf.uint8)

    shape = tf.shape(image)
    image = tf.cond(shape[2] % 2 == 0, composed, lambda: image)
    return tf.broadcast_to(image, [shape[0], shape[1], 3])
