"""Objectives with a critic: who is trained when, on what, and by what.

N images a step, K captions an image, T time.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

from caption_gan.config.objectives import (
    CriticConfig,
    PolicyGradientConfig,
    SelfCriticalConfig,
    WassersteinGANConfig,
)
from caption_gan.models.decoding import sampling
from caption_gan.models.decoding.constraints import mask_special_tokens
from caption_gan.models.encoders.encoder import Regions
from caption_gan.text.vocabulary import END_ID, PAD_ID
from caption_gan.training import losses
from caption_gan.training.critic_penalty import critic_penalty
from caption_gan.training.objectives.adversarial import Adversarial
from caption_gan.training.objectives.negatives import most_alike
from caption_gan.training.objectives.policy_gradient import PolicyGradient
from caption_gan.training.objectives.self_critical import SelfCritical
from caption_gan.training.objectives.wgan_gp import WassersteinGAN
from caption_gan.training.rewards.cider import CiderReward
from tests.captioners import Bending, captioner

KINDS = {
    "wgan_gp": (WassersteinGAN, WassersteinGANConfig),
    "policy_gradient": (PolicyGradient, PolicyGradientConfig),
    "self_critical": (SelfCritical, SelfCriticalConfig),
}
CONSTRAINTS = ("gradient_penalty", "lipschitz_penalty", "clipping", "spectral", "none")


def stage(batch, kind: str = "policy_gradient", **settings) -> Adversarial:
    """An objective for steps of 8 images in two updates of the critic; every setting said."""
    objective, config = KINDS[kind]
    arguments = {
        "batch_size": 4,
        "captions": 2,
        "critic_updates": 2,
        "critic_warmup": 0,
        "critic_loss": "wasserstein",
        "constraint": "gradient_penalty",
        "learning_rate": 1e-2,
        "critic_learning_rate": 1e-2,
        "anchor": 0.5,
        "anchor_end": 0.5,
    }
    more = {}
    if kind == "self_critical":
        more["cider"] = CiderReward(np.array(batch["token_ids"])[..., 1:])
        arguments["critic_weight"] = 0.5
    return objective.stage(
        captioner(encoder=Bending), config(**{**arguments, **settings}), steps=10, seed=0, **more
    )


def step(model: Adversarial, batch: dict[str, tf.Tensor]) -> dict[str, float]:
    """One training step; the figures it reports."""
    return {name: float(value) for name, value in model.train_step(batch).items()}


def values(network: keras.Model) -> list[np.ndarray]:
    return [np.array(variable) for variable in network.trainable_variables]


def moved(network: keras.Model, before: list[np.ndarray]) -> bool:
    pairs = zip(values(network), before, strict=True)
    return any(not np.array_equal(now, then) for now, then in pairs)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("critic_loss", ["wasserstein", "relativistic"])
def test_a_step_trains_both_and_reports(step_batch, kind, critic_loss):
    model = stage(step_batch, kind, critic_loss=critic_loss)
    generator, critic = values(model.captioner.generator), values(model.critic)
    encoder = values(model.captioner.encoder)
    logs = step(model, step_batch)
    assert moved(model.captioner.generator, generator)
    assert moved(model.critic, critic)
    assert not moved(model.captioner.encoder, encoder)
    assert int(model.critic_optimizer.iterations) == 2
    assert int(model.optimizer.iterations) == 1
    assert all(np.isfinite(value) for value in logs.values())
    assert logs["critic_gradient_norm"] > 0
    assert logs["generator_gradient_norm"] > 0


@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_every_constraint(step_batch, constraint):
    model = stage(step_batch, constraint=constraint, clip_value=0.01)
    logs = step(model, step_batch)
    # Slopes of this critic are below one, where the one-sided penalty is free.
    assert (logs["penalty"] > 0) == (constraint == "gradient_penalty")
    largest = max(np.abs(value).max() for value in values(model.critic))
    assert (largest <= 0.01 + 1e-6) == (constraint == "clipping")


@pytest.mark.parametrize("kind", KINDS)
def test_the_critic_learns_alone_at_first(step_batch, kind):
    model = stage(step_batch, kind, critic_warmup=2)
    generator, critic = values(model.captioner.generator), values(model.critic)
    for _ in range(2):
        step(model, step_batch)
    assert moved(model.critic, critic)
    assert not moved(model.captioner.generator, generator)
    step(model, step_batch)
    assert moved(model.captioner.generator, generator)


def test_updates_in_the_graph_follow_one_another(step_batch):
    """A loop whose rounds overlapped would lose updates; outside a graph none can."""
    critics = []
    for run in (tf.function, lambda function: function):
        model = stage(step_batch, constraint="none", critic_updates=2)
        regions, real = Regions(step_batch["regions"]), step_batch["token_ids"]
        written = model.write(regions, real.shape[-1], tf.constant([0, 1]))
        run(model.train_critic)(regions, real, written)
        assert int(model.critic_optimizer.iterations) == 2
        critics.append(values(model.critic))
    for compiled, eager in zip(*critics, strict=True):
        np.testing.assert_allclose(compiled, eager, rtol=1e-3, atol=1e-4)


def test_updates_of_the_critic_leave_the_generator_no_trace(step_batch):
    """Neither weights nor random states nor what an optimizer remembers."""
    model = stage(step_batch)
    regions, real = Regions(step_batch["regions"]), step_batch["token_ids"]
    before = [np.array(v) for v in [*model.captioner.variables, *model.optimizer.variables]]
    model.train_critic(regions, real, model.write(regions, real.shape[-1], tf.constant([0, 1])))
    after = [np.array(v) for v in [*model.captioner.variables, *model.optimizer.variables]]
    for now, then in zip(after, before, strict=True):
        np.testing.assert_array_equal(now, then)


@pytest.mark.parametrize("kind", ["wgan_gp", "policy_gradient"])
def test_updates_of_the_generator_leave_the_critic_as_it_was(step_batch, kind):
    model = stage(step_batch, kind)
    model.train_critic = lambda *_: model.critic_optimizer.iterations.assign(9)
    before = [np.array(variable) for variable in model.critic.variables]
    step(model, step_batch)
    for now, then in zip(model.critic.variables, before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_the_encoder_is_trained_where_it_is_asked_for(step_batch):
    for kind in KINDS:
        model = stage(step_batch, kind, train_encoder=True)
        encoder = values(model.captioner.encoder)
        step(model, step_batch)
        assert moved(model.captioner.encoder, encoder)


def test_a_critic_learns_to_tell_captions_of_other_images(step_batch):
    model = stage(step_batch, mismatched=1.0, critic_warmup=1000)
    first = step(model, step_batch)["mismatched_margin"]
    for _ in range(30):
        step(model, step_batch)
    model.reset_metrics()
    assert step(model, step_batch)["mismatched_margin"] > first + 0.5


def test_word_vectors_of_the_critic_stay_where_they_are_put(step_batch):
    """They start as the generator's; frozen ones are no variable that is trained."""
    for policy in ("frozen", "trainable"):
        config = CriticConfig(word_vectors_policy=policy)
        model = stage(step_batch, critic=config)
        vectors = np.array(model.captioner.generator.embedding.embeddings)
        np.testing.assert_array_equal(model.critic.embedding.embeddings, vectors)
        step(model, step_batch)
        same = np.array_equal(model.critic.embedding.embeddings, vectors)
        assert same == (policy == "frozen")


