"""The layouts of Flickr8k and Flickr30k, valid and invalid."""

import io
import json
import os
from pathlib import Path

import pytest
import tensorflow as tf
from PIL import Image

from caption_gan.config.data import DataConfig
from caption_gan.data.skips import Skips
from caption_gan.data.sources.flickr import open_flickr
from caption_gan.errors import CaptionGANError
from tests.sources import named_examples

CSV = 'image,caption\na.jpg,A dog .\na.jpg,"A dog , running ."\nb.jpg,A cat .\nc.jpg,A fish .\n'
TOKENS = "a.jpg#0\tA dog .\na.jpg#1\tA dog , running .\nb.jpg#0\tA cat .\nc.jpg#0\tA fish .\n"
PIPES = (
    "image_name| comment_number| comment\na.jpg| 0| A dog .\na.jpg| 1| A dog , running .\n"
    "b.jpg| 0| A cat .\nc.jpg| 0| A fish .\n"
)
NUMBERED = (
    "image_name,comment_number,comment\na.jpg,0,A dog .\n"
    'a.jpg,1,"A dog , running ."\nb.jpg,0,A cat .\nc.jpg,0,A fish .\n'
)


def open_root(root: Path | str, skips: Skips | None = None, **settings):
    config = DataConfig(source="flickr", root=str(root), **settings)
    return open_flickr(config, Skips() if skips is None else skips)


@pytest.fixture
def root(tmp_path) -> Path:
    """Two training images and a validation image, whose bytes are their names."""
    root = tmp_path / "flickr"
    (root / "Images").mkdir(parents=True)
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        (root / "Images" / name).write_text(name)
    (root / "captions.txt").write_text(CSV)
    (root / "Flickr_8k.trainImages.txt").write_text("b.jpg\na.jpg\n")
    (root / "Flickr_8k.devImages.txt").write_text("c.jpg\n")
    return root


TRAIN = [("b.jpg", ("A cat .",)), ("a.jpg", ("A dog .", "A dog , running ."))]
VAL = [("c.jpg", ("A fish .",))]


def test_examples_in_the_order_of_the_list(root):
    source = open_root(root)
    assert source.images_of_split == {"train": 2, "val": 1}
    assert named_examples(source, "train") == TRAIN
    assert named_examples(source, "val") == VAL


@pytest.mark.parametrize(
    ("folder", "name", "content"),
    [
        ("Flickr8k_Dataset", "captions.txt", CSV.replace("\n", "\r\n")),
        ("Flicker8k_Dataset", "Flickr8k.token.txt", TOKENS),
        ("flickr30k-images", "results_20130124.token", TOKENS),
        ("flickr30k_images", "results.csv", PIPES),
        ("images", "captions.txt", NUMBERED),
        ("images", "captions.txt", PIPES.replace("| ", ";")),
        ("images", "captions.txt", PIPES.replace("| ", "\t")),
    ],
)
def test_all_formats_of_captions(root, folder, name, content):
    (root / "Images").rename(root / folder)
    (root / "captions.txt").unlink()
    (root / name).write_bytes(content.encode())
    skips = Skips()
    assert named_examples(open_root(root, skips), "train") == TRAIN
    assert not skips.all


def test_captions_and_lists_in_a_separate_folder(root):
    (root / "captions.txt").unlink()
    (root / "Flickr8k_text").mkdir()
    (root / "Flickr8k_text" / "Flickr8k.token.txt").write_text(TOKENS)
    for path in root.glob("Flickr_8k.*"):
        path.rename(root / "Flickr8k_text" / path.name)
    assert named_examples(open_root(root), "train") == TRAIN


@pytest.mark.parametrize(
    ("name", "old", "new", "problem"),
    [
        # In one line of the real file of Flickr30k, the last separator is missing.
        ("results.csv", "b.jpg| 0| A cat .", "b.jpg| 0   A cat .", "are malformed"),
        ("Flickr8k.token.txt", "b.jpg#0\tA cat .", "b.jpg#0 A cat .", "are malformed"),
        ("captions.txt", "b.jpg,A cat .", "b.jpg A cat .", "are malformed"),
        ("captions.txt", "b.jpg,A cat .", ",A cat .", "are malformed"),
        ("captions.txt", "b.jpg,A cat .", 'b.jpg,"A cat .', "have stray quotation marks"),
        ("captions.txt", "b.jpg,A cat .", 'b.jpg,"A "cat", black', "have stray quotation marks"),
    ],
)
def test_a_malformed_line_is_counted_and_spoils_no_other(root, name, old, new, problem):
    content = {"results.csv": PIPES, "Flickr8k.token.txt": TOKENS, "captions.txt": CSV}[name]
    content = content.replace(old, new)
    line = content.split("\n").index(new) + 1
    (root / "captions.txt").unlink()
    (root / name).write_text(content)
    skips = Skips()
    source = open_root(root, skips)
    assert skips.lines() == [f"1 lines of {name} {problem}: line {line} ({new!r})"]
    assert named_examples(source, "train") == TRAIN[1:]
    assert named_examples(source, "val") == VAL


