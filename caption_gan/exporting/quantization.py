"""Stores weights as float16 or int8, and measures what the captioner loses.

C channels of a weight: its longest axis.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal, get_args

import keras
import numpy as np
import tensorflow as tf

from caption_gan.config.run import Config
from caption_gan.data.example import Example
from caption_gan.data.shards.prepare import prepare_splits
from caption_gan.data.shards.records import read_examples
from caption_gan.evaluation.saved_models import without_cached_regions
from caption_gan.metrics.quality import quality
from caption_gan.models.encoders.encoder import build_encoder

WeightType = Literal["float16", "int8"]
WEIGHT_TYPES: tuple[WeightType, ...] = get_args(WeightType)
INT8_MAX = 127  # -128 is unused, so that rounding is symmetric around zero.
BATCH = 32


class QuantizedWeight(tf.Module):
    """A weight as it is stored.

    Args:
        values: Of any shape.
        weight_type: `float16`; or `int8` with a scale for each channel; or None, which stores the
            values unchanged.
    """

    def __init__(self, values: np.ndarray, weight_type: WeightType | None):
        super().__init__()
        self.scale = None
        if weight_type == "int8":
            # Of equally long axes the last, which holds the outputs of a dense layer. Embeddings
            # have their channels first; depthwise convolutions have them before the last axis.
            channels = max(range(values.ndim), key=lambda axis: (values.shape[axis], axis))
            other_axes = tuple(axis for axis in range(values.ndim) if axis != channels)
            largest = np.abs(values).max(axis=other_axes, keepdims=True)
            # A channel of zeros may have any scale but zero.
            scale = np.where(largest > 0, largest / INT8_MAX, 1).astype(np.float32)
            self.scale = tf.Variable(scale, trainable=False)
            values = np.rint(values / scale)
        self.stored = tf.Variable(values, trainable=False, dtype=weight_type or values.dtype.name)

    def dequantize(self) -> tf.Tensor:
        """The weight as the model's layers use it, float32 if it was quantized."""
        if self.scale is not None:
            return tf.cast(self.stored, tf.float32) * self.scale
        value = tf.convert_to_tensor(self.stored)
        return tf.cast(value, tf.float32) if value.dtype == tf.float16 else value

    @property
    def nbytes(self) -> int:
        """Size in bytes, scales included."""
        return sum(np.array(variable).nbytes for variable in self.variables)


class QuantizedWeights:
    """Quantizes a model's weights, and rounds the model's variables to the quantized values.

    Weights with one axis, such as biases, are few and stay as they are.

    Args:
        model: Its variables are overwritten.
        weight_type: How weights with more than one axis are stored.
    """

    def __init__(self, model: keras.Model, weight_type: WeightType):
        self.pairs: list[tuple[keras.Variable, QuantizedWeight]] = []
        for variable in model.variables:
            values = np.array(variable)
            is_large = values.dtype == np.float32 and values.ndim > 1
            weight = QuantizedWeight(values, weight_type if is_large else None)
            variable.assign(weight.dequantize())
            self.pairs.append((variable, weight))

    def weights(self) -> list[QuantizedWeight]:
        """What an export has to store."""
        return [weight for _, weight in self.pairs]

    def scope(self) -> keras.StatelessScope:
        """A scope in which the model uses the quantized weights instead of its variables."""
        mapping = [(variable, weight.dequantize()) for variable, weight in self.pairs]
        return keras.StatelessScope(state_mapping=mapping)


@dataclasses.dataclass(frozen=True)
class QuantizationLoss:
    """Size and CIDEr of a captioner before and after quantization.

    Attributes:
        weights: How the weights are stored.
        cider: Of greedy captions of the validation split.
        cider_before: The same with float32 weights.
        megabytes: Size of the weights.
        megabytes_before: Their size as float32.
    """

    weights: WeightType
    cider: float
    cider_before: float
    megabytes: float
    megabytes_before: float

    def summary(self) -> str:
        """One line for people."""
        return (
            f"weights as {self.weights}: {self.megabytes:.1f} MB, as float32 "
            f"{self.megabytes_before:.1f}; CIDEr of greedy captions of val {self.cider:.4f}, "
            f"as float32 {self.cider_before:.4f} ({self.cider - self.cider_before:+.4f})"
        )


def quantize(
    model: keras.Model,
    caption: Callable[[tf.Tensor], tf.Tensor],
    config: Config,
    weight_type: WeightType,
) -> tuple[QuantizedWeights, QuantizationLoss]:
    """Quantizes a captioner's weights and measures the loss.

    Args:
        model: The captioner.
        caption: Its greedy captions [B] of encoded images [B].
        config: Of its run.
        weight_type: How to store the weights.

    Raises:
        CaptionGANError: The data set of the run is missing.
    """
    config = without_cached_regions(config)
    prepared = prepare_splits(config, build_encoder(config.encoder), ["val"])["val"]
    examples = list(read_examples(prepared))
    cider_before = _greedy_cider(caption, examples)
    bytes_before = sum(np.array(variable).nbytes for variable in model.variables)
    quantized = QuantizedWeights(model, weight_type)
    size = sum(weight.nbytes for weight in quantized.weights())
    cider = _greedy_cider(caption, examples)
    loss = QuantizationLoss(weight_type, cider, cider_before, size / 1e6, bytes_before / 1e6)
    return quantized, loss


def _greedy_cider(caption: Callable[[tf.Tensor], tf.Tensor], examples: Sequence[Example]) -> float:
    """CIDEr of captions of encoded images, decoded as a server decodes them."""
    caption = tf.function(caption, reduce_retracing=True)
    captions: dict[str, str] = {}
    for start in range(0, len(examples), BATCH):
        batch = examples[start : start + BATCH]
        generated = caption(tf.constant([example.image for example in batch]))
        for example, text in zip(batch, generated.numpy(), strict=True):
            captions[example.image_id] = text.decode()
    references = {example.image_id: example.captions for example in examples}
    return quality(captions, references)["CIDEr"].value
