"""A captioner: an encoder and a generator, which a run trains, saves and serves.

B batch, H image height, W image width, K captions per image, T time, V vocabulary, R regions,
D region depth, Z noise.
"""

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from caption_gan.models.encoders.encoder import Encoder, Regions
from caption_gan.models.generators.generator import Generator
from caption_gan.models.generators.lora import enable_lora
from caption_gan.models.trace_scopes import ENCODER, trace_scope


@keras.saving.register_keras_serializable(package="caption_gan")
class Captioner(keras.Model):
    """An encoder and the generator that attends to its regions.

    Args:
        encoder: A built encoder.
        generator: A generator that is built for the encoder's regions.
    """

    def __init__(self, encoder: Encoder, generator: Generator, **kwargs):
        super().__init__(**kwargs)
        self.encoder = encoder
        self.generator = generator
        self.built = True

    @trace_scope(ENCODER)
    def regions(self, batch: Mapping[str, tf.Tensor], training: bool = False) -> Regions:
        """Regions of a batch: of its `image` [B, H, W, 3], or of what the cache holds of it.

        Args:
            batch: With `regions`, what `Encoder.before_cache` made of the images, or `image`.
            training: Whether the encoder is trained.
        """
        if "regions" in batch:
            return self.encoder.after_cache(tf.cast(batch["regions"], tf.float32))
        return self.encoder(batch["image"], training=training)

    def call(
        self, images: tf.Tensor, token_ids: tf.Tensor, noise: tf.Tensor, training: bool = False
    ) -> tf.Tensor:
        """Scores every next token of captions by teacher forcing.

        Args:
            images: [B, H, W, 3].
            token_ids: [B, K, T].
            noise: [B, K, Z].
            training: Whether dropout is active.

        Returns:
            Logits [B, K, T, V].
        """
        memory = self.generator.encode(self.regions({"image": images}, training), training)
        return self.generator.teacher_forcing(token_ids, memory, noise, training)

    def copy(self) -> "Captioner":
        """Returns a captioner with the same weights, in the current dtype policy."""
        other = Captioner.from_config(self.get_config())
        other.set_weights(self.get_weights())
        return other

    def with_lora(self, rank: int) -> "Captioner":
        """A copy whose generator trains matrices of a rank; the captioner itself for rank 0."""
        if not rank:
            return self
        other = self.copy()
        enable_lora(other.generator, rank)
        return other

    def get_config(self):
        return {
            **super().get_config(),
            "encoder": _serialized(self.encoder),
            "generator": _serialized(self.generator),
        }

    @classmethod
    def from_config(cls, config):
        parts = {
            name: keras.saving.deserialize_keras_object(config[name])
            for name in ("encoder", "generator")
        }
        return cls(**{**config, **parts})


def _serialized(part: keras.Model) -> dict[str, Any]:
    """Serializes a model without its dtype policy: a copy takes the current one."""
    serialized = keras.saving.serialize_keras_object(part)
    del serialized["config"]["dtype"]
    return serialized
