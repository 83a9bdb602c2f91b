"""Image files and splits, which the layouts share."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caption_gan.data.skips import SkipError, Skips
from caption_gan.data.sources.image_files import ImageFile, ImageFileSource, image_name
from caption_gan.data.sources.splits import assign_splits, hold_out
from caption_gan.errors import CaptionGANError


@given(st.sets(st.text(), max_size=60), st.floats(0.01, 0.4))
def test_held_out_images_depend_only_on_their_ids(names, share):
    splits = assign_splits(sorted(names), share)
    assert splits == assign_splits(sorted(names, reverse=True), share)
    counts = {split: list(splits.values()).count(split) for split in ("train", "val", "test")}
    assert sum(counts.values()) == len(names)
    if len(names) >= 3:
        assert (
            counts["val"]
            == counts["test"]
            == min(max(1, round(share * len(names))), (len(names) - 1) // 2)
        )
        assert counts["train"] >= 1
    else:
        assert counts["train"] == len(names)


def test_images_of_train_are_held_out_if_there_is_no_val():
    files = [ImageFile(str(number), str(number)) for number in range(10)]
    train, test = files[:8], files[8:]
    divided = hold_out({"test": test, "train": train}, 0.2)
    assert list(divided) == ["train", "val", "test"]
    assert divided["test"] == test
    assert sorted(map(str, [*divided["train"], *divided["val"]])) == sorted(map(str, train))
    assert len(divided["val"]) == 2
    for splits in ({"train": train, "val": test}, {"test": test}, {"val": train, "test": test}, {}):
        assert hold_out(splits, 0.2) == splits
    assert len(hold_out({"val": files}, 0.2)["train"]) == 6


def test_skipped_images_are_counted_in_order():
    def read(entry):
        if entry.path.endswith("bad"):
            raise SkipError("things are bad")
        return entry

    entries = [ImageFile(str(n), f"{n}.bad" if n % 3 == 0 else f"{n}.good") for n in range(200)]
    skips = Skips()
    source = ImageFileSource({"train": entries}, None, skips, "", read)
    assert source.images_of_split == {"train": 200}
    read_ids = [example.image_id for example in source.examples("train", range(50, 100))]
    assert read_ids == [str(n) for n in range(50, 100) if n % 3]
    names = [skip.name for skip in skips.all if skip.reason == "things are bad"]
    assert names == [str(n) for n in range(51, 100, 3)]


def test_a_file_listed_again_is_one_image_with_all_captions():
    files = [
        ImageFile("a.png", "/set/a.png", ("A.", "B.")),
        ImageFile("b.png", "/set/b.png", ("C.",)),
        ImageFile("a.png", "/set/./a.png", ("B.", "D.")),
    ]
    skips = Skips()
    source = ImageFileSource({"train": files}, None, skips, "/set")
    captions = {file.image_id: file.captions for file in source.files["train"]}
    assert captions == {"a.png": ("A.", "B.", "D."), "b.png": ("C.",)}
    assert skips.lines() == ["1 images are listed again; their captions are joined: a.png"]


def test_ids_are_paths_below_the_root_where_two_files_would_share_one():
    train = [ImageFile("1.png", "/set/train/1.png"), ImageFile("2.png", "/set/train/2.png")]
    val = [ImageFile("1.png", "/set/val/1.png")]
    skips = Skips()
    source = ImageFileSource({"train": train, "val": val}, None, skips, "/set")
    assert list(source.image_ids()) == ["train/1.png", "train/2.png", "val/1.png"]
    # The same file in two splits is the same image.
    source = ImageFileSource({"train": train, "val": train[:1]}, None, skips, "/set")
    assert list(source.image_ids()) == ["1.png", "2.png", "1.png"]
    assert not skips.all


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (" ./monday/1.png", "monday/1.png"),
        ("monday\\1.png", "monday/1.png"),
        ("monday//../1.png", "1.png"),
        ("cafe\u0301.png", "caf\u00e9.png"),
        ("A b.PNG", "A b.PNG"),
    ],
)
def test_names_have_one_spelling(text, name):
    assert image_name(text) == name


def test_files_spelled_otherwise_are_found_if_only_one_fits(tmp_path):
    # macOS stores accents decomposed.
    present = ["IMG_1.JPG", "x.png", "X.png", "Two.png", "TWO.png", "cafe\u0301.png"]
    (tmp_path / "Monday").mkdir()
    for name in present:
        (tmp_path / "Monday" / name).write_text(name)
    listed = ["img_1.jpg", "x.png", "X.png", "two.png", "caf\u00e9.png", "gone.png"]
    files = [ImageFile(name, str(tmp_path / "monday" / name), ("A.",)) for name in listed]
    skips = Skips()
    source = ImageFileSource({"train": files}, None, skips, str(tmp_path))
    images = {e.image_id: e.image.decode() for e in source.examples("train", range(6))}
    assert images == {
        "img_1.jpg": "IMG_1.JPG",
        "x.png": "x.png",
        "X.png": "X.png",
        "caf\u00e9.png": "cafe\u0301.png",
    }
    assert skips.lines() == ["2 images are listed but not there: two.png, gone.png"]


def test_an_existing_image_that_cannot_be_read_is_an_error(tmp_path):
    (tmp_path / "folder.jpg").mkdir()
    entry = ImageFile("folder.jpg", str(tmp_path / "folder.jpg"), ("a caption",))
    source = ImageFileSource({"train": [entry]}, None, Skips(), str(tmp_path))
    with pytest.raises(CaptionGANError, match=r"folder\.jpg cannot be read"):
        list(source.examples("train", range(1)))
