"""Attention maps and captioned pictures: where they are bright, and how text fits."""

import io

import numpy as np
import pytest
from PIL import Image

from caption_gan.reporting.pictures import (
    TILE_WIDTH,
    attention_picture,
    attention_tiles,
    captioned_picture,
    png,
    read_picture,
)


def plain(width: int = 80, height: int = 60, colour: tuple[int, int, int] = (90, 120, 150)):
    return png(Image.new("RGB", (width, height), colour))


def one_hot(rows: int, columns: int, row: int, column: int) -> np.ndarray:
    attention = np.zeros((rows, columns), np.float32)
    attention[row, column] = 1
    return attention


def words_of(picture: Image.Image, count: int) -> list[np.ndarray]:
    """Pixels of each word below the tiles of a picture with one row."""
    step = (picture.width - 8) // count
    pixels = np.asarray(picture)[-32:]
    return [pixels[:, 8 + index * step : 8 + index * step + TILE_WIDTH] for index in range(count)]


def test_attended_regions_are_bright_and_others_dark() -> None:
    image = plain()
    attention = np.stack([one_hot(4, 4, 0, 0), one_hot(4, 4, 3, 3)])
    first, second = (
        np.asarray(tile, float).mean(axis=2) for tile in attention_tiles(image, attention)
    )
    height, width = first.shape
    original = np.mean((90, 120, 150))
    upper_left = np.s_[: height // 8, : width // 8]
    lower_right = np.s_[-(height // 8) :, -(width // 8) :]
    assert first[upper_left].mean() > original > first[lower_right].mean()
    assert second[lower_right].mean() > original > second[upper_left].mean()


def test_uniform_attention_of_any_scale_brightens_the_whole_image() -> None:
    even = np.full((1, 3, 5), 1 / 15)
    (tile,) = attention_tiles(plain(), even)
    assert np.asarray(tile).std(axis=(0, 1)).max() < 1
    assert np.asarray(tile).mean() > np.mean((90, 120, 150))
    (scaled,) = attention_tiles(plain(), even * 1e-3)
    assert np.array_equal(np.asarray(scaled), np.asarray(tile))


def test_attention_is_smooth() -> None:
    (tile,) = attention_tiles(plain(), one_hot(4, 4, 1, 2)[None])
    steps = np.abs(np.diff(np.asarray(tile, int), axis=1))
    assert steps.max() < 25  # A hard edge of a region would be a step of more than 80.


def test_zero_attention_is_dark() -> None:
    for nothing in (np.zeros((1, 2, 2)), np.full((1, 2, 2), np.nan)):
        (tile,) = attention_tiles(plain(), nothing)
        assert np.asarray(tile).max() < 90


def test_words_are_in_order_below_their_tiles() -> None:
    attention = np.stack([one_hot(3, 3, 1, 1)] * 3)
    forwards = words_of(attention_picture(plain(), ["one", "two", "three"], attention), 3)
    backwards = words_of(attention_picture(plain(), ["three", "two", "one"], attention), 3)
    for word, same in zip(forwards, reversed(backwards), strict=True):
        assert np.array_equal(word, same)
    assert not np.array_equal(forwards[0], forwards[2])


def test_row_has_at_most_eight_words() -> None:
    def size(count: int) -> tuple[int, int]:
        return attention_picture(plain(), ["word"] * count, np.ones((count, 2, 2))).size

    assert size(9)[0] == size(8)[0] > size(7)[0]
    assert size(9)[1] == size(16)[1] > 1.8 * size(8)[1]


def test_caption_without_words_shows_the_image() -> None:
    picture = attention_picture(plain(), [], np.zeros((0, 7, 7)))
    assert picture.width >= TILE_WIDTH


@pytest.mark.parametrize("size", [(2000, 10), (10, 2000), (1, 1)])
def test_extreme_proportions(size: tuple[int, int]) -> None:
    (tile,) = attention_tiles(plain(*size), np.ones((1, 7, 7)))
    assert 1 <= tile.width <= TILE_WIDTH
    assert 1 <= tile.height <= 1.5 * TILE_WIDTH
    assert captioned_picture(plain(*size), ["a caption"]).width > TILE_WIDTH


def test_long_and_non_latin_words_fit_below_their_tiles() -> None:
    tokens = ["supercalifragilistic" * 3, "собака", "chien-là"]
    picture = attention_picture(plain(), tokens, np.ones((3, 2, 2)))
    pixels = np.asarray(picture)[-32:]
    gap = np.s_[:, 8 + TILE_WIDTH : 16 + TILE_WIDTH]
    assert (pixels[gap] == 255).all()
    assert len({word.tobytes() for word in words_of(picture, 3)}) == 3


def test_attention_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="3 grids for 2 tokens"):
        attention_picture(plain(), ["a", "dog"], np.ones((3, 2, 2)))
    with pytest.raises(ValueError, match=r"\[T, rows, columns\].*\(2, 49\)"):
        attention_tiles(plain(), np.ones((2, 49)))


def test_captioned_picture_grows_with_wrapped_lines() -> None:
    none, one, two, wrapped = (
        captioned_picture(plain(), lines)
        for lines in ([], ["a dog"], ["a dog", "a cat"], ["a dog runs " * 6])
    )
    assert none.width == one.width == two.width == wrapped.width
    assert none.height < one.height < two.height < wrapped.height + 1
    letters = captioned_picture(plain(), ["x" * 200])
    assert (np.asarray(letters)[:, -4:] == 255).all()


def test_pictures_are_decoded_as_for_the_captioner() -> None:
    buffer = io.BytesIO()
    Image.new("RGBA", (4, 4), (200, 100, 50, 0)).save(buffer, format="PNG")
    assert read_picture(buffer.getvalue()).getpixel((0, 0)) == (200, 100, 50)
    deep = io.BytesIO()
    Image.fromarray(np.full((4, 4), 0x8040, np.uint16)).save(deep, format="PNG")
    assert read_picture(deep.getvalue()).getpixel((0, 0)) == (128, 128, 128)
    for broken in (b"", b"no image", plain()[:60]):
        with pytest.raises(OSError):
            read_picture(broken)


def test_same_input_gives_the_same_bytes() -> None:
    attention = np.random.default_rng(0).random((3, 7, 7))
    once, again = (png(attention_picture(plain(), ["a", "dog", "."], attention)) for _ in range(2))
    assert once == again
    assert np.array_equal(
        np.asarray(read_picture(once)),
        np.asarray(attention_picture(plain(), ["a", "dog", "."], attention)),
    )