@pytest.mark.parametrize(
    ("header", "line", "caption"),
    [
        ("image,caption", "b.jpg,A cat , black , and white", "A cat , black , and white"),
        ("image,caption", 'b.jpg,A "fat" cat, black', 'A "fat" cat, black'),
        ("image,caption", "b.jpg,A cat, black,,", "A cat, black"),
        ("image_name,comment_number,comment", "b.jpg,0,A cat, black", "A cat, black"),
        ("caption,image", "A cat, black,b.jpg", "A cat, black"),
    ],
)
def test_captions_may_have_commas_without_quotation_marks(root, header, line, caption):
    (root / "captions.txt").write_text(f"{header}\n{line}\n")
    skips = Skips()
    assert named_examples(open_root(root, skips), "train") == [("b.jpg", (caption,))]
    assert skips.lines() == ["1 images have no caption: a.jpg"]


@pytest.mark.parametrize(
    ("captions", "train"),
    [
        ("image,caption\nmy dog.jpg,A\nb.jpg,B\nc.jpg,C\n", "my dog.jpg \r\n\r\n  b.jpg\r\n"),
        ("image,caption\nmy dog.jpg,A\nb.jpg,B\nc.jpg,C\n", "my dog.jpg\rb.jpg"),
        ("image,caption\nmy dog.jpg#0,A\nb.jpg,B\nc.jpg,C\n", "my dog.jpg#0\nb.jpg#0\nb.jpg#1\n"),
        ("image,caption\nImages/my dog.jpg,A\nImages/b.jpg,B\nc.jpg,C\n", "my dog.jpg\nb.jpg"),
        ("image,caption\nmy dog.jpg,A\nb.jpg,B\nc.jpg,C\n", "Images\\my dog.jpg\nImages/b.jpg"),
        ("image,caption\nmy dog.jpg,A\n.\\b.jpg,B\nc.jpg,C\n", "./my dog.jpg\nb.jpg\n"),
    ],
)
def test_lists_have_one_name_per_line_whatever_is_in_it(root, captions, train):
    (root / "Images" / "a.jpg").unlink()
    (root / "Images" / "my dog.jpg").write_text("my dog.jpg")
    (root / "captions.txt").write_text(captions)
    (root / "Flickr_8k.trainImages.txt").write_bytes(train.encode())
    skips = Skips()
    expected = [("my dog.jpg", ("A",)), ("b.jpg", ("B",))]
    assert named_examples(open_root(root, skips), "train") == expected
    assert not skips.all


@pytest.mark.parametrize("line", ['"a.jpg" ', "/data/Images/a.jpg", "C:\\data\\Images\\a.jpg"])
def test_lists_may_have_quotation_marks_or_whole_paths(root, line):
    (root / "Flickr_8k.trainImages.txt").write_text(line)
    assert named_examples(open_root(root), "train") == TRAIN[1:]


@pytest.mark.parametrize("line", ["a", "a.jpg b.jpg", "a.jpg,b.jpg", "a.jpg\t1"])
def test_a_list_without_the_name_of_an_image_is_an_error_that_shows_it(root, line):
    (root / "Flickr_8k.trainImages.txt").write_text(f"{line}\n")
    with pytest.raises(
        CaptionGANError, match=r"no line names an image .* such as a\.jpg; found 'a"
    ):
        open_root(root)


def test_names_that_mean_one_image_have_all_its_captions(root):
    (root / "captions.txt").write_text("image,caption\na.jpg,A\nImages/a.jpg,B\nImages\\a.jpg,C\n")
    assert named_examples(open_root(root), "train") == [("a.jpg", ("A", "B", "C"))]