def test_a_critic_can_start_at_random(step_batch):
    model = stage(step_batch, critic=CriticConfig(start="random"))
    trained, fresh = values(model.captioner.generator), values(model.critic.trunk)
    assert not any(np.array_equal(a, b) for a, b in zip(trained, fresh, strict=False) if a.ndim > 1)


def penalty_of(model: Adversarial, words: tf.Tensor) -> tf.Tensor:
    """With captions that are all as long as can be."""
    mask = tf.ones(words.shape[:-1], tf.bool)
    return critic_penalty(model.critic, None, words, mask, model.config, model.seed_generator)


def mixing(model: Adversarial) -> np.ndarray:
    """Shares of the real caption in what the penalty looks at: a row a caption, a column a number
    of its words."""
    real = tf.ones([4, 2, 6, 8])
    words = tf.concat([real, 0 * real, 0 * real], axis=1)  # What is between is alpha.
    seen: list[np.ndarray] = []

    def notice(between: tf.Tensor, mask: tf.Tensor, _) -> tf.Tensor:
        seen.append(np.array(between))
        return tf.reduce_sum(between, [2, 3]) + tf.reduce_sum(mask, axis=2)

    model.critic = notice
    for _ in range(200):
        penalty_of(model, words)
    return np.concatenate(seen).reshape(-1, 48)


