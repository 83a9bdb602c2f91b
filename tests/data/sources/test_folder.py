"""Folders of images with metadata, valid and invalid."""

import csv
import json
import os

import pytest
import tensorflow as tf

from caption_gan.config.data import DataConfig
from caption_gan.data.skips import Skips
from caption_gan.data.sources.folder import open_folder
from caption_gan.data.sources.splits import assign_splits
from caption_gan.errors import CaptionGANError


def write(root, images, metadata, name="metadata.jsonl"):
    root.mkdir(parents=True, exist_ok=True)
    for image in images:
        (root / image).parent.mkdir(exist_ok=True)
        (root / image).write_bytes(image.encode())
    if not isinstance(metadata, str):
        metadata = "".join(json.dumps(row) + "\n" for row in metadata)
    (root / name).write_text(metadata)


def open_root(root, skips=None, held_out=0):
    config = DataConfig("folder", str(root), held_out=held_out)
    return open_folder(config, Skips() if skips is None else skips)


def read(source, split="train"):
    return list(source.examples(split, range(source.images_of_split[split])))


def captions(source, split="train"):
    return {example.image_id: example.captions for example in read(source, split)}


@pytest.mark.parametrize(
    "metadata",
    [
        [{"file_name": "a.png", "caption": "A."}, {"file_name": "b.png", "caption": "B."}],
        [{"file_name": "./a.png", "text": "A."}, {"file_name": "b.png", "captions": ["B."]}],
    ],
)
def test_json_lines(tmp_path, metadata):
    write(tmp_path, ["a.png", "b.png"], metadata)
    assert captions(open_root(tmp_path)) == {"a.png": ("A.",), "b.png": ("B.",)}
    assert [example.image for example in read(open_root(tmp_path))] == [b"a.png", b"b.png"]


def test_csv_with_commas_and_line_breaks(tmp_path):
    write(tmp_path, ["a.png"], '\ufefffile_name,caption\na.png,"A, or\nB."\n', "metadata.csv")
    assert captions(open_root(tmp_path)) == {"a.png": ("A, or\nB.",)}


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_other_separators(tmp_path, separator):
    rows = [
        ["file_name", "caption", "split"],
        ["a.png", "A, or B", "train"],
        ["b.png", "B", "test"],
    ]
    text = "\n".join(separator.join(row) for row in rows)
    write(tmp_path, ["a.png", "b.png"], text, "metadata.csv")
    assert captions(open_root(tmp_path)) == {"a.png": ("A, or B",)}


def test_captions_in_several_rows_columns_and_lists(tmp_path):
    rows = [
        {"file_name": "a.png", "caption_1": "A.", "caption_2": "B.", "caption_source": "people"},
        {"file_name": "b.png", "Text": None, "captions": []},
        {"file_name": "a.png", "captions": ["C.", None, ""], "text": "D."},
    ]
    skips = Skips()
    write(tmp_path, ["a.png", "b.png"], rows)
    assert captions(open_root(tmp_path, skips)) == {"a.png": ("A.", "B.", "C.", "", "D.")}
    assert skips.lines() == ["1 images have no caption: b.png"]


def test_other_names_of_split_folders(tmp_path):
    for folder in ("Train", "validation", "test"):
        write(tmp_path / folder, ["a.png"], [{"file_name": "a.png", "caption": folder}])
    write(tmp_path / "notes", [], "nothing")
    source = open_root(tmp_path)
    assert source.images_of_split == {"train": 1, "val": 1, "test": 1}
    assert captions(source, "val") == {"validation/a.png": ("validation",)}


@pytest.mark.parametrize("folder", [".", "train"])
def test_without_splits_images_are_held_out_with_all_their_captions(tmp_path, folder):
    images = [f"{number}.png" for number in range(40)]
    rows = [{"file_name": image, "caption": caption} for caption in "AB" for image in images]
    write(tmp_path / folder, images, rows)
    source = open_root(tmp_path, held_out=0.2)
    for split in ("train", "val", "test"):
        expected = [image for image in images if assign_splits(images, 0.2)[image] == split]
        assert expected and captions(source, split) == dict.fromkeys(expected, ("A", "B"))


def test_a_column_of_splits(tmp_path):
    metadata = (
        "file_name,caption,split\na.png,A.,training\nb.png,B.,dev\na.png,A too.,train\n"
        "b.png,B too.,test\nc.png,C.,other\nd.png,D.,\n"
    )
    skips = Skips()
    write(tmp_path, ["a.png", "b.png", "c.png", "d.png"], metadata, "metadata.csv")
    source = open_root(tmp_path, skips)
    assert captions(source) == {"a.png": ("A.", "A too."), "d.png": ("D.",)}
    assert captions(source, "val") == {"b.png": ("B.",)}
    assert skips.lines() == [
        "1 rows of metadata.csv have an unknown split 'other': line 6",
        "1 rows of metadata.csv put their image into a second split: line 5",
    ]


