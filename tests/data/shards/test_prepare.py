"""Preparing a data set: interruption, damage, several machines, a full disk."""

import io
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from caption_gan.config.data import DataConfig
from caption_gan.config.models import EncoderConfig
from caption_gan.config.run import Config
from caption_gan.data.example import Example
from caption_gan.data.shards import files
from caption_gan.data.shards import prepare as prepare_shards
from caption_gan.data.shards.prepare import Preparation, prepare_splits
from caption_gan.data.shards.records import read_examples
from caption_gan.errors import CaptionGANError
from caption_gan.models.encoders.encoder import build_encoder
from caption_gan.prepare import prepare
from tests.programs import SMALL, call


def picture(level: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 6), (level, level, level)).save(stream, format="PNG")
    return stream.getvalue()


class Levels:
    """A source of 20 training and 4 validation images, each of another grey."""

    def __init__(self):
        self.fingerprint = "levels"
        self.images_of_split = {"train": 20, "val": 4}
        self.read = 0

    def examples(self, split, positions):
        offset = {"train": 0, "val": 100}[split]
        for position in positions:
            self.read += 1
            yield Example(f"{split}-{position}", picture(offset + position), ("a dog", "a cat"))


@pytest.fixture
def source(monkeypatch) -> Levels:
    levels = Levels()
    monkeypatch.setattr(prepare_shards, "open_source", lambda config, skips: levels)
    monkeypatch.setattr(files, "IMAGES_PER_SHARD", 6)
    return levels


@pytest.fixture
def config(tmp_path) -> Config:
    return Config(
        data=DataConfig(cache=str(tmp_path / "cache")),
        encoder=EncoderConfig(image_height=6, image_width=8, width=8),
    )


def preparation_of(config: Config, directory: str | None = None) -> Preparation:
    return Preparation(config, build_encoder(config.encoder), directory)


def ids(config: Config, split: str = "train") -> list[str]:
    prepared = preparation_of(config).prepared(split)
    assert [image.image_id for image in prepared.index] == [
        example.image_id for example in read_examples(prepared)
    ]
    return [image.image_id for image in prepared.index]


WHOLE = [f"train-{position}" for position in range(20)]


def test_shards_are_written_once_for_the_same_content(config, source):
    first = preparation_of(config).prepared("train")
    assert source.read == 20
    assert preparation_of(config).prepared("train") == first
    assert source.read == 20
    source.fingerprint = "other"
    assert preparation_of(config).prepared("train").directory != first.directory


def test_file_names_follow_tfx(config, source):
    folder = Path(preparation_of(config).prepared("train").directory) / "Split-train"
    names = sorted(path.name for path in folder.iterdir() if "tfrecord" in path.name)
    assert names == [f"data_tfrecord-0000{number}-of-00004" for number in range(4)]


def test_compressed_shards_have_the_same_content(config, source):
    plain = list(read_examples(preparation_of(config).prepared("train")))
    zipped = Config(
        data=DataConfig(cache=config.data.cache + "z", gzip=True), encoder=config.encoder
    )
    prepared = preparation_of(zipped).prepared("train")
    names = [Path(name).name for name in files.shard_files(prepared.directory, "train")]
    assert names == [f"data_tfrecord-0000{number}-of-00004.gz" for number in range(4)]
    assert list(read_examples(prepared)) == plain