def is_uniform(alpha: np.ndarray) -> bool:
    """Whether all shares lie evenly between a real caption and a negative."""
    ends = 0 <= alpha.min() < 0.01 and 0.99 < alpha.max() <= 1
    even = alpha.mean() == pytest.approx(0.5, abs=0.03)
    return ends and even and alpha.std() == pytest.approx(12**-0.5, abs=0.02)


def test_mixing_is_uniform_and_one_number_a_caption(step_batch):
    alpha = mixing(stage(step_batch))
    assert (alpha == alpha[:, :1]).all()
    assert is_uniform(alpha)


def test_normally_distributed_mixing_would_be_noticed(step_batch, monkeypatch):
    """It leaves the line between the two captions."""
    monkeypatch.setattr(keras.random, "uniform", keras.random.normal)
    assert not is_uniform(mixing(stage(step_batch)))


def test_a_jump_between_lengths_costs(step_batch):
    """A critic whose score is g times the length has a slope of g at each place, and no other."""
    model = stage(step_batch)
    model.critic = lambda words, mask, _: 3.0 * tf.reduce_sum(mask, axis=2) + 0 * words[..., 0, 0]
    words = tf.zeros([4, 6, 6, 8])
    penalty = penalty_of(model, words)
    assert float(penalty) == pytest.approx((3 * 6**0.5 - 1) ** 2, rel=1e-5)


@pytest.mark.parametrize("mismatches", ["any", "alike"])
def test_mismatched_captions_are_of_another_image(step_batch, mismatches):
    real = tf.constant(np.array(step_batch["token_ids"]))  # [N, K, T]
    model = stage(step_batch, mismatches=mismatches)
    parts: list[np.ndarray] = []
    model.update_critic = lambda regions, real, written, mismatched: parts.append(mismatched)
    model.train_critic(model.captioner.regions(step_batch), real, real)
    others = {"alike": most_alike(real), "any": np.roll(np.arange(len(real)), 1)}
    expected = np.array(real)[others[mismatches]]
    np.testing.assert_array_equal(np.concatenate(parts), expected)
    assert (np.concatenate(parts) != np.array(real)).any(axis=(1, 2)).all()


def test_most_alike_are_captions_that_share_rare_words():
    token_ids = tf.constant(
        [[[2, 5, 6, 3]], [[2, 7, 8, 3]], [[2, 5, 9, 3]], [[2, 8, 4, 3]]], tf.int32
    )
    np.testing.assert_array_equal(most_alike(token_ids), [2, 3, 0, 1])
    alike = most_alike(tf.tile(token_ids[:1], [5, 1, 1]))
    assert (np.array(alike) != np.arange(5)).all()


def test_the_policy_is_judged_by_the_probabilities_it_drew_with(step_batch):
    """Of every word that was drawn, noise z included; the forced end at the last place is none."""
    model = stage(step_batch)
    regions, seed = Regions(step_batch["regions"]), tf.constant([5, 6])
    written = model.write(regions, 6, seed)
    drawn = np.array(sampling.sample(model.captioner.generator, regions, 6, 2, seed).token_ids)
    np.testing.assert_array_equal(written[..., 1:], drawn)
    noise = sampling.draw_noise(model.captioner.generator, 8, 2, seed)
    logits = mask_special_tokens(
        model.captioner.generator(regions.features, written[..., :-1], noise)
    )
    log_probabilities = np.array(tf.nn.log_softmax(logits))
    total, count = np.zeros((8, 2)), np.zeros((8, 2))
    for place in np.ndindex(8, 2, 4):
        if drawn[place] != PAD_ID:
            total[place[:2]] += log_probabilities[(*place, drawn[place])]
            count[place[:2]] += 1
    assert (drawn[..., 4] == END_ID).any()
    advantages = np.random.default_rng(0).normal(size=(8, 2)).astype(np.float32)
    loss = model.generator_loss(regions, written, tf.constant(advantages), seed)
    assert float(loss) == pytest.approx(-(advantages * total).sum() / count.sum(), rel=1e-4)


