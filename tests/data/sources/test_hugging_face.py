"""Data sets in the formats of the Hugging Face Hub, all on disk."""

import io

import datasets
import pyarrow as pa
import pytest
from PIL import Image

from caption_gan.config.data import DataConfig, HuggingFaceConfig
from caption_gan.data.skips import Skips
from caption_gan.data.sources.hugging_face import open_hugging_face
from caption_gan.data.sources.splits import assign_splits
from caption_gan.errors import CaptionGANError

BYTES_AND_PATH = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}


@pytest.fixture(autouse=True)
def private_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def png(shade: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (4, 4), (shade, 0, 0)).save(stream, format="PNG")
    return stream.getvalue()


def write(path, **columns):
    """Writes a Parquet file with one image per row: 0.png, 1.png, ..."""
    rows = len(next(iter(columns.values())))
    images = [{"bytes": png(row), "path": f"folder/{row}.png"} for row in range(rows)]
    table = datasets.Dataset.from_dict({"image": images, **columns})
    path.parent.mkdir(parents=True, exist_ok=True)
    table.cast_column("image", datasets.Image()).to_parquet(path)


def open_set(root, skips=None, held_out=0.2, split_column=None, **settings):
    config = DataConfig(
        "hugging_face",
        str(root),
        split_column=split_column,
        held_out=held_out,
        hugging_face=HuggingFaceConfig(**settings),
    )
    return open_hugging_face(config, Skips() if skips is None else skips)


def read(source, split):
    return list(source.examples(split, range(source.images_of_split[split])))


def captions(source, split="train"):
    return {example.image_id: example.captions for example in read(source, split)}


def test_parquet_files_named_after_their_splits(tmp_path):
    write(tmp_path / "data" / "train-00000-of-00001.parquet", caption=["A.", "B.", "C."])
    write(tmp_path / "data" / "validation-00000-of-00001.parquet", caption=["D."])
    source = open_set(tmp_path)
    assert source.images_of_split == {"train": 3, "val": 1}
    examples = list(source.examples("train", range(1, 3)))
    assert [example.captions for example in examples] == [("B.",), ("C.",)]
    assert [example.image for example in examples] == [png(1), png(2)]  # Not decoded.


def test_file_names_are_ids_only_if_they_are_unique(tmp_path):
    write(tmp_path / "a" / "train.parquet", caption=["A.", "B."])
    assert set(captions(open_set(tmp_path / "a", held_out=0))) == {"0.png", "1.png"}
    write(tmp_path / "b" / "train.parquet", caption=["A.", "B."])
    write(tmp_path / "b" / "test.parquet", caption=["C."])
    write(tmp_path / "b" / "val.parquet", caption=["D."])  # Has a 0.png, like train.
    source = open_set(tmp_path / "b")
    assert captions(source) == {"train-000000": ("A.",), "train-000001": ("B.",)}
    assert captions(source, "val") == {"val-000000": ("D.",)}


def test_paths_are_ids_where_file_names_are_not_unique(tmp_path):
    paths = [f"/home/me/set/{name}" for name in ("monday/1.png", "tuesday/1.png", "2.png")]
    images = [{"bytes": png(row), "path": path} for row, path in enumerate(paths)]
    table = datasets.Dataset.from_dict({"image": images, "caption": ["M.", "T.", "2."]})
    table.save_to_disk(tmp_path)
    source = open_set(tmp_path, held_out=0)
    assert captions(source) == {
        "monday/1.png": ("M.",),
        "tuesday/1.png": ("T.",),
        "2.png": ("2.",),
    }
    assert list(source.image_ids()) == ["monday/1.png", "tuesday/1.png", "2.png"]


@pytest.mark.parametrize("name", ["train.parquet", "test.parquet"])
def test_a_single_split_is_divided_by_image(tmp_path, name):
    rows = 40
    write(tmp_path / name, caption=[f"{row}." for row in range(rows)])
    source = open_set(tmp_path)
    for split in ("train", "val", "test"):
        names = [name for name in map("{}.png".format, range(rows))]
        expected = [name for name in names if assign_splits(names, 0.2)[name] == split]
        assert expected and [example.image_id for example in read(source, split)] == expected
        assert captions(source, split)[expected[-1]] == (f"{expected[-1][:-4]}.",)


SPLITS = ["train", "test", "val", "restval", "extra"]


