"""The data summary: overlaps, counts and coverage computed by hand; safe and self-contained."""

import re
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from PIL import Image

from caption_gan.data.example import Example
from caption_gan.data.shards.files import IndexedImage, PreparedSplit
from caption_gan.reporting.data_summary import overlaps, write_data_summary
from caption_gan.reporting.pictures import png
from tests.reporting.test_report import Page

NONE = "\N{EN DASH}"
EVIL = '<script>alert("1")</script> & <img src=x onerror=y>'


def split_of(
    split: str, images: Sequence[IndexedImage], skipped: Sequence[str], notes: Sequence[str] = ()
) -> PreparedSplit:
    """A split with lines on skipped data and on how the data were read."""
    words = SimpleNamespace(split=split, index=images, skipped=skipped, notes=notes)
    return cast(PreparedSplit, words)


def content(split: str, *images: tuple[str, str], captions: tuple[str, ...] = ()) -> PreparedSplit:
    """A split of images with the given ids and digests, all with the same captions."""
    return split_of(split, [IndexedImage(*image, captions) for image in images], [])


def captioned(split: str, *captions: tuple[str, ...]) -> PreparedSplit:
    """A split of different images with the given captions."""
    images = [IndexedImage(f"{split}-{n}", f"{split}{n}", of) for n, of in enumerate(captions)]
    return split_of(split, images, [])


def sample(**changes: Any) -> Example:
    values: dict[str, Any] = {
        "image_id": "a.png",
        "image": png(Image.new("RGB", (24, 16), (200, 90, 160))),
        "captions": ("a dog .",),
    }
    return Example(**(values | changes))


def write(path: Path, *splits: PreparedSplit, **changes: Any) -> Page:
    values: dict[str, Any] = {
        "title": "Before training",
        "command": "python -m caption_gan.prepare",
        "samples": [],
        "minimum_count": 2,
        "sequence_length": 20,
    }
    write_data_summary(str(path / "page.html"), splits=splits, **(values | changes))
    assert [file.name for file in path.iterdir()] == ["page.html"]
    return Page(path / "page.html")


def rows(section: str) -> dict[str, list[str]]:
    """Cells of the table by the label of the row."""
    found = re.findall(
        r'<tr[^>]*><th scope="row">(.*?)(?: <span.*?)?</th>(.*?)</tr>', section, re.S
    )
    return {label: re.findall(r"<td.*?>(.*?)</td>", cells) for label, cells in found}


def test_images_in_two_splits_are_listed() -> None:
    train = content("train", ("a", "1"), ("b", "2"), ("c", "3"), ("d", "4"))
    val = content("val", ("a", "1"), ("other", "2"), ("c", "other bytes"), ("new", "9"))
    test = content("test", ("x", "9"))
    assert overlaps([train, val, test]) == [
        "3 images of val are also in train: a, other = b, c (by name only)",
        "1 image of test is also in val: x = new",
    ]


def test_repeated_images_of_a_split_are_listed() -> None:
    train = content("train", ("a", "1"), ("b", "2"), ("a", "1"), ("c", "2"), ("d", "2"), ("e", "3"))
    val = content("val", ("v", "7"), ("v", "8"))
    assert overlaps([train, val]) == [
        "2 images of train occur more than once: a, b = c = d",
        "1 image of val occurs more than once: v (by name only)",
    ]


def test_at_most_five_names_are_listed() -> None:
    images = [(f"i{number}", str(number)) for number in range(1200)]
    (line,) = overlaps([content("train", *images), content("val", *images)])
    assert line == "1200 images of val are also in train: i0, i1, i2, i3, i4, ..."
    (line,) = overlaps([content("train", *images[:5]), content("val", *images[:5])])
    assert line == "5 images of val are also in train: i0, i1, i2, i3, i4"


@pytest.mark.parametrize(
    "splits",
    [
        [],
        [content("train")],
        [content("train"), content("val")],
        [content("train", ("a", "1"))],
        [content("train", ("a", "1")), content("val", ("b", "2")), content("test", ("c", "3"))],
    ],
)
def test_no_warning_without_overlaps(tmp_path: Path, splits: list[PreparedSplit]) -> None:
    assert overlaps(splits) == []
    page = write(tmp_path, *splits)
    assert 'class="warning"' not in page.raw
    assert "No image is in two splits" in page.text