def test_a_column_of_another_name_and_the_setting(tmp_path):
    rows = [
        {"file_name": f"{name}.png", "caption": name, "partition": split, "my_set": mine}
        for name, split, mine in (("a", "train", "test"), ("b", "test", "train"))
    ]
    write(tmp_path, ["a.png", "b.png"], rows)
    with pytest.raises(
        CaptionGANError, match=r"several columns .* partition, my_set; set data.split_"
    ):
        open_root(tmp_path)
    config = DataConfig("folder", str(tmp_path), held_out=0, split_column="partition")
    skips = Skips()
    source = open_folder(config, skips)
    assert captions(source, "test") == {"b.png": ("b",)}
    assert skips.notes == [
        "the column partition of metadata.jsonl says the splits of images: 1 train, 1 test"
    ]
    config = DataConfig("folder", str(tmp_path), held_out=0, split_column="my_set")
    other = open_folder(config, Skips())
    assert captions(other, "test") == {"a.png": ("a",)}
    assert other.fingerprint != source.fingerprint


def test_published_test_images_are_never_trained_on(tmp_path):
    images = [f"{number}.png" for number in range(9)]
    rows = [{"file_name": image, "caption": "A.", "split": "test"} for image in images]
    write(tmp_path, images, rows)
    assert open_root(tmp_path, held_out=0.2).images_of_split == {"test": 9}
    for row in rows[:6]:
        row["split"] = "train"
    write(tmp_path, [], rows)
    source = open_root(tmp_path, held_out=0.2)
    assert source.images_of_split == {"train": 5, "val": 1, "test": 3}
    assert set(captions(source, "test")) == set(images[6:])


def test_images_of_the_same_name_in_different_folders(tmp_path):
    rows = [{"file_name": f"{folder}/1.png", "text": folder} for folder in ("cats", "dogs")]
    skips = Skips()
    write(tmp_path, ["cats/1.png", "dogs/1.png", "dogs/2.png"], rows)
    source = open_root(tmp_path, skips)
    assert captions(source) == {"cats/1.png": ("cats",), "dogs/1.png": ("dogs",)}
    assert skips.lines() == ["1 images have no caption: dogs/2.png"]


def test_lists_written_as_text_are_read_if_all_are(tmp_path):
    rows = [
        ["a.png", "['A dog', 'It''s a dog']".replace("''", "\\'"), "['x', 'y']"],
        ["b.png", "['B']", "a plain text"],
        ["c.png", "", ""],
    ]
    with open(tmp_path / "metadata.csv", "w", newline="") as file:
        csv.writer(file).writerows([["file_name", "caption_1", "caption_2"], *rows])
    write(tmp_path, ["a.png", "b.png", "c.png"], "", "empty.txt")
    skips = Skips()
    assert captions(open_root(tmp_path, skips)) == {
        "a.png": ("A dog", "It's a dog", "['x', 'y']"),
        "b.png": ("B", "a plain text"),
        "c.png": ("", ""),
    }
    assert skips.notes == [
        "2 texts of the column caption_1 of metadata.csv are lists; each item is a caption",
        "warning: 1 of 2 texts of the column caption_2 of metadata.csv look like lists of "
        "captions, but 1 are no lists, such as 'a plain text'; each text is one caption",
    ]


def test_lines_that_are_not_json_are_counted(tmp_path):
    rows = ['{"file_name": "a.png", "text": "A."}', "", '{"file_name": "b.png"', "[1]", "{}"]
    skips = Skips()
    write(tmp_path, ["a.png"], "\r\n".join([*rows, '{"file_name": "a.png", "text": 5}']))
    assert captions(open_root(tmp_path, skips)) == {"a.png": ("A.",)}
    assert skips.lines() == [
        "1 captions of metadata.jsonl are not texts: line 6 (5)",
        "2 rows of metadata.jsonl are not JSON objects: "
        """line 3 ('{"file_name": "b.png"'), line 4 ([1])""",
        "1 rows of metadata.jsonl name no image: line 5 (null)",
    ]


@pytest.mark.parametrize("name", ["metadata.json", "metadata.jsonl"])
@pytest.mark.parametrize("indent", [None, 2])
def test_a_json_array_of_objects_is_read(tmp_path, name, indent):
    rows = [{"file_name": "a.png", "text": "A."}, None, {"file_name": "a.png", "captions": ["B."]}]
    skips = Skips()
    write(tmp_path, ["a.png"], "\n" + json.dumps(rows, indent=indent) + "\n", name)
    assert captions(open_root(tmp_path, skips)) == {"a.png": ("A.", "B.")}
    assert skips.lines() == [f"1 rows of {name} are not JSON objects: number 2 (null)"]


@pytest.mark.parametrize("indent", [None, 2])
def test_metadata_json_may_have_lines_or_one_object(tmp_path, indent):
    write(tmp_path, ["a.png"], json.dumps({"file_name": "a.png", "text": "A."}, indent=indent))
    (tmp_path / "metadata.jsonl").rename(tmp_path / "metadata.json")
    assert captions(open_root(tmp_path)) == {"a.png": ("A.",)}


