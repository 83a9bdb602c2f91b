"""Ensembles of captioners with the same vocabulary.

B batch, K captions per image, V vocabulary, R regions, Z noise, the sum of the members'.
"""

from collections.abc import Mapping, Sequence

import keras
import tensorflow as tf

from caption_gan.models.captioner import Captioner
from caption_gan.models.encoders.encoder import Regions
from caption_gan.models.generators.generator import Generator, Memory, State


class GeneratorEnsemble:
    """Decodes with the mean of its members' probabilities at each step.

    Args:
        generators: Members with the same vocabulary.
    """

    def __init__(self, generators: Sequence[Generator]):
        self.generators = generators
        self.vocabulary_size = generators[0].vocabulary_size
        self.noise_size = sum(member.noise_size for member in generators)
        self.has_attention = all(member.has_attention for member in generators)

    def encode(self, regions: tuple[Regions, ...]) -> tuple[Memory, ...]:
        """Encodes the regions of each member."""
        return tuple(
            member.encode(part) for member, part in zip(self.generators, regions, strict=True)
        )

    def initial_state(
        self, memory: tuple[Memory, ...], noise: tf.Tensor, length: int
    ) -> tuple[State, ...]:
        """States of the members before the first token, from noise [B, K, Z]."""
        parts = tf.split(noise, [member.noise_size for member in self.generators], axis=-1)
        return tuple(
            member.initial_state(member_memory, part, length)
            for member, member_memory, part in zip(self.generators, memory, parts, strict=True)
        )

    def decode_step(
        self, token_ids: tf.Tensor, state: tuple[State, ...], memory: tuple[Memory, ...]
    ) -> tuple[tf.Tensor, tuple[State, ...], tf.Tensor | None]:
        """Reads one token [B, K] of each caption and scores the next.

        Returns:
            Log-probabilities [B, K, V], the next states, and attention weights [B, K, R], the mean
            of the members', or None if a member has none.
        """
        steps = [
            member.decode_step(token_ids, member_state, member_memory)
            for member, member_state, member_memory in zip(
                self.generators, state, memory, strict=True
            )
        ]
        logits, states, weights = zip(*steps, strict=True)
        stacked = tf.stack([tf.nn.log_softmax(member_logits) for member_logits in logits])
        summed = tf.reduce_logsumexp(stacked, axis=0)  # [B, K, V]
        log_probabilities = summed - tf.math.log(float(len(self.generators)))
        attention = tf.add_n(weights) / len(weights) if self.has_attention else None
        return log_probabilities, states, attention


class CaptionerEnsemble(keras.Model):
    """Captioners that encode an image separately and decode captions together.

    Has no config: it is rebuilt from its members, which are saved one by one.

    Args:
        captioners: Members with the same vocabulary, image size and number of regions.
    """

    def __init__(self, captioners: Sequence[Captioner], **kwargs):
        super().__init__(**kwargs)
        self.captioners = list(captioners)
        self.encoder = captioners[0].encoder
        self.generator = GeneratorEnsemble([member.generator for member in captioners])
        self.built = True

    def regions(
        self, batch: Mapping[str, tf.Tensor], training: bool = False
    ) -> tuple[Regions, ...]:
        """Regions of a batch of images, from each member."""
        return tuple(member.regions(batch, training) for member in self.captioners)
