"""Encoder and generator together: what a run trains, saves and serves.

B batch, H image height, W image width, R regions, D region depth.
"""

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from caption_gan.models.encoders.encoder import Encoder, Regions
from caption_gan.models.generators.generator import Generator
from caption_gan.models.trace_scopes import ENCODER, trace_scope


@keras.saving.register_keras_serializable(package="caption_gan")
class Captioner(keras.Model):
    """An encoder and the generator that reads its regions.

    Args:
        encoder: Images [B, H, W, 3] to regions [B, R, D].
        generator: Reads the regions.
    """

    def __init__(self, encoder: Encoder, generator: Generator, **kwargs):
        super().__init__(**kwargs)
        self.encoder = encoder
        self.generator = generator
        self.built = True

    @trace_scope(ENCODER)
    def regions(self, batch: Mapping[str, tf.Tensor], training: bool = False) -> Regions:
        """Regions [B, R, D] of a batch of pixels, or of what the cache holds in their place."""
        if "regions" in batch:
            return self.encoder.after_cache(tf.cast(batch["regions"], tf.float32))
        return self.encoder(batch["image"], training=training)

    def copy(self) -> "Captioner":
        """Another captioner with the same weights, of the precision that is now set."""
        other = Captioner.from_config(self.get_config())  # The parts' configs build them.
        other.set_weights(self.get_weights())
        return other

    def get_config(self):
        return {
            **super().get_config(),
            "encoder": _described(self.encoder),
            "generator": _described(self.generator),
        }

    @classmethod
    def from_config(cls, config):
        for part in ("encoder", "generator"):
            config[part] = keras.saving.deserialize_keras_object(config[part])
        return cls(**config)


def _described(part: keras.Model) -> dict[str, Any]:
    """Its config without its precision, which is that of the place where it is built."""
    described = keras.saving.serialize_keras_object(part)
    del described["config"]["dtype"]
    return described
