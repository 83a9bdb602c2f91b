"""Data sets that the library `datasets` would misread: names of images, encodings of tables."""

import io

import pytest
from PIL import Image

from caption_gan.config.data import DataConfig
from caption_gan.data.skips import Skips
from caption_gan.data.sources.hugging_face import open_hugging_face
from caption_gan.errors import CaptionGANError

NAMES = ("train.png", "test.png", "a-val-1.png", "b.png")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def write(folder, names=NAMES, encoding="utf-8") -> None:
    folder.mkdir(parents=True)
    stream = io.BytesIO()
    Image.new("RGB", (2, 2)).save(stream, "PNG")
    for name in names:
        (folder / name).write_bytes(stream.getvalue())
    rows = [f"{name},a café {name}\n" for name in names]
    (folder / "metadata.csv").write_bytes("".join(["file_name,text\n", *rows]).encode(encoding))


def captions(root, **settings) -> dict[str, set[str]]:
    config = DataConfig("hugging_face", str(root), held_out=0, **settings)
    source = open_hugging_face(config, Skips())
    return {
        split: {
            text for example in source.examples(split, range(count)) for text in example.captions
        }
        for split, count in source.images_of_split.items()
    }


def test_names_of_images_are_no_names_of_splits(tmp_path):
    write(tmp_path / "images")
    found = captions(tmp_path / "images")
    assert found["train"] == {f"a café {name}" for name in NAMES}
    assert not found["val"] and not found["test"]


def test_names_of_folders_are_names_of_splits(tmp_path):
    for split in ("train", "val"):
        write(tmp_path / "images" / split, [f"test-{split}.png"])
    assert captions(tmp_path / "images") == {
        "train": {"a café test-train.png"},
        "val": {"a café test-val.png"},
    }


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("as_folder", [True, False])
def test_tables_are_read_in_their_encoding(tmp_path, encoding, as_folder):
    write(tmp_path / "images")
    (tmp_path / "table").mkdir()
    table = tmp_path / "table" / "data.csv"
    text = f"image,caption\n{tmp_path / 'images' / 'b.png'},a café\n"
    table.write_bytes(text.encode(encoding))
    root = table.parent if as_folder else table
    assert captions(root, encoding="cp1252")["train"] == {"a café"}
    if encoding == "cp1252":
        with pytest.raises(CaptionGANError, match=r"data\.csv, line 2: .*--data\.encoding=cp1252"):
            captions(root)


@pytest.mark.parametrize(
    ("encoding", "words"),
    [("utf-16", "is utf-16.* set data.source to folder"), ("cp1252", "line 2: .*iconv -f cp1252")],
)
def test_metadata_that_the_library_cannot_read_is_named(tmp_path, encoding, words):
    write(tmp_path / "images", encoding=encoding)
    with pytest.raises(CaptionGANError, match=rf"metadata\.csv.*{words}"):
        captions(tmp_path / "images")
