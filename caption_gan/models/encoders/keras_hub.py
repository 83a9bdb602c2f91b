"""Pretrained encoders: the image backbones of keras-hub.

B batch, H image height, W image width, R regions, T tokens, C channels.
"""

import hashlib
import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from caption_gan.config.models import EncoderConfig
from caption_gan.errors import CaptionGANError
from caption_gan.models.encoders.keras_model import IMAGE_SIZE, KerasModelEncoder
from caption_gan.models.hugging_face import dual_encoders
from caption_gan.models.hugging_face.weights_folder import CONFIG, WeightsFolder

Numbers = float | list[float]
"""One number, or one per channel."""


@keras.saving.register_keras_serializable(package="caption_gan")
class KerasHubEncoder(KerasModelEncoder):
    """The image backbone of a preset, such as CLIP's, with the preset's own pre-processing.

    Pixels get the preset's scale and offset. Images are resized to the preset's size as for all
    encoders, whole and with another aspect ratio, where many presets would crop them: a caption
    speaks of what a crop would remove.
    """

    @classmethod
    def from_settings(cls, config: EncoderConfig, load_weights: bool) -> "KerasHubEncoder":
        """Builds the encoder from its preset; see `build_encoder`."""
        hub = import_keras_hub()
        preset = config.model or ""
        converted = _converted(preset)
        backbone = _image_backbone(hub, preset, converted, _given_size(config))
        scale, offset, size = _pixels(hub, preset, converted)
        own = backbone.inputs[0].shape[1:3]
        fallback = size or (IMAGE_SIZE, IMAGE_SIZE)
        given = (config.image_height, config.image_width)
        height, width = (
            fixed or wanted or other
            for fixed, wanted, other in zip(own, given, fallback, strict=True)
        )
        encoder = cls(
            backbone,
            height,
            width,
            scale,
            offset,
            config.feature_layer,
            config.frozen_up_to,
            _digest(backbone),
            name="encoder",
        )
        encoder.trainable = config.trainable
        return encoder

    @staticmethod
    def functional(model: keras.Model) -> keras.Model:
        """The backbone from pixels to feature maps or tokens, its Transformer blocks as layers."""
        pixels = model.inputs[0]
        names = {layer.name for layer in model.layers}
        for family in ("vit", "deit"):
            if f"{family}_encoder" in names:
                stack = model.get_layer(f"{family}_encoder")
                tokens = model.get_layer(f"{family}_patching_and_embedding")(pixels)  # [B, T, C]
                for block in stack.encoder_layers:
                    tokens = block(tokens)
                return keras.Model(pixels, stack.layer_norm(tokens), name=model.name)
        if hasattr(model, "embeddings") and hasattr(getattr(model, "encoder", None), "layers"):
            return _dino(model)
        if hasattr(model, "post_layer_norm"):
            return _siglip(model)
        return keras.Model(pixels, model.output, name=model.name)

    @staticmethod
    def patch_grid(
        model: keras.Model, network: keras.Model, image_height: int, image_width: int
    ) -> tuple[int, int] | None:
        """Rows and columns of the patches of a Vision Transformer; None of other networks."""
        size = getattr(model, "patch_size", None)
        if size is None or len(network.output_shape) != 3 or network.output_shape[1] is None:
            return None
        height, width = size if isinstance(size, tuple | list) else (size, size)
        rows, columns = image_height // height, image_width // width
        # Some merge patches on the way.
        return (rows, columns) if rows * columns <= network.output_shape[1] else None

    @classmethod
    def from_config(cls, config):
        import_keras_hub()  # Registers its layers.
        return super().from_config(config)


def import_keras_hub() -> ModuleType:
    """Imports keras-hub, which few encoders need and which takes seconds.

    Raises:
        CaptionGANError: It is not installed.
    """
    try:
        return importlib.import_module("keras_hub")
    except ImportError as error:
        raise CaptionGANError(
            "encoder.name keras_hub needs keras-hub, which is not installed; run "
            "`pip install -e '.[hub]'`."
        ) from error


