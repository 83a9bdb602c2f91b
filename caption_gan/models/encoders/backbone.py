"""What encoders with a pretrained network share: frozen layers, the cache, and fine-tuning.

B batch, H image height, W image width, R regions, D region depth, T tokens, F and C cells and
channels of the last frozen layer.
"""

import math

import keras
import tensorflow as tf

from caption_gan.errors import CaptionGANError
from caption_gan.models.encoders.encoder import Encoder, Regions


class BackboneEncoder(Encoder):
    """A pretrained network, from pixels to regions.

    Its first layers can be frozen and the others fine-tuned. The output of the frozen layers
    never changes for an image, so it is computed once: `before_cache` runs the frozen layers,
    `after_cache` the others.

    Some networks put tokens before those of the patches: a class token, then perhaps registers.
    The class token stands for the whole image. It is appended to every patch's features, so that
    attention sees a patch in its image, a generator that summarises regions by their mean has the
    class token in it unchanged, and regions remain a grid. Registers are left out.

    Args:
        network: A functional model from pixels that went through `preprocess` [B, H, W, 3] to
            [B, rows, columns, D] or [B, R, D].
        image_height: In pixels.
        image_width: In pixels.
        frozen_up_to: Name of the last frozen layer. None freezes no layer if the encoder's
            `trainable` is true, and all of them if it is false.
        patch_grid: Rows and columns of the patches, if the output is tokens [B, T, C] of which the
            last ones are patches. A class token before them makes D twice C.

    Raises:
        CaptionGANError: The layer is unknown or lies beside another path, or the network's output
            has another rank.
    """

    def __init__(
        self,
        network: keras.Model,
        image_height: int,
        image_width: int,
        frozen_up_to: str | None = None,
        patch_grid: tuple[int, int] | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.image_height = image_height
        self.image_width = image_width
        self.frozen_up_to = frozen_up_to
        self.first, self.second = _split(network, frozen_up_to)
        between = self.first(keras.Input((image_height, image_width, 3)))
        self.between_shape = tuple(between.shape[1:])
        output = between if self.second is None else self.second(between)
        rows_columns, (count, depth) = _layout(network, output.shape)
        self.leading_tokens = count - math.prod(patch_grid) if patch_grid else 0
        self.grid = patch_grid or rows_columns
        self.regions_shape = (
            count - self.leading_tokens,
            depth * (2 if self.leading_tokens else 1),
        )
        self.built = True

    @property
    def cached_shape(self) -> tuple[int, ...] | None:
        """(F, C), if there are frozen layers."""
        if self.trainable and self.frozen_up_to is None:
            return None
        return math.prod(self.between_shape[:-1]), self.between_shape[-1]

    @property
    def fine_tuned(self) -> keras.layers.Layer:
        """The layers after the frozen ones."""
        # Not the encoder itself: what is cached depends on its `trainable`.
        return self.first if self.second is None else self.second

    @property
    def pretrained_variables(self) -> list[keras.Variable]:
        """All trainable variables: the backbone is pretrained."""
        return self.trainable_variables

    def preprocess(self, images: tf.Tensor) -> tf.Tensor:
        """What the network reads, of float images [B, H, W, 3] from 0 to 255."""
        raise NotImplementedError

    def call(self, images: tf.Tensor, training: bool = False) -> Regions:
        """Images [B, H, W, 3] to regions [B, R, D]."""
        return self.after_cache(self.before_cache(images))

    def before_cache(self, images: tf.Tensor) -> tf.Tensor:
        """Runs the frozen layers on images [B, H, W, 3]; output [B, F, C]."""
        # Never in training mode: small batches would ruin the pretrained batch statistics.
        features = self.first(self.preprocess(tf.cast(images, tf.float32)), training=False)
        cells, channels = math.prod(self.between_shape[:-1]), self.between_shape[-1]
        return tf.reshape(features, [-1, cells, channels])  # [B, F, C]

    def after_cache(self, cached: tf.Tensor) -> Regions:
        """Runs the other layers on the output of the frozen ones [B, F, C]."""
        features = cached
        if self.second is not None:
            between = tf.reshape(cached, [-1, *self.between_shape])
            features = self.second(between, training=False)
        if self.leading_tokens:
            class_token = tf.repeat(features[:, :1], self.regions_shape[0], axis=1)  # [B, R, C]
            features = tf.concat([features[:, self.leading_tokens :], class_token], axis=-1)
        return Regions(tf.reshape(features, [-1, *self.regions_shape]), grid=self.grid)  # [B, R, D]


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
    first = keras.Model(network.inputs[0], between, name="frozen")
    first.trainable = False
    return first, second


def _layout(
    network: keras.Model, shape: tuple[int | None, ...]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Returns the grid (rows, columns) and (R, D) of an output [B, rows, columns, D] or [B, R, D].

    Raises:
        CaptionGANError: The output has another rank, or a size that the image does not determine.
    """
    sizes = [size for size in shape[1:] if size is not None]
    if len(sizes) not in (2, 3) or len(sizes) < len(shape) - 1:
        raise CaptionGANError(
            f"{network.name} gives features {tuple(shape)}; expected [batch, rows, columns, depth] "
            "or [batch, regions, depth]: choose an earlier layer with --encoder.feature_layer, or "
            "save the network without its top."
        )
    *places, depth = sizes
    count = math.prod(places)
    side = math.isqrt(count)
    # Regions without rows and columns are most often a square grid.
    square = (side, side) if side**2 == count else (1, count)
    rows, columns = places if len(places) == 2 else square
    return (rows, columns), (count, depth)
