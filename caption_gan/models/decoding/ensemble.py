"""Several captioners of one vocabulary that write together.

B batch, K captions an image, V vocabulary, R regions, D region depth; sums over the members where
a letter stands for what each of them has of its own.
"""

from collections.abc import Mapping, Sequence

import keras
import tensorflow as tf

from caption_gan.models.captioner import Captioner
from caption_gan.models.encoders.encoder import Regions
from caption_gan.models.generators.gru import GRUGenerator, Memory


class GeneratorEnsemble:
    """Writes with the mean of its members' probabilities, word by word, as one generator does.

    Args:
        generators: Members; their vocabularies are the same.
    """

    def __init__(self, generators: Sequence[GRUGenerator]):
        self.generators = generators
        self.vocabulary_size = generators[0].vocabulary_size
        self.noise_size = sum(member.noise_size for member in generators)
        self.state_size = sum(member.state_size for member in generators)

    def encode(self, regions: tuple[Regions, ...]) -> tuple[Memory, ...]:
        """Encodes the regions of each member."""
        return tuple(
            member.encode(part) for member, part in zip(self.generators, regions, strict=True)
        )

    def initial_state(self, memory: tuple[Memory, ...], noise: tf.Tensor) -> tf.Tensor:
        """First states [B, K, 2 H] from noise [B, K, Z]."""
        parts = tf.split(noise, [member.noise_size for member in self.generators], axis=-1)
        states = [
            member.initial_state(of_member, part)
            for member, of_member, part in zip(self.generators, memory, parts, strict=True)
        ]
        return tf.concat(states, axis=-1)

    def decode_step(
        self, token_ids: tf.Tensor, states: tf.Tensor, memory: tuple[Memory, ...]
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Reads one word of each of K captions an image, [B, K], and scores the next.

        Returns:
            Log-probabilities [B, K, V], the next states [B, K, 2 H], and attention weights
            [B, K, R], the mean of the members'.
        """
        parts = tf.split(states, [member.state_size for member in self.generators], axis=-1)
        stepped = [
            member.decode_step(token_ids, part, of_member)
            for member, part, of_member in zip(self.generators, parts, memory, strict=True)
        ]
        logits, after, weights = zip(*stepped, strict=True)
        summed = tf.reduce_logsumexp(tf.stack([tf.nn.log_softmax(some) for some in logits]), axis=0)
        log_probabilities = summed - tf.math.log(float(len(self.generators)))
        return log_probabilities, tf.concat(after, axis=-1), tf.add_n(weights) / len(weights)


class CaptionerEnsemble(keras.Model):
    """Captioners that look each with its own encoder and write together.

    Args:
        captioners: Members; their vocabularies, image sizes and numbers of regions are the same.
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
        """Regions of a batch of pixels, by each member."""
        return tuple(member.regions(batch, training) for member in self.captioners)
