"""Encoders that others have trained: the backbones of `keras.applications`.

B batch, H image height, W image width, R regions, D region depth, F and C cells and channels of
the last frozen layer.
"""

import inspect

import keras
import tensorflow as tf

from caption_gan.errors import CaptionGANError


@keras.saving.register_keras_serializable(package="caption_gan")
class ApplicationsEncoder(keras.Model):
    """A backbone of `keras.applications`, with the pre-processing it was trained with.

    Its first layers can be frozen and the others fine-tuned. What comes out of the frozen ones
    never changes for an image, so it need be computed only once: `before_cache` is theirs,
    `after_cache` the others'.

    Args:
        backbone: Class name, e.g. `"MobileNetV2"`.
        image_height: In pixels.
        image_width: In pixels.
        weights: `"imagenet"`, a weights file of the backbone without its top, or None.
        frozen_up_to: Name of the last frozen layer; None freezes all of them or, where the model's
            `trainable` stays true, none.

    Raises:
        CaptionGANError: The backbone or the layer is unknown, or the weights cannot be had or do
            not fit.
    """

    def __init__(
        self,
        backbone: str,
        image_height: int,
        image_width: int,
        weights: str | None = None,
        frozen_up_to: str | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.backbone = backbone
        self.image_height = image_height
        self.image_width = image_width
        self.frozen_up_to = frozen_up_to
        modules = _backbone_modules()
        if backbone not in modules:
            raise CaptionGANError(
                f"encoder.backbone: {backbone!r} is not in keras.applications; "
                f"choose one of {', '.join(sorted(modules))}."
            )
        self.preprocess = modules[backbone].preprocess_input
        network = _load(backbone, (image_height, image_width, 3), weights)
        self.first, self.second = _split(network, frozen_up_to)
        self.cached_shape = _flat(self.first.output_shape)
        _, rows, columns, _ = network.output_shape
        self.grid = (rows, columns)
        self.regions_shape = _flat(network.output_shape)
        self.built = True

    @property
    def pretrained_variables(self) -> list[keras.Variable]:
        """Variables that are trained further, and so with more care than new ones."""
        return self.trainable_variables

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Images [B, H, W, 3] to regions [B, R, D]."""
        return self.after_cache(self.before_cache(images))

    def before_cache(self, images: tf.Tensor) -> tf.Tensor:
        """Images [B, H, W, 3] to what the frozen layers make of them [B, F, C]."""
        # Never in training mode: the statistics of batch normalisation are those of the data the
        # backbone was trained on, and small batches would ruin them.
        features = self.first(self.preprocess(tf.cast(images, tf.float32)), training=False)
        return tf.reshape(features, [-1, *self.cached_shape])  # [B, F, C]

    def after_cache(self, cached: tf.Tensor) -> tf.Tensor:
        """What the frozen layers made of images [B, F, C] to regions [B, R, D]."""
        if self.second is None:
            return cached
        grid = tf.reshape(cached, [-1, *self.first.output_shape[1:]])
        return tf.reshape(self.second(grid, training=False), [-1, *self.regions_shape])  # [B, R, D]

    def get_config(self):
        return {
            **super().get_config(),
            "backbone": self.backbone,
            "image_height": self.image_height,
            "image_width": self.image_width,
            "frozen_up_to": self.frozen_up_to,
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
    """The layers up to the named one, frozen, and those after it."""
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
    """(cells, channels) of an output [B, rows, columns, channels]."""
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