def test_a_number_sign_in_a_name_is_part_of_it(root):
    (root / "Images" / "a.jpg").rename(root / "Images" / "a#1.jpg")
    (root / "Images" / "a#1.jpg").write_text("a#1.jpg")
    (root / "captions.txt").unlink()
    (root / "Flickr8k.token.txt").write_text("a#1.jpg#0\tA\na#1.jpg#1\tB\n")
    (root / "Flickr_8k.trainImages.txt").write_text("a#1.jpg\n")
    assert named_examples(open_root(root), "train") == [("a#1.jpg", ("A", "B"))]


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16-le"])
def test_all_files_are_read_in_the_given_encoding(root, encoding):
    (root / "Images" / "b.jpg").rename(root / "Images" / "é.jpg")
    for name in ("é.jpg", "ü.jpg"):
        (root / "Images" / name).write_text(name)
    texts = {
        "captions.txt": "image,caption\né.jpg,A café .\n",
        "Flickr_8k.trainImages.txt": "é.jpg",
    }
    for name, text in texts.items():
        (root / name).write_bytes(text.encode(encoding))
    (root / "Flickr_8k.devImages.txt").write_text("ü.jpg", encoding="utf-8")
    source = open_root(root, encoding=encoding)
    assert named_examples(source, "train") == [("é.jpg", ("A café .",))]
    assert source.files["val"][0].image_id == "ü.jpg"
    with pytest.raises(CaptionGANError, match=f"captions.txt.* --data.encoding={encoding}"):
        open_root(root)


def test_a_file_without_a_usable_line_is_an_error_that_shows_the_first(root):
    (root / "captions.txt").write_text("image,caption\na.jpg;A dog\nb.jpg;A cat\n")
    with pytest.raises(CaptionGANError, match=r"no line can be used. 2 lines .* \('a.jpg;A dog'\)"):
        open_root(root)


def test_missing_images_and_captions_are_counted(root):
    (root / "Images" / "b.jpg").unlink()
    (root / "Flickr_8k.trainImages.txt").write_text("a.jpg\nb.jpg\nz.jpg\n")
    skips = Skips()
    assert named_examples(open_root(root, skips), "train") == TRAIN[1:]
    assert skips.lines() == [
        "1 images are listed but not there: b.jpg",
        "1 images have no caption: z.jpg",
    ]


def test_empty_captions_are_returned_to_be_counted_later(root):
    (root / "captions.txt").write_text(CSV + "c.jpg,\n")
    assert named_examples(open_root(root), "val") == [("c.jpg", ("A fish .", ""))]


def test_without_lists_images_are_held_out(root):
    for path in root.glob("Flickr_8k.*"):
        path.unlink()
    names = [f"{number}.jpg" for number in range(400)]
    for name in names:
        (root / "Images" / name).write_text(name)
    rows = "".join(f"{name}| {number}| A dog .\n" for name in names for number in range(5))
    (root / "captions.txt").write_text("image_name| comment_number| comment\n" + rows)
    source = open_root(root, held_out=0.1)
    splits = [named_examples(source, split) for split in ("train", "val", "test")]
    assert sorted(name for split in splits for name, _ in split) == sorted(names)
    assert {captions for split in splits for _, captions in split} == {("A dog .",) * 5}
    assert all(20 < len(split) < 60 for split in splits[1:])
    assert open_root(root, held_out=0.2).fingerprint != source.fingerprint


def test_karpathy_replaces_captions_and_lists(root, tmp_path):
    images = [
        {"filename": "c.jpg", "split": "train", "sentences": [{"raw": "K1"}, {"raw": "K2"}]},
        {"filename": "a.jpg", "split": "test", "sentences": [{"raw": "K3"}]},
    ]
    path = tmp_path / "dataset_flickr8k.json"
    path.write_text(json.dumps({"images": images, "dataset": "flickr8k"}))
    (root / "captions.txt").unlink()
    source = open_root(root, karpathy=str(path))
    assert source.images_of_split == {"train": 1, "val": 0, "test": 1}
    assert named_examples(source, "train") == [("c.jpg", ("K1", "K2"))]


def test_images_of_one_name_in_several_folders(tmp_path):
    days = ("monday", "tuesday", "wednesday")
    for day in days:
        (tmp_path / "images" / day).mkdir(parents=True)
        (tmp_path / "images" / day / "1.png").write_text(f"{day}/1.png")
    rows = ["./monday/1.png,M.", "tuesday\\1.png,T.", "wednesday/1.png,W.", "monday/1.png,N."]
    (tmp_path / "captions.txt").write_text("image,caption\n" + "\n".join(rows))
    (tmp_path / "Flickr_8k.trainImages.txt").write_text("monday/1.png\n./tuesday/1.png\n")
    (tmp_path / "Flickr_8k.devImages.txt").write_text("wednesday\\1.png\n")
    skips = Skips()
    source = open_root(tmp_path, skips)
    assert named_examples(source, "train") == [
        ("monday/1.png", ("M.", "N.")),
        ("tuesday/1.png", ("T.",)),
    ]
    assert named_examples(source, "val") == [("wednesday/1.png", ("W.",))]
    assert not skips.all


