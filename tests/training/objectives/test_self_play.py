"""The objective `self_play`: its loss, its gradient and when the opponent changes.

N images per step, K captions per image, T time.
"""

import dataclasses
from typing import Any, NamedTuple

import numpy as np
import pytest
import tensorflow as tf

from caption_gan.config.self_play import SelfPlayConfig
from caption_gan.models.captioner import Captioner
from caption_gan.models.decoding import sampling
from caption_gan.models.decoding.constraints import mask_special_tokens
from caption_gan.text.vocabulary import END_ID, PAD_ID, UNK_ID
from caption_gan.training.objectives.self_play import SelfPlay
from tests.captioners import Bending, captioner

CONFIG = SelfPlayConfig(
    batch_size=8,
    beta=0.5,
    opponent_steps=2,
    mle_weight=0.0,
    mle_weight_end=0.0,
    learning_rate=1e-2,
    ema_momentum=0.0,
)


def build(**settings: Any) -> SelfPlay:
    return SelfPlay.from_config(
        captioner(encoder=Bending), dataclasses.replace(CONFIG, **settings), steps=10, seed=0
    )


def step(model: SelfPlay, batch: dict[str, tf.Tensor]) -> dict[str, float]:
    """Metrics of one step, as the train function takes it."""
    model.reset_metrics()
    metrics = model.train_step(batch)
    model.after_step()
    return {name: float(value) for name, value in metrics.items()}


def weights(network: Captioner) -> np.ndarray:
    return np.concatenate([np.ravel(variable) for variable in network.weights])


def log_probabilities(
    network: Captioner, batch: dict[str, tf.Tensor], captions: tf.Tensor, noise: tf.Tensor
) -> tf.Tensor:
    """Of whole captions [N, K], in the distribution that sampling has."""
    memory = network.generator.encode(network.regions(batch))
    logits = network.generator.teacher_forcing(captions[..., :-1], memory, noise)
    tokens = tf.nn.log_softmax(mask_special_tokens(logits))
    # The token at the last position is always the end token.
    tokens, targets = tokens[..., :-1, :], captions[..., 1:-1]
    counts = (targets != PAD_ID) & (targets != UNK_ID)
    values = tf.gather(tokens, tf.where(counts, targets, END_ID), batch_dims=3)
    return tf.reduce_sum(tf.where(counts, values, 0.0), axis=-1)


class Played(NamedTuple):
    """The captions of a step, and the noise of both."""

    real: tf.Tensor
    generated: tf.Tensor
    noise: tf.Tensor


def played(model: SelfPlay, batch: dict[str, tf.Tensor]) -> Played:
    """Fixes the seed of the model's steps, and returns what they compare."""
    seed, real = model.draw_seed(), batch["token_ids"]
    model.draw_seed = lambda: seed
    opponent = model.opponent.generator
    regions = model.opponent.regions(batch)
    generated = model.sample_captions(regions, real.shape[-1], seed, opponent)
    return Played(real, generated, sampling.draw_noise(opponent, *real.shape[:2], seed))


def test_the_loss_by_hand():
    """Two captions of each kind: four pairs an image."""
    model = build()
    real, generated = [[2.0, 0.0]], [[-1.0, 1.0]]
    loss = model.self_play_loss(tf.constant(real), tf.constant(generated))
    margins = np.array([3.0, 1.0, 1.0, -1.0])
    assert float(loss) == pytest.approx(np.log1p(np.exp(-0.5 * margins)).mean(), rel=1e-6)
    means = {name: float(mean.result()) for name, mean in model.means.items()}
    assert means["margin"] == pytest.approx(1.0)
    assert means["win_rate"] == pytest.approx(0.75)


def test_the_first_step_is_that_of_the_formula(step_batch):
    """Generator and opponent are equal: the loss is log 2, its slope beta / 2 per log-ratio."""
    real = np.array(step_batch["token_ids"])
    real[0, 0, 1] = UNK_ID
    batch = step_batch | {"token_ids": tf.constant(real)}
    model = build()
    real, generated, noise = played(model, batch)
    found: list[tf.Tensor] = []
    model.optimizer.apply = lambda gradients, _: found.extend(gradients)
    metrics = step(model, batch)
    assert metrics["loss"] == metrics["self_play_loss"] == pytest.approx(np.log(2), rel=1e-6)
    assert (metrics["win_rate"], metrics["margin"]) == (0.5, 0.0)

    with tf.GradientTape() as tape:
        r, f = (
            log_probabilities(model.captioner, batch, part, noise) for part in (real, generated)
        )
        loss = -CONFIG.beta / 2 * (tf.reduce_mean(r) - tf.reduce_mean(f))
    expected = tape.gradient(loss, model.generator_variables)
    for one, other in zip(found, expected, strict=True):
        one, other = (np.array(tf.convert_to_tensor(part)) for part in (one, other))
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-6)


def test_real_captions_become_likelier_and_generated_ones_less_likely(step_batch):
    model = build(opponent_steps=100)
    real, generated, noise = played(model, step_batch)

    def means() -> list[float]:
        """Mean log-probabilities of real and of generated captions."""
        return [
            float(tf.reduce_mean(log_probabilities(model.captioner, step_batch, part, noise)))
            for part in (real, generated)
        ]

    before, first = means(), step(model, step_batch)
    after = means()
    assert after[0] > before[0]
    assert after[1] < before[1]
    # The next step compares the same captions.
    second = step(model, step_batch)
    assert second["margin"] == pytest.approx(np.subtract(*after) - np.subtract(*before), rel=1e-3)
    assert second["win_rate"] > first["win_rate"]
    assert second["self_play_loss"] < first["self_play_loss"]


def test_the_generator_becomes_the_opponent_after_every_second_step(step_batch):
    """Its encoder, if that is trained, with it."""
    model = build(train_encoder=True)
    start, generators, opponents = weights(model.opponent), [], []
    for _ in range(4):
        step(model, step_batch)
        generators.append(weights(model.captioner))
        opponents.append(weights(model.opponent))
    for opponent, expected in zip(
        opponents, (start, generators[1], generators[1], generators[3]), strict=True
    ):
        np.testing.assert_array_equal(opponent, expected)
    assert all(map(np.any, np.diff([start, *generators], axis=0)))
    scales = [float(network.encoder.scale) for network in (model.captioner, model.opponent)]
    assert scales[0] == scales[1] != 1


@pytest.mark.slow
def test_the_train_function_moves_the_opponent(step_batch):
    """Within a call of several steps, too."""
    model = build(opponent_steps=3)
    model.compile(**model.build_optimizers(), steps_per_execution=4)
    start = weights(model.opponent)
    model.make_train_function()
    batches = iter(tf.data.Dataset.from_tensors(step_batch).repeat())
    metrics = model.train_function(batches, 2)
    np.testing.assert_array_equal(weights(model.opponent), start)
    assert all(np.isfinite(float(value)) for value in metrics.values())
    model.train_function(batches, 1)
    np.testing.assert_array_equal(weights(model.opponent), weights(model.captioner))


def test_a_rollback_restores_the_opponent(step_batch):
    model = build()
    kept = {id(variable) for variable in model.trained_state}
    assert kept >= {id(variable) for variable in model.opponent.weights}
    assert not {id(v) for v in model.opponent.weights} & {id(v) for v in model.trainable_variables}
