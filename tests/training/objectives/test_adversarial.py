"""Objectives with a critic: what each update trains, when, and on which captions.

N images per step, K captions per image, T time.
"""

import functools
from typing import Any, get_args

import keras
import numpy as np
import pytest
import tensorflow as tf

from caption_gan.config.adversarial import Constraint, CriticConfig, RewardWeights
from caption_gan.config.objectives import OBJECTIVES
from caption_gan.models.critics.references import References
from caption_gan.models.decoding import sampling
from caption_gan.models.decoding.constraints import mask_special_tokens
from caption_gan.models.encoders.encoder import Regions
from caption_gan.text.vocabulary import END_ID, PAD_ID
from caption_gan.training import losses
from caption_gan.training.objectives.adversarial import AdversarialTrainer, CriticBatch
from caption_gan.training.objectives.negatives import most_similar
from caption_gan.training.rewards.cider import CiderReward
from caption_gan.training.rewards.critic import CriticScore
from tests.captioners import Bending, captioner

ADVERSARIAL = ("wgan_gp", "policy_gradient", "self_critical")
# For tests of many steps: what they see does not depend on the gradient's path to the generator.
ONE_FIRST = ("wgan_gp", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ADVERSARIAL[1:]))
CONSTRAINTS = get_args(Constraint)


def build(batch, objective: str = "policy_gradient", reads_corpora=False, **settings):
    """A trainer for steps of 8 images in two critic updates; every setting is explicit."""
    arguments: dict[str, Any] = {
        "batch_size": 4,
        "captions": 2,
        "critic_updates": 2,
        "critic_warmup_steps": 0,
        "critic_loss": "wasserstein",
        "constraint": "gradient_penalty",
        "learning_rate": 1e-2,
        "critic_learning_rate": 1e-2,
        "mle_weight": 0.5,
        "mle_weight_end": 0.5,
    }
    if objective == "self_critical":
        arguments["rewards"] = RewardWeights(critic=0.5, cider=0.5)
    config = OBJECTIVES[objective](**{**arguments, **settings})
    return config.load_trainer().from_config(
        captioner(encoder=Bending),
        config,
        steps=10,
        seed=0,
        reads_corpora=reads_corpora,
        references=np.array(batch["token_ids"])[..., 1:],
    )


def step(model: AdversarialTrainer, batch: dict[str, tf.Tensor]) -> dict[str, float]:
    """Metrics of one training step."""
    return {name: float(value) for name, value in model.train_step(batch).items()}


def critic_batch(batch, **captions) -> CriticBatch:
    """Four images, whose real captions stand in for all kinds that are not given."""
    real = batch["token_ids"][:4]
    kinds = {"real": real, "fake": real, "false": real, **captions}
    nothing = tf.zeros_like(real, tf.bool)
    regions = Regions(batch["regions"][:4])
    return CriticBatch(regions, **kinds, replaced=nothing, references=References.others(real))


def values(network: keras.Model) -> list[np.ndarray]:
    return [np.array(variable) for variable in network.trainable_variables]


def moved(network: keras.Model, before: list[np.ndarray]) -> bool:
    pairs = zip(values(network), before, strict=True)
    return any(not np.array_equal(now, then) for now, then in pairs)


@pytest.mark.parametrize("kind", ADVERSARIAL)
@pytest.mark.parametrize("critic_loss", ["wasserstein", "relativistic"])
def test_a_step_trains_both_networks_and_returns_metrics(step_batch, kind, critic_loss):
    model = build(step_batch, kind, critic_loss=critic_loss)
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
def test_each_constraint(step_batch, constraint):
    model = build(step_batch, constraint=constraint, clip_value=0.01)
    logs = step(model, step_batch)
    # This critic's slopes are below one, where the one-sided penalty is zero.
    assert (logs["penalty"] > 0) == (constraint == "gradient_penalty")
    largest = max(np.abs(value).max() for value in values(model.critic))
    assert (largest <= 0.01 + 1e-6) == (constraint == "weight_clipping")


