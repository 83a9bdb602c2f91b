"""A split as arrays: what the frozen parts of a dual encoder make of its images and captions.

N images, V views per image, M captions of all images, J wrong captions per caption.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from caption_gan.config.run import Config
from caption_gan.data.example import Example
from caption_gan.data.images import decode_and_resize
from caption_gan.data.shards.files import PreparedSplit
from caption_gan.data.shards.records import parse_records, read_serialized
from caption_gan.models.dual_encoders.towers import ImageTower, SentenceTower, TextTower
from caption_gan.storage.paths import local_path
from caption_gan.text.vocabulary import batched
from caption_gan.training.contrastive.sentence_cache import SentenceCache
from caption_gan.training.contrastive.wrong_captions import WrongCaption

IMAGES_AT_A_TIME, TEXTS_AT_A_TIME = 32, 8192


@dataclass(frozen=True)
class Pairs:
    """Images and their captions.

    Attributes:
        images: Features of each view of each image, [N, V, ...].
        texts: Features of all captions, image after image, [M, ...].
        first: Position of each image's first caption and the number of all captions, [N + 1].
        wrong: Features of wrong versions of each caption, [M, J, ...].
        is_wrong: [M, J]; false where a caption has fewer versions.
        kinds: What is wrong in them, [M, J]; empty where a caption has fewer.
    """

    images: np.ndarray
    texts: np.ndarray
    first: np.ndarray
    wrong: np.ndarray
    is_wrong: np.ndarray
    kinds: np.ndarray

    def batch(
        self, images: np.ndarray, captions: int, rng: np.random.Generator
    ) -> dict[str, np.ndarray]:
        """A training batch of these images, each with a view and K captions chosen at random."""
        views = rng.integers(self.images.shape[1], size=len(images))
        chosen = np.stack([self._captions(image, captions, rng) for image in images])  # [B, K]
        return {
            "images": self.images[images, views],
            "texts": self.texts[chosen],
            "wrong": self.wrong[chosen],
            "is_wrong": self.is_wrong[chosen],
        }

    def _captions(self, image: int, count: int, rng: np.random.Generator) -> np.ndarray:
        """Positions of different captions of an image, if it has as many."""
        order = rng.permutation(np.arange(self.first[image], self.first[image + 1]))
        return np.resize(order, count)


def read_pairs(
    prepared: PreparedSplit,
    config: Config,
    images: ImageTower,
    texts: TextTower,
    wrong: Sequence[Sequence[Sequence[WrongCaption]]],
    examples: Sequence[Example],
    all_views: bool,
) -> Pairs:
    """Computes the features of a split.

    Args:
        prepared: The split.
        config: Settings of the run.
        images: The image tower.
        texts: The text tower.
        wrong: Wrong versions of each caption of each image.
        examples: The first images of the split with their captions, or all.
        all_views: Whether mirror images are views, too, if there are any.
    """
    captions = list(chain.from_iterable(example.captions for example in examples))
    by_caption = list(chain.from_iterable(wrong))
    most = max((len(versions) for versions in by_caption), default=0)
    kinds = np.full((len(captions), most), "", object)
    versions = np.full((len(captions), most), "", object)
    for row, of_caption in enumerate(by_caption):
        for column, version in enumerate(of_caption):
            versions[row, column], kinds[row, column] = version.text, version.kind
    features = _texts(
        texts,
        [*captions, *versions.ravel()],
        f"captions of {prepared.split}",
        local_path(config.data.cache),
    )
    of_captions, of_versions = features[: len(captions)], features[len(captions) :]
    return Pairs(
        np.concatenate(list(_images(prepared, len(examples), config, images, all_views))),
        of_captions,
        np.cumsum([0, *(len(example.captions) for example in examples)]),
        of_versions.reshape(*versions.shape, *features.shape[1:]),
        kinds != "",
        kinds,
    )


def _texts(tower: TextTower, texts: Sequence[str], title: str, cache: Path) -> np.ndarray:
    """Features of texts, [M, ...]."""
    if isinstance(tower, SentenceTower):
        return SentenceCache(tower.encoder, cache).vectors_of(texts, title)
    tokenize = tf.function(
        tower.features, autograph=False, input_signature=[tf.TensorSpec([None], tf.string)]
    )
    tokens = [tokenize(tf.constant(batch)).numpy() for batch in batched(texts, TEXTS_AT_A_TIME)]
    return np.concatenate(tokens)


def _images(
    prepared: PreparedSplit, count: int, config: Config, tower: ImageTower, all_views: bool
) -> Iterator[np.ndarray]:
    """Features of the first images, [., V, ...]."""
    cached_shape = tower.encoder.cached_shape
    size = config.encoder.image_size

    def views(record: dict[str, tf.Tensor]) -> tf.Tensor:
        if cached_shape is not None:
            cached = tf.io.decode_raw(record["regions"], tf.float16)
            return tf.reshape(cached, [-1, *cached_shape])[: None if all_views else 1]
        image = decode_and_resize(record["encoded"], *size)
        mirrored = all_views and config.encoder.flip
        return tf.stack([image, image[:, ::-1]] if mirrored else [image])

    @tf.function(autograph=False)
    def features(batch: tf.Tensor) -> tf.Tensor:
        flat = tf.reshape(batch, [-1, *batch.shape[2:]])
        name = "image" if cached_shape is None else "regions"
        result = tower.features({name: flat})
        result = tf.cast(result, tf.float16) if result.dtype.is_floating else result
        return tf.reshape(result, [-1, tf.shape(batch)[1], *result.shape[1:]])

    records = parse_records(
        read_serialized(prepared).take(count), with_regions=cached_shape is not None
    )
    dataset = records.map(views, num_parallel_calls=tf.data.AUTOTUNE).batch(IMAGES_AT_A_TIME)
    steps = -(-count // IMAGES_AT_A_TIME)
    for batch in tqdm(dataset, total=steps, desc=f"images of {prepared.split}", unit=" batches"):
        yield features(batch).numpy()