def test_warning_comes_before_the_tables(tmp_path: Path) -> None:
    page = write(tmp_path, content("train", ("a", "1")), content("val", ("b", "1")))
    warning = page.text.index("1 image of val is also in train: b = a")
    assert warning < page.text.index("Do not trust") < page.text.index("distinct captions")
    assert "No image is in two splits" not in page.text


def test_splits_are_counted(tmp_path: Path) -> None:
    images = [
        IndexedImage("a", "1", ("one two three",)),
        IndexedImage("a", "2", ("One two  THREE", "one two three.", "one")),
        IndexedImage("b", "2", ("one", "two")),
    ]
    train, val = split_of("train", images, []), content("val")
    # Room for start, three words and end; the full stop is a word of its own.
    table = rows(write(tmp_path, train, val, sequence_length=5).section("splits"))
    assert table == {
        "images": ["3", "0"],
        "captions": ["6", "0"],
        "captions per image": ["1 · 2.00 · 3", NONE],
        "words per caption": ["1 · 4 · 4", NONE],
        "truncated captions": ["16.67%", NONE],
        "distinct captions": ["66.67%", NONE],
        "copies": ["1", "0"],
        "repeated names": ["1", "0"],
    }


def test_coverage_of_vocabularies_by_minimum_count(tmp_path: Path) -> None:
    # a: 4, dog: 3, cat: 2, runs: 1.
    train = captioned("train", ("a dog runs", "a dog"), ("A dog", "a cat", "cat"))
    # `[UNK]` is never covered; a caption without words does not count.
    val = captioned("val", ("a cat", "a [UNK]"), ("dog bird", ""))
    page = write(tmp_path, train, val, captioned("test", ("zebra",)), minimum_count=4)
    table = rows(page.section("vocabulary"))
    assert table == {
        "1": ["4", "100.00%", "66.67%", "100.00%", "33.33%"],
        "2": ["3", "90.00%", "66.67%", "80.00%", "33.33%"],
        "3": ["2", "70.00%", "50.00%", "40.00%", "0.00%"],
        "4 (setting)": ["1", "40.00%", "33.33%", "0.00%", "0.00%"],
        "5": ["0", "0.00%", "0.00%", "0.00%", "0.00%"],
        "10": ["0", "0.00%", "0.00%", "0.00%", "0.00%"],
        "20": ["0", "0.00%", "0.00%", "0.00%", "0.00%"],
    }
    assert page.section("vocabulary").count('class="marked"') == 1
    frequent = re.findall(r"<bdi>(.*?)</bdi> <span>(.*?)</span>", page.section("vocabulary"))
    assert frequent == [("a", "4"), ("dog", "3"), ("cat", "2"), ("runs", "1")]


def test_minimum_count_of_the_settings_is_listed_once(tmp_path: Path) -> None:
    page = write(tmp_path, captioned("train", ("a dog",)), minimum_count=3)
    assert list(rows(page.section("vocabulary"))) == ["1", "2", "3 (setting)", "5", "10", "20"]


def test_captions_in_several_blocks_are_counted(tmp_path: Path) -> None:
    # More than one block, with images across its border.
    captions = [(f"number {number % 3000}", "two words more") for number in range(6000)]
    page = write(tmp_path, captioned("train", *captions))
    table = rows(page.section("splits"))
    assert table["captions"] == ["12,000"]
    assert table["words per caption"] == ["2 · 3 · 3"]
    assert table["distinct captions"] == ["25.01%"]  # 3,001 of 12,000.


def test_notes_on_reading_are_listed_once(tmp_path: Path) -> None:
    notes = ["3 texts of captions are lists", "the column set says the splits"]
    page = write(tmp_path, split_of("train", [], [], notes), split_of("val", [], [], notes))
    assert re.findall(r"<li>(.*?)</li>", page.section("notes")) == notes


