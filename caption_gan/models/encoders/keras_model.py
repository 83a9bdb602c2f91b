"""Pretrained encoders: any network in a `.keras` file.

B batch, H image height, W image width.
"""

import hashlib
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from caption_gan.config.models import EncoderConfig
from caption_gan.errors import CaptionGANError
from caption_gan.models.encoders.backbone import BackboneEncoder

# Of networks that take images of any size: what most were pretrained with on ImageNet.
IMAGE_SIZE = 224


@keras.saving.register_keras_serializable(package="caption_gan")
class KerasModelEncoder(BackboneEncoder):
    """A functional or sequential Keras model of Keras's own layers.

    Args:
        model: From images [B, H, W, 3] to features [B, rows, columns, D] or [B, R, D].
        image_height: In pixels.
        image_width: In pixels.
        scale: Pixels, from 0 to 255, are multiplied by it; one number, or one per channel.
        offset: Is then added; likewise.
        feature_layer: Layer whose output is taken as regions; None for the model's output.
        frozen_up_to: See `BackboneEncoder`.
        digest: SHA-256 of what `model` was read from, which tells the caches of two files apart.

    Raises:
        CaptionGANError: The model has several inputs, another rank of output, or no such layer.
    """

    from_file = True

    def __init__(
        self,
        model: keras.Model,
        image_height: int,
        image_width: int,
        scale: float | list[float] = 1.0,
        offset: float | list[float] = 0.0,
        feature_layer: str | None = None,
        frozen_up_to: str | None = None,
        digest: str = "",
        **kwargs,
    ):
        network = _up_to(self.functional(model), feature_layer)
        patch_grid = self.patch_grid(model, network, image_height, image_width)
        super().__init__(network, image_height, image_width, frozen_up_to, patch_grid, **kwargs)
        self.architecture = json.dumps(_architecture(keras.saving.serialize_keras_object(model)))
        self.scale = scale
        self.offset = offset
        self.feature_layer = feature_layer
        self.digest = digest

    @classmethod
    def from_settings(cls, config: EncoderConfig, load_weights: bool) -> "KerasModelEncoder":
        """Builds the encoder from its file, with the weights in it; see `build_encoder`."""
        path = Path(config.model or "")
        model = _load(path)
        height, width = _image_size(model, config)
        encoder = cls(
            model,
            height,
            width,
            config.scale,
            config.offset,
            config.feature_layer,
            config.frozen_up_to,
            hashlib.sha256(path.read_bytes()).hexdigest(),
            name="encoder",
        )
        encoder.trainable = config.trainable
        return encoder

    @property
    def cache_key(self) -> dict[str, Any]:
        """Everything that the output of the frozen layers depends on."""
        return {} if self.cached_shape is None else {"model": self.digest, **self._settings}

    @property
    def _settings(self) -> dict[str, Any]:
        return {
            "image_height": self.image_height,
            "image_width": self.image_width,
            "scale": self.scale,
            "offset": self.offset,
            "feature_layer": self.feature_layer,
            "frozen_up_to": self.frozen_up_to,
        }

    @staticmethod
    def functional(model: keras.Model) -> keras.Model:
        """The network as layers at which it can be cut."""
        return model

    @staticmethod
    def patch_grid(
        model: keras.Model, network: keras.Model, image_height: int, image_width: int
    ) -> tuple[int, int] | None:
        """Rows and columns of the patches of which `network`, a part of `model`, gives tokens."""
        return None

    def preprocess(self, images: tf.Tensor) -> tf.Tensor:
        """Scales images [B, H, W, 3]."""
        return images * self.scale + self.offset

    def get_config(self):
        return {
            **super().get_config(),
            **self._settings,
            "model": json.loads(self.architecture),
            "digest": self.digest,
        }

    @classmethod
    def from_config(cls, config):
        model = keras.saving.deserialize_keras_object(config["model"])
        return cls(**{**config, "model": model})


def _load(path: Path) -> keras.Model:
    """Loads a `.keras` file.

    Raises:
        CaptionGANError: There is no such file, or Keras alone cannot load it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))
        foreign = sorted(set(_foreign_objects(config)))
        if not foreign:
            return keras.saving.load_model(path, compile=False)
    except Exception as error:  # Keras raises whatever the layers of a damaged file raise.
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise CaptionGANError(
            f"encoder.model: {path} cannot be loaded: {reason}. Give a file that "
            "`model.save('name.keras')` wrote: --encoder.model FILE."
        ) from error
    raise CaptionGANError(
        f"encoder.model: {path} contains {', '.join(foreign)}, which Keras cannot load without "
        "code of your own; save a network that consists of keras.layers, without Lambda."
    )


def _foreign_objects(config: Any) -> Iterator[str]:
    """Yields the names of classes and functions in a model's config that are not Keras's own."""
    if isinstance(config, dict):
        if "class_name" in config and "registered_name" in config:
            is_own = str(config.get("module")).partition(".")[0] == "keras"
            if not is_own or config["class_name"] == "Lambda":
                yield str(config["registered_name"] or config["class_name"])
        config = list(config.values())
    if isinstance(config, list):
        for item in config:
            yield from _foreign_objects(item)


def _image_size(model: keras.Model, config: EncoderConfig) -> tuple[int, int]:
    """Returns the height and width of the images that the model takes.

    Raises:
        CaptionGANError: It takes something else than an image, or images of another size.
    """
    shapes = [tuple(tensor.shape) for tensor in getattr(model, "inputs", None) or []]
    if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][-1] != 3:
        raise CaptionGANError(
            f"encoder.model: {config.model} takes inputs {shapes}; expected a functional or "
            "sequential model with one input [batch, height, width, 3]."
        )
    sizes = []
    for name, own in zip(("image_height", "image_width"), shapes[0][1:3], strict=True):
        given = getattr(config, name)
        if own and given and own != given:
            raise CaptionGANError(
                f"encoder.{name} is {given}, but {config.model} takes {own}; omit encoder.{name}."
            )
        sizes.append(own or given or IMAGE_SIZE)
    return sizes[0], sizes[1]


def _up_to(model: keras.Model, feature_layer: str | None) -> keras.Model:
    """Returns a functional model that ends at a layer.

    Raises:
        CaptionGANError: The model has no such layer.
    """
    names = [layer.name for layer in model.layers]
    if feature_layer is not None and feature_layer not in names:
        raise CaptionGANError(
            f"encoder.feature_layer: {feature_layer!r} is no layer of {model.name}; its layers are "
            f"{', '.join(names)}."
        )
    layer = model if feature_layer is None else model.get_layer(feature_layer)
    return keras.Model(model.inputs[0], layer.output, name=model.name)


def _architecture(config: Any) -> Any:
    """A model's config without how it was compiled and without precision: a copy's is the current.

    Precision is in the dtype policies of the layers.
    """
    if isinstance(config, list):
        return [_architecture(item) for item in config]
    if not isinstance(config, dict):
        return config
    return {
        name: _architecture(value)
        for name, value in config.items()
        if name != "compile_config"
        and not (isinstance(value, dict) and value.get("class_name") == "DTypePolicy")
    }
