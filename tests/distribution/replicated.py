"""Trains objectives by a strategy in a process of its own: STRATEGY RESULT.npz DEVICES OBJECTIVE...

Random numbers are the same for all images, so that they do not depend on how images are sharded.
"""

import dataclasses
import sys
from typing import Any
from unittest import mock

import keras
import numpy as np
import tensorflow as tf

from caption_gan.config.adversarial import (
    PolicyGradientConfig,
    RewardWeights,
    SelfCriticalConfig,
    WGANGPConfig,
)
from caption_gan.config.objective_config import ObjectiveConfig
from caption_gan.config.objectives import MaximumLikelihoodConfig
from caption_gan.config.self_play import SelfPlayConfig
from caption_gan.distribution import precision, replicas, strategies
from caption_gan.models.captioner import Captioner
from caption_gan.models.encoders.convolutional import ConvolutionalEncoder
from caption_gan.models.generators.gru import GRUGenerator
from caption_gan.text.vocabulary import END_ID, PAD_ID, START_ID
from caption_gan.training.loop import Position, train

STEPS, IMAGES, CAPTIONS, TIME, VOCABULARY = 3, 8, 2, 6, 10
# The first step trains the critic alone; clipping acts in all of them.
SHARED: dict[str, Any] = {
    "batch_size": 4,
    "captions": CAPTIONS,
    "critic_updates": 2,
    "critic_warmup_steps": 1,
    "gradient_clip": 0.1,
    "learning_rate": 1e-2,
}
OBJECTIVES: dict[str, ObjectiveConfig] = {
    "maximum_likelihood": MaximumLikelihoodConfig(
        batch_size=IMAGES,
        scheduled_sampling=0.5,
        label_smoothing=0.1,
        gradient_clip=0.1,
        matrix_learning_rate=0,
    ),
    "muon": MaximumLikelihoodConfig(batch_size=IMAGES, ema_momentum=0.9),
    "wgan_gp": WGANGPConfig(**SHARED, train_encoder=True),
    "wgan_gp, other settings": WGANGPConfig(
        **SHARED, constraint="weight_clipping", hard_negatives=True, critic_loss="relativistic"
    ),
    "policy_gradient": PolicyGradientConfig(**SHARED, constraint="spectral_norm"),
    "self_critical": SelfCriticalConfig(**SHARED, rewards=RewardWeights(critic=0.5, cider=0.5)),
    "self_critical, without a critic": SelfCriticalConfig(**SHARED | {"batch_size": IMAGES}),
    "self_play": SelfPlayConfig(
        batch_size=IMAGES,
        captions=CAPTIONS,
        opponent_steps=2,
        gradient_clip=0.1,
        learning_rate=1e-2,
        train_encoder=True,
    ),
    "mixed_float16": WGANGPConfig(**SHARED),
    "maximum_likelihood, together": MaximumLikelihoodConfig(
        batch_size=IMAGES, matrix_learning_rate=0
    ),
    "wgan_gp, together": WGANGPConfig(**SHARED | {"critic_warmup_steps": 0}),
}


def same_for_all_images(draw: Any) -> Any:
    """Draws the numbers of one image and uses them for all."""

    def drawn(shape: Any, *arguments: Any, **named: Any) -> tf.Tensor:
        shape = tf.convert_to_tensor(shape)
        one = draw(tf.concat([[1], shape[1:]], 0), *arguments, **named)
        return tf.broadcast_to(one, shape)

    return drawn


def data() -> dict[str, np.ndarray]:
    """Images with captions of many lengths, more than one replica's share of tokens differs by."""
    random = np.random.default_rng(0)
    count = STEPS * IMAGES
    token_ids = random.integers(4, VOCABULARY, (count, CAPTIONS, TIME))
    token_ids[..., 0] = START_ID
    for number, row in enumerate(token_ids.reshape(-1, TIME)):
        end = 2 + number // 3 % (TIME - 2)
        row[end:] = PAD_ID
        row[end] = END_ID
    images = random.integers(0, 256, (count, 16, 16, 3)).astype(np.float32)
    return {"image": images, "token_ids": token_ids.astype(np.int32)}


def trained(name: str) -> dict[str, np.ndarray]:
    """All that a few steps change, and the figures of the epoch."""
    keras.utils.set_random_seed(0)
    encoder = ConvolutionalEncoder(16, 16, 4)
    encoder.build((None, 16, 16, 3))
    generator = GRUGenerator(VOCABULARY, 8, 16, 2, 3, 0.0)
    generator.build((None, *encoder.regions_shape))
    captioner = Captioner(encoder, generator)
    with precision.using(name if name == "mixed_float16" else "float32"):
        return further_trained(name, captioner.copy())


def further_trained(name: str, captioner: Captioner) -> dict[str, np.ndarray]:
    """As `trained`, from a captioner that is there."""
    config = OBJECTIVES[name]
    examples = data()
    more = {}
    if config.has_rewards:
        more["references"] = examples["token_ids"][..., 1:]
    model = config.load_trainer().from_config(
        captioner,
        dataclasses.replace(config, ema_momentum=0.9),
        STEPS,
        0,
        steps_per_execution=2 if "together" in name else 1,
        **more,
    )
    optimizers = [model.optimizer]
    if getattr(model, "critic", None):
        optimizers.append(model.critic_optimizer)
    for optimizer in optimizers:
        # Where the gradient is zero but for rounding, its sign would be drawn by lot.
        getattr(optimizer, "inner_optimizer", optimizer).epsilon = 1e-2
        if name == "mixed_float16":
            # The first gradients overflow at the usual scale, on some processors at half of it too.
            optimizer.dynamic_scale.assign(2.0**12)
    batches = tf.data.Dataset.from_tensor_slices(examples).batch(IMAGES, drop_remainder=True)
    logs: dict[str, float] = {}
    callbacks = [
        keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, figures: logs.update(figures)),
    ]
    train(model, batches, batches.take(1), 1, callbacks, Position())
    variables = [
        *model.weights,
        *model.kept_captioner.weights,
        *(variable for optimizer in optimizers for variable in optimizer.variables),
    ]
    found = {
        f"{name}/variable {number}": keras.ops.convert_to_numpy(variable)
        for number, variable in enumerate(variables)
    }
    return found | {f"{name}/{figure}": np.array(value) for figure, value in logs.items()}


def main(strategy: str, path: str, devices: int, names: list[str]) -> None:
    """Writes what objectives come to."""
    if devices > 1:
        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices("CPU")[0],
            [tf.config.LogicalDeviceConfiguration()] * devices,
        )
    patches = [
        mock.patch.object(
            tf.random, "stateless_normal", same_for_all_images(tf.random.stateless_normal)
        ),
        mock.patch.object(
            tf.random, "stateless_uniform", same_for_all_images(tf.random.stateless_uniform)
        ),
        mock.patch.object(keras.random, "normal", same_for_all_images(keras.random.normal)),
        mock.patch.object(keras.random, "uniform", same_for_all_images(keras.random.uniform)),
        mock.patch.object(
            keras.random,
            "categorical",
            lambda logits, count, seed: tf.argmax(logits, -1)[:, None] + 0 * seed.next()[0],
        ),
        mock.patch.object(replicas, "per_replica_seed", lambda seed: seed),
    ]
    with strategies.using(strategy):
        for patch in patches:
            patch.start()
        found: dict[str, np.ndarray] = {}
        for name in names:
            found |= trained(name)
        strategies.wait_for_all()
    np.savez(path, **found)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:])
