"""COCO's layout and format, valid and invalid."""

import io
import json
import os
from pathlib import Path

import pytest
import tensorflow as tf
from PIL import Image

from caption_gan.config.data import DataConfig
from caption_gan.data.skips import Skips
from caption_gan.data.sources.coco import open_coco
from caption_gan.errors import CaptionGANError
from tests.sources import named_examples


def open_root(root: Path | str, skips: Skips | None = None, **settings):
    config = DataConfig(source="coco", root=str(root), **settings)
    return open_coco(config, Skips() if skips is None else skips)


def write_captions(root: Path, name: str, images: dict, annotations: list[tuple]) -> None:
    """Writes a file of captions from image names by id and pairs of image id and caption."""
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    content = {
        "info": {},
        "images": [{"id": key, "file_name": name} for key, name in images.items()],
        "annotations": [
            {"id": number, "image_id": key, "caption": caption}
            for number, (key, caption) in enumerate(annotations)
        ],
    }
    (root / "annotations" / f"captions_{name}.json").write_text(json.dumps(content))


def write_images(folder: Path, *names: str) -> None:
    """Writes images whose bytes are their names; sources do not decode them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text(name)


@pytest.fixture
def root(tmp_path) -> Path:
    """Three training images, not sorted by id, and a validation image."""
    root = tmp_path / "coco"
    images = {7: "c.jpg", 3: "a.jpg", 5: "b.jpg"}
    captions = [(3, "A dog."), (7, "A cat."), (5, "A fish."), (3, "Dogs run.")]
    write_captions(root, "train2014", images, captions)
    write_captions(root, "val2014", {3: "v.jpg"}, [(3, "A bird.")])
    write_images(root / "train2014", "a.jpg", "b.jpg", "c.jpg")
    write_images(root / "val2014", "v.jpg")
    return root


def test_official_splits_in_the_order_of_their_images(root):
    source = open_root(root)
    assert source.images_of_split == {"train": 3, "val": 1}
    assert named_examples(source, "train") == [
        ("c.jpg", ("A cat.",)),
        ("a.jpg", ("A dog.", "Dogs run.")),
        ("b.jpg", ("A fish.",)),
    ]
    # The id 3 is another image in each file.
    assert named_examples(source, "val") == [("v.jpg", ("A bird.",))]


def test_image_folders_below_images(root):
    (root / "images").mkdir()
    for name in ("train2014", "val2014"):
        (root / name).rename(root / "images" / name)
    assert len(named_examples(open_root(root), "train")) == 3


@pytest.mark.parametrize("folder", ["images", "train", "images/train"])
def test_names_without_a_year_and_ids_that_are_strings(tmp_path, folder):
    write_captions(tmp_path, "train", {"x1": "below/a.jpg", "2": "b.jpg"}, [("x1", "A"), (2, "B")])
    write_captions(tmp_path, "val", {"x1": "v.jpg"}, [("x1", "V")])
    write_captions(tmp_path, "test", {"x1": "t.jpg"}, [("x1", "T")])
    (tmp_path / folder / "below").mkdir(parents=True)
    (tmp_path / folder / "below" / "a.jpg").write_text("below/a.jpg")
    write_images(tmp_path / folder, "b.jpg")
    for split in ("val", "test"):
        write_images(tmp_path / folder.replace("train", split), f"{split[0]}.jpg")
    source = open_root(tmp_path)
    assert named_examples(source, "train") == [("below/a.jpg", ("A",)), ("b.jpg", ("B",))]
    assert named_examples(source, "test") == [("t.jpg", ("T",))]


def test_images_of_one_name_in_several_folders(tmp_path):
    days = ("monday", "tuesday", "wednesday")
    images = {number: f"{day}/1.png" for number, day in enumerate(days)}
    write_captions(tmp_path, "train", images, list(enumerate(days)))
    write_captions(tmp_path, "val", {0: "sunday\\1.png"}, [(0, "sunday")])
    for day in (*days, "sunday"):
        write_images(tmp_path / "images" / day, "1.png")
        (tmp_path / "images" / day / "1.png").write_text(f"{day}/1.png")
    skips = Skips()
    source = open_root(tmp_path, skips)
    assert named_examples(source, "train") == [(f"{day}/1.png", (day,)) for day in days]
    assert named_examples(source, "val") == [("sunday/1.png", ("sunday",))]
    assert not skips.all


def test_splits_with_the_same_file_names(tmp_path):
    for split in ("train", "val"):
        write_captions(tmp_path, split, {1: "1.png"}, [(1, split)])
        (tmp_path / "images" / split).mkdir(parents=True)
        (tmp_path / "images" / split / "1.png").write_text(f"images/{split}/1.png")
    source = open_root(tmp_path)
    assert named_examples(source, "train") == [("images/train/1.png", ("train",))]
    assert named_examples(source, "val") == [("images/val/1.png", ("val",))]


def test_file_names_may_be_relative_to_the_root(tmp_path):
    for split in ("train", "val"):
        write_captions(tmp_path, split, {1: f"{split}/1.png"}, [(1, split)])
        (tmp_path / split).mkdir()
        (tmp_path / split / "1.png").write_text(f"{split}/1.png")
    assert named_examples(open_root(tmp_path), "val") == [("val/1.png", ("val",))]


def test_a_single_file_whose_images_have_splits(tmp_path):
    splits = {"a.png": "train", "b.png": "val", "c.png": "test", "d.png": "restval"}
    content = {
        "images": [{"id": n, "file_name": n, "split": split} for n, split in splits.items()],
        "annotations": [{"image_id": name, "caption": name} for name in splits],
    }
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "captions_train.json").write_text(json.dumps(content))
    write_images(tmp_path / "images", *splits)
    skips = Skips()
    source = open_root(tmp_path, skips)
    assert source.images_of_split == {"train": 2, "val": 1, "test": 1}
    assert named_examples(source, "test") == [("c.png", ("c.png",))]
    assert skips.notes == [
        "the column split of captions_train.json says the splits of images: 1 train, 1 val, "
        "1 test, 1 restval (train)"
    ]


def test_an_image_with_a_record_for_each_caption(tmp_path):
    images = {1: "a.png", 2: "a.png", 3: "b.png"}
    write_captions(tmp_path, "train", images, [(1, "A"), (2, "B"), (3, "C")])
    write_images(tmp_path / "images", "a.png", "b.png")
    source = open_root(tmp_path, held_out=0)
    assert named_examples(source, "train") == [("a.png", ("A", "B")), ("b.png", ("C",))]


def test_unusable_images_and_captions_are_counted(tmp_path):
    images = {1: "a.jpg", 2: "gone.jpg", "3": "no_caption.jpg", 3: "same_id.jpg"}
    write_captions(tmp_path, "train", images, [(1, "A"), (2, "B"), (99, "C"), (99, "D")])
    write_captions(tmp_path, "val", {1: "v.jpg"}, [(1, "V")])
    write_images(tmp_path / "images", "a.jpg", "no_caption.jpg", "same_id.jpg", "v.jpg")
    skips = Skips()
    assert named_examples(open_root(tmp_path, skips), "train") == [("a.jpg", ("A",))]
    assert skips.lines() == [
        "2 captions are of images that are not listed: id 99, ...",
        "1 images are listed but not there: gone.jpg",
        "1 images have no caption: no_caption.jpg",
        "1 images have the id of another: same_id.jpg",
    ]


def test_records_that_are_null_or_badly_typed_are_counted_with_their_value(tmp_path):
    write_captions(tmp_path, "train", {9: "a.jpg"}, [(9, "A")])
    path = tmp_path / "annotations" / "captions_train.json"
    content = json.loads(path.read_text())
    content["images"] += [
        None,
        {"id": 5},
        {"id": True, "file_name": "b.jpg"},
        {"id": 6.0, "file_name": 7},
    ]
    content["annotations"] += [
        {"image_id": 9, "caption": caption}
        for caption in (None, 3, float("nan"), {"x": "A"}, [None])
    ]
    content["annotations"] += [
        {"image_id": 9.0, "caption": "B"},
        {"image_id": "9", "caption": ["C", "D"]},
        {"image_id": "9", "caption": ""},
        {"image_id": None, "caption": "E"},
        {"image_id": 9.5, "caption": "F"},
        [],
    ]
    path.write_text(json.dumps(content))
    write_images(tmp_path / "images", "a.jpg")
    skips = Skips()
    source = open_root(tmp_path, skips, held_out=0)
    # Empty captions are counted later.
    assert named_examples(source, "train") == [("a.jpg", ("A", "B", "C", "D", ""))]
    assert skips.lines() == [
        "5 annotations of captions_train.json have no caption that is a text or a list of texts: "
        'number 2 (null), number 3 (3), number 4 (NaN), number 5 ({"x": "A"}), number 6 ([null])',
        "3 annotations of captions_train.json have no image_id that is an integer or a text: "
        "number 10 (null), number 11 (9.5), number 12 ([])",
        "2 images of captions_train.json have no file_name that is a text: "
        "number 3 (the keys id), number 5 (7)",
        "2 images of captions_train.json have no id that is an integer or a text: "
        "number 2 (null), number 4 (true)",
    ]


def test_a_single_file_of_captions_is_divided_by_image(tmp_path):
    names = [f"{number}.jpg" for number in range(400)]
    captions = [(name, caption) for caption in ("A", "B") for name in names]
    write_captions(tmp_path, "val2017", dict(zip(names, names, strict=True)), captions)
    write_images(tmp_path / "val2017", *names)
    source = open_root(tmp_path, held_out=0.1)
    splits = [named_examples(source, split) for split in ("train", "val", "test")]
    assert sorted(name for split in splits for name, _ in split) == sorted(names)
    assert {captions for split in splits for _, captions in split} == {("A", "B")}
    assert all(20 < len(split) < 60 for split in splits[1:])
    assert open_root(tmp_path, held_out=0.2).fingerprint != source.fingerprint


def test_karpathy_replaces_the_official_splits(root, tmp_path):
    images = [("val2014", "v.jpg", "restval"), ("train2014", "a.jpg", "val")]
    content = [
        {"filepath": folder, "filename": name, "split": split, "sentences": [{"raw": "K"}]}
        for folder, name, split in images
    ]
    path = tmp_path / "dataset_coco.json"
    path.write_text(json.dumps({"images": content}))
    source = open_root(root, karpathy=str(path))
    assert source.images_of_split == {"train": 1, "val": 1}
    assert named_examples(source, "train") == [("v.jpg", ("K",))]
    assert named_examples(source, "val") == [("a.jpg", ("K",))]
    (root / "images").mkdir()
    (root / "val2014").rename(root / "images" / "val2014")
    assert named_examples(open_root(root, karpathy=str(path)), "train") == [("v.jpg", ("K",))]


def test_karpathy_with_one_file_name_in_several_folders(tmp_path):
    days = ("monday", "tuesday")
    content = [
        {"filepath": day, "filename": "1.png", "split": split, "sentences": [{"raw": day}]}
        for day, split in zip((*days, "sunday"), ("train", "train", "val"), strict=True)
    ]
    for day in (*days, "sunday"):
        (tmp_path / "images" / day).mkdir(parents=True)
        (tmp_path / "images" / day / "1.png").write_text(f"images/{day}/1.png")
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps({"images": content}))
    source = open_root(tmp_path, karpathy=str(path))
    assert named_examples(source, "train") == [(f"images/{day}/1.png", (day,)) for day in days]
    assert named_examples(source, "val") == [("images/sunday/1.png", ("sunday",))]


def no_captions(root: Path) -> str:
    (root / "annotations" / "captions_train2014.json").unlink()
    (root / "annotations" / "captions_val2014.json").rename(root / "annotations" / "other.json")
    return "annotations has no file of captions; .* found other.json"


def two_years(root: Path) -> str:
    write_captions(root, "val2017", {}, [])
    return "captions of several years: 2014, 2017; set data.root to a folder with one"


def no_validation(root: Path) -> str:
    path = root / "annotations" / "captions_val2014.json"
    path.rename(path.with_name("captions_test2014.json"))
    return "no captions_val2014.json; expected it beside .*captions_train2014.json"


def no_images(root: Path) -> str:
    (root / "train2014").rename(root / "pictures")
    return "no images for the split 'train'; expected a folder train2014/"


def truncated(root: Path) -> str:
    path = root / "annotations" / "captions_train2014.json"
    path.write_text(path.read_text()[:100])
    return r"captions_train2014.json is not JSON, or is truncated: .*\(char \d+\)"


def no_annotations(root: Path) -> str:
    path = root / "annotations" / "captions_train2014.json"
    path.write_text('{"images": [], "categories": []}')
    return "the lists images, annotations; found the keys images, categories"


def other_ids(root: Path) -> str:
    write_captions(root, "train2014", {7: "c.jpg"}, [("COCO_7", "A dog.")])
    return "no image_id of annotations is the id of an image; the first are 'COCO_7' and '7'"


def no_list(root: Path) -> str:
    path = root / "annotations" / "captions_train2014.json"
    path.write_text('{"images": {"1": "a.jpg"}, "annotations": []}')
    return 'the lists images, annotations; found as \'images\' {"1": "a.jpg"}'


def instances(root: Path) -> str:
    """COCO's files of instances have boxes instead of captions."""
    content = {"images": [], "annotations": [{"image_id": 1, "bbox": [0, 0, 1, 1]}]}
    (root / "annotations" / "captions_train2014.json").write_text(json.dumps(content))
    return (
        "none of the annotations can be used; in number 1 'caption' is no value that is a text .*: "
        "found the keys image_id, bbox"
    )


