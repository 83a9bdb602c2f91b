"""Low-rank matrices beside a generator's weights."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from caption_gan.config.adversarial import CriticConfig, PolicyGradientConfig
from caption_gan.distribution import precision
from caption_gan.models.captioner import Captioner
from caption_gan.models.critics.next_token import NextTokenCritic
from caption_gan.models.decoding.decoder import DecodingOptions
from caption_gan.models.decoding.sampling import greedy
from caption_gan.models.encoders.encoder import Regions
from caption_gan.models.generators.lora import merged_weights
from tests.captioners import captioner

RANK = 2


def logits(network: Captioner, batch: dict[str, tf.Tensor]) -> np.ndarray:
    ids = batch["token_ids"]
    return np.array(network.generator(batch["regions"], ids, tf.ones([*ids.shape[:2], 3])))


def plain(seed: int = 0) -> Captioner:
    return captioner(seed, kind="transformer", dropout=0.0)


def shaken() -> Captioner:
    """A captioner whose products are not zero."""
    network = plain().with_lora(RANK)
    for layer in network.generator.lora_layers:
        layer.lora_kernel_b.assign(keras.random.normal(layer.lora_kernel_b.shape, seed=1))
    return network


def test_only_the_matrices_are_trained_and_at_first_nothing_changes(step_batch):
    network = plain().with_lora(RANK)
    np.testing.assert_array_equal(logits(network, step_batch), logits(plain(), step_batch))
    trained = network.trainable_variables
    assert {variable.path.rsplit("/", 1)[1] for variable in trained} == {
        "lora_kernel_a",
        "lora_kernel_b",
    }
    # A block has four projections in its self-attention, of which three are one layer, four in its
    # attention to regions, and two of twice the width: 16 x 48, five 16 x 16 and two 16 x 32.
    sizes = RANK * ((16 + 48) + 5 * (16 + 16) + 2 * (16 + 32))
    assert sum(int(np.prod(variable.shape)) for variable in trained) == 2 * sizes
    assert plain().with_lora(0).generator.lora_rank == 0


@pytest.mark.parametrize("kind", ["gpt2", "gpt2_cross_attention"])
def test_gpt2_also_trains_what_reads_the_image(kind, step_batch):
    network = captioner(kind=kind, dropout=0.0)
    adapted = network.with_lora(RANK)
    np.testing.assert_array_equal(logits(adapted, step_batch), logits(network, step_batch))
    new = {id(variable) for variable in adapted.generator.new_variables}
    own = [v for v in adapted.trainable_variables if "lora" not in v.name]
    assert {id(variable) for variable in own} == new
    # Two matrices for each of four layers of two blocks.
    assert len(adapted.trainable_variables) == len(new) + 2 * 4 * 2
    frozen = {id(variable) for variable in adapted.non_trainable_variables}
    assert id(adapted.generator.embedding.embeddings) in frozen
    assert {id(layer.weights[0]) for layer in adapted.generator.lora_layers} <= frozen


def test_saved_weights_hold_the_products(step_batch, tmp_path):
    network, restored = shaken(), plain(seed=9)
    expected = logits(network, step_batch)
    assert np.abs(expected - logits(plain(), step_batch)).max() > 0.1
    network.save_weights(tmp_path / "best.weights.h5")
    restored.load_weights(tmp_path / "best.weights.h5")
    np.testing.assert_allclose(logits(restored, step_batch), expected, atol=1e-5)
    regions, options = Regions(step_batch["regions"]), DecodingOptions(6)
    np.testing.assert_array_equal(
        greedy(restored.generator, regions, options).token_ids,
        greedy(network.generator, regions, options).token_ids,
    )


def test_copies_and_critics_start_from_the_same_function(step_batch):
    network, other = shaken(), plain(seed=9)
    np.testing.assert_array_equal(logits(network.copy(), step_batch), logits(network, step_batch))
    other.generator.set_weights(merged_weights(network.generator))
    np.testing.assert_allclose(logits(other, step_batch), logits(network, step_batch), atol=1e-5)
    critic = NextTokenCritic.from_settings(CriticConfig(), network.generator)
    assert not critic.trunk.lora_rank
    for one, expected in zip(critic.trunk.get_weights(), other.generator.weights, strict=True):
        np.testing.assert_array_equal(one, expected)


@pytest.mark.parametrize(
    "policy", [pytest.param("float32", marks=pytest.mark.slow), "mixed_bfloat16"]
)
def test_training_changes_the_matrices_alone(policy, step_batch):
    config = PolicyGradientConfig(
        batch_size=4, critic_updates=2, critic_warmup_steps=0, lora_rank=RANK
    )
    references = step_batch["token_ids"][..., 1:].numpy()
    with precision.using(policy):
        network = plain().copy().with_lora(config.lora_rank)
        model = config.load_trainer().from_config(network, config, 8, 5, references=references)
    model.run_eagerly = True
    before = [np.array(weight) for weight in network.weights]
    for _ in range(2):  # A gets no gradient while B is zero.
        figures = model.train_step(step_batch)
        model.after_step()
    assert np.isfinite([float(value) for value in figures.values()]).all()
    for old, weight in zip(before, network.weights, strict=True):
        assert np.array_equal(old, weight) != ("lora" in weight.name), weight.path
    # The moving average is a captioner with such matrices too.
    assert model.kept_captioner.generator.lora_rank == RANK
