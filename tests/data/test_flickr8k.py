"""The Flickr8k layout, whole and broken."""

import io
from pathlib import Path

import pytest
from PIL import Image

from caption_gan.data.flickr8k import Flickr8kSource
from caption_gan.data.skips import Skips
from caption_gan.errors import CaptionGANError


def jpeg() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (20, 10), "red").save(stream, format="JPEG")
    return stream.getvalue()


@pytest.fixture
def root(tmp_path) -> Path:
    """Two training images and one validation image."""
    (tmp_path / "Images").mkdir()
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        (tmp_path / "Images" / name).write_bytes(jpeg())
    (tmp_path / "captions.txt").write_text(
        'image,caption\na.jpg,A dog .\na.jpg,"A dog , running ."\nb.jpg,A cat .\nc.jpg,A fish .\n'
    )
    (tmp_path / "Flickr_8k.trainImages.txt").write_text("a.jpg\nb.jpg\n")
    (tmp_path / "Flickr_8k.devImages.txt").write_text("c.jpg\n")
    return tmp_path


def test_examples_in_the_order_of_the_list(root):
    source = Flickr8kSource(root, Skips())
    first, second = source.examples("train")
    assert (first.image_id, first.captions) == ("a.jpg", ("A dog .", "A dog , running ."))
    assert (second.image_id, second.image) == ("b.jpg", jpeg())
    assert source.images_of_split == {"train": 2, "val": 1}


def test_what_is_missing_is_counted(root):
    (root / "Images" / "b.jpg").unlink()
    (root / "Flickr_8k.trainImages.txt").write_text("a.jpg\nb.jpg\nz.jpg\n")
    skips = Skips()
    assert [example.image_id for example in Flickr8kSource(root, skips).examples("train")] == [
        "a.jpg"
    ]
    assert skips.lines() == [
        "1 images are listed but not in Images/: b.jpg",
        "1 images have no caption in captions.txt: z.jpg",
    ]


def break_folder(root: Path) -> str:
    (root / "Images").rename(root / "pictures")
    return "has no folder Images"


def break_captions(root: Path) -> str:
    (root / "captions.txt").unlink()
    return "captions.txt is missing"


def break_header(root: Path) -> str:
    (root / "captions.txt").write_text("a.jpg#0\tA dog .\n")
    return "the first line must be 'image,caption'"


def break_split(root: Path) -> str:
    (root / "Flickr_8k.devImages.txt").write_text("\n")
    return "no images for the split 'val'"


@pytest.mark.parametrize(
    "break_something", [break_folder, break_captions, break_header, break_split]
)
def test_a_broken_layout_is_named(root, break_something):
    expected = break_something(root)
    with pytest.raises(CaptionGANError, match="^[^\n]*" + expected + "[^\n]*$"):
        Flickr8kSource(root, Skips())


def test_the_real_one(real_data):
    source = Flickr8kSource(real_data / "flickr8k", Skips())
    assert source.images_of_split == {"train": 6000, "val": 1000}
    first = next(source.examples("val"))
    assert len(first.captions) == 5
    assert Image.open(io.BytesIO(first.image)).size == (224, 224)