def test_the_penalty_bounds_the_function_that_the_loss_trains(step_batch, monkeypatch):
    """With dropout, scores and penalty are both computed in training mode."""
    model = build(step_batch, "wgan_gp", critic=CriticConfig(dropout=0.5))
    token_scores, modes = model.critic.token_scores, []

    def record(embeddings, memory, training=False):
        modes.append(training)
        return token_scores(embeddings, memory, training)

    monkeypatch.setattr(model.critic, "token_scores", record)
    model.critic_step(critic_batch(step_batch))
    assert modes == [True, True]


@pytest.mark.parametrize("kind", ADVERSARIAL)
def test_the_warm_up_trains_the_critic_alone(step_batch, kind):
    model = build(step_batch, kind, critic_warmup_steps=2)
    generator, critic = values(model.captioner.generator), values(model.critic)
    for _ in range(2):
        step(model, step_batch)
    assert moved(model.critic, critic)
    assert not moved(model.captioner.generator, generator)
    step(model, step_batch)
    assert moved(model.captioner.generator, generator)


def test_critic_updates_in_the_graph_run_one_after_another(step_batch):
    """The loop in the graph equals updates one after another outside a graph."""
    critics = []
    for run in (tf.function, lambda function: function):
        model = build(step_batch, constraint="none", critic_updates=2)
        regions, real = Regions(step_batch["regions"]), step_batch["token_ids"]
        fake = model.sample_captions(regions, real.shape[-1], tf.constant([0, 1]))
        train_critic = functools.partial(model.for_each_critic_batch, model.critic_step)
        run(train_critic)(regions, real, fake)
        assert int(model.critic_optimizer.iterations) == 2
        critics.append(values(model.critic))
    for compiled, eager in zip(*critics, strict=True):
        np.testing.assert_allclose(compiled, eager, rtol=1e-3, atol=1e-4)


def test_critic_updates_do_not_change_the_generator(step_batch):
    """Neither its weights nor its random states nor its optimizer."""
    model = build(step_batch)
    regions, real = Regions(step_batch["regions"]), step_batch["token_ids"]
    before = [np.array(v) for v in [*model.captioner.variables, *model.optimizer.variables]]
    fake = model.sample_captions(regions, real.shape[-1], tf.constant([0, 1]))
    model.for_each_critic_batch(model.critic_step, regions, real, fake)
    after = [np.array(v) for v in [*model.captioner.variables, *model.optimizer.variables]]
    for now, then in zip(after, before, strict=True):
        np.testing.assert_array_equal(now, then)