@pytest.mark.parametrize("streaming", [False, True])
def test_a_column_of_splits_divides_a_single_table(tmp_path, streaming):
    images = [{"bytes": png(row), "path": None} for row in range(5)]
    table = datasets.Dataset.from_dict(
        {"image": images, "caption": list("ABCDE"), "split": SPLITS, "set": [0, 1, 2, 0, 1]}
    )
    table.cast_column("image", datasets.Image()).to_parquet(tmp_path / "test.parquet")
    (tmp_path / "README.md").write_text(
        "---\ndataset_info:\n  splits:\n  - name: test\n    num_examples: 5\n---\n"
    )
    skips = Skips()
    source = open_set(tmp_path, skips, streaming=streaming)
    assert captions(source) == {"train-000000": ("A",), "train-000003": ("D",)}
    assert list(source.images_of_split) == ["train", "val", "test"]
    assert captions(source, "val") == {"val-000002": ("C",)}
    assert captions(source, "test") == {"test-000001": ("B",)}
    assert skips.lines() == [f"1 rows of {tmp_path} have an unknown split 'extra': row 4"]
    assert skips.notes == [
        f"the column split of {tmp_path} says the splits of images: 1 train, 1 test, 1 val, "
        "1 restval (train)",
    ]


def test_a_column_of_classes_says_the_splits(tmp_path):
    write(tmp_path / "a.parquet", caption=["A.", "B.", "C."], part=["test", "train", "val"])
    table = datasets.load_dataset("parquet", data_files=str(tmp_path / "a.parquet"), split="train")
    table.class_encode_column("part").save_to_disk(tmp_path / "saved")
    assert captions(open_set(tmp_path / "saved"), "test") == {"0.png": ("A.",)}
    source = open_set(tmp_path / "a.parquet", split_column="part", id_column="caption")
    assert captions(source, "test") == {"A.": ("A.",)}


def test_without_validation_rows_training_images_are_held_out(tmp_path):
    write(tmp_path / "a.parquet", caption=["A."] * 9, split=["train"] * 6 + ["test"] * 3)
    source = open_set(tmp_path / "a.parquet")
    assert source.images_of_split == {"train": 5, "val": 1, "test": 3}
    assert set(captions(source, "test")) == {"6.png", "7.png", "8.png"}


@pytest.mark.parametrize(
    ("splits", "named", "words"),
    [
        (["test", "test"], None, "has no row of the split train; found test"),
        (["a", "b"], "split", "the column split .* has the values a, b; expected names of"),
        (["train", "test"], "part", "has no column 'part' that may say splits; found split"),
    ],
)
def test_a_column_of_splits_that_cannot_be_used(tmp_path, splits, named, words):
    write(tmp_path / "a.parquet", caption=["A.", "B."], split=splits)
    with pytest.raises(CaptionGANError, match=rf"^[^\n]*{words}[^\n]*$"):
        open_set(tmp_path / "a.parquet", split_column=named)


def test_files_of_splits_win_over_a_column(tmp_path):
    for name in ("train", "val"):
        write(tmp_path / f"{name}.parquet", caption=["A."], split=["test"])
    assert open_set(tmp_path).images_of_split == {"train": 1, "val": 1}
    with pytest.raises(CaptionGANError, match=r"is 'split', but .* train, val; omit"):
        open_set(tmp_path, split_column="split")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", "image,caption,split\nday\\1.png,A,train\nnight/1.png,B,test\n"),
        ("t.csv", "image;caption;split\nday/1.png;A;train\nnight/1.png;B;test\n"),
        ("t.tsv", "image\tcaption\tsplit\nday/1.png\tA\ttrain\nnight/1.png\tB\ttest\n"),
        (
            "t.jsonl",
            '{"image": "day/1.png", "caption": ["A"], "split": "train"}\n'
            '{"image": "night/1.png", "caption": ["B"], "split": "test"}\n',
        ),
    ],
)
def test_a_single_file_of_text_names_images_in_its_folder(tmp_path, name, text):
    for number, day in enumerate(("day", "night")):
        (tmp_path / day).mkdir()
        (tmp_path / day / "1.png").write_bytes(png(number))
    (tmp_path / name).write_text(text)
    source = open_set(tmp_path / name, held_out=0)
    assert captions(source) == {"day/1.png": ("A",)}
    assert captions(source, "test") == {"night/1.png": ("B",)}
    assert [example.image for example in read(source, "test")] == [png(1)]


