"""A change of what is stored for a data set needs a new `FORMAT_VERSION`.

The digests cover ids, splits, captions, facts, text in images, image bytes, regions, feature names
and the names of shard files. Of generated images they cover the decoded pixels, because the PNG
bytes depend on the zlib that Pillow was built with.
"""

import hashlib
import json
import os
import struct
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from caption_gan.config.data import DataConfig
from caption_gan.config.models import EncoderConfig
from caption_gan.config.run import Config
from caption_gan.data.images import decode_image
from caption_gan.data.shards.files import shard_files
from caption_gan.data.shards.prepare import FORMAT_VERSION, Preparation
from caption_gan.data.shards.records import read_serialized
from caption_gan.models.encoders.encoder import Encoder, build_encoder

RECORDED_VERSION = 2
RECORDED_DIGESTS = {
    "figures": "9d916f904a148033",
    "scenes": "79e2f63e94327cc4",
    "folder": "1a53dd5873a87a15",
    "coco": "3095443b9ea40781",
    "flickr": "cc7f459ebef3d8ae",
    "scicap": "2ca5b2d8a4277172",
    "features": "b0229398f01f13f8",
    "cached regions": "08f0a60a8ee4ca59",
}
RECORDED_FOLDERS = ["scenes-48c3dac08082", "scenes-b6b5cb41b4c2"]
GENERATED = {"train_images": 12, "val_images": 3, "test_images": 1}


def write_bitmap(path: Path, seed: int) -> None:
    """Writes a BMP file of 8 x 8 pixels; no library decides about its bytes."""
    pixels = np.random.default_rng(seed).integers(0, 256, 8 * 8 * 3, np.uint8).tobytes()
    header = struct.pack("<2sIHHI", b"BM", 54 + len(pixels), 0, 0, 54)
    header += struct.pack("<IiiHHIIiiII", 40, 8, 8, 1, 24, 0, len(pixels), 2835, 2835, 0, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header + pixels)


