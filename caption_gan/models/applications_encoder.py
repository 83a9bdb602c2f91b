"""Encoders that others have trained: the backbones of `keras.applications`.

B batch, H image height, W image width, R regions, D region depth.
"""

import inspect

import keras
import tensorflow as tf

from caption_gan.errors import CaptionGANError


@keras.saving.register_keras_serializable(package="caption_gan")
class ApplicationsEncoder(keras.Model):
    """A backbone of `keras.applications`, with the pre-processing it was trained with.

    Args:
        backbone: Class name, e.g. `"MobileNetV2"`.
        image_height: In pixels.
        image_width: In pixels.
        weights: `"imagenet"`, a weights file of the backbone without its top, or None.

    Raises:
        CaptionGANError: The backbone is unknown, or the weights cannot be had or do not fit.
    """

    def __init__(
        self,
        backbone: str,
        image_height: int,
        image_width: int,
        weights: str | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.backbone = backbone
        self.image_height = image_height
        self.image_width = image_width
        modules = _backbone_modules()
        if backbone not in modules:
            raise CaptionGANError(
                f"encoder.backbone: {backbone!r} is not in keras.applications; "
                f"choose one of {', '.join(sorted(modules))}."
            )
        self.preprocess = modules[backbone].preprocess_input
        shape = (image_height, image_width, 3)
        try:
            self.network = getattr(keras.applications, backbone)(
                include_top=False,
                weights="imagenet" if weights == "imagenet" else None,
                input_shape=shape,
            )
            if weights not in ("imagenet", None):
                self.network.load_weights(weights)
        except Exception as error:  # Keras raises bare exceptions for a failed download.
            raise CaptionGANError(
                f"encoder.weights: {weights!r} cannot be loaded into {backbone} for images of "
                f"{image_height}x{image_width}: {str(error).splitlines()[0]} Give a weights file "
                f"made with include_top=False, 'imagenet' (needs a network once) or 'none'."
            ) from error
        _, rows, columns, depth = self.network.output_shape
        self.grid = (rows, columns)
        self.regions_shape = (rows * columns, depth)

    def build(self, input_shape=None):
        self.built = True

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Images [B, H, W, 3] to regions [B, R, D]."""
        # Never in training mode: the statistics of batch normalisation are those of the data the
        # backbone was trained on, and small batches would ruin them.
        features = self.network(self.preprocess(tf.cast(images, tf.float32)), training=False)
        return tf.reshape(features, [-1, *self.regions_shape])  # [B, R, D]

    def get_config(self):
        return {
            **super().get_config(),
            "backbone": self.backbone,
            "image_height": self.image_height,
            "image_width": self.image_width,
        }


def _backbone_modules() -> dict:
    """Maps each backbone's class name to the module with its pre-processing."""
    return {
        name: module
        for _, module in inspect.getmembers(keras.applications, inspect.ismodule)
        if hasattr(module, "preprocess_input")
        for name in dir(module)
        if name[0].isupper() and callable(getattr(module, name))
    }