def test_without_a_validation_split_training_images_are_held_out(tmp_path):
    write(tmp_path / "train.parquet", caption=[f"{row}." for row in range(40)])
    write(tmp_path / "test.parquet", caption=["A.", "B."])
    source = open_set(tmp_path)
    assert captions(source, "test") == {"test-000000": ("A.",), "test-000001": ("B.",)}
    counts = source.images_of_split
    assert counts["val"] > 0 and counts["train"] + counts["val"] == 40


def test_a_single_file(tmp_path):
    write(tmp_path / "some.parquet", caption=["A."])
    source = open_set(tmp_path / "some.parquet", held_out=0)
    assert captions(source) == {"0.png": ("A.",)}


@pytest.mark.parametrize("whole", [True, False])
def test_folders_written_by_save_to_disk(tmp_path, whole):
    table = datasets.Dataset.from_dict({"image": [png(1)], "caption": ["A."]})
    saved = datasets.DatasetDict({"train": table, "dev": table}) if whole else table
    saved.save_to_disk(tmp_path)
    source = open_set(tmp_path, held_out=0)
    assert captions(source) == {"train-000000": ("A.",)}
    assert next(source.examples("train", range(1))).image == png(1)
    assert source.images_of_split["val"] == whole


@pytest.mark.parametrize("image", [datasets.Image(), BYTES_AND_PATH, datasets.Image(decode=False)])
def test_images_are_found_by_their_type(tmp_path, image):
    table = datasets.Dataset.from_dict(
        {"Photo": [{"bytes": png(7), "path": None}], "Text": ["A."]}
    ).cast_column("Photo", image)
    table.to_parquet(tmp_path / "train.parquet")
    (example,) = read(open_set(tmp_path, held_out=0), "train")
    assert (example.image, example.captions) == (png(7), ("A.",))


def test_image_files_are_read_and_missing_ones_counted(tmp_path):
    (tmp_path / "there.png").write_bytes(png(3))
    paths = [str(tmp_path / "there.png"), str(tmp_path / "gone.png"), None]
    table = datasets.Dataset.from_dict({"image": paths, "caption": ["A.", "B.", "C."]})
    table.save_to_disk(tmp_path / "paths")
    images = [path and {"bytes": None, "path": path} for path in paths]
    table = datasets.Dataset.from_dict({"image": images, "caption": ["A.", "B.", "C."]})
    table.save_to_disk(tmp_path / "records")
    for name in ("paths", "records"):
        skips = Skips()
        (example,) = read(open_set(tmp_path / name, skips, held_out=0), "train")
        assert (example.image, example.captions) == (png(3), ("A.",))
        assert skips.lines() == [
            "1 images are listed but not there: train-000001",
            "1 rows have no image: train-000002",
        ]


def test_files_spelled_otherwise_are_found(tmp_path):
    for name in ("IMG.PNG", "cafe\u0301.png"):
        (tmp_path / name).write_bytes(png(len(name)))
    text = "image,caption\nimg.png,A\ncaf\u00e9.png,B\nnone.png,C\n"
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    skips = Skips()
    source = open_set(tmp_path / "t.csv", skips, held_out=0)
    assert captions(source) == {"img.png": ("A",), "caf\u00e9.png": ("B",)}
    assert skips.lines() == ["1 images are listed but not there: none.png"]


def test_folders_of_images_say_the_splits(tmp_path):
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "1.png").write_bytes(png(len(split)))
    (tmp_path / "t.csv").write_text("image,caption\ntrain/1.png,A\ntest/1.png,B\n")
    skips = Skips()
    assert captions(open_set(tmp_path / "t.csv", skips), "test") == {"test/1.png": ("B",)}
    table = tmp_path / "t.csv"
    assert skips.notes == [
        f"the column image (folders) of {table} says the splits of images: 1 train, 1 test"
    ]


