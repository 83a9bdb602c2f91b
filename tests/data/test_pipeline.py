"""Examples to shards to batches."""

import dataclasses
import io

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from caption_gan.config.data import DataConfig
from caption_gan.config.models import EncoderConfig
from caption_gan.config.run import Config
from caption_gan.data.example import Example
from caption_gan.data.images import decode_and_resize, is_image
from caption_gan.data.pipeline import Pipeline
from caption_gan.data.shards import files, records
from caption_gan.data.shards import prepare as prepare_shards
from caption_gan.data.shards.files import IndexedImage, PreparedSplit
from caption_gan.data.shards.prepare import prepare_splits
from caption_gan.data.skips import Skips
from caption_gan.errors import CaptionGANError
from caption_gan.models.encoders.encoder import Encoder
from caption_gan.text.tokenizer import Tokenizer
from caption_gan.text.vocabulary import write_vocabulary
from caption_gan.training.loop import Position, train
from caption_gan.training.objectives.trainer import Trainer

WORDS = ["[PAD]", "[START]", "[END]", "[UNK]", *"abcdefgh"]


def encoded(level: int, size: tuple[int, int] = (8, 6), kind: str = "PNG") -> bytes:
    """An image with a grey left half and a black right half."""
    image = Image.new("RGB", size, "black")
    image.paste((level, level, level), (0, 0, size[0] // 2, size[1]))
    stream = io.BytesIO()
    image.save(stream, format=kind)
    return stream.getvalue()


class FewImages:
    """A source of eight images with captions "a", "b", ..., and of extra examples."""

    def __init__(self, extra: tuple[Example, ...] = (), fingerprint: int = 0):
        self.all = [
            Example(f"{index}.png", encoded(index * 30), ("a b", WORDS[4 + index], "c d e"))
            for index in range(8)
        ] + list(extra)
        self.images_of_split = {"train": len(self.all), "val": 0}
        self.fingerprint = fingerprint
        self.opened = 0

    def examples(self, split, positions):
        self.opened += 1
        return iter(self.all[positions.start : positions.stop])


class MeanRegions(Encoder):
    """An encoder with two regions: the means of the left and the right half."""

    regions_shape = cached_shape = (2, 1)
    grid = (1, 2)

    @property
    def cache_key(self):
        return {"regions": "means"}

    def before_cache(self, images):
        images = keras.ops.cast(images, "float32")
        left = keras.ops.mean(images[:, :, :4], axis=(1, 2, 3))
        right = keras.ops.mean(images[:, :, 4:], axis=(1, 2, 3))
        return keras.ops.stack([left, right], axis=1)[..., None]


@pytest.fixture
def tokenizer(tmp_path) -> Tokenizer:
    write_vocabulary(tmp_path / "vocabulary.txt", WORDS)
    return Tokenizer(tmp_path / "vocabulary.txt", "word", 6)


def settings(tmp_path, **encoder) -> Config:
    return Config(
        data=DataConfig(cache=str(tmp_path / "cache"), captions_per_image=2),
        encoder=EncoderConfig(image_height=6, image_width=8, **encoder),
    )


@pytest.fixture
def use(monkeypatch):
    def use_source(source):
        monkeypatch.setattr(prepare_shards, "open_source", lambda config, skips: source)
        return source

    return use_source


def prepare(config: Config, split: str) -> PreparedSplit:
    encoder = Encoder() if config.encoder.name == "convolutional" else MeanRegions()
    return prepare_splits(config, encoder, [split])[split]


def pipeline_of(config, tokenizer) -> Pipeline:
    cached_shape = None if config.encoder.name == "convolutional" else (2, 1)
    return Pipeline(config.data, config.encoder, cached_shape, tokenizer)


def test_records_contain_all_fields_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "IMAGES_PER_SHARD", 4)
    examples = [
        Example(f"image {index}", bytes([index]), ("one", "zwei ü"), f'{{"fact": {index}}}', "text")
        for index in range(10)
    ]
    parts = files.plan_shards(str(tmp_path), "train", 10, gzip=False)
    assert [part.positions for part in parts] == [range(3), range(3, 6), range(6, 10)]
    for part in reversed(parts):
        made = [
            (
                records.serialize(
                    examples[index], [np.full((2, 3), index), -np.full((2, 3), index)]
                ),
                IndexedImage(f"image {index}", str(index), ("one", "zwei ü")),
            )
            for index in part.positions
        ]
        part.write(made, Skips())
    prepared = PreparedSplit(str(tmp_path), "train", range(10), 0, [])
    assert list(records.read_examples(prepared)) == examples
    read = records.parse_records(records.read_serialized(prepared))
    for index, record in enumerate(read.as_numpy_iterator()):
        first, second = record["regions"]
        assert np.array_equal(np.frombuffer(first, np.float16), [index] * 6)
        assert np.array_equal(np.frombuffer(second, np.float16), [-index] * 6)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP"])
def test_formats_decode_to_the_same_pixels(kind):
    pixels = decode_and_resize(encoded(200, (80, 60), kind), 6, 8).numpy()
    assert pixels.shape == (6, 8, 3)
    assert np.abs(pixels[:, :3].astype(int) - 200).max() <= 3
    assert pixels[:, 5:].max() <= 3


@pytest.mark.parametrize("content", [b"", b"no picture", encoded(3, kind="JPEG")[:40]])
def test_bytes_that_are_not_an_image(content):
    assert not is_image(content)


def test_unusable_examples_are_skipped_and_counted(tmp_path, use):
    extra = (
        Example("broken.jpg", b"no picture", ("a",)),
        Example("mute.png", encoded(1), ("", "  ")),
        Example("half.png", encoded(2), ("a", "", " nan", "None")),
        Example("damaged.png", encoded(2), ("a caf\ufffd", "a", "\ufffd")),
    )
    use(FewImages(extra))
    prepared = prepare(settings(tmp_path), "train")
    assert prepared.images == 10
    assert prepared.skipped == [
        "2 captions are a missing value written as text (nan, None, null), of: half.png, ...",
        "3 captions are empty, of: mute.png, half.png, ...",
        "2 captions are kept with characters that were lost before (U+FFFD), of: damaged.png, ...",
        "1 images do not decode (of an unknown format; give PNG, JPEG, GIF, BMP or WebP): "
        "broken.jpg",
        "1 images have no caption left: mute.png",
    ]
    examples = list(records.read_examples(prepared))
    assert examples[-2].captions == ("a",)


def test_a_split_without_usable_images_is_an_error(tmp_path, use):
    use(FewImages())
    with pytest.raises(CaptionGANError, match=r"'val' .* no image that can be used"):
        prepare(settings(tmp_path), "val")
    with pytest.raises(CaptionGANError, match="no split 'test'"):
        prepare(settings(tmp_path), "test")


class Reader(Trainer):
    """A trainer that records its batches."""

    def __init__(self):
        super().__init__(captioner=None, config=None, steps=1, seed=0)
        keras.Model.compile(self, run_eagerly=True)
        self.read: list[dict[str, np.ndarray]] = []

    def train_step(self, batch):
        self.read.append({name: value.numpy() for name, value in batch.items()})
        return {}

    def test_step(self, batch):
        return {"loss": tf.constant(0.0)}

    def iterator(self, batches):
        return iter(batches)


@pytest.mark.parametrize(
    ("memory_limit", "by_length"),
    [
        *((0.0, False), (1.0, True)),
        *(pytest.param(*each, marks=pytest.mark.slow) for each in ((0.0, True), (1.0, False))),
    ],
)
def test_resumed_training_sees_the_same_batches(tmp_path, use, tokenizer, memory_limit, by_length):
    use(FewImages())
    config = settings(tmp_path)
    data = dataclasses.replace(config.data, memory_limit_gib=memory_limit)
    pipeline = Pipeline(data, config.encoder, None, tokenizer)
    prepared = prepare(config, "train")
    sentences = np.arange(120, dtype=np.uint16).reshape(20, 6)

    def seen(done: Position) -> list[np.ndarray]:
        keras.utils.set_random_seed(0)
        batches = pipeline.training(prepared, 2, 2, 3, by_length)
        batches = pipeline.with_corpus(batches, sentences, 2, 3)
        reader = Reader()
        train(reader, batches, tf.data.Dataset.range(1), 3, [], done)
        return [
            np.concatenate([batch["token_ids"], batch["corpus_token_ids"]]) for batch in reader.read
        ]

    whole = seen(Position())
    assert len(whole) == 12
    for done in (Position(0, 1), Position(1, 3)):
        continued = seen(done)
        assert np.array_equal(continued, whole[4 * done.epochs + done.steps :])
    assert not np.array_equal(whole[:4], whole[4:8])


def test_captions_repeat_if_there_are_fewer_than_k(tmp_path, use, tokenizer):
    source = use(FewImages())
    source.all = [dataclasses.replace(example, captions=("a b",)) for example in source.all]
    config = settings(tmp_path)
    prepared = prepare(config, "train")
    (batch,) = pipeline_of(config, tokenizer).training(prepared, 8, 2, 0)
    assert np.array_equal(batch["token_ids"], np.tile([1, 4, 5, 2, 0, 0], (8, 2, 1)))


def test_captions_without_a_known_word_are_left_out(tmp_path, use, tokenizer):
    source = use(FewImages())
    source.all = [
        dataclasses.replace(example, captions=("это собака .", "a b")) for example in source.all
    ]
    config = settings(tmp_path)
    prepared = prepare(config, "train")
    (batch,) = pipeline_of(config, tokenizer).training(prepared, 8, 2, 0)
    assert np.array_equal(batch["token_ids"], np.tile([1, 4, 5, 2, 0, 0], (8, 2, 1)))


@pytest.mark.parametrize("flip", [False, True])
def test_regions_of_a_frozen_backbone_are_read_from_shards(tmp_path, use, tokenizer, flip):
    use(FewImages())
    config = settings(tmp_path, name="keras_applications", flip=flip, weights="none")
    prepared = prepare(config, "train")
    pipeline = pipeline_of(config, tokenizer)
    seen = {(index * 30, 0): 0 for index in range(8)}
    mirrored = {(0, index * 30): 0 for index in range(1, 8)} if flip else {}
    wanted = {**seen, **mirrored}
    batches = pipeline.training(prepared, 8, 2, 0).repeat(12)
    for batch in batches.as_numpy_iterator():
        assert "image" not in batch
        for regions in batch["regions"]:
            wanted[tuple(regions[:, 0].tolist())] += 1
    assert min(wanted.values()) > 0
    assert sum(wanted.values()) == 96
    (batch,) = pipeline.validation(prepared, 8)
    assert np.array_equal(batch["regions"][:, :, 0], [[index * 30, 0] for index in range(8)])


def test_validation_keeps_the_order(tmp_path, use, tokenizer):
    use(FewImages())
    config = settings(tmp_path)
    prepared = prepare(config, "train")
    batches = list(pipeline_of(config, tokenizer).validation(prepared, 3))
    assert [len(batch["image"]) for batch in batches] == [3, 3, 2]
    levels = np.concatenate([batch["image"][:, 0, 0, 0] for batch in batches])
    assert np.array_equal(levels, [index * 30 for index in range(8)])


def test_autotuning_is_off(tmp_path, use, tokenizer):
    """The end of an epoch would wait for the tuning thread, which sleeps for up to a minute."""
    use(FewImages())
    config = settings(tmp_path)
    pipeline, prepared = pipeline_of(config, tokenizer), prepare(config, "train")
    for batches in (pipeline.training(prepared, 4, 2, 0), pipeline.validation(prepared, 3)):
        assert batches.options().autotune.enabled is False
