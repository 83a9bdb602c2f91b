"""A small captioner to train in tests, for cached regions [B, 4, 6]."""

import functools
from collections.abc import Callable

import keras

from caption_gan.models.captioner import Captioner
from caption_gan.models.encoders.encoder import Encoder, Regions
from caption_gan.models.generators.generator import Generator
from caption_gan.models.generators.gru import GRUGenerator
from caption_gan.models.generators.transformer import TransformerGenerator

# Functions from the arguments that all kinds of generators share.
GENERATORS: dict[str, Callable[..., Generator]] = {
    "gru": GRUGenerator,
    "transformer": functools.partial(TransformerGenerator, block_count=2, feed_forward_factor=2),
}
VOCABULARY = 10
REGIONS = (4, 6)


@keras.saving.register_keras_serializable(package="tests")
class Unseeing(Encoder):
    """An encoder that returns cached regions unchanged."""

    def after_cache(self, cached):
        return Regions(cached)


@keras.saving.register_keras_serializable(package="tests")
class Bending(Unseeing):
    """An encoder with one trainable weight."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.scale = self.add_weight(name="scale", shape=(), initializer="ones")
        self.built = True

    def after_cache(self, cached):
        return Regions(self.scale * cached)


@keras.saving.register_keras_serializable(package="tests")
class Pretrained(Bending):
    """The same as a pretrained encoder of which all layers are fine-tuned."""

    @property
    def fine_tuned(self):
        return self

    @property
    def pretrained_variables(self):
        return self.trainable_variables


def captioner(
    seed: int = 0, encoder: type[Unseeing] = Unseeing, kind: str = "gru", **settings
) -> Captioner:
    """Builds a random captioner of 10 words; `settings` are the generator's."""
    keras.utils.set_random_seed(seed)
    arguments = {
        "embedding_size": 8,
        "hidden_size": 16,
        "attention_heads": 2,
        "noise_size": 3,
        "dropout": 0.2,
    }
    generator = GENERATORS[kind](vocabulary_size=VOCABULARY, **{**arguments, **settings})
    generator.build((None, *REGIONS))
    return Captioner(encoder(), generator)
