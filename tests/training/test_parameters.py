"""Numbers of parameters and bytes of a stage."""

import dataclasses

import numpy as np
import pytest

from caption_gan.config.adversarial import PolicyGradientConfig
from caption_gan.config.objectives import MaximumLikelihoodConfig
from caption_gan.config.self_play import SelfPlayConfig
from caption_gan.training.parameters import ParameterCount, describe_size, training_size
from tests.captioners import Bending, captioner

# One scale in the encoder; by hand from the sizes in `tests.captioners`.
GENERATOR = sum(
    int(np.prod(variable.shape)) for variable in captioner().generator.trainable_weights
)


def built(config, **encoder):
    return config.load_trainer().from_config(captioner(encoder=Bending), config, 8, 5)


def test_maximum_likelihood_trains_both_networks():
    size = training_size(built(MaximumLikelihoodConfig(matrix_learning_rate=0.0)))
    assert size.networks == {"encoder": (1, 0), "generator": (GENERATOR, 0)}
    assert size.weights == size.gradients == 4 * (GENERATOR + 1)
    # AdamW has two moments of each; the rest is a counter and a learning rate.
    assert 0 <= size.optimizers - 2 * size.weights <= 16


def test_a_moving_average_is_a_frozen_copy():
    size = training_size(built(MaximumLikelihoodConfig(ema_momentum=0.9)))
    assert size.networks["copies"] == (0, GENERATOR + 1)
    assert size.weights == 2 * size.gradients


def test_the_encoder_is_frozen_and_the_critic_trained():
    config = PolicyGradientConfig(ema_momentum=0.0)
    trainer = built(config)
    size = training_size(trainer)
    assert size.networks["encoder"] == (0, 1)
    assert size.networks["generator"] == (GENERATOR, 0)
    # The critic's word embeddings are frozen, and it has two moments for its scores by length.
    embeddings = int(np.prod(captioner().generator.embedding.weights[0].shape))
    trained, frozen = size.networks["critic"]
    assert frozen == embeddings + 2
    assert trained > GENERATOR - embeddings
    assert size.gradients == 4 * (GENERATOR + trained)
    assert 0 <= size.optimizers - 2 * size.gradients <= 32


def test_the_opponent_is_a_copy():
    size = training_size(built(dataclasses.replace(SelfPlayConfig(), ema_momentum=0.0)))
    assert size.networks["copies"] == (0, GENERATOR + 1)


def test_the_table_adds_up():
    networks = {"encoder": ParameterCount(5, 1_000), "generator": ParameterCount(20_000, 0)}
    size = training_size(built(MaximumLikelihoodConfig()))._replace(networks=networks)
    lines = [line.split() for line in describe_size("a_stage", size)]
    assert lines[:4] == [
        ["a_stage", "trained", "frozen", "parameters"],
        ["encoder", "5", "1,000"],
        ["generator", "20,000", "0"],
        ["together", "20,005", "1,000"],
    ]
    assert f"{size.weights / 1e6:.1f}," in lines[4]


def test_word_vectors_that_stay_frozen_are_not_trained():
    network = captioner(encoder=Bending)
    network.generator.embedding.trainable = False
    config = MaximumLikelihoodConfig()
    size = training_size(config.load_trainer().from_config(network, config, 8, 5))
    embeddings = int(np.prod(network.generator.embedding.weights[0].shape))
    assert size.networks["generator"] == (GENERATOR - embeddings, embeddings)
    assert size.gradients == pytest.approx(4 * (GENERATOR + 1 - embeddings))
