"""Objectives in mixed precision.

B batch, K captions an image, T time, E embedding.
"""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from caption_gan.config.adversarial import (
    CriticConfig,
    PolicyGradientConfig,
    RewardWeights,
    SelfCriticalConfig,
    WGANGPConfig,
)
from caption_gan.config.objective_config import ObjectiveConfig
from caption_gan.config.objectives import MaximumLikelihoodConfig
from caption_gan.config.self_play import SelfPlayConfig
from caption_gan.distribution import precision
from caption_gan.models.captioner import Captioner
from caption_gan.models.critics.critic import build_critic
from caption_gan.models.encoders.encoder import Regions
from caption_gan.text.vocabulary import PAD_ID
from caption_gan.training import losses
from caption_gan.training.objectives.trainer import Trainer
from tests.captioners import captioner

SHARED: dict[str, Any] = {"batch_size": 4, "critic_updates": 2, "critic_warmup_steps": 0}
WITHOUT_CRITIC = SHARED | {"critic_updates": 1, "captions": 2}
OBJECTIVES: dict[str, ObjectiveConfig] = {
    "maximum_likelihood": MaximumLikelihoodConfig(scheduled_sampling=0.5),
    "wgan_gp": WGANGPConfig(**SHARED),
    "policy_gradient": PolicyGradientConfig(**SHARED),
    "self_play": SelfPlayConfig(opponent_steps=2),
    "self_critical": SelfCriticalConfig(**WITHOUT_CRITIC),
    "with a critic": SelfCriticalConfig(
        **SHARED | {"captions": 2, "rewards": RewardWeights(critic=0.5, cider=0.5)}
    ),
}
# The last one has the parts of both slow ones.
SOME_SLOW = [
    pytest.param(name, marks=pytest.mark.slow)
    if name in ("policy_gradient", "self_play", "self_critical")
    else name
    for name in OBJECTIVES
]
HALVES = ("mixed_bfloat16", "mixed_float16")
# Relative error of a loss. Numbers are rounded to 8 or 11 bits, and errors of steps accumulate.
TOLERANCE = {"mixed_bfloat16": 2e-2, "mixed_float16": 4e-3}


def build(name: str, policy: str, batch: dict[str, tf.Tensor], kind: str = "gru") -> Trainer:
    config = OBJECTIVES[name]
    data = {}
    if config.has_rewards:
        data["references"] = batch["token_ids"][..., 1:].numpy()
    network = captioner(dropout=0.0, kind=kind)
    with precision.using(policy):
        model = config.load_trainer().from_config(network.copy(), config, 8, 5, **data)
    model.run_eagerly = True  # Tracing would take longer than all steps.
    return model


def optimizers(model: Trainer) -> list[keras.optimizers.Optimizer]:
    both = [model.optimizer, getattr(model, "critic_optimizer", None)]
    return [one for one in both if one is not None and one.inner_optimizer.variables[2:]]


def weights(model: Trainer) -> list[np.ndarray]:
    return [np.array(variable) for variable in model.trainable_variables]


def train(model: Trainer, batch: dict[str, tf.Tensor], steps: int = 3) -> dict[str, float]:
    for _ in range(steps):
        figures = model.train_step(batch)
    return {name: float(value) for name, value in figures.items()}


@pytest.mark.parametrize("name", SOME_SLOW)
def test_steps_are_close_to_those_of_float32(name, step_batch):
    def course(policy: str) -> tuple[dict[str, float], float]:
        """Figures of the steps, and a validation loss after them."""
        model = build(name, policy, step_batch)
        assert {variable.dtype for variable in model.trainable_variables} == {"float32"}
        assert model.captioner.generator.reader.compute_dtype == policy.removeprefix("mixed_")
        figures = train(model, step_batch)
        assert int(model.optimizer.iterations) == 3
        if getattr(model, "critic", None):
            # One or two updates may be skipped because the scale is too large.
            assert int(model.critic_optimizer.iterations) >= 3 * model.updates_per_step - 2
        return figures, float(model.test_step(step_batch)["loss"])

    expected, expected_loss = course("float32")
    for policy in HALVES:
        figures, loss = course(policy)
        assert figures.keys() == expected.keys()
        assert np.isfinite(list(figures.values())).all(), figures
        assert loss == pytest.approx(expected_loss, rel=TOLERANCE[policy])


def test_the_previous_policy_is_restored():
    with pytest.raises(ZeroDivisionError), precision.using("mixed_float16"):
        assert keras.layers.Dense(1).compute_dtype == "float16"
        raise ZeroDivisionError
    assert keras.layers.Dense(1).compute_dtype == "float32"


