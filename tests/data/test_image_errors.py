"""Files that do not decode: the same words from the graph and in Python."""

import io
import struct
import zlib

import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from caption_gan.data.image_errors import describe_undecodable, why_undecodable
from caption_gan.data.images import is_image


def saved(kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.effect_noise((40, 30), 50).convert("RGB").save(stream, kind, **options)
    return stream.getvalue()


OTHERS = {
    b"": "empty",
    saved("TIFF"): "a TIFF file",
    saved("PDF"): "a PDF file",
    saved("ICO"): "an icon",
    saved("JPEG2000"): "a JPEG 2000 file",
    b"\0\0\0\x18ftypheic\0\0\0\0mif1": "a HEIC file; convert it to PNG or JPEG",
    b"\0\0\0\x20ftypmif1\0\0\0\0": "a HEIC file",
    b"\0\0\0\x1cftypavif\0\0\0\0": "an AVIF file",
    b'<svg xmlns="http://www.w3.org/2000/svg"/>': "an SVG file",
    b'\n  <?xml version="1.0"?><svg/>': "XML text, such as SVG",
    b"<!DOCTYPE html><html>": "an HTML page; the download",
    b"\xef\xbb\xbf\r\n<html>": "an HTML page",
    b'{"error": "not found"}': "JSON text",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:00": "`git lfs pull`",
    b"/9j/4AAQSkZJRgABAQ": "Base64 text",
    b"iVBORw0KGgoAAAANSUhEUg": "Base64 text",
    b"data:image/png;base64,iVBORw0KGgo": "a data URL",
    b"RIFF\0\0\0\0WAVE": "of an unknown format; give PNG",
    b"no pixels": "of an unknown format",
    saved("JPEG")[:200]: "a JPEG file that is damaged or cut off",
    saved("PNG")[:200]: "a PNG file that is damaged or cut off",
    saved("GIF")[:20]: "a GIF file that is damaged or cut off",
    saved("BMP")[:200]: "a BMP file that is damaged, cut off",
    saved("WEBP")[:200]: "a WebP file that is damaged or cut off",
    saved("WEBP", save_all=True, append_images=[Image.new("RGB", (40, 30))]): "an animated WebP",
}


@pytest.mark.parametrize("content", OTHERS)
def test_the_reason_says_what_the_file_is(content):
    assert not is_image(content)
    assert OTHERS[content] in why_undecodable(content)
    assert OTHERS[content] in describe_undecodable(tf.constant([content])).numpy()[0].decode()


def with_size(kind: str, place: int, form: str, *size: int) -> bytes:
    content = bytearray(saved(kind))
    packed = struct.pack(form, *size)
    if kind == "JPEG":
        place += content.index(b"\xff\xc0")
    content[place : place + len(packed)] = packed
    if kind == "PNG":
        content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))  # Of the header.
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "limit"),
    [
        (with_size("JPEG", 5, ">HH", 20_000, 30_000), "178,956,970"),
        (with_size("PNG", 16, ">II", 30_000, 20_000), "536,870,911"),
        (with_size("GIF", 6, "<HH", 30_000, 20_000), "268,435,456"),
        (with_size("BMP", 18, "<ii", 30_000, 20_000), "357,913,941"),
    ],
)
def test_images_that_are_too_large(content, limit):
    assert not is_image(content)
    assert why_undecodable(content).startswith("too large: 30,000 x 20,000 pixels")
    assert limit in why_undecodable(content)
    # The graph does not read the size.
    in_graph = describe_undecodable(tf.constant([content])).numpy()[0].decode()
    assert f"or has more than {limit} pixels" in in_graph


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(max_size=70) | st.sampled_from(list(OTHERS)), max_size=5))
def test_all_bytes_have_a_reason(contents):
    described = describe_undecodable(tf.constant(contents, tf.string)).numpy().tolist()
    assert described == [describe_undecodable(tf.constant([c])).numpy()[0] for c in contents]
    assert all(described)
