"""Explains why bytes do not decode as an image, and what to do.

The description works in the graph, so that a served model can give it too; outside of graphs,
`why_undecodable` also knows the size of images that are too large.
"""

import io

import tensorflow as tf
from PIL import Image

from caption_gan.data.images import MAX_PIXELS

# Most pixels of the formats that decode. TensorFlow's decoders return at most 2^29 values of JPEG,
# which has 3 a pixel, 2^29 pixels of PNG, and read 2^30 bytes of BMP, here of 3 a pixel.
_LIMITS = {"JPEG": 2**29 // 3, "PNG": 2**29 - 1, "GIF": MAX_PIXELS, "BMP": 2**30 // 3}
_DAMAGED = {
    "JPEG": "a JPEG file that is damaged or cut off",
    "PNG": "a PNG file that is damaged or cut off",
    "GIF": "a GIF file that is damaged or cut off",
    "BMP": "a BMP file that is damaged, cut off, compressed or of 1, 4 or 16 bits",
}
_WEBP = "a WebP file that is damaged or cut off"
_ANIMATED_WEBP = "an animated WebP file; save one of its frames as PNG or JPEG"
_CONVERT = "convert it to PNG or JPEG"
_UNKNOWN = "of an unknown format; give PNG, JPEG, GIF, BMP or WebP"

# First bytes of files by format.
_SUPPORTED = {"JPEG": b"\xff\xd8\xff", "PNG": b"\x89PNG", "GIF": b"GIF8", "BMP": b"BM"}
_BRANDS = {
    "HEIC": (b"heic", b"heix", b"heif", b"hevc", b"heim", b"mif1", b"msf1"),
    "AVIF": (b"avif", b"avis"),
    "MP4": (b"isom", b"mp41", b"mp42", b"qt  "),
}
_OTHERS: dict[bytes, str] = {
    b"II*\0": f"a TIFF file; {_CONVERT}",
    b"MM\0*": f"a TIFF file; {_CONVERT}",
    b"%PDF": f"a PDF file; {_CONVERT}",
    b"8BPS": f"a Photoshop file; {_CONVERT}",
    b"\0\0\1\0": f"an icon (ICO); {_CONVERT}",
    b"\xff\x0a": f"a JPEG XL file; {_CONVERT}",
    b"\0\0\0\x0cJXL ": f"a JPEG XL file; {_CONVERT}",
    b"\0\0\0\x0cjP  ": f"a JPEG 2000 file; {_CONVERT}",
    b"PK\3\4": "a ZIP archive; extract its images",
    b"\x1f\x8b": "a gzip archive; extract its images",
    b"<svg": f"an SVG file; {_CONVERT}",
    b"<?xml": f"XML text, such as SVG; {_CONVERT}",
    b"{": "JSON text; the download of the image may have failed",
    b"version https://git-lfs": "a Git LFS pointer; fetch the image with `git lfs pull`",
    b"data:image/": "a data URL; give the bytes that it encodes in Base64",
    b"/9j/": "Base64 text; decode it to the bytes of the image",
    b"iVBORw0KGgo": "Base64 text; decode it to the bytes of the image",
} | dict.fromkeys(
    (b"<!DOCTYPE", b"<!doctype", b"<html", b"<HTML", b"<head"),
    "an HTML page; the download of the image may have failed",
)
_HEAD = 64  # Bytes that hold all of these, after white space.


def describe_undecodable(image_bytes: tf.Tensor) -> tf.Tensor:
    """Names what undecodable bytes are, judged by their first bytes; string [B].

    Args:
        image_bytes: string [B].
    """
    head = _slice(image_bytes, 0, _HEAD)
    text = tf.strings.strip(tf.strings.regex_replace(head, "^\ufeff", ""))
    described = tf.fill(tf.shape(image_bytes), _UNKNOWN)

    def describe(condition: tf.Tensor, description: str) -> None:
        nonlocal described
        described = tf.where(condition, description, described)

    for start, description in _OTHERS.items():
        is_text = start.isascii() and start.decode().isprintable()
        describe(_slice(text if is_text else head, 0, len(start)) == start, description)
    for name, brands in _BRANDS.items():
        has_brand = tf.reduce_any([_slice(head, 8, 4) == brand for brand in brands], axis=0)
        article = "an" if name in ("AVIF", "MP4") else "a"
        describe((_slice(head, 4, 4) == b"ftyp") & has_brand, f"{article} {name} file; {_CONVERT}")
    for name, start in _SUPPORTED.items():
        too_large = f", or has more than {_LIMITS[name]:,} pixels"
        describe(_slice(head, 0, len(start)) == start, _DAMAGED[name] + too_large)
    is_webp = (_slice(head, 0, 4) == b"RIFF") & (_slice(head, 8, 4) == b"WEBP")
    describe(is_webp, _WEBP)
    flags = tf.io.decode_raw(_slice(head, 20, 1), tf.uint8, fixed_length=1)[:, 0]
    is_animated = is_webp & (_slice(head, 12, 4) == b"VP8X") & (flags & 2 != 0)
    describe(is_animated, _ANIMATED_WEBP)
    describe(tf.strings.length(image_bytes) == 0, "empty")
    return described


def why_undecodable(image: bytes) -> str:
    """Explains why bytes do not decode as an image, and what to do.

    Returns:
        The end of a sentence that begins with `it is`.
    """
    for name, start in _SUPPORTED.items():
        if image.startswith(start):
            return _why_too_large(image, name) or _DAMAGED[name]
    return describe_undecodable(tf.constant([image]))[0].numpy().decode()


def _why_too_large(image: bytes, name: str) -> str | None:
    Image.preinit()
    try:
        # Not Image.open, which refuses large images.
        width, height = Image.OPEN[name][0](io.BytesIO(image), "").size
    except (OSError, SyntaxError, ValueError):
        return None
    limit = _LIMITS[name]
    if width * height <= limit:
        return None
    return (
        f"too large: {width:,} x {height:,} pixels, but a {name} file may have {limit:,}; "
        "make it smaller"
    )


def _slice(text: tf.Tensor, position: int, count: int) -> tf.Tensor:
    """Bytes [B] at a position; fewer, or none, at the end of a text."""
    positions = tf.minimum(tf.strings.length(text), position)
    return tf.strings.substr(text, positions, tf.fill(tf.shape(positions), count))
