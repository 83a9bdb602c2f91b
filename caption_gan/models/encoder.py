"""Encoders turn images into regions.

B batch, H image height, W image width, R regions, D region depth.

An encoder is a `keras.Model` from pixels [B, H, W, 3], numbers from 0 to 255, to regions
[B, R, D], with attributes `grid`, the rows and columns that the regions came from, and
`regions_shape`, (R, D).
"""

import inspect

import keras
import tensorflow as tf

from caption_gan.config import EncoderConfig
from caption_gan.errors import CaptionGANError


@keras.saving.register_keras_serializable(package="caption_gan")
class ConvolutionalEncoder(keras.Model):
    """A small network, trained with the captioner; one region for each 8 x 8 pixels.

    Convolutions with residual blocks see what is near (batch normalisation rather than group
    normalisation: on drawn scenes it learnt in 2 minutes what group normalisation did not in 9).
    Self-attention then lets regions see each other wherever they are: a line of a chart is only
    known to rise by comparing its two ends. A learned vector for each position lets regions know
    where they are, and words say it.

    Args:
        image_height: In pixels.
        image_width: In pixels.
        width: Channels of the first stage; regions have twice as many.
    """

    def __init__(self, image_height: int, image_width: int, width: int, **kwargs):
        super().__init__(**kwargs)
        self.image_height = image_height
        self.image_width = image_width
        self.width = width
        self.grid = (-(-image_height // 8), -(-image_width // 8))
        self.regions_shape = (self.grid[0] * self.grid[1], 2 * width)
        self.stem = keras.Sequential(
            [
                keras.layers.Rescaling(1 / 127.5, offset=-1),
                *_convolution(width // 2, 5, strides=2),
                *_convolution(width, 3, strides=2),
            ],
            name="stem",
        )
        self.first_block = keras.Sequential(_residual(width), name="first_block")
        self.reduction = keras.Sequential(_convolution(2 * width, 3, strides=2), name="reduction")
        self.second_block = keras.Sequential(_residual(2 * width), name="second_block")
        self.mixers = [SelfAttention(2 * width, name=f"mixer_{index}") for index in range(2)]

    def build(self, input_shape=None):
        rows, columns = self.grid
        half = (None, -(-self.image_height // 4), -(-self.image_width // 4), self.width)
        self.stem.build((None, self.image_height, self.image_width, 3))
        self.first_block.build(half)
        self.reduction.build(half)
        self.second_block.build((None, rows, columns, 2 * self.width))
        for mixer in self.mixers:
            mixer.build((None, *self.regions_shape))
        self.positions = self.add_weight(
            name="positions", shape=self.regions_shape, initializer="random_normal"
        )
        self.built = True

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Images [B, H, W, 3] to regions [B, R, D]."""
        features = self.stem(images, training=training)  # [B, H/4, W/4, D/2]
        features = tf.nn.relu(features + self.first_block(features, training=training))
        features = self.reduction(features, training=training)  # [B, H/8, W/8, D]
        features = tf.nn.relu(features + self.second_block(features, training=training))
        regions = tf.reshape(features, [-1, *self.regions_shape]) + self.positions  # [B, R, D]
        for mixer in self.mixers:
            regions = mixer(regions)
        return regions

    def get_config(self):
        return {
            **super().get_config(),
            "image_height": self.image_height,
            "image_width": self.image_width,
            "width": self.width,
        }


@keras.saving.register_keras_serializable(package="caption_gan")
class SelfAttention(keras.layers.Layer):
    """A Transformer's encoder layer, normalised first (Vaswani et al., 2017; Xiong et al., 2020).

    Args:
        depth: D.
        heads: Number of attention heads.
    """

    def __init__(self, depth: int, heads: int = 4, **kwargs):
        super().__init__(**kwargs)
        self.depth = depth
        self.heads = heads
        self.attention_norm = keras.layers.LayerNormalization(name="attention_norm")
        self.attention = keras.layers.MultiHeadAttention(heads, depth // heads, name="attention")
        self.dense_norm = keras.layers.LayerNormalization(name="dense_norm")
        self.widen = keras.layers.Dense(2 * depth, activation="relu", name="widen")
        self.narrow = keras.layers.Dense(depth, name="narrow")

    def build(self, input_shape):
        self.attention_norm.build(input_shape)
        self.attention.build(input_shape, input_shape)
        self.dense_norm.build(input_shape)
        self.widen.build(input_shape)
        self.narrow.build((*input_shape[:-1], 2 * self.depth))
        self.built = True

    def call(self, regions: tf.Tensor) -> tf.Tensor:
        """[B, R, D] to [B, R, D]."""
        normed = self.attention_norm(regions)
        regions += self.attention(normed, normed)
        return regions + self.narrow(self.widen(self.dense_norm(regions)))

    def get_config(self):
        return {**super().get_config(), "depth": self.depth, "heads": self.heads}


def _convolution(channels: int, size: int, strides: int = 1) -> list[keras.layers.Layer]:
    return [
        keras.layers.Conv2D(channels, size, strides, padding="same", use_bias=False),
        keras.layers.BatchNormalization(momentum=0.97),
        keras.layers.ReLU(),
    ]


def _residual(channels: int) -> list[keras.layers.Layer]:
    # Without the last activation, which comes after the sum.
    return [*_convolution(channels, 3), *_convolution(channels, 3)[:-1]]


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


def build_encoder(config: EncoderConfig, weights: str | None = None) -> keras.Model:
    """Builds the encoder that the settings ask for.

    Args:
        config: The settings.
        weights: Overrides `config.weights`; a run directory keeps its own copy.
    """
    size = (config.image_height, config.image_width)
    if config.name == "convolutional":
        encoder = ConvolutionalEncoder(*size, config.width, name="encoder")
    else:
        weights = weights or config.weights
        encoder = ApplicationsEncoder(
            config.backbone, *size, None if weights == "none" else weights, name="encoder"
        )
        encoder.trainable = config.trainable
    encoder.build((None, *size, 3))
    return encoder