@pytest.mark.parametrize(
    "damage",
    [
        no_captions,
        two_years,
        no_validation,
        no_images,
        truncated,
        no_annotations,
        other_ids,
        no_list,
        instances,
    ],
)
def test_an_invalid_layout_is_a_one_line_error(root, damage):
    expected = damage(root)
    with pytest.raises(CaptionGANError, match=rf"^[^\n]*{expected}[^\n]*$"):
        open_root(root)


def test_a_changed_file_changes_the_fingerprint(root):
    before = open_root(root).fingerprint
    assert before == open_root(root).fingerprint == json.loads(json.dumps(before))
    os.utime(root / "annotations" / "captions_val2014.json", (0, 0))
    assert open_root(root).fingerprint != before


def test_remote_file_system(root):
    for path in filter(Path.is_file, root.rglob("*")):
        tf.io.gfile.copy(str(path), f"ram://coco/{path.relative_to(root)}")
    assert named_examples(open_root("ram://coco"), "train") == named_examples(
        open_root(root), "train"
    )


def test_a_file_of_the_size_of_coco_2014(tmp_path):
    """82,783 images with 414,113 captions in records as long as the real ones, about 65 MB."""
    count = 82783
    (tmp_path / "annotations").mkdir()
    (tmp_path / "train2014").mkdir()
    url = "http://images.cocodataset.org/train2014/COCO_train2014_000000000009.jpg"
    images = (
        f'{{"license": 3, "file_name": "COCO_train2014_{number:012}.jpg", "coco_url": "{url}", '
        f'"height": 480, "width": 640, "date_captured": "2013-11-14 16:28:13", "id": {number}}}'
        for number in range(count)
    )
    caption = "A very clean and well decorated empty bathroom, seen from its door."
    annotations = (
        f'{{"image_id": {number % count}, "id": {number}, "caption": "{caption}"}}'
        for number in range(414113)
    )
    (tmp_path / "annotations" / "captions_train2014.json").write_text(
        f'{{"images": [{", ".join(images)}], "annotations": [{", ".join(annotations)}]}}'
    )
    skips = Skips()
    source = open_root(tmp_path, skips)
    entries = [entry for split in source.files.values() for entry in split]
    assert len(entries) == count and sum(len(entry.captions) for entry in entries) == 414113
    assert not skips.all


@pytest.mark.parametrize(("year", "images"), [(2014, 317), (2017, 40)])
def test_real_data(real_data, year, images):
    skips = Skips()
    source = open_root(real_data / f"coco{year}", skips, held_out=0.1)
    assert sum(source.images_of_split.values()) == images
    found = [e for split in source.images_of_split for e in source.examples(split, range(images))]
    assert len(found) == images and not skips.all
    assert all(len(example.captions) >= 5 for example in found)
    name = {2014: "COCO_val2014_000000000395.jpg", 2017: "000000000802.jpg"}[year]
    (example,) = (example for example in found if example.image_id == name)
    caption = {
        2014: "A man talking on his phone in the public.",
        2017: "A kitchen with a refrigerator, stove and oven with cabinets.",
    }
    assert caption[year] in example.captions
    assert Image.open(io.BytesIO(example.image)).format == "JPEG"
