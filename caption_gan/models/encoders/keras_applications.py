"""Pretrained encoders: the backbones of `keras.applications`."""

import hashlib
import inspect
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from caption_gan.config.models import EncoderConfig
from caption_gan.errors import CaptionGANError
from caption_gan.models.encoders.backbone import BackboneEncoder


@keras.saving.register_keras_serializable(package="caption_gan")
class ApplicationsEncoder(BackboneEncoder):
    """A backbone of `keras.applications` with its own pre-processing.

    Args:
        backbone: Class name, e.g. `"MobileNetV2"`.
        image_height: In pixels.
        image_width: In pixels.
        pretrained: `"imagenet"`, a weights file of the backbone without its top, or None.
        frozen_up_to: See `BackboneEncoder`.
        load_pretrained: Whether to load `pretrained` now; a saved captioner has its own copy.

    Raises:
        CaptionGANError: The backbone or the layer is unknown, or the weights cannot be loaded.
    """

    def __init__(
        self,
        backbone: str,
        image_height: int,
        image_width: int,
        pretrained: str | None = None,
        frozen_up_to: str | None = None,
        load_pretrained: bool = True,
        **kwargs,
    ):
        modules = _backbone_modules()
        if backbone not in modules:
            raise CaptionGANError(
                f"encoder.backbone: {backbone!r} is not in keras.applications; "
                f"choose one of {', '.join(sorted(modules))}."
            )
        weights = pretrained if load_pretrained else None
        network = _load(backbone, (image_height, image_width, 3), weights)
        super().__init__(network, image_height, image_width, frozen_up_to, **kwargs)
        self.backbone = backbone
        self.pretrained = pretrained
        self.preprocess_input = modules[backbone].preprocess_input

    @classmethod
    def from_settings(cls, config: EncoderConfig, load_weights: bool) -> "ApplicationsEncoder":
        """Builds the encoder; see `build_encoder`."""
        encoder = cls(
            config.backbone,
            *config.image_size,
            None if config.weights == "none" else config.weights,
            config.frozen_up_to,
            load_weights,
            name="encoder",
        )
        encoder.trainable = config.trainable
        return encoder

    @property
    def cache_key(self) -> dict[str, Any]:
        """Everything that the output of the frozen layers depends on."""
        if self.cached_shape is None:
            return {}
        weights = self.pretrained or "none"
        if Path(weights).is_file():
            weights = hashlib.sha256(Path(weights).read_bytes()).hexdigest()
        return {
            "backbone": self.backbone,
            "image_height": self.image_height,
            "image_width": self.image_width,
            "weights": weights,
            "frozen_up_to": self.frozen_up_to,
        }

    def preprocess(self, images: tf.Tensor) -> tf.Tensor:
        """Scales images [B, H, W, 3] as the backbone was trained."""
        return self.preprocess_input(images)

    def get_config(self):
        return {
            **super().get_config(),
            "backbone": self.backbone,
            "image_height": self.image_height,
            "image_width": self.image_width,
            "pretrained": self.pretrained,
            "frozen_up_to": self.frozen_up_to,
            "load_pretrained": False,  # The weights are saved with the model.
        }


def _load(backbone: str, shape: tuple[int, int, int], weights: str | None) -> keras.Model:
    try:
        network = getattr(keras.applications, backbone)(
            include_top=False,
            weights="imagenet" if weights == "imagenet" else None,
            input_shape=shape,
        )
        if weights not in ("imagenet", None):
            network.load_weights(weights)
    except Exception as error:  # Keras raises bare exceptions for a failed download.
        raise CaptionGANError(
            f"encoder.weights: {weights!r} cannot be loaded into {backbone} for images of "
            f"{shape[0]}x{shape[1]}: {str(error).splitlines()[0]} Give a weights file "
            f"made with include_top=False, 'imagenet' (needs a network once) or 'none'."
        ) from error
    return network


def _backbone_modules() -> dict:
    """Maps each backbone's class name to the module with its pre-processing."""
    return {
        name: module
        for _, module in inspect.getmembers(keras.applications, inspect.ismodule)
        if hasattr(module, "preprocess_input")
        for name in dir(module)
        if name[0].isupper() and callable(getattr(module, name))
    }
