"""A small convolutional encoder, trained from scratch with the captioner on two CPU cores.

B batch, H image height, W image width, R regions, D region depth.
"""

import keras
import numpy as np
import tensorflow as tf

from caption_gan.config.models import EncoderConfig
from caption_gan.distribution import replicas
from caption_gan.models.encoders.encoder import Encoder, Regions
from caption_gan.models.generators.attention import RegionAttention


@keras.saving.register_keras_serializable(package="caption_gan")
class ConvolutionalEncoder(Encoder):
    """A residual network followed by self-attention; one region per 8 x 8 pixels.

    Convolutions and residual blocks see the neighbourhood of a region. They use batch
    normalisation: on drawn scenes it learnt in 2 minutes what group normalisation did not learn in
    9. Self-attention then compares distant regions: whether a line of a chart rises shows only at
    its two ends. Learned position vectors tell regions, and so captions, where things are.

    Args:
        image_height: In pixels.
        image_width: In pixels.
        width: Channels of the first stage; regions have twice as many.
    """

    starts_untrained = True
    normalizes_over_batch = True
    grid: tuple[int, int]

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

    @classmethod
    def from_settings(cls, config: EncoderConfig, load_weights: bool) -> "ConvolutionalEncoder":
        """Builds the encoder; every weight starts at random."""
        encoder = cls(*config.image_size, config.width, name="encoder")
        encoder.build((None, *config.image_size, 3))
        return encoder

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
            name="positions",
            shape=self.regions_shape,
            initializer=lambda shape, dtype: tf.cast(waves_over_grid(*self.grid, shape[-1]), dtype),
        )
        self.built = True

    def call(self, images: tf.Tensor, training: bool = False) -> Regions:
        """Images [B, H, W, 3] to regions [B, R, D]."""
        features = self.stem(images, training=training)  # [B, H/4, W/4, D/2]
        features = tf.nn.relu(features + self.first_block(features, training=training))
        features = self.reduction(features, training=training)  # [B, H/8, W/8, D]
        features = tf.nn.relu(features + self.second_block(features, training=training))
        regions = tf.reshape(features, [-1, *self.regions_shape]) + self.positions  # [B, R, D]
        for mixer in self.mixers:
            regions = mixer(regions)
        return Regions(regions, grid=self.grid)

    def get_config(self):
        return {
            **super().get_config(),
            "image_height": self.image_height,
            "image_width": self.image_width,
            "width": self.width,
        }


def waves_over_grid(rows: int, columns: int, depth: int) -> np.ndarray:
    """Initial position vectors: sines and cosines, half of them down the grid, half across.

    The longest wave covers the grid with a quarter of its period, nearly a ramp; the shortest
    changes from each region to the next.

    Returns:
        [rows * columns, depth], in the order in which a grid is flattened.
    """
    waves = np.geomspace(0.5, max(rows, columns) / 2, -(-depth // 4)) * np.pi
    down, across = (
        np.concatenate([np.sin(angles), np.cos(angles)], axis=-1)
        for angles in (np.linspace(0, 1, count)[:, None] * waves for count in (rows, columns))
    )
    grid = np.concatenate([np.repeat(down, columns, axis=0), np.tile(across, (rows, 1))], axis=-1)
    return grid[:, :depth]


@keras.saving.register_keras_serializable(package="caption_gan")
class SelfAttention(keras.layers.Layer):
    """A pre-norm Transformer encoder layer (Vaswani et al., 2017; Xiong et al., 2020).

    `keras.layers.MultiHeadAttention` would initialise its kernels differently from the same seed.

    Args:
        depth: D.
        heads: Number of attention heads.
    """

    def __init__(self, depth: int, heads: int = 2, **kwargs):
        super().__init__(**kwargs)
        self.depth = depth
        self.heads = heads
        self.attention_norm = keras.layers.LayerNormalization(name="attention_norm")
        self.attention = RegionAttention(depth, heads, name="attention")
        self.attended = keras.layers.Dense(depth, name="attended")
        self.dense_norm = keras.layers.LayerNormalization(name="dense_norm")
        self.widen = keras.layers.Dense(2 * depth, activation="relu", name="widen")
        self.narrow = keras.layers.Dense(depth, name="narrow")

    def build(self, input_shape):
        self.attention_norm.build(input_shape)
        self.attention.build(input_shape, input_shape)
        self.attended.build(input_shape)
        self.dense_norm.build(input_shape)
        self.widen.build(input_shape)
        self.narrow.build((*input_shape[:-1], 2 * self.depth))
        self.built = True

    def call(self, regions: tf.Tensor) -> tf.Tensor:
        """[B, R, D] to [B, R, D]."""
        normed = self.attention_norm(regions)
        context, _ = self.attention(normed, self.attention.project(normed))  # [B, R, D]
        regions += self.attended(context)
        return regions + self.narrow(self.widen(self.dense_norm(regions)))

    def get_config(self):
        return {**super().get_config(), "depth": self.depth, "heads": self.heads}


def _convolution(channels: int, size: int, strides: int = 1) -> list[keras.layers.Layer]:
    return [
        keras.layers.Conv2D(channels, size, strides, padding="same", use_bias=False),
        keras.layers.BatchNormalization(momentum=0.97, synchronized=replicas.several()),
        keras.layers.ReLU(),
    ]


def _residual(channels: int) -> list[keras.layers.Layer]:
    # Without the last activation, which follows the addition.
    return [*_convolution(channels, 3), *_convolution(channels, 3)[:-1]]
