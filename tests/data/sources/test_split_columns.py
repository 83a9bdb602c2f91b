"""Columns that say the splits."""

import pytest

from caption_gan.data.skips import Skips
from caption_gan.data.sources.split_columns import Row, divide
from caption_gan.errors import CaptionGANError


def rows(**columns):
    """Rows of the images a, b, c and so on."""
    count = len(next(iter(columns.values())))
    return [
        Row("abcdefghij"[n], f"line {n}", {name: of[n] for name, of in columns.items()})
        for n in range(count)
    ]


def splits(table, named=None, skips=None, default="train"):
    used, split_of = divide(table, (), named, "t.csv", skips or Skips(), default)
    assert {row.image for row in used} == set(split_of)
    return split_of


def test_values_name_the_splits_and_images_are_counted():
    skips = Skips()
    table = rows(split=["train", "Validation", " TEST ", "restval", "", "extra", None])
    assert splits(table, skips=skips) == dict(
        a="train", b="val", c="test", d="train", e="train", g="train"
    )
    assert skips.notes == [
        "the column split of t.csv says the splits of images: 1 train, 1 Validation (val), "
        "1 TEST (test), 1 restval (train), 2 without a value (train)"
    ]
    assert skips.lines() == ["1 rows of t.csv have an unknown split 'extra': line 5"]


def test_an_image_is_in_the_split_of_its_first_row():
    table = [Row("a", f"line {n}", {"split": split}) for n, split in enumerate(["test", "train"])]
    skips = Skips()
    used, split_of = divide(table, (), None, "t.csv", skips)
    assert (used, split_of) == (table[:1], {"a": "test"})
    assert skips.lines() == ["1 rows of t.csv put their image into a second split: line 1"]


@pytest.mark.parametrize(
    ("name", "values", "is_used"),
    [
        ("partition", ["train", "test", "extra"], True),
        ("split", ["extra", "train", "test"], True),
        ("data_split", ["train", "train", "train"], True),
        ("used for", ["train", "val", "test"], True),  # By its values alone.
        ("used for", ["train", "val", "other"], False),
        ("kind", ["train", "train", "train"], False),  # May be a picture of trains.
        ("set", ["test", "test", "test"], True),
        ("fold", [0, 1, 2], False),
    ],
)
def test_columns_of_other_names(name, values, is_used):
    skips = Skips()
    table = rows(**{name: values, "id": [1, 2, 3]})
    expected = [name for name in ("train", "val", "test") if is_used and name in values]
    assert sorted(set(splits(table, skips=skips).values())) == sorted(expected or ["train"])
    assert bool(skips.notes) == is_used


@pytest.mark.parametrize(
    ("name", "values", "found"),
    [
        ("split", [0, 1, 2], "0, 1, 2"),
        ("set", ["beach", "test", "beach"], "beach, test"),
        ("is_test", [True, False, None], "True, False"),
    ],
)
def test_values_that_are_no_names_are_not_guessed(name, values, found):
    skips = Skips()
    assert set(splits(rows(**{name: values}), skips=skips).values()) == {"train"}
    assert skips.notes == [
        f"warning: the column {name} of t.csv seems to say the splits, but has the values {found}; "
        "it is not used. Write train, val, test into a column split to keep test images out of "
        "training"
    ]


def test_names_of_splits_with_years_and_the_like():
    table = rows(file=["train2014", "val2014", "test_set", "Testing", "DEV"])
    assert list(splits(table).values()) == ["train", "val", "test", "test", "val"]


def test_a_column_called_split_needs_no_train():
    table = rows(split=["test", "extra"])
    assert splits(table) == {"a": "test"}


def test_folders_say_the_splits_if_all_images_are_in_one():
    images = ["train/1.png", "test/images/val2014/1.png", "Test/day/1.png"]
    table = [Row(name, name, {"kind": "train"}) for name in images]
    skips = Skips()
    assert list(splits(table, skips=skips).values()) == ["train", "val", "test"]
    assert skips.notes == [
        "folders in t.csv say the splits of images: 1 train, 1 val2014 (val), 1 Test (test)"
    ]
    for other in ("1.png", "day/1.png", "test.png"):
        more = [*table, Row(other, other, {})]
        assert set(splits(more).values()) == {"train"}
    assert set(splits(table[:1] * 2).values()) == {"train"}


def test_other_columns_need_no_warning_if_one_is_used():
    skips = Skips()
    splits(rows(split=["train", "test"], is_test=[False, True]), skips=skips)
    assert [note[:7] for note in skips.notes] == ["the col"]


def test_one_of_several_columns():
    official, own = ["train", "test"], ["test", "train"]
    assert splits(rows(split=official, my_split=own)) == dict(a="train", b="test")
    assert splits(rows(split=official, my_split=own), "my_split") == dict(a="test", b="train")
    with pytest.raises(
        CaptionGANError,
        match=r"^t\.csv has several .*: official_split, my_split; set data\.sp",
    ):
        splits(rows(official_split=official, my_split=own))
    # A name that suggests it counts more than values.
    assert splits(rows(folder=own, my_split=official)) == dict(a="train", b="test")


def test_other_splits_by_default():
    assert splits(rows(split=["train", None]), default="val") == dict(a="train", b="val")
    assert splits(rows(id=[1, 2]), default="val") == dict(a="val", b="val")


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ("part", r"t\.csv has no column 'part' that may say splits; found id"),
        (
            "id",
            r"the column id of t\.csv has the values 1, 2; expected names of splits: train",
        ),
    ],
)
def test_a_named_column_that_does_not_fit(named, words):
    with pytest.raises(CaptionGANError, match=rf"^data\.split_column: {words}[^\n]*$"):
        splits(rows(id=[1, 2]), named)