def test_weights_hold_no_random_state(step_batch):
    """They are what a rollback puts back; the same noise would lead to the same end."""
    model = stage(step_batch)
    before = [np.array(weight) for weight in model.weights]
    state = np.array(model.seed_generator.state)
    model.draw_seed()
    assert not np.array_equal(model.seed_generator.state, state)
    for now, then in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_self_critical_rewards_are_mixed_by_weight(step_batch):
    regions, real = Regions(step_batch["regions"]), step_batch["token_ids"]
    model = stage(step_batch, "self_critical", critic_weight=0.25)
    written = model.write(regions, 6, tf.constant([5, 6]))
    cider = losses.normalized(losses.leave_one_out(model.cider(written[..., 1:], real[..., 1:])))
    critic = losses.normalized(
        losses.leave_one_out(model.critic.score_tokens(written, model.critic.encode(regions)))
    )
    mixed = model.advantages(regions, written, real)
    np.testing.assert_allclose(mixed, 0.75 * cider + 0.25 * critic, rtol=1e-5, atol=1e-6)


def test_self_critical_training_needs_no_critic(step_batch):
    model = stage(step_batch, "self_critical", critic_weight=0.0)
    assert model.critic is None
    assert model.config.images_a_step == 4
    generator = values(model.captioner.generator)
    logs = step(model, step_batch)
    assert moved(model.captioner.generator, generator)
    assert "critic_loss" not in logs
    assert logs["reward"] >= 0


@pytest.mark.parametrize("kind", KINDS)
def test_the_anchor_alone_learns_captions(step_batch, kind):
    """With a critic that has no opinion the loss is the cross-entropy of `maximum_likelihood`."""
    model = stage(step_batch, kind, anchor=1.0, anchor_end=1.0)
    model.generator_loss = lambda *_: tf.constant(0.0)
    first = float(model.test_step(step_batch)["loss"])
    for _ in range(9):
        step(model, step_batch)
    model.reset_metrics()
    assert float(model.test_step(step_batch)["loss"]) < first - 0.1


def test_the_anchor_changes_linearly(step_batch):
    model = stage(step_batch, critic_warmup=2)
    shares = []
    for done in (0, 4, 8, 100):
        model.optimizer.iterations.assign(done)
        shares.append(float(model.progress))
    assert shares == [0, 0.5, 1, 1]


def test_the_learning_rate_ends_at_zero_with_the_last_update(step_batch):
    """Of ten steps the generator has those that the critic's warm-up leaves it."""
    for kind, weight, updates in (("wgan_gp", None, 6), ("self_critical", 0.0, 10)):
        settings = {} if weight is None else {"critic_weight": weight}
        model = stage(step_batch, kind, critic_warmup=4, **settings)
        model.optimizer.iterations.assign(updates - 1)
        assert float(model.optimizer.learning_rate) > 0
        assert float(model.progress) < 1
        model.optimizer.iterations.assign(updates)
        assert float(model.optimizer.learning_rate) == pytest.approx(0, abs=1e-9)
        assert float(model.progress) == 1


def test_the_temperature_falls_exponentially(step_batch):
    model = stage(step_batch, "wgan_gp", temperature=1.0, temperature_end=0.25)
    temperatures = []
    for done in (0, 5, 10):
        model.optimizer.iterations.assign(done)
        temperatures.append(float(model.temperature))
    np.testing.assert_allclose(temperatures, [1.0, 0.5, 0.25], rtol=1e-5)


@pytest.mark.parametrize("kind", ["wgan_gp", "policy_gradient"])
def test_text_without_images_is_told_from_what_is_written(step_batch, kind):
    """A critic that sees no image learns which words only people write, and rewards them."""
    model = stage(step_batch, kind, unpaired=1.0, critic_warmup=200, critic_learning_rate=3e-3)
    regions, real = Regions(step_batch["regions"]), step_batch["token_ids"]
    written = model.write(regions, real.shape[-1], tf.constant([0, 1]))
    people = tf.roll(written, 1, axis=2)
    train = tf.function(model.train_critic)
    for _ in range(20):
        train(regions, real, written, people)
    nothing = model.critic.encode(regions.blank())
    real_score, written_score = (model.critic.score_tokens(of, nothing) for of in (people, written))
    assert float(tf.reduce_mean(real_score - written_score)) > 0.05
    words, mask = model.critic.embedding(people), people != 0
    seeing, both = (model.appraise(words, mask, regions, alone) for alone in (False, True))
    np.testing.assert_allclose(both - seeing, real_score, atol=1e-5)
    assert all(np.isfinite(list(step(model, {**step_batch, "unpaired": people}).values())))