def test_nan_is_an_empty_cell(tmp_path):
    row = {
        "file_name": "a.png",
        "caption_1": "A.",
        "caption_2": float("nan"),
        "split": float("nan"),
    }
    skips = Skips()
    write(tmp_path, ["a.png"], [row, row | {"file_name": float("nan")}])
    assert captions(open_root(tmp_path, skips)) == {"a.png": ("A.",)}
    assert skips.lines() == ["1 rows of metadata.jsonl name no image: line 2 (null)"]


def test_csv_rows_with_a_wrong_number_of_cells_are_counted(tmp_path):
    metadata = "file_name,title,caption\na.png,A, or B.,C\nb.png\n\na.png,T,A.\n"
    skips = Skips()
    write(tmp_path, ["a.png"], metadata, "metadata.csv")
    assert captions(open_root(tmp_path, skips)) == {"a.png": ("A.",)}
    assert skips.lines() == [
        "2 rows of metadata.csv have more or fewer cells than columns; put captions with commas "
        "into quotation marks: line 2 ('a.png,A, or B.,C'), line 3 ('b.png')"
    ]


def test_captions_may_have_commas_where_only_they_can(tmp_path):
    metadata = (
        'file_name,caption,split\na.png,"A,\nor B.",train\na.png,C, or D.,train\n'
        'a.png,"E, or F,train,train\n'
    )
    skips = Skips()
    write(tmp_path, ["a.png"], metadata[: metadata.rindex("a.png")], "metadata.csv")
    assert captions(open_root(tmp_path, skips)) == {"a.png": ("A,\nor B.", "C, or D.")}
    assert not skips.all
    write(tmp_path, ["a.png"], metadata, "metadata.csv")
    with pytest.raises(CaptionGANError, match="not valid CSV from line 5 on"):
        open_root(tmp_path)


def test_images_without_rows_and_rows_without_images_are_counted(tmp_path):
    skips = Skips()
    write(tmp_path, ["a.png", "B.JPG", "x.txt"], [{"file_name": "z.png", "text": "Z."}])
    assert captions(open_root(tmp_path, skips)) == {}
    assert skips.lines() == [
        "1 images are listed but not there: z.png",
        "2 images have no caption: B.JPG, a.png",
    ]


def test_the_fingerprint_changes_with_metadata_and_images(tmp_path):
    write(tmp_path, ["a.png"], [{"file_name": "a.png", "text": "A."}])
    fingerprint = open_root(tmp_path).fingerprint
    assert json.dumps(open_root(tmp_path).fingerprint) == json.dumps(fingerprint)
    assert open_root(tmp_path, held_out=0.1).fingerprint != fingerprint
    write(tmp_path, [], [{"file_name": "a.png", "text": "A dog."}])
    assert open_root(tmp_path).fingerprint != fingerprint


@pytest.mark.parametrize(
    ("name", "metadata", "words"),
    [
        ("metadata.csv", "image,caption\na.png,A.\n", "expected columns.* found image, caption"),
        (
            "metadata.csv",
            "file_name,story\na.png,A.\n",
            "expected columns.* found file_name, story",
        ),
        ("metadata.csv", "", "has no row that can be used"),
        ("metadata.jsonl", '{"file_name": "a", "story": 1}', "found file_name, story"),
        (
            "metadata.csv",
            "file_name,caption_1,caption_2\na.png,a dog, running,a cat\n",
            "no row that can be used; .*commas into quotation marks: line 2 .*a dog, running,a cat",
        ),
        ("metadata.jsonl", "these\nare no rows\n", "no row that can be used; .* 2 rows"),
        ("metadata.csv", 'file_name,caption\na,A\nb,"B\nc,C\n', "not valid CSV from line 3 on"),
        (
            "metadata.jsonl",
            '{"file_name": 5, "text": "A"}',
            "no row can be used. 1 rows .* line 1 ",
        ),
        (
            "metadata.json",
            '[{"file_name": "a.png", "text"',
            "is not JSON, or is truncated",
        ),
        (
            "metadata.json",
            '["a.png", "b.png"]',
            "no row that can be used; .* 2 rows .*: number 1 .'a.png'",
        ),
        ("metadata.json", json.dumps({"a" * 9: "A", "b" * 99: 1}), "found aaaaaaaaa, ..."),
        ("captions.json", "{}", "has no metadata.jsonl .*; found a.png, captions.json"),
    ],
)
def test_an_invalid_folder_is_a_one_line_error(tmp_path, name, metadata, words):
    write(tmp_path, ["a.png"], metadata, name)
    with pytest.raises(CaptionGANError, match=rf"^[^\n]*{words}[^\n]*$"):
        open_root(tmp_path)


def test_remote_file_system():
    root = "ram://far/away"
    for path, content in (
        ("train/metadata.csv", "file_name,caption\na.png,A.\n"),
        ("train/a.png", "image"),
        ("val/metadata.jsonl", '{"file_name": "b.png", "caption": "B."}'),
        ("val/b.png", "image"),
    ):
        tf.io.gfile.makedirs(os.path.dirname(f"{root}/{path}"))
        with tf.io.gfile.GFile(f"{root}/{path}", "w") as file:
            file.write(content)
    source = open_root(root)
    assert captions(source) == {"a.png": ("A.",)}
    assert captions(source, "val") == {"b.png": ("B.",)}
