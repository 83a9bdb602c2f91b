"""Evaluates an exported captioner: a SavedModel that maps image bytes to captions.

B batch, K captions per image.
"""

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_text  # noqa: F401  Registers the operations that an exported tokenizer uses.
from tqdm import tqdm

from caption_gan import signature
from caption_gan.config.run import Config
from caption_gan.data.example import CaptionedImage, Example
from caption_gan.data.shards.prepare import prepare_splits
from caption_gan.data.shards.records import read_examples
from caption_gan.data.sources.registry import build_fact_checker
from caption_gan.errors import CaptionGANError
from caption_gan.evaluation.changed_settings import refuse_decoding
from caption_gan.evaluation.known_data import describe_difference, known_data, training_split
from caption_gan.evaluation.result import Evaluation
from caption_gan.evaluation.split_metrics import score_images
from caption_gan.models.dual_encoders.saved_model import load_dual_encoder
from caption_gan.models.encoders.encoder import build_encoder
from caption_gan.settings import read_config_file

BATCH = 32
# Files of the exported run, within the SavedModel.
SETTINGS, METRICS = "assets.extra/config.yaml", "assets.extra/metrics.json"


def is_saved_model(path: Path) -> bool:
    """Whether a folder is a SavedModel."""
    return (path / "saved_model.pb").is_file()


class SavedCaptioner:
    """A SavedModel with the signature `serving_default` and optionally `sample`.

    `serving_default` maps `image_bytes` [B] to `caption` [B] and `score` [B]. `sample` also takes
    `temperature`, `top_p` and `seed` [B], and returns `captions` and `scores` [B, K].

    Args:
        path: Folder of the SavedModel.

    Raises:
        CaptionGANError: If it cannot be loaded or has no such signature.
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
        """Captions images with the default signature, and with samples at temperature 1."""
        return list(tqdm(self._captioned(examples, seed), "captioning", len(examples)))

    def _captioned(self, examples: Sequence[Example], seed: int) -> Iterator[CaptionedImage]:
        for start in range(0, len(examples), BATCH):
            batch = examples[start : start + BATCH]
            images = tf.constant([example.image for example in batch])
            outputs = self.default(image_bytes=images)
            captions = {
                "greedy": _pairs(
                    outputs[signature.CAPTION][:, None], outputs[signature.SCORE][:, None]
                )
            }
            if self.sampler:
                samples = self.sampler(
                    image_bytes=images,
                    temperature=tf.ones([len(batch)]),
                    top_p=tf.ones([len(batch)]),
                    seed=tf.range(seed + start, seed + start + len(batch), dtype=tf.int64),
                )
                captions["sample"] = _pairs(samples[signature.CAPTIONS], samples[signature.SCORES])
            for row, example in enumerate(batch):
                of_image = {name: rows[row] for name, rows in captions.items()}
                yield CaptionedImage(example, of_image, tokens=[], attention=np.zeros([0, 1, 1]))


def _pairs(captions: tf.Tensor, scores: tf.Tensor) -> list[list[tuple[str, float]]]:
    """Pairs captions [B, K] with their scores, image by image."""
    rows = zip(captions.numpy(), scores.numpy(), strict=True)
    return [
        [(text.decode(), float(score)) for text, score in zip(*row, strict=True)] for row in rows
    ]


def evaluate_saved_model(path: Path, config: Config, split: str) -> Evaluation:
    """Captions and scores a split; writes nothing into the SavedModel.

    Args:
        path: The SavedModel.
        config: Settings of its run; see `read_saved_settings`.
        split: `val`, `test` or `train`.

    Raises:
        CaptionGANError: If the model is unusable.
    """
    config = without_cached_regions(config)
    captioner = SavedCaptioner(path)
    dual_encoder = load_dual_encoder(config.evaluation.dual_encoder)
    encoder = build_encoder(config.encoder)
    prepared = prepare_splits(config, encoder, [split])[split]
    known = known_data(path / METRICS)
    if differs := describe_difference(known, prepared):
        print(f"{path}: {differs}", file=sys.stderr)
    examples = list(read_examples(prepared))
    images = captioner.caption(examples, config.seed)
    training = training_split(config, encoder, known)
    captions = training.captions if training is not None else None
    fact_checker = build_fact_checker(config.data)
    scores = score_images(images, config, fact_checker, captions, dual_encoder)
    return Evaluation.of_scores(split, images, scores, config, {})


def read_saved_settings(path: Path, changes: Sequence[str] = ()) -> Config:
    """The settings of the run that a SavedModel was exported from.

    Args:
        path: The SavedModel, with these settings in `assets.extra/config.yaml`.
        changes: Settings that replace them, as on a command line.

    Raises:
        CaptionGANError: It has no settings, or settings of decoding shall change.
    """
    refuse_decoding(path, changes)
    settings = path / SETTINGS
    if not settings.is_file():
        raise CaptionGANError(
            f"{path} has no {SETTINGS}, which names its data set; evaluate the run that it was "
            "exported from, or score its captions with --results."
        )
    return read_config_file(settings, changes)


def without_cached_regions(config: Config) -> Config:
    """Settings with an encoder that caches no regions, as the SavedModel encodes images itself."""
    convolutional = dataclasses.replace(
        config.encoder, name="convolutional", trainable=False, frozen_up_to=None
    )
    return dataclasses.replace(config, encoder=convolutional)