def test_rows_with_the_same_file_are_one_image(tmp_path):
    for name in ("monday", "tuesday"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(png(len(name)))
    rows = "".join(f"{d}/1.png,{d} {n}\n" for n in range(2) for d in ("monday", "tuesday"))
    (tmp_path / "t.csv").write_text("image,caption\n" + rows)
    source = open_set(tmp_path / "t.csv", held_out=0)
    assert captions(source) == {
        "monday/1.png": ("monday 0", "monday 1"),
        "tuesday/1.png": ("tuesday 0", "tuesday 1"),
    }


def test_rows_with_the_same_id_are_one_image(tmp_path):
    write(
        tmp_path / "train.parquet",
        caption=["A.", "B.", "C.", "D.", "E."],
        cocoid=[7, 8, 7, None, 7],
    )
    skips = Skips()
    source = open_set(tmp_path, skips, held_out=0, id_column="cocoid")
    assert captions(source) == {"7": ("A.", "C.", "E."), "8": ("B.",)}
    assert [example.image for example in read(source, "train")] == [png(0), png(1)]
    assert skips.lines() == ["1 rows have no cocoid: row 3 of train"]


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("A.", ("A.",)),
        (["A.", "B."], ("A.", "B.")),
        ([{"raw": "A.", "tokens": ["a"]}, {"raw": "B.", "tokens": ["b"]}], ("A.", "B.")),
        (["A.", None, ""], ("A.", "")),  # Empty ones are counted later.
        ([], ()),
    ],
)
def test_captions_are_strings_lists_or_records(tmp_path, cell, expected):
    write(tmp_path / "train.parquet", sentences=[cell, None, cell])
    source = open_set(tmp_path, held_out=0)
    assert captions(source) == {"0.png": expected, "1.png": (), "2.png": expected}


def test_several_columns_of_captions(tmp_path):
    write(tmp_path / "train.parquet", short=["A."], long=[["B.", "C."]], caption=["not this"])
    source = open_set(tmp_path, held_out=0, caption_columns=["long", "short"])
    assert captions(source) == {"0.png": ("B.", "C.", "A.")}


def test_rows_are_streamed_if_their_number_is_known(tmp_path):
    rows = 30
    write(tmp_path / "train.parquet", caption=[f"{row}." for row in range(rows)])
    with pytest.raises(CaptionGANError, match="how many rows its split train has; set streaming"):
        open_set(tmp_path, streaming=True)
    (tmp_path / "README.md").write_text(
        "---\ndataset_info:\n  splits:\n  - name: train\n    num_examples: 32\n---\n"
    )
    skips = Skips()
    source = open_set(tmp_path, skips, streaming=True)
    names = [f"train-{row:06d}" for row in range(rows + 2)]
    expected = [name for name in names if assign_splits(names, 0.2)[name] == "train"]
    assert source.images_of_split["train"] == len(expected)
    examples = list(source.examples("train", range(3, 12)))
    assert [example.image_id for example in examples] == expected[3:12]
    assert expected[3:12] != names[3:12]  # Rows in between were held out.
    for example in examples:
        row = int(example.image_id[-6:])
        assert (example.image, example.captions) == (png(row), (f"{row}.",))
    assert [example.image_id for example in read(source, "train")] == expected[:-1]
    assert skips.lines() == ["1 rows are announced but not there: train-000031"]


def test_the_fingerprint_changes_with_the_content(tmp_path):
    write(tmp_path / "train.parquet", caption=["A."])
    before = open_set(tmp_path).fingerprint
    assert open_set(tmp_path).fingerprint == before
    assert open_set(tmp_path, held_out=0.3).fingerprint != before
    write(tmp_path / "train.parquet", caption=["B."])
    assert open_set(tmp_path).fingerprint != before


def test_opening_reads_no_images(tmp_path):
    images = [{"bytes": bytes([row]) * 1_000_000, "path": f"{row}.png"} for row in range(20)]
    table = datasets.Dataset.from_dict({"image": images, "caption": ["A."] * 20})
    table.save_to_disk(tmp_path)
    del table, images
    before = pa.total_allocated_bytes()
    source = open_set(tmp_path, held_out=0, id_column="caption")
    source = open_set(tmp_path, held_out=0)
    assert source.images_of_split["train"] == 20
    assert pa.total_allocated_bytes() - before < 1_000_000


def test_splits_of_other_names_are_counted(tmp_path):
    for name in ("train", "val", "extra"):
        write(tmp_path / name / "0.parquet", caption=["A."])
    (tmp_path / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n"
        + "".join(
            f"  - split: {name}\n    path: {name}/*.parquet\n" for name in ("train", "val", "extra")
        )
        + "---\n"
    )
    skips = Skips()
    assert open_set(tmp_path, skips).images_of_split == {"train": 1, "val": 1}
    assert skips.lines() == ["1 splits of the data set are not used: extra"]


