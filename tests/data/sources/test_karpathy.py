"""Karpathy's split files, valid and invalid."""

import json

import pytest

from caption_gan.data.skips import Skips
from caption_gan.data.sources.image_files import ImageFile
from caption_gan.data.sources.karpathy import read_karpathy
from caption_gan.errors import CaptionGANError


def image(name: str, split: str, *captions: str, **more) -> dict:
    """A record as in the files."""
    sentences = [{"raw": caption, "tokens": caption.split()} for caption in captions]
    return {"filename": name, "split": split, "sentences": sentences, "imgid": 0, **more}


def read(tmp_path, content, skips: Skips | None = None):
    path = tmp_path / "dataset.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_karpathy(str(path), lambda name: f"/images/{name}", skips or Skips())


def test_restval_is_part_of_train_and_captions_are_raw(tmp_path):
    images = [
        image("a.jpg", "train", "A dog.", "Dogs"),
        image("b.jpg", "test", "A cat."),
        image("c.jpg", "restval", "A fish.", filepath="val2014"),
        image("d.jpg", "val"),
    ]
    assert read(tmp_path, {"images": images, "dataset": "coco"}) == {
        "train": [
            ImageFile("a.jpg", "/images/a.jpg", ("A dog.", "Dogs")),
            ImageFile("c.jpg", "/images/val2014/c.jpg", ("A fish.",)),
        ],
        "val": [ImageFile("d.jpg", "/images/d.jpg")],
        "test": [ImageFile("b.jpg", "/images/b.jpg", ("A cat.",))],
    }


def test_an_image_of_an_unknown_split_is_counted(tmp_path):
    skips = Skips()
    images = [image("a.jpg", "train", "A dog."), image("b.jpg", "extra", "A cat.")]
    assert list(read(tmp_path, {"images": images}, skips)) == ["train"]
    assert skips.lines() == ["1 images are of an unknown split 'extra': b.jpg"]


def test_records_that_are_null_or_badly_typed_are_counted_with_their_value(tmp_path):
    good = image("a.jpg", " Train", "A", filepath=None)
    good["sentences"] += [None, {"raw": None}, {"raw": 3}, {"raw": ""}, {"raw": ["B", "C"]}, "D"]
    images = [
        None,
        good,
        image("", "train", "E"),
        image("b.jpg", None, "F"),
        image(5, "train", "G"),
    ]
    images += [{**image("c.jpg", "train"), "sentences": None}, image("d.jpg", "val", filepath=3)]
    skips = Skips()
    assert read(tmp_path, {"images": images}, skips) == {
        "train": [ImageFile("a.jpg", "/images/a.jpg", ("A", "", "B", "C", "D"))],
        "val": [ImageFile("d.jpg", "/images/d.jpg")],
    }
    assert skips.lines() == [
        "3 images of dataset.json have no filename that is a text: "
        "number 1 (null), number 3 (''), number 5 (5)",
        "1 images of dataset.json have no sentences that is a list: number 6 (null)",
        "1 images of dataset.json have no split that is a text: number 4 (null)",
        '3 sentences have no raw text: null of a.jpg, {"raw": null} of a.jpg, {"raw": 3} of a.jpg',
    ]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"images": [{"filename": "a.j', r"is not JSON, or is truncated: .*char 25\)"),
        ("", r"is not JSON, or is truncated: .*char 0\)"),
        ([], r"the lists images; found \[\]"),
        ({}, r"the lists images; found the keys \(none\)"),
        ({"info": 1, "images": {}}, "the lists images; found as 'images' {}"),
        ({"images": [image("a.jpg", "val")]}, "no image of a known split has a caption."),
        (
            {"images": [{"filename": "b.jpg", "sentences": []}, None]},
            "none of the images can be used; in number 1 'split' .* the keys filename, sentences",
        ),
        (
            {"images": [{"filename": "b.jpg", "split": "val", "sentences": [{"tokens": []}]}]},
            r"1 sentences have no raw text: {\"tokens\": \[\]} of b.jpg",
        ),
        ({"images": [3]}, r"in number 1 'filename' is no value that is a text: found 3"),
        (
            {"images": [image("a.jpg", "x", "A")]},
            "no image of a known split has a caption. 1 images .* split 'x': a.jpg",
        ),
    ],
)
def test_an_invalid_file_is_a_one_line_error(tmp_path, content, expected):
    with pytest.raises(CaptionGANError, match=rf"^[^\n]*dataset\.json[^\n]*{expected}[^\n]*$"):
        read(tmp_path, content)


def test_error_names_a_missing_file(tmp_path):
    with pytest.raises(CaptionGANError, match=r"none\.json is missing; expected JSON"):
        read_karpathy(str(tmp_path / "none.json"), str, Skips())


def test_lists_written_as_text(tmp_path):
    skips = Skips()
    images = [image("a.jpg", "train", "['A dog', 'A wolf']"), image("b.jpg", "test", '["A cat"]')]
    splits = read(tmp_path, {"images": images}, skips)
    assert splits["train"][0].captions == ("A dog", "A wolf")
    assert skips.notes == ["2 texts of dataset.json are lists; each item is a caption"]
