"""Scores an exported captioner on the data set it was trained on."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from caption_gan.config.run import Config
from caption_gan.data.shards.prepare import captions_if_prepared, prepare_splits
from caption_gan.data.shards.records import read_examples
from caption_gan.data.sources.sources import truth_checker
from caption_gan.errors import CaptionGANError
from caption_gan.evaluation.image_scores import score_images
from caption_gan.evaluation.runs import Evaluation, summed_up
from caption_gan.evaluation.saved_models import SETTINGS, SavedCaptioner
from caption_gan.models.encoders.encoder import build_encoder
from caption_gan.run import read_config


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
    config = looking_for_itself(config)
    encoder = build_encoder(config.encoder)
    prepared = prepare_splits(config, encoder, [split])[split]
    examples = list(read_examples(prepared))
    images = SavedCaptioner(path).caption(examples, config.seed)
    training = captions_if_prepared(config, encoder, "train")
    scores = score_images(images, config, truth_checker(config.data), training)
    return summed_up(split, images, scores, config, {})


def looking_for_itself(config: Config) -> Config:
    """Settings for a model that looks at images itself, so that no encoder's regions are wanted."""
    plain = dataclasses.replace(
        config.encoder, name="convolutional", trainable=False, frozen_up_to=None
    )
    return dataclasses.replace(config, encoder=plain)