def test_an_interrupted_preparation_resumes_after_finished_shards(config, source):
    whole = source.examples

    def interrupted(split, positions):
        for example in whole(split, positions):
            if example.image_id == "train-12":
                raise KeyboardInterrupt
            yield example

    source.examples = interrupted
    with pytest.raises(KeyboardInterrupt):
        preparation_of(config).prepared("train")
    finished = list(Path(config.data.cache).rglob("*tfrecord*"))
    assert len(finished) == 2
    assert not list(Path(config.data.cache).rglob("incomplete*"))
    source.examples, source.read = whole, 0
    assert ids(config) == WHOLE
    assert source.read == 10


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def remove(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("damage", [truncate, remove])
def test_a_damaged_shard_is_written_again(config, source, damage):
    prepared = preparation_of(config).prepared("train")
    damage(Path(files.shard_files(prepared.directory, "train")[1]))
    source.read = 0
    assert ids(config) == WHOLE
    assert source.read == 5


def test_the_checksum_finds_a_changed_byte(config, source):
    prepared = preparation_of(config).prepared("train")
    path = Path(files.shard_files(prepared.directory, "train")[0])
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    first, *others = preparation_of(config).shards("train")
    assert first.is_complete() and not first.is_complete(verify_checksum=True)
    assert all(shard.is_complete(verify_checksum=True) for shard in others)
    source.read = 0
    prepare(config)
    assert source.read == 9  # Five of the damaged shard, and four of val, read for the first time.
    assert first.is_complete(verify_checksum=True)


def test_old_incomplete_files_are_removed(config, source):
    folder = Path(preparation_of(config).prepared("train").directory) / "Split-train"
    old, new = folder / "incomplete-old", folder / "incomplete-new"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    (folder / "data_tfrecord-00000-of-00004").unlink()
    ids(config)
    assert not old.exists() and new.exists()


def test_machines_share_a_preparation(tmp_path, config, source):
    to = str(tmp_path / "shards")
    (line,) = prepare(config, to, shard_index=1, shard_count=2)
    # Shards 1 and 3 of train; the only shard of val belongs to the other machine.
    assert source.read == 10
    assert "3 shards of other machines are still missing" in line
    lines = prepare(config, to, shard_index=0, shard_count=2)
    assert source.read == 24
    assert lines[:2] == ["train: 20 images, 40 captions", "val: 4 images, 8 captions"]
    given = Config(data=DataConfig(shards=to), encoder=config.encoder)
    prepared = prepare_splits(given, build_encoder(config.encoder), ["train"])["train"]
    assert [example.image_id for example in read_examples(prepared)] == WHOLE
    assert (tmp_path / "shards" / "summary.html").is_file()


def test_incomplete_shards_are_rejected(tmp_path, config, source):
    to = str(tmp_path / "shards")
    prepare(config, to, shard_index=1, shard_count=2)
    given = Config(data=DataConfig(shards=to), encoder=config.encoder)
    encoder = build_encoder(config.encoder)
    with pytest.raises(CaptionGANError, match=r"tfrecord-00000-of-00004 is missing or damaged"):
        prepare_splits(given, encoder, ["train"])
    with pytest.raises(CaptionGANError, match="no split 'test'"):
        prepare_splits(given, encoder, ["test"])
    other = Config(data=DataConfig(shards=to, source="coco"), encoder=config.encoder)
    with pytest.raises(CaptionGANError, match=r"prepared with data\.source 'figures', this run"):
        prepare_splits(other, encoder, ["train"])
    nowhere = Config(data=DataConfig(shards=str(tmp_path / "none")), encoder=config.encoder)
    with pytest.raises(CaptionGANError, match=r"content\.json is missing"):
        prepare_splits(nowhere, encoder, ["train"])


def test_a_folder_with_shards_of_other_data_is_rejected(tmp_path, config, source):
    to = str(tmp_path / "shards")
    prepare(config, to)
    source.fingerprint = "other"
    with pytest.raises(CaptionGANError, match="has shards of other data"):
        prepare(config, to)


def folder_of_images(root: Path, *splits: str) -> DataConfig:
    """A folder with an image `<number>/1.png` for each of these values of the column `split`."""
    lines = ["file_name,caption,split"]
    for number, split in enumerate(splits):
        (root / str(number)).mkdir(parents=True)
        (root / str(number) / "1.png").write_bytes(picture(number))
        lines.append(f"{number}/1.png,caption {number},{split}")
    (root / "metadata.csv").write_text("\n".join(lines))
    return DataConfig("folder", str(root), cache=str(root / "cache"))


def test_a_missing_split_is_explained_by_the_column_of_splits(tmp_path):
    config = Config(data=folder_of_images(tmp_path, "test", "test"))
    with pytest.raises(
        CaptionGANError, match=r"^folder has no split 'train'; it has test\. Note: the .* 2 test\.$"
    ):
        prepare_splits(config, build_encoder(config.encoder), ("train",))


def test_regions_that_fit_two_images_are_refused_before_any_is_written(tmp_path):
    data = folder_of_images(tmp_path / "data", "train", "val")
    np.save(tmp_path / "1.npy", np.zeros((4, 3)))
    encoder = EncoderConfig(name="precomputed", regions=str(tmp_path))
    config = Config(data=data, encoder=encoder)
    with pytest.raises(CaptionGANError, match=r"1\.npy fits the images 0/1\.png and 1/1\.png"):
        preparation_of(config)
    for number in range(2):
        (tmp_path / str(number)).mkdir()
        np.save(tmp_path / str(number) / "1.npy", np.full((4, 3), number))
    split = preparation_of(config).prepared("val")
    assert [image.image_id for image in split.index] == ["1/1.png"]
    counts = "1 train, 1 val"
    assert split.notes == [f"the column split of metadata.csv says the splits of images: {counts}"]


def frozen(**settings) -> EncoderConfig:
    defaults = {"weights": "none", "image_height": 32, "image_width": 32}
    return EncoderConfig(name="keras_applications", **(defaults | settings))


def test_regions_of_another_encoder_are_rejected(tmp_path, config, source):
    to = str(tmp_path / "shards")
    cached = Config(data=config.data, encoder=frozen())
    prepare(cached, to)
    other = Config(data=DataConfig(shards=to), encoder=frozen(image_width=64))
    with pytest.raises(CaptionGANError, match=r"encoder\.image_width 32, this run has 64"):
        prepare_splits(other, build_encoder(other.encoder), ["train"])
    # An encoder that caches nothing needs only the images.
    given = Config(data=DataConfig(shards=to), encoder=config.encoder)
    assert prepare_splits(given, build_encoder(config.encoder), ["val"])["val"].images == 4


def test_content_depends_on_the_weights_not_on_their_file_name(tmp_path):
    contents = []
    for seed in (0, 1):
        backbone = build_encoder(frozen())
        path = tmp_path / "w.weights.h5"
        random = np.random.default_rng(seed)
        backbone.first.set_weights([random.random(w.shape) for w in backbone.first.get_weights()])
        backbone.first.save_weights(path)
        encoder = frozen(weights=str(path))
        contents.append(
            prepare_shards.cached_content(Config(encoder=encoder), build_encoder(encoder))
        )
    assert contents[0] != contents[1]


def test_skipped_images_are_listed(tmp_path, config, source):
    whole = source.examples

    def examples(split, positions):
        for example in whole(split, positions):
            broken = example.image_id in ("train-3", "train-17")
            yield Example(example.image_id, b"" if broken else example.image, example.captions)

    source.examples = examples
    lines = prepare(config, str(tmp_path / "shards"))
    assert "2 images do not decode (empty): train-3, train-17" in lines
    assert lines[0] == "train: 18 images, 36 captions"
    listed = [
        json.loads(line)
        for line in (tmp_path / "shards" / "skipped.jsonl").read_text().splitlines()
    ]
    reason = "images do not decode (empty)"
    assert listed == [
        {"split": "train", "reason": reason, "name": name, "count": 1}
        for name in ("train-3", "train-17")
    ]


def test_an_image_in_two_splits_is_reported(tmp_path, config, source):
    whole = source.examples

    def examples(split, positions):
        for example in whole(split, positions):
            same = example.image_id in ("train-5", "val-2")
            yield Example(example.image_id, picture(0) if same else example.image, ("a dog",))

    source.examples = examples
    lines = prepare(config, str(tmp_path / "shards"))
    assert "1 image of val is also in train: val-2 = train-5" in lines
    assert "1 image of train occurs more than once: train-0 = train-5" in lines


def test_shards_on_a_remote_file_system(config, source):
    """`ram://` stands for `gs://`: only TensorFlow can open it."""
    to = "ram://shards"
    prepare(config, to)
    given = Config(data=DataConfig(shards=to), encoder=config.encoder)
    prepared = prepare_splits(given, build_encoder(config.encoder), ["train"])["train"]
    assert [example.image_id for example in read_examples(prepared)] == WHOLE


def program(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "caption_gan.prepare", *SMALL, *map(str, arguments)]


@pytest.mark.slow
def test_a_full_disk_is_a_one_line_error_and_finished_shards_remain(tmp_path):
    def full():
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))

    arguments = program(f"--to={tmp_path / 'shards'}")
    done = subprocess.run(arguments, capture_output=True, text=True, preexec_fn=full)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"error: Cannot write shards to {tmp_path / 'shards'}: ")
    assert not list((tmp_path / "shards").rglob("*tfrecord*train*"))
    assert subprocess.run(arguments, capture_output=True).returncode == 0


@pytest.mark.slow
def test_a_killed_program_resumes(tmp_path):
    """Kills the program after its first shard and runs it again."""
    to = tmp_path / "shards"
    arguments = program(f"--to={to}", "--data.train_images=2400")
    process = subprocess.Popen(arguments, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    first = to / "Split-train" / "index-00000-of-00003.json"
    while not first.exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    written = first.stat().st_mtime_ns
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert first.stat().st_mtime_ns == written
    assert "train: 2400 images" in done.stdout
    assert re.search(r"summary: +\S+summary\.html", done.stdout)


def test_invalid_arguments_are_a_one_line_error(tmp_path):
    done = call("prepare", f"--to={tmp_path}", "--shard_index=2", "--shard_count=2")
    assert done.returncode == 2
    assert "expected 0 <= shard_index < shard_count" in done.stderr