def test_a_copy_has_the_current_precision():
    with precision.using("mixed_bfloat16"):
        half = captioner()
        again = half.copy()
    whole = half.copy()
    regions = tf.random.normal([2, 4, 6])
    noise = tf.random.normal([2, 1, 3])
    token_ids = tf.constant([[[1, 4, 5]]] * 2)

    def logits(network: Captioner) -> np.ndarray:
        scores = network.generator(regions, token_ids, noise)
        assert scores.dtype == tf.float32
        return np.array(scores)

    np.testing.assert_array_equal(logits(half), logits(again))
    exact = captioner()
    exact.set_weights(half.get_weights())
    np.testing.assert_array_equal(logits(whole), logits(exact))
    assert not np.array_equal(logits(half), logits(whole))


@pytest.mark.parametrize("name", SOME_SLOW)
def test_an_overflow_is_skipped_and_lowers_the_scale(name, step_batch):
    model = build(name, "mixed_float16", step_batch)
    train(model, step_batch, steps=1)
    trained = optimizers(model)
    before, norms = weights(model), {}
    for optimizer in trained:
        optimizer.dynamic_scale.assign(2.0**126)
    iterations = [int(optimizer.iterations) for optimizer in trained]
    norms = train(model, step_batch, steps=1)
    for one, other in zip(before, weights(model), strict=True):
        np.testing.assert_array_equal(one, other)
    updates = [1, model.updates_per_step][: len(trained)]
    assert [int(optimizer.iterations) for optimizer in trained] == iterations
    scales = [float(optimizer.dynamic_scale) for optimizer in trained]
    assert scales == [2.0 ** (126 - count) for count in updates]
    # Values that overflowed are not in the means.
    assert np.isfinite(list(norms.values())).all()

    for optimizer in trained:
        optimizer.dynamic_scale.assign(2.0**10)
    assert np.isfinite(list(train(model, step_batch, steps=1).values())).all()
    changed = [not np.array_equal(*pair) for pair in zip(before, weights(model), strict=True)]
    assert any(changed)


@pytest.mark.slow
def test_a_nan_at_the_smallest_scale_is_reported(step_batch):
    model = build("wgan_gp", "mixed_float16", step_batch)
    model.critic.score_head.bias.assign([np.nan])
    figures = train(model, step_batch, steps=12)  # Each halves the scale twice.
    assert float(model.critic_optimizer.dynamic_scale) < 1
    assert np.isnan(figures["penalty"])


@pytest.fixture(scope="module")
def penalty_gradients(step_batch):
    """Of a critic's weights by the penalty, for a factor by which its slopes are larger."""
    exact = captioner(dropout=0.0)
    keras.utils.set_random_seed(3)
    exact_critic = build_critic(CriticConfig(), exact.generator)
    exact_critic.score_head.kernel.assign(keras.random.normal([16, 1], seed=1))

    def gradients(policy: str, factor: float, scale: float) -> np.ndarray:
        with precision.using(policy):
            critic = build_critic(CriticConfig(), exact.copy().generator)
        critic.set_weights(exact_critic.get_weights())
        token_ids = tf.tile(step_batch["token_ids"], [1, 3, 1])
        embeddings = critic.embedding(token_ids)
        mask = tf.cast(token_ids != PAD_ID, embeddings.dtype)
        real, fake, mismatched = map(
            losses.EmbeddedCaptions, tf.split(embeddings, 3, axis=1), tf.split(mask, 3, axis=1)
        )
        with tf.GradientTape() as tape:
            memory = critic.encode(Regions(step_batch["regions"]))
            penalty = losses.gradient_penalty(
                lambda embeddings, mask: factor * critic(embeddings, mask, memory),
                real,
                fake,
                keras.random.SeedGenerator(0),
                mismatched=mismatched,
                mismatched_share=0.33,
                loss_scale=scale,
            )
            scaled = scale * penalty
        found = tape.gradient(scaled, critic.trainable_variables)
        return np.concatenate([np.ravel(one) / scale for one in found if one is not None])

    return gradients


@pytest.mark.parametrize("factor", [1e-6, 1e-3, 1.0, 30.0])
def test_the_penalty_survives_float16(factor, penalty_gradients):
    expected = penalty_gradients("float32", factor, 1.0)

    def error(scale: float) -> float:
        found = penalty_gradients("mixed_float16", factor, scale)
        return np.linalg.norm(found - expected) / np.linalg.norm(expected)

    scale = 2.0**15
    while not np.isfinite(error(scale)):  # As the optimizer does.
        scale /= 2
    assert scale > 1
    assert error(scale) < 0.02
    if factor == 1e-6:  # Without a scale, such gradients underflow to zero.
        assert error(1.0) > 0.5
