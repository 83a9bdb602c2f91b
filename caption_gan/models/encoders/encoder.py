"""Encoders turn images into regions; this is where the settings choose one.

An encoder is a `keras.Model` from pixels [B, H, W, 3], numbers from 0 to 255, to regions
[B, R, D], with attributes `grid`, the rows and columns that the regions came from, and
`regions_shape`, (R, D), and `pretrained_variables`, those of its trainable variables that do not
start at random. Part of the work, or all of it, may be done once for each image and kept in the
shards: `cached_shape` is the shape of what is kept, `before_cache` makes it from pixels and
`after_cache` makes regions of it.
"""

import keras

from caption_gan.config.models import EncoderConfig
from caption_gan.models.encoders.convolutional import ConvolutionalEncoder
from caption_gan.models.encoders.keras_applications import ApplicationsEncoder
from caption_gan.models.encoders.precomputed import PrecomputedEncoder


def build_encoder(config: EncoderConfig, weights: str | None = None) -> keras.Model:
    """Builds the encoder that the settings ask for.

    Args:
        config: The settings.
        weights: Overrides `config.weights`; a run directory keeps its own copy.

    Raises:
        CaptionGANError: What the settings name cannot be had.
    """
    if config.name == "precomputed":
        return PrecomputedEncoder(config.regions or "", name="encoder")
    size = (config.image_height, config.image_width)
    if config.name == "convolutional":
        encoder = ConvolutionalEncoder(*size, config.width, name="encoder")
    else:
        weights = weights or config.weights
        encoder = ApplicationsEncoder(
            config.backbone,
            *size,
            None if weights == "none" else weights,
            config.frozen_up_to,
            name="encoder",
        )
        if not config.trainable:
            encoder.trainable = False
    encoder.build((None, *size, 3))
    return encoder
