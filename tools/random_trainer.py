"""Trainers with random weights, regions and captions, for tools that measure training steps."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from step_costs import Sizes

from caption_gan.config.run import Config
from caption_gan.models.captioner import Captioner
from caption_gan.models.encoders.encoder import Encoder, Regions
from caption_gan.models.generators.generator import build_generator
from caption_gan.text.vocabulary import START_ID

SCHEDULE_STEPS = 1000


@keras.saving.register_keras_serializable(package="tools")
class GivenRegions(Encoder):
    """An encoder without any computation."""

    def after_cache(self, cached: tf.Tensor) -> Regions:
        return Regions(cached)


def random_examples(
    config: Config, objective: str, vocabulary_size: int, regions: int, depth: int
) -> dict[str, np.ndarray]:
    """Random regions and captions of one step; no caption ends before the last position."""
    settings = config.objective(objective)
    random = np.random.default_rng(config.seed)
    shape = (settings.images_per_step, settings.captions, config.text.sequence_length)
    token_ids = random.integers(4, vocabulary_size, shape, dtype=np.int32)
    token_ids[..., 0] = START_ID
    features = random.normal(size=(shape[0], regions, depth)).astype(np.float32)
    return {"regions": features, "token_ids": token_ids}


def random_trainer(
    config: Config,
    objective: str,
    vocabulary_size: int,
    examples: dict[str, np.ndarray],
    steps_per_execution: int = 1,
    jit_compile: bool = False,
) -> keras.Model:
    """A compiled trainer of the objective with random weights, for these examples."""
    regions, depth = examples["regions"].shape[1:]
    generator = build_generator(config.generator, vocabulary_size, (regions, depth))
    captioner = Captioner(GivenRegions(), generator)
    settings = config.objective(objective)
    data: dict[str, Any] = {}
    if settings.has_rewards:
        data["references"] = examples["token_ids"][..., 1:]
    return settings.load_trainer().from_config(
        captioner,
        settings,
        SCHEDULE_STEPS,
        config.seed,
        steps_per_execution=steps_per_execution,
        jit_compile=jit_compile,
        **data,
    )


def sizes_of(config: Config, objective: str, vocabulary: int, regions: int, depth: int) -> Sizes:
    """The sizes in the cost formulas, from the settings."""
    settings, network = config.objective(objective), config.generator
    return Sizes(
        images=settings.batch_size,
        captions=settings.captions,
        words=config.text.sequence_length - 1,
        vocabulary=vocabulary,
        embedding=network.embedding_size,
        hidden=network.hidden_size,
        heads=network.attention_heads,
        noise=network.noise_size,
        regions=regions,
        depth=depth,
        critic_updates=getattr(settings, "critic_updates", 1),
    )
