"""Pretrained encoders: the backbones of `keras.applications`.

B batch, H image height, W image width, R regions, D region depth, F and C cells and channels of
the last frozen layer.
"""

import hashlib
import inspect
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from caption_gan.config.models import EncoderConfig
from caption_gan.errors import CaptionGANError
from caption_gan.models.encoders.encoder import Encoder, Regions


@keras.saving.register_keras_serializable(package="caption_gan")
class ApplicationsEncoder(Encoder):
    """A backbone of `keras.applications` with its own pre-processing.

    Its first layers can be frozen and the others fine-tuned. The output of the frozen layers
    never changes for an image, so it is computed once: `before_cache` runs the frozen layers,
    `after_cache` the others.

    Args:
        backbone: Class name, e.g. `"MobileNetV2"`.
        image_height: In pixels.
        image_width: In pixels.
        pretrained: `"imagenet"`, a weights file of the backbone without its top, or None.
        frozen_up_to: Name of the last frozen layer. None freezes no layer if the encoder's
            `trainable` is true, and all of them if it is false.
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
        super().__init__(**kwargs)
        self.backbone = backbone
        self.image_height = image_height
        self.image_width = image_width
        self.pretrained = pretrained
        self.frozen_up_to = frozen_up_to
        modules = _backbone_modules()
        if backbone not in modules:
            raise CaptionGANError(
                f"encoder.backbone: {backbone!r} is not in keras.applications; "
                f"choose one of {', '.join(sorted(modules))}."
            )
        self.preprocess = modules[backbone].preprocess_input
        weights = pretrained if load_pretrained else None
        network = _load(backbone, (image_height, image_width, 3), weights)
        self.first, self.second = _split(network, frozen_up_to)
        _, rows, columns, _ = network.output_shape
        self.grid = (rows, columns)
        self.regions_shape = _flat(network.output_shape)
        self.built = True

    @classmethod
    def from_settings(cls, config: EncoderConfig, load_weights: bool) -> "ApplicationsEncoder":
        """Builds the encoder; see `build_encoder`."""
        encoder = cls(
            config.backbone,
            config.image_height,
            config.image_width,
            None if config.weights == "none" else config.weights,
            config.frozen_up_to,
            load_weights,
            name="encoder",
        )
        encoder.trainable = config.trainable
        return encoder

    @property
    def cached_shape(self) -> tuple[int, ...] | None:
        """(F, C), if there are frozen layers."""
        if self.trainable and self.frozen_up_to is None:
            return None
        return _flat(self.first.output_shape)

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

    @property
    def pretrained_variables(self) -> list[keras.Variable]:
        """All trainable variables: the backbone is pretrained."""
        return self.trainable_variables

    def call(self, images: tf.Tensor, training: bool = False) -> Regions:
        """Images [B, H, W, 3] to regions [B, R, D]."""
        return self.after_cache(self.before_cache(images))

    def before_cache(self, images: tf.Tensor) -> tf.Tensor:
        """Runs the frozen layers on images [B, H, W, 3]; output [B, F, C]."""
        # Never in training mode: small batches would ruin the pretrained batch statistics.
        features = self.first(self.preprocess(tf.cast(images, tf.float32)), training=False)
        return tf.reshape(features, [-1, *_flat(self.first.output_shape)])  # [B, F, C]

    def after_cache(self, cached: tf.Tensor) -> Regions:
        """Runs the other layers on the output of the frozen ones [B, F, C]."""
        if self.second is None:
            return Regions(cached, grid=self.grid)
        cells = tf.reshape(cached, [-1, *self.first.output_shape[1:]])
        features = self.second(cells, training=False)
        return Regions(tf.reshape(features, [-1, *self.regions_shape]), grid=self.grid)  # [B, R, D]

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


def _split(
    network: keras.Model, frozen_up_to: str | None
) -> tuple[keras.Model, keras.Model | None]:
    """Returns the layers up to the named one, frozen, and the layers after it, if any."""
    if frozen_up_to is None:
        return network, None
    names = [layer.name for layer in network.layers]
    if frozen_up_to not in names[:-1]:
        raise CaptionGANError(
            f"encoder.frozen_up_to: {frozen_up_to!r} is no layer before the last of "
            f"{network.name}; its layers are {', '.join(names)}."
        )
    between = network.get_layer(frozen_up_to).output
    try:
        second = keras.Model(between, network.output, name="fine_tuned")
    except ValueError as error:
        raise CaptionGANError(
            f"encoder.frozen_up_to: {frozen_up_to!r} lies beside another path through "
            f"{network.name}; choose a layer that all paths meet in, such as the end of a block."
        ) from error
    first = keras.Model(network.input, between, name="frozen")
    first.trainable = False
    return first, second


def _flat(shape: tuple[int, ...]) -> tuple[int, int]:
    """Returns (cells, channels) of an output shape [B, rows, columns, channels]."""
    _, rows, columns, channels = shape
    return rows * columns, channels


def _backbone_modules() -> dict:
    """Maps each backbone's class name to the module with its pre-processing."""
    return {
        name: module
        for _, module in inspect.getmembers(keras.applications, inspect.ismodule)
        if hasattr(module, "preprocess_input")
        for name in dir(module)
        if name[0].isupper() and callable(getattr(module, name))
    }
