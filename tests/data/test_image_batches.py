"""Decoding of images compared with Pillow, and batches in which some rows are not images."""

import io
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from caption_gan.data.image_batches import NO_BYTES, NO_IMAGE, read_images
from caption_gan.data.images import decode_and_resize, decode_image, is_image

WIDTH, HEIGHT = 32, 24
ORIENTATION = 0x0112
_across, _down = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
PIXELS = np.stack([_across * 8, _down * 10, (_across + _down) * 4], axis=-1).astype(np.uint8)
RGB = Image.fromarray(PIXELS)
RGBA = Image.fromarray(np.dstack([PIXELS, _across * 8]).astype(np.uint8))
GREY, PALETTE, BLACK_OR_WHITE = RGB.convert("L"), RGB.quantize(50), RGB.convert("1")
DEEP = (PIXELS.astype(np.uint16) * 257) ^ 0x55


def saved(image: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format=kind, **options)
    return stream.getvalue()


def decoded_by_pillow(encoded: bytes) -> np.ndarray:
    """The image as decoded by Pillow, upright and on white."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded))).convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return np.asarray(Image.alpha_composite(white, image).convert("RGB"))


def decoded(encoded: bytes) -> np.ndarray:
    return decode_image(encoded).numpy()


def with_exif(orientation: int, order: str = "<") -> bytes:
    exif = Image.Exif()
    exif.endian = order
    exif[0x010F] = "a camera's maker"
    exif[ORIENTATION] = orientation
    return saved(RGB, "JPEG", exif=exif.tobytes())


PNG = partial(saved, kind="PNG")
WEBP = partial(saved, kind="WEBP", lossless=True, exact=True)
LOSSLESS = {
    "png": PNG(RGB),
    "png, alpha": PNG(RGBA),
    "png, grey": PNG(GREY),
    "png, grey and alpha": PNG(RGBA.convert("LA")),
    "png, 1 bit": PNG(BLACK_OR_WHITE),
    "png, palette": PNG(PALETTE),
    "png, palette of 1 bit": PNG(RGB.quantize(2), bits=1),
    "png, palette with one transparent colour": PNG(PALETTE, transparency=3),
    "png, palette with alpha": PNG(PALETTE, transparency=bytes(range(0, 250, 5))),
    "png, one transparent grey": PNG(GREY, transparency=100),
    "png, one transparent colour": PNG(RGB, transparency=(0, 0, 0)),
    "png, 1 bit, black is transparent": PNG(BLACK_OR_WHITE, transparency=0),
    "png, 16 bits": tf.io.encode_png(DEEP).numpy(),
    "gif": saved(PALETTE, "GIF"),
    "gif, animated": saved(PALETTE, "GIF", save_all=True, append_images=[PALETTE.rotate(180)]),
    "bmp": saved(RGB, "BMP"),
    "bmp, palette": saved(PALETTE, "BMP"),
    "bmp, 32 bits": saved(RGBA, "BMP"),
    "webp": WEBP(RGB),
    "webp, alpha": WEBP(RGBA),
}
CMYK = saved(RGB.convert("CMYK"), "JPEG")
LOSSY = {
    "jpeg": saved(RGB, "JPEG"),
    "jpeg, grey": saved(GREY, "JPEG"),
    "jpeg, progressive": saved(RGB, "JPEG", progressive=True),
    "jpeg, cmyk": CMYK,
    "jpeg, ycck": CMYK.replace(b"Adobe\0\x64\0\0\0\0\0", b"Adobe\0\x64\0\0\0\0\2"),
    "webp": saved(RGB, "WEBP"),
}
ALL = [*LOSSLESS.values(), *LOSSY.values(), with_exif(6)]


@pytest.mark.parametrize("name", LOSSLESS)
def test_lossless_formats_equal_pillow(name):
    assert np.array_equal(decoded(LOSSLESS[name]), decoded_by_pillow(LOSSLESS[name]))


@pytest.mark.parametrize("name", LOSSY)
def test_lossy_formats_nearly_equal_pillow(name):
    # TensorFlow's fast transform (JDCT_IFAST) differs by a few levels.
    assert np.abs(decoded(LOSSY[name]).astype(int) - decoded_by_pillow(LOSSY[name])).max() <= 6


def test_16_bit_grey_keeps_its_upper_8_bits():
    # Pillow clips 16-bit grey at 255 instead.
    encoded = PNG(Image.fromarray(DEEP[..., 0]))
    assert np.array_equal(decoded(encoded), np.repeat(DEEP[..., :1] >> 8, 3, axis=2))


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("orientation", range(10))
def test_jpeg_is_upright(orientation, order):
    encoded = with_exif(orientation, order)
    assert np.abs(decoded(encoded).astype(int) - decoded_by_pillow(encoded)).max() <= 6


def test_exif_is_found_at_all_valid_places():
    plain, turned = decoded(saved(RGB, "JPEG")), decoded(with_exif(3))
    assert np.array_equal(turned, plain[::-1, ::-1])
    exif = with_exif(3)
    segment = exif[20 : exif.index(b"\xff\xdb")]  # After 20 bytes of JFIF.
    jpeg = saved(RGB, "JPEG", comment=b"a comment", icc_profile=bytes(100_000))
    tables = jpeg.index(b"\xff\xdb")
    for encoded in (
        jpeg[:tables] + segment + jpeg[tables:],  # Last before the tables.
        jpeg[:2] + segment + jpeg[20:],  # First, without a JFIF segment.
    ):
        assert np.array_equal(decoded(encoded), turned)


@pytest.mark.parametrize("order", "<>")
def test_invalid_exif_means_upright(order):
    plain, encoded = decoded(saved(RGB, "JPEG")), with_exif(6, order)
    little = order == "<"
    tiff = encoded.index(b"Exif\0\0") + 6
    number = partial(int.to_bytes, byteorder="little" if little else "big")
    for place, wrong in (
        (0, b"XX"),  # No byte order.
        (2, number(43, 2)),
        (4, number(2**16, 4)),  # The directory is beyond the end,
        (4, number(2**32 - 8, 4)),  # far beyond.
        (8, number(0, 2)),  # The directory is empty.
        (22, number(ORIENTATION + 1, 2)),  # Another tag.
        (30, number(9, 2)),
    ):
        changed = bytearray(encoded)
        changed[tiff + place : tiff + place + len(wrong)] = wrong
        assert np.array_equal(decoded(bytes(changed)), plain), (place, wrong)
    too_many = bytearray(encoded)
    too_many[tiff + 8 : tiff + 10] = number(2**16 - 1, 2)  # More entries than there can be.
    assert np.array_equal(decoded(bytes(too_many)), decoded(encoded))


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (21, 7)])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF", "WEBP"])
def test_odd_sizes(size, kind):
    encoded = saved(Image.new("RGB", size, "white"), kind)
    assert decoded(encoded).shape == (size[1], size[0], 3)
    pixels, error = read_images(tf.constant([encoded]), 8, 8)
    assert error.numpy().tolist() == [b""]
    assert pixels.numpy().min() >= 253


@pytest.mark.parametrize("kind, mode", [("JPEG", "RGB"), ("PNG", "RGBA")])
def test_an_image_of_64_megapixels(kind, mode):
    encoded = saved(Image.new(mode, (8000, 8000), "red"), kind)
    started = time.perf_counter()
    pixels, error = read_images(tf.constant([encoded]), 32, 32)
    assert time.perf_counter() - started < 30
    assert error.numpy().tolist() == [b""]
    assert np.abs(pixels.numpy().astype(int) - [255, 0, 0]).max() <= 2


def test_an_animated_webp_is_rejected():
    """TensorFlow would write outside its memory."""
    animated = WEBP(RGB, save_all=True, append_images=[RGB.rotate(180)])
    (error,) = read_images(tf.constant([animated]), 4, 4)[1].numpy()
    assert b"an animated WebP file" in error


@pytest.mark.parametrize("side, fine", [(64, True), (65_535, False)])
def test_a_gif_that_claims_gigabytes_is_rejected(side, fine):
    encoded = bytearray(saved(PALETTE, "GIF"))
    encoded[6:10] = 2 * side.to_bytes(2, "little")
    (error,) = read_images(tf.constant([bytes(encoded)]), 4, 4)[1].numpy()
    assert error == b"" if fine else b"more than 268,435,456 pixels" in error


SIDES = (6, 8)
read = tf.function(
    lambda batch: read_images(batch, *SIDES), input_signature=[tf.TensorSpec([None], tf.string)]
)
ALONE = {encoded: decode_and_resize(encoded, *SIDES).numpy() for encoded in ALL}
# The third made a decoder of TensorFlow allocate 5 exabytes.
BAD = [
    b"",
    b"no picture",
    b"\xff\n\xaeCc\xd8\xff\xe0",
    *(encoded[: len(encoded) // 3] for encoded in ALL),
]


def check(rows: list[bytes]) -> None:
    pixels, errors = (values.numpy() for values in read(tf.constant(rows, tf.string)))
    assert pixels.shape == (len(rows), *SIDES, 3)
    for encoded, image, error in zip(rows, pixels, errors, strict=True):
        if encoded and encoded not in ALONE:
            assert error.decode().startswith(NO_IMAGE)
        else:
            assert error.decode() == ("" if encoded else NO_BYTES)
        assert np.array_equal(image, ALONE.get(encoded, np.zeros_like(image)))


@pytest.mark.parametrize("position", range(5))
@pytest.mark.parametrize("bad", [b"", b"no picture", ALL[0][:60]])
def test_a_corrupt_row_does_not_affect_others(position, bad):
    check([*ALL[:position], bad, *ALL[position:4]])


def test_batches_without_good_rows_and_empty_batches():
    check(BAD)
    check([])


@settings(max_examples=100, deadline=None)
@given(rows=st.lists(st.sampled_from(ALL + BAD), max_size=12))
def test_rows_decode_as_in_a_batch_of_one(rows):
    check(rows)


@st.composite
def corrupted(draw) -> bytes:
    """An image with a few bytes changed, added or removed."""
    content = bytearray(draw(st.sampled_from(ALL)))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, min(len(content), draw(st.sampled_from([40, 5000])))))
        content[start : start + draw(st.integers(0, 4))] = draw(st.binary(max_size=4))
    return bytes(content)


@settings(max_examples=200, deadline=None)
@given(rows=st.lists(st.binary(max_size=80) | corrupted(), min_size=1, max_size=6))
def test_no_input_raises_an_error(rows):
    pixels, errors = read(tf.constant(rows))
    for encoded, image, error in zip(rows, pixels.numpy(), errors.numpy(), strict=True):
        assert is_image(encoded) == (error == b"")
        assert error == b"" or not image.any()


LOADING = """
import sys, numpy as np, tensorflow as tf
rows = np.load(sys.argv[2], allow_pickle=True).tolist()
pixels, error = tf.saved_model.load(sys.argv[1]).read(tf.constant(rows))
assert "caption_gan" not in sys.modules
np.savez(sys.argv[3], pixels=pixels, error=error.numpy().astype("S"))
"""


def test_a_saved_model_reads_the_same_in_another_process(tmp_path):
    module = tf.Module()
    module.read = read
    tf.saved_model.save(module, str(tmp_path / "model"))
    rows = [*ALL, b"", BAD[3]]
    np.save(tmp_path / "rows.npy", np.array(rows, dtype=object), allow_pickle=True)
    paths = [str(tmp_path / name) for name in ("model", "rows.npy", "result.npz")]
    subprocess.run([sys.executable, "-P", "-c", LOADING, *paths], cwd=tmp_path, check=True)
    loaded = np.load(paths[2])
    assert np.array_equal(loaded["pixels"][:-2], np.stack([ALONE[encoded] for encoded in ALL]))
    assert loaded["error"].tolist() == read(tf.constant(rows))[1].numpy().tolist()
    assert not any(loaded["error"][: len(ALL)])
