"""Encoders turn an image into regions; `build_encoder` chooses one by the settings.

B batch, H image height, W image width, R regions, D region depth.
"""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from caption_gan.config.models import EncoderConfig
from caption_gan.storage.atomic import replacing

ARCHITECTURE_FILE = "encoder.json"  # Of a run directory.


class Regions(NamedTuple):
    """Features of the parts of an image, which generators and critics attend to.

    Attributes:
        features: [B, R, D].
        mask: Boolean [B, R], false for padding; None if all regions are valid. An image has at
            least one valid region.
        grid: Rows and columns of the regions in the image, row after row; None if they form no
            grid.
    """

    features: tf.Tensor
    mask: tf.Tensor | None = None
    grid: tuple[int, int] | None = None

    def map(self, function: Callable[[tf.Tensor], tf.Tensor]) -> "Regions":
        """Regions whose tensors are those that the function returns for these."""
        mask = None if self.mask is None else function(self.mask)
        return Regions(function(self.features), mask, self.grid)

    def blank(self) -> "Regions":
        """Regions of the same shape with zero features: no image."""
        return self._replace(features=tf.zeros_like(self.features))

    def concat(self, other: "Regions") -> "Regions":
        """Regions of these images and of others, which have a mask if these do."""
        features = tf.concat([self.features, other.features], axis=0)
        mask = None if self.mask is None else tf.concat([self.mask, other.mask], axis=0)
        return Regions(features, mask, self.grid)


class Encoder(keras.Model):
    """Base class of encoders: images [B, H, W, 3], numbers from 0 to 255, to regions [B, R, D].

    The work, or the first part of it, may be done once per image and stored in the shards: where
    `cache_key` is not empty, `before_cache` computes what is stored, and `after_cache` makes
    regions of it. The output of `call` is that of both.

    To add an encoder: write a subclass in a module of its own, give it a name in
    `EncoderConfig.name` and a line in `build_encoder`.

    Attributes:
        needs_pixels: Whether regions are computed from images. An encoder without this need reads
            what is stored from elsewhere (`read`), and cannot caption a new image.
        image_height: Height in pixels of the images that it takes, if it needs pixels.
        image_width: Their width.
        from_file: Whether settings alone cannot rebuild it: they name a file or a preset, which a
            run must not need. Its config holds the architecture, which the run keeps.
        starts_untrained: Whether every weight starts at random, so that it must be trained.
        normalizes_over_batch: Whether training uses batch statistics, which on several devices
            needs all of them at the same time.
        regions_shape: (R, D).
        grid: Rows and columns of the regions, row after row; None if they form no grid.
    """

    needs_pixels = True
    image_height: int
    image_width: int
    from_file = False
    starts_untrained = False
    normalizes_over_batch = False
    regions_shape: tuple[int, int]
    grid: tuple[int, int] | None = None

    @classmethod
    def from_settings(cls, config: EncoderConfig, load_weights: bool) -> "Encoder":
        """Builds the encoder; see `build_encoder`."""
        raise NotImplementedError

    @property
    def cached_shape(self) -> tuple[int, ...] | None:
        """Shape of what is stored of an image; None if nothing is."""
        return None

    @property
    def cache_key(self) -> dict[str, Any]:
        """What the stored part depends on, in JSON's types; empty if nothing is stored."""
        return {}

    @property
    def fine_tuned(self) -> keras.layers.Layer:
        """The pretrained layers that training changes, if it changes any."""
        raise NotImplementedError

    @property
    def pretrained_variables(self) -> list[keras.Variable]:
        """Trainable variables that do not start at random."""
        return []

    def before_cache(self, images: tf.Tensor) -> tf.Tensor:
        """Computes what is stored of images [B, H, W, 3]: [B, *cached_shape]."""
        raise NotImplementedError

    def after_cache(self, cached: tf.Tensor) -> Regions:
        """Makes regions [B, R, D] of what is stored [B, *cached_shape]."""
        raise NotImplementedError

    def check_names(self, image_ids: Iterable[str]) -> None:
        """Checks that the regions of no two images would be read from one file."""

    def read(self, image_id: str) -> np.ndarray | None:
        """Reads what is stored of an image, if the encoder needs no pixels.

        Returns:
            An array of shape `cached_shape`; None if there is none for this image.
        """
        raise NotImplementedError


def build_encoder(config: EncoderConfig, load_weights: bool = True) -> Encoder:
    """Builds the encoder that the settings name.

    Args:
        config: The settings.
        load_weights: Whether to load pretrained weights; a run that is loaded has its own copy.

    Raises:
        CaptionGANError: The settings name weights, layers or files that do not exist.
    """
    return _classes()[config.name].from_settings(config, load_weights)


def _classes() -> dict[str, type[Encoder]]:
    # Imported here because these modules import the base class.
    from caption_gan.models.encoders.convolutional import ConvolutionalEncoder
    from caption_gan.models.encoders.keras_applications import ApplicationsEncoder
    from caption_gan.models.encoders.keras_hub import KerasHubEncoder
    from caption_gan.models.encoders.keras_model import KerasModelEncoder
    from caption_gan.models.encoders.precomputed import PrecomputedEncoder

    return {
        "convolutional": ConvolutionalEncoder,
        "keras_applications": ApplicationsEncoder,
        "keras_model": KerasModelEncoder,
        "keras_hub": KerasHubEncoder,
        "precomputed": PrecomputedEncoder,
    }


def save_architecture(encoder: Encoder, folder: Path) -> None:
    """Writes the architecture of an encoder that the settings cannot rebuild without its file."""
    if encoder.from_file:
        with replacing(folder / ARCHITECTURE_FILE) as temporary:
            temporary.write_text(json.dumps(keras.saving.serialize_keras_object(encoder)))


def restore_encoder(folder: Path, config: EncoderConfig) -> Encoder:
    """Builds the encoder of a trained captioner, without its weights.

    Args:
        folder: Where `save_architecture` may have written.
        config: The settings.
    """
    architecture = folder / ARCHITECTURE_FILE
    if not architecture.is_file():
        return build_encoder(config, load_weights=False)
    _classes()  # Registers them.
    return keras.saving.deserialize_keras_object(json.loads(architecture.read_text()))