@pytest.mark.parametrize(
    ("columns", "settings", "words"),
    [
        ({"story": ["A."]}, {}, "caption_columns is not set.*choose from image, story"),
        ({"caption": ["A."]}, {"image_column": "photo"}, "'photo'; found image, caption"),
        ({"caption": ["A."]}, {"caption_columns": ["x"]}, "'x'; found image, caption"),
        ({"caption": ["A."]}, {"id_column": "x"}, "'x'; found image, caption"),
        ({"caption": ["A."]}, {"id_column": "caption", "streaming": True}, "cannot be streamed"),
        ({"caption": ["A."]}, {"name": "large"}, "large"),
    ],
)
def test_settings_that_do_not_fit_the_data_set(tmp_path, columns, settings, words):
    write(tmp_path / "train.parquet", **columns)
    with pytest.raises(CaptionGANError, match=rf"^[^\n]*{words}[^\n]*$"):
        open_set(tmp_path, **settings)


def test_captions_that_are_not_texts_are_counted(tmp_path):
    write(tmp_path / "train.parquet", caption=[1.5], text=["A."])
    skips = Skips()
    source = open_set(tmp_path, skips, held_out=0, caption_columns=["caption", "text"])
    assert captions(source) == {"0.png": ("A.",)}
    assert skips.lines() == ["1 captions of the column caption are not texts: 0.png (1.5)"]


def test_lists_written_as_text_in_lists(tmp_path):
    write(tmp_path / "train.parquet", captions=[["['A dog', 'A wolf']"], [], ["['A cat']"]])
    source = open_set(tmp_path, held_out=0)
    assert list(captions(source).values()) == [("A dog", "A wolf"), (), ("A cat",)]


@pytest.mark.parametrize("streaming", [False, True])
def test_lists_written_as_text(tmp_path, streaming):
    cells = ["['A dog' 'A wolf']", None, '["A cat"]']
    write(tmp_path / "train.parquet", caption=cells, text=["[A.", "['B", "C."])
    (tmp_path / "README.md").write_text(
        "---\ndataset_info:\n  splits:\n  - name: train\n    num_examples: 3\n---\n"
    )
    skips = Skips()
    settings = {"caption_columns": ["caption", "text"], "streaming": streaming}
    source = open_set(tmp_path, skips, held_out=0, **settings)
    assert list(captions(source).values()) == [
        ("A dog", "A wolf", "[A."),
        ("['B",),
        ("A cat", "C."),
    ]
    assert skips.notes == [
        "2 texts of the column caption are lists; each item is a caption",
        "warning: 1 of 3 texts of the column text look like lists of captions, but 3 are no lists, "
        "such as '[A.'; each text is one caption",
    ]


def test_several_image_columns_need_a_setting(tmp_path):
    image = {"bytes": png(1), "path": None}
    table = datasets.Dataset.from_dict({"left": [image], "right": [image], "caption": ["A."]})
    table.save_to_disk(tmp_path)
    with pytest.raises(CaptionGANError, match=r"image_column is not set.*left, right, caption"):
        open_set(tmp_path)
    assert open_set(tmp_path, image_column="right", held_out=0).images_of_split["train"] == 1


def test_without_a_training_split(tmp_path):
    write(tmp_path / "val.parquet", caption=["A."])
    write(tmp_path / "test.parquet", caption=["A."])
    with pytest.raises(CaptionGANError, match=r"has no split train; .* found val"):
        open_set(tmp_path)


def test_data_that_cannot_be_loaded_are_a_one_line_error(tmp_path, capfd):
    (tmp_path / "empty").mkdir()
    (tmp_path / "no.parquet").write_text("not Parquet")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "train.csv").write_text('image,caption\n"a')
    for root in ("empty", "no.parquet", "broken", "nowhere"):
        with pytest.raises(
            CaptionGANError, match=rf"^data\.root: [^\n]*{root}[^\n]*cannot be read"
        ):
            open_set(tmp_path / root)
    with pytest.raises(
        CaptionGANError, match=r"^data\.root: someone/captions cannot be read[^\n]*$"
    ):
        open_set("someone/captions")
    assert capfd.readouterr() == ("", "")


def test_real_data(real_data):
    source = open_set(real_data / "charts")
    assert source.images_of_split == {"train": 2000, "val": 300}
    first = next(source.examples("val", range(1)))
    assert first.image_id == "19.png"
    assert first.captions == (
        "The public followed the stimulus debate more closely than any other story",
    )
    assert Image.open(io.BytesIO(first.image)).format == "PNG"
