"""Image files and splits, which the layouts share."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caption_gan.data.skips import SkipError, Skips
from caption_gan.data.sources.image_files import ImageFile, ImageFileSource
from caption_gan.data.sources.splits import assign_splits
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


def test_skipped_images_are_counted_in_order():
    def read(entry):
        if entry.path == "bad":
            raise SkipError("things are bad")
        return entry

    entries = [ImageFile(str(n), "bad" if n % 3 == 0 else "good") for n in range(200)]
    skips = Skips()
    source = ImageFileSource({"train": [*entries, entries[1]]}, None, skips, read)
    assert source.images_of_split == {"train": 200}
    read_ids = [example.image_id for example in source.examples("train", range(50, 100))]
    assert read_ids == [str(n) for n in range(50, 100) if n % 3]
    names = [skip.name for skip in skips.all if skip.reason == "things are bad"]
    assert names == [str(n) for n in range(51, 100, 3)]
    assert skips.lines()[0] == "1 images are listed again: 1"


def test_an_existing_image_that_cannot_be_read_is_an_error(tmp_path):
    (tmp_path / "folder.jpg").mkdir()
    entry = ImageFile("folder.jpg", str(tmp_path / "folder.jpg"), ("a caption",))
    source = ImageFileSource({"train": [entry]}, None, Skips())
    with pytest.raises(CaptionGANError, match=r"folder\.jpg cannot be read"):
        list(source.examples("train", range(1)))