def write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def folder(root: Path) -> None:
    """Twelve images without splits, so that some are held out; one has two captions."""
    rows = [
        {"file_name": f"{number}.bmp", "captions": ["Ein Hund läuft .", f"A dog, {number} ."]}
        for number in range(12)
    ]
    for number in range(12):
        write_bitmap(root / f"{number}.bmp", number)
    (root / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def coco(root: Path) -> None:
    for split, first in (("train", 0), ("val", 10)):
        numbers = range(first, first + 3)
        for number in numbers:
            write_bitmap(root / f"{split}2014" / f"{number}.bmp", number)
        images = [{"id": number, "file_name": f"{number}.bmp"} for number in numbers]
        captions = [
            {"image_id": number, "caption": f"Caption {place} of {number}."}
            for place in range(2)
            for number in reversed(numbers)
        ]
        content = {"images": images, "annotations": captions}
        write_json(root / "annotations" / f"captions_{split}2014.json", content)


def flickr(root: Path) -> None:
    for number in range(3):
        write_bitmap(root / "Images" / f"{number}.jpg", number)
    lines = [f"{number}.jpg,A dog runs {number} .\n" for number in (2, 0, 1, 2)]
    (root / "captions.txt").write_text("image,caption\n" + "".join(lines))
    (root / "Flickr_8k.trainImages.txt").write_text("1.jpg\n2.jpg\n")
    (root / "Flickr_8k.devImages.txt").write_text("0.jpg\n")


def scicap(root: Path) -> None:
    form = "1-lowercase-and-token-and-remove-figure-index"
    for split in ("train", "val"):
        record = {form: {"sentence": [f"loss of {split} ."]}, "Img-text": ["epoch", "loss"]}
        write_json(root / "SciCap-Caption-All" / split / "a.json", record)
        write_bitmap(root / "SciCap-No-Subfig-Img" / split / "a.png", len(split))
        lists = root / "List-of-Files-for-Each-Experiments" / "First-Sentence" / "No-Subfig"
        write_json(lists / split / "file_idx.json", ["a.png"])


def features(root: Path) -> None:
    root.mkdir()
    np.save(root / "features.npy", np.arange(4 * 2 * 3, dtype=np.float32).reshape(4, 2, 3) / 7)
    (root / "captions.en").write_text("".join(f"a dog ### dog {row}\n" for row in range(4)))
    (root / "links.txt").write_text("".join(f"{row}.bmp\n" for row in range(4)))
    for row in range(4):
        write_bitmap(root / f"{row}.bmp", row)


class PixelRegions(Encoder):
    """A frozen encoder whose regions are the four corner pixels, halved: exact on any processor."""

    cached_shape = regions_shape = (4, 3)
    grid = (2, 2)

    @property
    def cache_key(self) -> dict[str, str]:
        return {"backbone": "corner pixels"}

    def before_cache(self, images: tf.Tensor) -> tf.Tensor:
        corners = keras.ops.cast(images[:, ::7, ::7], "float32") / 2
        return keras.ops.reshape(corners, [-1, 4, 3])


LAYOUTS = {function.__name__: function for function in (folder, coco, flickr, scicap, features)}
KINDS = ["figures", "scenes", *LAYOUTS]


def config_of(kind: str, root: Path) -> Config:
    if kind in LAYOUTS:
        LAYOUTS[kind](root)
        data = DataConfig(source=kind, root=str(root), held_out=0.2)
    else:
        data = DataConfig(source=kind, **GENERATED)
    if kind == "features":
        return Config(data=data, encoder=EncoderConfig(name="precomputed", regions=str(root)))
    return Config(data=data, encoder=EncoderConfig(image_height=8, image_width=8, width=8))


def digest_of(preparation: Preparation) -> str:
    """Digest of the names of shards and of the features of all their records."""
    content: list[object] = []
    for split in ("train", "val"):
        prepared = preparation.prepared(split)
        content += map(os.path.basename, shard_files(prepared.directory, split))
        for record in read_serialized(prepared).as_numpy_iterator():
            feature = tf.train.Example.FromString(record).features.feature
            values = {name: list(feature[name].bytes_list.value) for name in sorted(feature)}
            if values["image/facts"] != [b""]:
                pixels = decode_image(values["image/encoded"][0]).numpy()
                values["image/encoded"] = [pixels.shape, pixels.tobytes()]
            content.append(values)
    return hashlib.sha256(repr(content).encode()).hexdigest()[:16]


def check(kind: str, digest: str) -> None:
    recorded = RECORDED_DIGESTS.get(kind)
    if digest != recorded and FORMAT_VERSION == RECORDED_VERSION:
        pytest.fail(
            f"The bytes of prepared examples changed: {kind} gives {digest}, not {recorded}. "
            "Raise FORMAT_VERSION in caption_gan/data/shards/prepare.py and record the new version "
            "and digests here. (If a newer Pillow draws other pixels, that is such a change too.)"
        )
    assert (digest, FORMAT_VERSION) == (recorded, RECORDED_VERSION), (
        f"Record FORMAT_VERSION {FORMAT_VERSION} and the digest {digest} of {kind} here."
    )


@pytest.mark.parametrize("kind", KINDS)
def test_prepared_examples_are_those_of_the_format_version(tmp_path, kind):
    config = config_of(kind, tmp_path / "data")
    preparation = Preparation(config, build_encoder(config.encoder), str(tmp_path / "shards"))
    check(kind, digest_of(preparation))


def test_the_name_of_a_cached_folder(tmp_path):
    """Shards in users' caches are found by this name."""
    folders = []
    for encoder in (
        EncoderConfig(),
        EncoderConfig(name="keras_applications", weights="none", image_height=32, image_width=32),
    ):
        data = DataConfig(source="scenes", cache=str(tmp_path), captions_per_image=5, **GENERATED)
        preparation = Preparation(Config(data=data, encoder=encoder), build_encoder(encoder))
        folders.append(os.path.basename(preparation.directory))
    assert folders == RECORDED_FOLDERS, "Cached shards would be lost."


def test_a_cached_frozen_encoder(tmp_path):
    """The layout of regions; those of a real backbone depend on the processor."""
    folder(tmp_path / "data")
    config = Config(
        data=DataConfig(source="folder", root=str(tmp_path / "data")),
        encoder=EncoderConfig(
            name="keras_applications", weights="none", flip=True, image_height=8, image_width=8
        ),
    )
    preparation = Preparation(config, PixelRegions(), str(tmp_path / "shards"))
    check("cached regions", digest_of(preparation))
