"""A captioner that was exported: a SavedModel that takes image bytes and gives captions.

B batch, K captions an image.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_text  # noqa: F401  Registers the operations that an exported tokenizer uses.
from tqdm import tqdm

from caption_gan import signature
from caption_gan.config.run import Config
from caption_gan.data.example import Example
from caption_gan.data.shards.prepare import captions_if_prepared, prepare_splits
from caption_gan.data.shards.records import read_examples
from caption_gan.data.sources.registry import build_fact_checker
from caption_gan.errors import CaptionGANError
from caption_gan.evaluation.captioning import CaptionedImage
from caption_gan.evaluation.runs import Evaluation, build_evaluation
from caption_gan.evaluation.split_metrics import score_images
from caption_gan.models.encoders.encoder import build_encoder
from caption_gan.run import read_config

BATCH = 32
# Of the run that was exported.
SETTINGS, METRICS = "assets.extra/config.yaml", "assets.extra/metrics.json"


def is_saved_model(path: Path) -> bool:
    """Whether a folder is a SavedModel."""
    return (path / "saved_model.pb").is_file()


class SavedCaptioner:
    """A SavedModel with the signature `serving_default` and, if it likes, `sample`.

    `serving_default` takes `image_bytes` [B] and gives `caption` [B] and `score` [B]; `sample`
    takes `temperature`, `top_p` and `seed` [B] besides and gives `captions` and `scores` [B, K].

    Args:
        path: The folder.

    Raises:
        CaptionGANError: It cannot be loaded, or has no such signature.
    """

    def __init__(self, path: Path):
        try:
            self.model: Any = tf.saved_model.load(str(path))
        except (OSError, ValueError, tf.errors.OpError) as error:
            raise CaptionGANError(
                f"{path} cannot be loaded as a SavedModel: {str(error).splitlines()[0]}"
            ) from error
        default = self.model.signatures.get(signature.DEFAULT)
        inputs = default.structured_input_signature[1] if default else {}
        outputs = default.structured_outputs if default else {}
        if set(inputs) != {signature.IMAGE_BYTES} or not {
            signature.CAPTION,
            signature.SCORE,
        } <= set(outputs):
            raise CaptionGANError(
                f"{path}: expected a signature serving_default with the input image_bytes and the "
                f"outputs caption and score; found {sorted(self.model.signatures)}, "
                f"serving_default with inputs {sorted(inputs)} and outputs {sorted(outputs)}."
            )
        self.default = default
        self.sampler = self.model.signatures.get(signature.SAMPLE)

    def caption(self, examples: Sequence[Example], seed: int) -> list[CaptionedImage]:
        """Captions images by the default signature, and by samples at temperature 1."""
        return list(tqdm(self._captioned(examples, seed), "captioning", len(examples)))

    def _captioned(self, examples: Sequence[Example], seed: int) -> Iterator[CaptionedImage]:
        for start in range(0, len(examples), BATCH):
            some = examples[start : start + BATCH]
            images = tf.constant([example.image for example in some])
            written = self.default(image_bytes=images)
            captions = {
                "greedy": _pairs(
                    written[signature.CAPTION][:, None], written[signature.SCORE][:, None]
                )
            }
            if self.sampler:
                drawn = self.sampler(
                    image_bytes=images,
                    temperature=tf.ones([len(some)]),
                    top_p=tf.ones([len(some)]),
                    seed=tf.range(seed + start, seed + start + len(some), dtype=tf.int64),
                )
                captions["sample"] = _pairs(drawn[signature.CAPTIONS], drawn[signature.SCORES])
            for row, example in enumerate(some):
                of_image = {name: rows[row] for name, rows in captions.items()}
                yield CaptionedImage(example, of_image, tokens=[], attention=np.zeros([0, 1, 1]))


def _pairs(captions: tf.Tensor, scores: tf.Tensor) -> list[list[tuple[str, float]]]:
    """Captions [B, K] with their scores, for each image."""
    rows = zip(captions.numpy(), scores.numpy(), strict=True)
    return [
        [(text.decode(), float(score)) for text, score in zip(*row, strict=True)] for row in rows
    ]


def evaluate_saved_model(path: Path, change: Callable[[Config], Config], split: str) -> Evaluation:
    """Captions and scores a split; nothing is written into the SavedModel.

    Args:
        path: The SavedModel, with the settings of its run in `assets.extra/config.yaml`.
        change: What the caller wants changed in these settings.
        split: `val`, `test` or `train`.

    Raises:
        CaptionGANError: The model cannot be used, or says nothing of its data.
    """
    settings = path / SETTINGS
    if not settings.is_file():
        raise CaptionGANError(
            f"{path} has no {SETTINGS}, so that its data set is not known; evaluate the run it was "
            "exported from, or score its captions with --results."
        )
    config = change(read_config([f"--config={settings}"], prog=str(settings)))
    config = without_cached_regions(config)
    encoder = build_encoder(config.encoder)
    prepared = prepare_splits(config, encoder, [split])[split]
    examples = list(read_examples(prepared))
    images = SavedCaptioner(path).caption(examples, config.seed)
    training = captions_if_prepared(config, encoder, "train")
    scores = score_images(images, config, build_fact_checker(config.data), training)
    return build_evaluation(split, images, scores, config, {})


def without_cached_regions(config: Config) -> Config:
    """Settings for a model that looks at images itself, so that no encoder's regions are wanted."""
    plain = dataclasses.replace(
        config.encoder, name="convolutional", trainable=False, frozen_up_to=None
    )
    return dataclasses.replace(config, encoder=plain)
