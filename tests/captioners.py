"""A small captioner to train in tests, for cached regions [B, 4, 6]."""

import functools
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

from caption_gan.models.captioner import Captioner
from caption_gan.models.encoders.encoder import Encoder, Regions
from caption_gan.models.generators.generator import Generator
from caption_gan.models.generators.gpt2 import GPT2Generator
from caption_gan.models.generators.gru import GRUGenerator
from caption_gan.models.generators.transformer import TransformerGenerator


def gpt2(image_input: str, embedding_size: int, **settings) -> GPT2Generator:
    """Makes a small GPT-2, whose embeddings are as wide as its hidden layers."""
    return GPT2Generator(
        block_count=2,
        feed_forward_factor=2,
        positions=20,
        image_input=image_input,
        prefix_length=2,
        **settings,
    )


# Functions from the arguments that all kinds of generators share.
GENERATORS: dict[str, Callable[..., Generator]] = {
    "gru": GRUGenerator,
    "transformer": functools.partial(TransformerGenerator, block_count=2, feed_forward_factor=2),
    "gpt2": functools.partial(gpt2, "prefix"),
    "gpt2_cross_attention": functools.partial(gpt2, "cross_attention"),
}


def open_gates(generator: Generator) -> None:
    """Lets a GPT-2 see the image and the noise, which it ignores before it is trained."""
    random = np.random.default_rng(0)
    for weight in generator.weights:
        if weight.name == "region_gamma" or weight.path.endswith("noise_projection/kernel"):
            weight.assign(random.normal(size=weight.shape) + 0.5)


VOCABULARY = 10
# A folder as transformers writes it; see `tools/hugging_face_golden.py`.
GPT2 = Path(__file__).parent / "models" / "hugging_face" / "golden" / "gpt2"
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
    open_gates(generator)
    return Captioner(encoder(), generator)
