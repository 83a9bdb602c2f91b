"""Precomputed features with captions, and the encoder that reads them."""

import io

import numpy as np
import pytest
from PIL import Image

from caption_gan.config.data import DataConfig
from caption_gan.data.skips import Skips
from caption_gan.data.sources.features import open_features
from caption_gan.data.sources.splits import assign_splits
from caption_gan.errors import CaptionGANError
from caption_gan.models.encoders.precomputed import PrecomputedEncoder


def write(folder, captions, links=None):
    """Writes features whose row n contains n + 1."""
    folder.mkdir(exist_ok=True)
    rows = captions.count("\n")
    np.save(folder / "features.npy", np.arange(1, rows + 1)[:, None] * np.ones((1, 3)))
    (folder / "captions.en").write_bytes(captions.encode())
    if links is not None:
        (folder / "links.txt").write_text(links)


def open_root(root, held_out=0):
    return open_features(DataConfig("features", str(root), held_out=held_out), Skips())


def read(source, split="train"):
    return list(source.examples(split, range(source.images_of_split[split])))


def test_items_of_splits_have_their_features(tmp_path):
    write(tmp_path / "train", "a dog ### it runs\na cat\n")
    write(tmp_path / "Validation", "a fish\n\na bird\n")
    source = open_root(tmp_path)
    first, second = read(source)
    assert (first.image_id, first.captions) == ("train-000000", ("a dog", "it runs"))
    assert (second.image_id, second.captions) == ("train-000001", ("a cat",))
    # Empty captions are counted later.
    assert [example.captions for example in read(source, "val")] == [
        ("a fish",),
        ("",),
        ("a bird",),
    ]
    encoder = PrecomputedEncoder(str(tmp_path))
    for split in ("train", "val"):
        for number, example in enumerate(read(source, split), 1):
            np.testing.assert_array_equal(encoder.read(example.image_id), np.full((1, 3), number))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_end_in_all_usual_ways(tmp_path, end):
    write(tmp_path, "a\u2028dog\nb\n", "my dog.png\nb.png\n")
    for name in ("captions.en", "links.txt"):
        text = (tmp_path / name).read_text(encoding="utf-8")
        (tmp_path / name).write_bytes(text.replace("\n", end).encode("utf-16"))
    first, second = read(open_root(tmp_path))
    assert (first.captions, second.captions) == (("a\u2028dog",), ("b",))


def test_lists_written_as_text(tmp_path):
    write(tmp_path, "['a dog', 'it runs']\n['a cat']\n")
    assert [example.captions for example in read(open_root(tmp_path))] == [
        ("a dog", "it runs"),
        ("a cat",),
    ]


def test_a_carriage_return_in_a_caption_is_part_of_it(tmp_path):
    write(tmp_path, "a\rdog\nb\n")
    assert [example.captions for example in read(open_root(tmp_path))] == [("a\rdog",), ("b",)]


def test_without_splits_items_are_held_out(tmp_path):
    write(tmp_path, "".join(f"{number}\n" for number in range(40)))
    source = open_root(tmp_path, held_out=0.2)
    encoder = PrecomputedEncoder(str(tmp_path))
    for split in ("train", "val", "test"):
        names = [f"{number:06d}" for number in range(40)]
        expected = [name for name in names if assign_splits(names, 0.2)[name] == split]
        assert expected and [example.image_id for example in read(source, split)] == expected
        for example in read(source, split):
            (caption,) = example.captions
            expected_regions = np.full((1, 3), int(caption) + 1)
            np.testing.assert_array_equal(encoder.read(example.image_id), expected_regions)


def test_items_with_the_same_link_are_one_image(tmp_path):
    write(tmp_path, "a\nb\nc\nd\ne\n", "1.jpg\nhttp://far/2.jpg\n1.jpg\n\n\n")
    assert [(example.image_id, example.captions) for example in read(open_root(tmp_path))] == [
        ("000000", ("a", "c")),
        ("000001", ("b",)),
        ("000003", ("d",)),
        ("000004", ("e",)),
    ]


def test_missing_images_are_grey(tmp_path):
    elsewhere = tmp_path / "elsewhere.png"
    elsewhere.write_bytes(b"elsewhere")
    write(tmp_path / "train", "a\nb\nc\nd\n", f"a.png\n{elsewhere}\nhttp://far/c.png\ngone.png\n")
    (tmp_path / "train" / "a.png").write_bytes(b"beside")
    first, second, third, fourth = (example.image for example in read(open_root(tmp_path)))
    assert (first, second) == (b"beside", b"elsewhere")
    assert third == fourth
    assert Image.open(io.BytesIO(third)).getcolors() == [(64 * 64, (128, 128, 128))]


def test_the_fingerprint_changes_with_the_files(tmp_path):
    write(tmp_path, "a\nb\n")
    before = open_root(tmp_path).fingerprint
    assert open_root(tmp_path).fingerprint == before
    assert open_root(tmp_path, held_out=0.1).fingerprint != before
    write(tmp_path, "a\nb\n", "a.png\nb.png\n")
    assert open_root(tmp_path).fingerprint != before


def break_captions(root):
    (root / "captions.en").unlink()
    return r"captions\.en is missing; expected one line for each row"


def break_lines(root):
    (root / "captions.en").write_text("a\nb\nc\n")
    return r"captions\.en has 3 lines and features\.npy 2 rows"


def break_links(root):
    (root / "links.txt").write_text("a.png")
    return r"links\.txt has 1 lines and features\.npy 2 rows"


def break_features(root):
    (root / "features.npy").write_text("no numbers")
    return r"features\.npy cannot be read"


def break_pointer(root):
    (root / "features.npy").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    return r"features\.npy cannot be read: it is a pointer of Git LFS"


def break_name(root):
    (root / "features.npy").rename(root / "regions.npy")
    return r"has no features\.npy"


@pytest.mark.parametrize(
    "damage", [break_captions, break_lines, break_links, break_features, break_pointer, break_name]
)
def test_an_invalid_layout_is_a_one_line_error(tmp_path, damage):
    write(tmp_path, "a\nb\n")
    words = damage(tmp_path)
    with pytest.raises(CaptionGANError, match=rf"^[^\n]*{words}[^\n]*$"):
        open_root(tmp_path)


def test_features_must_be_on_disk():
    with pytest.raises(CaptionGANError, match="gs://bucket/features is not on disk"):
        open_root("gs://bucket/features")