class TokenLayer(keras.layers.Layer):
    """A layer of SigLIP for use in another graph.

    Its embedding announces one token too many, and the output of a layer is that of the graph in
    which it was called first.

    Args:
        layer: The layer.
        count: Number of tokens in its output.
        depth: Their channels.
    """

    def __init__(self, layer: keras.layers.Layer, count: int, depth: int):
        super().__init__(name=layer.name, dtype=layer.dtype_policy)
        self.layer = layer
        self.count = count
        self.depth = depth
        self.built = True

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Images [B, H, W, 3] or tokens [B, T, C] to tokens [B, T, C]."""
        return self.layer(inputs)

    def compute_output_shape(self, input_shape):
        return input_shape[0], self.count, self.depth


def _siglip(model: keras.Model) -> keras.Model:
    """SigLIP without the pooling at its end."""
    tokens = model.inputs[0]
    for layer in (model.embedding, *model.encoder_layers, model.post_layer_norm):
        tokens = TokenLayer(layer, model.embedding.num_positions, model.hidden_dim)(tokens)
    return keras.Model(model.inputs[0], tokens, name=model.name)


def _dino(model: keras.Model) -> keras.Model:
    """DINOv2 and DINOv3 as a functional model of their blocks."""
    pixels = model.inputs[0]
    tokens = model.embeddings(pixels)  # [B, T, C]
    options: dict[str, Any] = {}
    if hasattr(model, "rope_embedding"):
        # Rotary positions depend on the size of the image alone. As constants they do not connect
        # each block with the pixels, so that the model can be cut between blocks.
        positions = model.rope_embedding(np.zeros((1, *pixels.shape[1:]), np.float32))
        options = {
            "position_embeddings": tuple(np.array(part) for part in positions),
            "num_prefix_tokens": 1 + model.num_register_tokens,
        }
    for block in model.encoder.layers:
        tokens = block(tokens, **options)
    return keras.Model(pixels, model.layernorm(tokens), name=model.name)


def _given_size(config: EncoderConfig) -> tuple[int, int] | None:
    height, width = config.image_height, config.image_width
    if (height is None) != (width is None):
        raise CaptionGANError(
            f"encoder.image_height is {height} and encoder.image_width is {width}; give both, or "
            "none for the preset's own."
        )
    return None if height is None or width is None else (height, width)


def _image_backbone(
    hub: ModuleType,
    preset: str,
    converted: WeightsFolder | None,
    size: tuple[int, int] | None,
) -> keras.Model:
    """Loads a preset's backbone, or its image tower if it has several.

    Raises:
        CaptionGANError: The preset cannot be loaded, or takes something else than images, or images
            of another size.
    """
    if converted:
        backbone = dual_encoders.convert_dual_encoder(hub, converted)
    else:
        backbone = _open(hub.models.Backbone, preset, dtype="float32")
    tower = getattr(backbone, "vision_encoder", None) or backbone
    shapes = [tuple(tensor.shape) for tensor in tower.inputs]
    if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][-1] != 3:
        raise CaptionGANError(
            f"encoder.model: {preset} is a {type(backbone).__name__}, which takes {shapes} and no "
            "image; choose a preset with an image backbone, such as clip_vit_base_patch16."
        )
    own = shapes[0][1:3]
    if size is None or None in own or size == own:
        return tower
    try:
        if tower is not backbone:
            raise ValueError("Its positions are learned for one size.")
        return _open(hub.models.Backbone, preset, dtype="float32", image_shape=(*size, 3))
    except (CaptionGANError, ValueError) as error:
        raise CaptionGANError(
            f"encoder.image_height and image_width are {size[0]} and {size[1]}, but {preset} takes "
            f"{own[0]} and {own[1]}; omit them."
        ) from error


def _pixels(
    hub: ModuleType, preset: str, converted: WeightsFolder | None
) -> tuple[Numbers, Numbers, tuple[int, int] | None]:
    """Scale and offset of pixels from 0 to 255, and the size of images if the preset has one."""
    if converted:
        return *dual_encoders.image_scaling(converted), None
    converter = _open(hub.layers.ImageConverter, preset)
    return _numbers(converter.scale, 1.0), _numbers(converter.offset, 0.0), converter.image_size


def _converted(preset: str) -> WeightsFolder | None:
    """The Hugging Face folder of a network that keras-hub cannot convert; None of other presets."""
    config = Path(preset).expanduser() / CONFIG
    try:
        kind = json.loads(config.read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError):
        return None
    return WeightsFolder(config.parent) if kind in dual_encoders.KINDS else None


def _open(kind: Any, preset: str, **options: Any) -> Any:
    """Loads a part of a preset.

    Raises:
        CaptionGANError: It is missing, damaged, or cannot be downloaded.
    """
    try:
        return kind.from_preset(preset, **options)
    except Exception as error:  # keras-hub raises whatever downloads and layers raise.
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        # Keras names the weights in the first line and both shapes in the next one.
        reason = " ".join(lines[: 2 if lines[:1] and lines[0].endswith(":") else 1]).rstrip(".")
        raise CaptionGANError(
            f"encoder.model: {preset} gives no {kind.__name__}: {reason}. Give a preset of "
            "keras-hub by name (needs a network once), or a local folder with config.json, "
            "model.weights.h5 and image_converter.json: --encoder.model PRESET."
        ) from error


def _numbers(value: Any, default: float) -> Numbers:
    """A number, or numbers per channel, in JSON's types."""
    if value is None:
        return default
    numbers = np.asarray(value, np.float64).tolist()
    return numbers if isinstance(numbers, list) else float(numbers)


def _digest(backbone: keras.Model) -> str:
    """SHA-256 of the weights."""
    digest = hashlib.sha256()
    for weight in backbone.weights:
        digest.update(np.ascontiguousarray(weight).tobytes())
    return digest.hexdigest()