def test_lists_written_as_text(root):
    rows = """image,caption\na.jpg,"['A dog', 'A wolf']"\nc.jpg,['A bird']\nb.jpg,"['A cat']"\n"""
    (root / "captions.txt").write_text(rows)
    skips = Skips()
    source = open_root(root, skips)
    assert named_examples(source, "train") == [
        ("b.jpg", ("A cat",)),
        ("a.jpg", ("A dog", "A wolf")),
    ]
    assert skips.notes == ["3 texts of captions.txt are lists; each item is a caption"]


def test_a_column_of_splits(root):
    for path in root.glob("Flickr_8k.*"):
        path.unlink()
    (root / "captions.txt").unlink()
    rows = [
        "raw,sentids,split,filename,img_id",
        '"[""A dog ."", ""A wolf .""]","[0, 1]",train,a.jpg,0',
        '"[""A cat .""]",[2],val,b.jpg,1',
        '"[""A fish .""]",[3],test,c.jpg,2',
    ]
    (root / "flickr_annotations_30k.csv").write_text("\n".join(rows))
    skips = Skips()
    source = open_root(root, skips)
    assert named_examples(source, "train") == [("a.jpg", ("A dog .", "A wolf ."))]
    assert named_examples(source, "test") == [("c.jpg", ("A fish .",))]
    assert skips.notes == [
        "the column split of flickr_annotations_30k.csv says the splits of images: 1 train, "
        "1 val, 1 test",
        "3 texts of flickr_annotations_30k.csv are lists; each item is a caption",
    ]


def test_lists_of_splits_win_over_a_column_unless_it_is_named(root):
    rows = ["image,caption,set", "a.jpg,A dog .,test", "b.jpg,A cat .,train", "c.jpg,A fish .,val"]
    (root / "captions.txt").write_text("\n".join(rows))
    assert open_root(root).images_of_split == {"train": 2, "val": 1}
    source = open_root(root, split_column="set")
    assert named_examples(source, "test") == [("a.jpg", ("A dog .",))]


def test_karpathy_with_folders(root, tmp_path):
    images = []
    for day, split in (("monday", "train"), ("tuesday", "val")):
        (root / "Images" / day).mkdir()
        (root / "Images" / day / "1.png").write_text(f"Images/{day}/1.png")
        sentences = [{"raw": day}]
        images.append(
            {"filepath": day, "filename": "1.png", "split": split, "sentences": sentences}
        )
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps({"images": images}))
    source = open_root(root, karpathy=str(path))
    assert named_examples(source, "train") == [("Images/monday/1.png", ("monday",))]


def break_folder(root: Path) -> str:
    (root / "Images").rename(root / "pictures")
    return "has no folder of images; expected Images, .* found .*pictures"


def break_captions(root: Path) -> str:
    (root / "captions.txt").rename(root / "text.txt")
    return "has no file of captions; expected captions.txt, .* found .*text.txt"


def break_header(root: Path) -> str:
    (root / "captions.txt").write_text(TOKENS)
    return "the first line must be 'image,caption' .* found 'a.jpg#0"


def break_split(root: Path) -> str:
    (root / "Flickr_8k.devImages.txt").write_text("\n")
    return "no images for the split 'val'"


def lose_split(root: Path) -> str:
    (root / "Flickr_8k.trainImages.txt").unlink()
    return "Flickr_8k.trainImages.txt: no images for the split 'train'"


@pytest.mark.parametrize(
    "damage", [break_folder, break_captions, break_header, break_split, lose_split]
)
def test_an_invalid_layout_is_a_one_line_error(root, damage):
    expected = damage(root)
    with pytest.raises(CaptionGANError, match=rf"^[^\n]*{expected}[^\n]*$"):
        open_root(root)


def test_a_changed_list_changes_the_fingerprint(root):
    before = open_root(root).fingerprint
    assert before == open_root(root).fingerprint == json.loads(json.dumps(before))
    os.utime(root / "Flickr_8k.trainImages.txt", (0, 0))
    assert open_root(root).fingerprint != before


def test_remote_file_system(root):
    for path in filter(Path.is_file, root.rglob("*")):
        tf.io.gfile.copy(str(path), f"ram://flickr/{path.relative_to(root)}")
    assert named_examples(open_root("ram://flickr"), "train") == TRAIN


def test_real_data(real_data):
    skips = Skips()
    source = open_root(real_data / "flickr8k", skips)
    assert source.images_of_split == {"train": 6000, "val": 1000}
    assert all(len(entry.captions) == 5 for listed in source.files.values() for entry in listed)
    (first,) = source.examples("val", range(1))
    assert first.image_id == "2090545563_a4e66ec76b.jpg"
    assert Image.open(io.BytesIO(first.image)).size == (224, 224)
    assert not skips.all