@pytest.mark.parametrize("kind", ["wgan_gp", "policy_gradient"])
def test_generator_updates_do_not_change_the_critic(step_batch, kind):
    model = build(step_batch, kind)
    model.for_each_critic_batch = lambda *_: model.critic_optimizer.iterations.assign(9)
    before = [np.array(variable) for variable in model.critic.variables]
    step(model, step_batch)
    for now, then in zip(model.critic.variables, before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_the_encoder_is_trained_if_the_settings_say_so(step_batch):
    for kind in ADVERSARIAL:
        model = build(step_batch, kind, train_encoder=True)
        encoder = values(model.captioner.encoder)
        step(model, step_batch)
        assert moved(model.captioner.encoder, encoder)


def test_a_critic_learns_to_recognise_captions_of_other_images(step_batch):
    model = build(step_batch, mismatched_negatives=1.0, critic_warmup_steps=1000)
    first = step(model, step_batch)["mismatched_margin"]
    compiled_step = tf.function(model.train_step)
    for _ in range(30):
        compiled_step(step_batch)
    model.reset_metrics()
    assert step(model, step_batch)["mismatched_margin"] > first + 0.5


def test_the_critics_word_vectors_are_frozen_or_trained(step_batch):
    """They start as the generator's."""
    for policy in ("frozen", "trainable"):
        config = CriticConfig(word_vectors_policy=policy)
        model = build(step_batch, critic=config)
        vectors = np.array(model.captioner.generator.embedding.embeddings)
        np.testing.assert_array_equal(model.critic.embedding.embeddings, vectors)
        step(model, step_batch)
        same = np.array_equal(model.critic.embedding.embeddings, vectors)
        assert same == (policy == "frozen")


def test_a_critic_can_start_at_random(step_batch):
    model = build(step_batch, critic=CriticConfig(start="random"))
    trained, fresh = values(model.captioner.generator), values(model.critic.trunk)
    assert not any(np.array_equal(a, b) for a, b in zip(trained, fresh, strict=False) if a.ndim > 1)


@pytest.mark.parametrize("hard_negatives", [False, True])
def test_mismatched_captions_are_of_another_image(step_batch, hard_negatives):
    real = tf.constant(np.array(step_batch["token_ids"]))  # [N, K, T]
    model = build(step_batch, hard_negatives=hard_negatives, near_misses=0.0)
    parts: list[np.ndarray] = []
    regions = model.captioner.regions(step_batch)
    model.for_each_critic_batch(lambda batch: parts.append(batch.false), regions, real, real)
    other = most_similar(real) if hard_negatives else np.roll(np.arange(len(real)), 1)
    np.testing.assert_array_equal(np.concatenate(parts), np.array(real)[other])
    assert (np.concatenate(parts) != np.array(real)).any(axis=(1, 2)).all()


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_false_captions_are_near_misses_or_of_another_image(step_batch, share):
    real = np.array(step_batch["token_ids"])
    model = build(step_batch, near_misses=share)
    # A generator whose predictions differ much between images.
    embeddings = model.captioner.generator.embedding.embeddings
    embeddings.assign(30 * tf.random.stateless_normal(embeddings.shape, [0, 1]))
    regions = Regions(tf.random.stateless_normal(step_batch["regions"].shape, [0, 2]) * 5)
    false, replaced = (np.array(part) for part in model.false_captions(regions, real))
    is_near = replaced.any(axis=-1)
    assert is_near.any() == bool(share)
    np.testing.assert_array_equal((false != real)[is_near], replaced[is_near])
    np.testing.assert_array_equal(false[~is_near], np.roll(real, 1, axis=0)[~is_near])


def test_the_critic_learns_which_word_of_a_near_miss_was_replaced(step_batch):
    model = build(
        step_batch,
        near_misses=0.5,
        verdict_weight=10.0,
        constraint="none",
        mismatched_negatives=0.0,
    )
    real = np.array(step_batch["token_ids"][:4])
    false, replaced = real.copy(), np.zeros(real.shape, bool)
    false[:, :, 1], replaced[:, :, 1] = np.where(real[:, :, 1] == 4, 5, 4), True
    batch = critic_batch(step_batch, false=tf.constant(false))._replace(
        replaced=tf.constant(replaced)
    )
    train = tf.function(lambda: model.critic_step(batch))
    for _ in range(30):
        train()
    memory = model.critic.encode(batch.regions, batch.references)
    scores = model.critic.token_scores(model.critic.embedding(batch.false), memory).numpy()
    is_token = false[..., 2:] != PAD_ID
    assert scores[..., 0].max() < scores[..., 1:][is_token].mean()


@pytest.mark.parametrize("rate", [0.0, 0.99])
def test_the_critic_reads_the_other_captions_of_the_image(step_batch, rate):
    real = tf.constant(np.array(step_batch["token_ids"]))
    critic = CriticConfig(references=True, reference_dropout=rate)
    model = build(step_batch, reads_corpora=True, critic=critic)
    batches: list[CriticBatch] = []
    regions = model.captioner.regions(step_batch)
    model.for_each_critic_batch(batches.append, regions, real, real, corpus=real)
    for number, batch in enumerate(batches):
        images = real[4 * number : 4 * number + 4]
        visible = np.array(batch.references.visible)
        np.testing.assert_array_equal(batch.references.token_ids[:4], images)
        if rate == 0.0:
            np.testing.assert_array_equal(visible[:4], References.others(images).visible)
        else:
            assert not visible.any()
        assert len(visible) > 4
        assert not visible[4:].any()  # Text of a corpus has no image, and no references.


def test_words_are_rewarded_by_the_scores_that_follow(step_batch):
    """With one reward for each word, against a computation by hand."""
    regions, real = Regions(step_batch["regions"]), step_batch["token_ids"]
    model = build(step_batch, discount=0.5)
    sampled = model.sample_captions(regions, 6, tf.constant([5, 6]))
    memory = model.critic.encode(regions, References.others(real))
    scores = model.critic.token_scores(model.critic.embedding(sampled), memory).numpy()
    is_token = np.array(sampled)[..., 1:] != PAD_ID
    means = (scores * is_token).sum(-1) / is_token.sum(-1)
    above = np.where(is_token, scores - means[:, ::-1, None], 0)  # The other of two captions.
    expected = np.zeros_like(above)
    for token in range(above.shape[-1]):
        for later in range(token, above.shape[-1]):
            expected[..., token] += 0.5 ** (later - token) * above[..., later]
    expected = np.where(is_token, expected, 0)
    expected /= np.sqrt((expected**2).sum() / is_token.sum())
    advantages = model.advantages(regions, sampled, {"token_ids": real})
    np.testing.assert_allclose(advantages, expected, rtol=1e-4, atol=1e-5)


def test_the_most_similar_captions_share_rare_words():
    token_ids = tf.constant(
        [[[2, 5, 6, 3]], [[2, 7, 8, 3]], [[2, 5, 9, 3]], [[2, 8, 4, 3]]], tf.int32
    )
    np.testing.assert_array_equal(most_similar(token_ids), [2, 3, 0, 1])
    among_equals = most_similar(tf.tile(token_ids[:1], [5, 1, 1]))
    assert (np.array(among_equals) != np.arange(5)).all()


def test_the_policy_loss_uses_the_probabilities_of_sampling(step_batch):
    """The noise z is the same; the forced end token at the last position does not count."""
    model = build(step_batch)
    regions, seed = Regions(step_batch["regions"]), tf.constant([5, 6])
    sampled = model.sample_captions(regions, 6, seed)
    generator = model.captioner.generator
    noise = sampling.draw_noise(generator, 8, 2, seed)
    memory = generator.encode(regions)
    logits = mask_special_tokens(generator.teacher_forcing(sampled[..., :-1], memory, noise))
    log_probabilities = np.array(tf.nn.log_softmax(logits))
    targets = np.array(sampled)[..., 1:]
    total, count = np.zeros((8, 2)), np.zeros((8, 2))
    for place in np.ndindex(8, 2, 4):
        if targets[place] != PAD_ID:
            total[place[:2]] += log_probabilities[(*place, targets[place])]
            count[place[:2]] += 1
    assert (targets[..., 4] == END_ID).any()
    advantages = np.random.default_rng(0).normal(size=(8, 2)).astype(np.float32)
    loss = model.policy_loss(regions, sampled, tf.constant(advantages[..., None]), noise)
    assert float(loss) == pytest.approx(-(advantages * total).sum() / count.sum(), rel=1e-4)


def test_weights_include_no_random_state(step_batch):
    """A rollback restores the weights; the same noise would lead to the same collapse."""
    model = build(step_batch)
    before = [np.array(weight) for weight in model.weights]
    state = np.array(model.seed_generator.state)
    model.draw_seed()
    assert not np.array_equal(model.seed_generator.state, state)
    for now, then in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_rewards_are_mixed_by_their_weights(step_batch):
    regions, real = Regions(step_batch["regions"]), step_batch["token_ids"]
    model = build(step_batch, "self_critical", rewards=RewardWeights(critic=0.25, cider=0.75))
    sampled = model.sample_captions(regions, 6, tf.constant([5, 6]))
    scores = {
        "cider": CiderReward(np.array(real)[..., 1:]).score(sampled[..., 1:], real[..., 1:]),
        "critic": model.critic.score_tokens(
            sampled, model.critic.encode(regions, References.others(real))
        ),
    }
    cider, critic = (losses.normalized(losses.leave_one_out(score)) for score in scores.values())
    mixed = model.advantages(regions, sampled, {"token_ids": real})
    expected = (0.75 * cider + 0.25 * critic)[..., None]
    np.testing.assert_allclose(mixed, expected, rtol=1e-5, atol=1e-6)
    for name, score in scores.items():
        mean = model.means[f"{name}_reward"].result()
        np.testing.assert_allclose(mean, tf.reduce_mean(score), rtol=1e-5)


def test_self_critical_training_without_a_critic(step_batch):
    model = build(step_batch, "self_critical", rewards=RewardWeights(cider=1.0))
    assert model.critic is None
    assert model.config.images_per_step == 4
    generator = values(model.captioner.generator)
    logs = step(model, step_batch)
    assert moved(model.captioner.generator, generator)
    assert "critic_loss" not in logs
    assert logs["cider_reward"] >= 0


@pytest.mark.parametrize("kind", ONE_FIRST)
def test_the_mle_loss_alone_learns_captions(step_batch, kind):
    """Without an adversarial loss, the loss is the cross-entropy of `maximum_likelihood`."""
    model = build(step_batch, kind, mle_weight=1.0, mle_weight_end=1.0)
    model.generator_loss = model.policy_loss = lambda *_: tf.constant(0.0)
    first = float(model.test_step(step_batch)["loss"])
    for _ in range(9):
        step(model, step_batch)
    model.reset_metrics()
    assert float(model.test_step(step_batch)["loss"]) < first - 0.1


def test_progress_is_linear_in_generator_updates(step_batch):
    model = build(step_batch, critic_warmup_steps=2)
    shares = []
    for done in (0, 4, 8, 100):
        model.optimizer.iterations.assign(done)
        shares.append(float(model.progress))
    assert shares == [0, 0.5, 1, 1]


def test_the_learning_rate_ends_at_zero_with_the_last_update(step_batch):
    """The generator is trained in those of the ten steps that follow the critic's warm-up."""
    cider_alone = {"rewards": RewardWeights(cider=1.0)}
    for kind, settings, updates in (("wgan_gp", {}, 6), ("self_critical", cider_alone, 10)):
        model = build(step_batch, kind, critic_warmup_steps=4, **settings)
        model.optimizer.iterations.assign(updates - 1)
        assert float(model.optimizer.learning_rate) > 0
        assert float(model.progress) < 1
        model.optimizer.iterations.assign(updates)
        assert float(model.optimizer.learning_rate) == pytest.approx(0, abs=1e-9)
        assert float(model.progress) == 1


def test_the_temperature_falls_exponentially(step_batch):
    model = build(step_batch, "wgan_gp", temperature=1.0, temperature_end=0.25)
    temperatures = []
    for done in (0, 5, 10):
        model.optimizer.iterations.assign(done)
        temperatures.append(float(model.temperature))
    np.testing.assert_allclose(temperatures, [1.0, 0.5, 0.25], rtol=1e-5)


@pytest.mark.parametrize("kind", ONE_FIRST[:2])
def test_corpus_text_is_told_from_generated_captions(step_batch, kind):
    """Without an image, the critic learns what only people write, and rewards it."""
    model = build(
        step_batch,
        kind,
        reads_corpora=True,
        unconditional_share=1.0,
        critic_warmup_steps=200,
        critic_learning_rate=3e-3,
    )
    regions, real = Regions(step_batch["regions"]), step_batch["token_ids"]
    generated = model.sample_captions(regions, real.shape[-1], tf.constant([0, 1]))
    corpus = tf.roll(generated, 1, axis=2)
    train = tf.function(functools.partial(model.for_each_critic_batch, model.critic_step))
    for _ in range(20):
        train(regions, real, generated, corpus)
    no_image = model.critic.encode(regions.blank())
    corpus_score, generated_score = (
        model.critic.score_tokens(captions, no_image) for captions in (corpus, generated)
    )
    assert float(tf.reduce_mean(corpus_score - generated_score)) > 0.05
    conditional = CriticScore(model.critic)(regions, corpus, real)
    total = model.critic_score(regions, corpus, real)
    np.testing.assert_allclose(total - conditional, corpus_score, atol=1e-5)
    logs = step(model, {**step_batch, "corpus_token_ids": corpus})
    assert all(np.isfinite(list(logs.values())))