def test_skipped_data_are_listed_by_split(tmp_path: Path) -> None:
    lines = ["2 images do not decode: a.jpg, b.jpg", "1 images have no caption: c.jpg"]
    page = write(tmp_path, split_of("train", [], lines), split_of("val", [], []))
    skipped = page.section("skipped")
    assert re.findall(r"<li>(.*?)</li>", skipped) == lines
    assert re.findall(r"<h3>(.*?)</h3>", skipped) == ["train"]


def test_samples_are_shown_with_their_captions(tmp_path: Path) -> None:
    samples = [
        sample(image_id="photograph", captions=tuple(f"caption {n}" for n in range(7))),
        sample(image_id="broken", image=b"no image"),
        sample(image_id="cut short", image=sample().image[:50]),
        sample(image_id="thin", image=png(Image.new("RGBA", (3000, 2)))),
    ]
    shown = write(tmp_path, samples=samples).section("samples").split("</figure>")
    assert ["data:image/jpeg" in one for one in shown[:4]] == [True, False, False, True]
    assert ["no picture" in one for one in shown[:4]] == [False, True, True, False]
    assert re.findall(r"<bdi>(.*?)</bdi>", shown[0]) == [f"caption {n}" for n in range(5)]
    assert "and 2 more" in shown[0]
    assert 'width="320" height="1"' in shown[3]


def test_at_most_24_samples_are_shown(tmp_path: Path) -> None:
    page = write(tmp_path, samples=[sample(image_id=str(number)) for number in range(30)])
    assert re.findall(r'alt="Image (\d+)"', page.raw) == [str(number) for number in range(24)]


def test_text_from_data_is_escaped(tmp_path: Path) -> None:
    images = [IndexedImage(EVIL, "1", (EVIL, "<b>bold</b>"))]
    splits = [split_of(name, images, [EVIL]) for name in ("train", EVIL)]
    samples = [sample(image_id=f'"{EVIL}', captions=(EVIL,))]
    page = write(tmp_path, *splits, title=EVIL, command=EVIL, samples=samples)
    assert "<script" not in page.raw
    assert "<b>" not in page.raw
    assert "onerror" not in {name for _, attributes in page.elements for name in attributes}
    assert page.text.count(EVIL) >= 9


def test_page_is_self_contained(tmp_path: Path) -> None:
    splits = [captioned("train", ("a dog", "a cat")), captioned("val", ("a dog",))]
    page = write(tmp_path, *splits, samples=[sample()])
    assert page.raw.lstrip().startswith("<!DOCTYPE html>")
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)", re.sub(r'"data:.*?"', "", page.raw))
    identifiers = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    targets = {value for _, attributes in page.elements if (value := attributes.get("href"))}
    assert {target.removeprefix("#") for target in targets} <= set(identifiers)


@pytest.mark.parametrize(
    "splits",
    [
        [captioned("train", ("a dog",))],
        [captioned("val", ("a dog",))],
        [captioned("train", ()), captioned("val", ())],
        [captioned("train", ("", " \u200b")), captioned("val", ("a dog",))],
        [captioned("train", ("[UNK]",))],
        [captioned("train", ("a dog " * 100,))],
        [captioned("train", ("كلب يركض على العشب.", "كلب يركض"))],
        [captioned("train", ("half a pair \ud800 .", "nul \0", "🐕 $x^2$ \\frac"))],
    ],
)
def test_missing_and_unusual_data_are_accepted(tmp_path: Path, splits: list[PreparedSplit]) -> None:
    assert "Before training" in write(tmp_path, *splits, sequence_length=3).text


def test_right_to_left_text_is_isolated(tmp_path: Path) -> None:
    text = "كلب يركض على العشب"
    page = write(tmp_path, captioned("train", (text,)), samples=[sample(captions=(text,))])
    assert f"<bdi>{text}</bdi>" in page.section("samples")
    assert "<bdi>العشب</bdi> <span>1</span>" in page.section("vocabulary")


def test_same_data_give_the_same_bytes(tmp_path: Path) -> None:
    splits = [captioned("train", ("a dog", "a cat")), captioned("val", ("a dog",))]
    first = write(tmp_path, *splits, samples=[sample()]).raw
    assert write(tmp_path, *splits, samples=[sample()]).raw == first
