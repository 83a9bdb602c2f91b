"""Layers that are computed again for their gradient.

B batch, K captions per image, T time, R regions, E embedding.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

from caption_gan.models.critics.next_token import NextTokenCritic
from caption_gan.models.encoders.encoder import Regions
from caption_gan.models.generators.generator import Generator
from caption_gan.models.generators.transformer_blocks import TransformerBlock
from caption_gan.training.losses import EmbeddedCaptions, gradient_penalty
from tests.captioners import GENERATORS, REGIONS, VOCABULARY

RNG = np.random.default_rng(0)
REGION_FEATURES = RNG.normal(size=(2, *REGIONS)).astype(np.float32)
TOKEN_IDS = RNG.integers(4, VOCABULARY, size=(2, 3, 5)).astype(np.int32)


def generator(rematerialize: bool, dropout: float = 0.0, kind: str = "transformer") -> Generator:
    keras.utils.set_random_seed(0)
    built = GENERATORS[kind](
        vocabulary_size=VOCABULARY,
        embedding_size=8,
        hidden_size=16,
        attention_heads=2,
        noise_size=3,
        dropout=dropout,
        rematerialize=rematerialize,
    )
    built.build((None, *REGIONS))
    return built


def loss_and_gradients(network: Generator) -> list[np.ndarray]:
    @tf.function
    def differentiate() -> list[tf.Tensor]:
        mask = tf.constant([[True, True, True, False]] * 2)
        with tf.GradientTape() as tape:
            logits = network(
                tf.constant(REGION_FEATURES), TOKEN_IDS, tf.ones([2, 3, 3]), mask, training=True
            )
            loss = tf.reduce_mean(tf.nn.log_softmax(logits)[..., 4])
        gradients = tape.gradient(loss, network.trainable_variables)
        return [loss, *map(tf.convert_to_tensor, gradients)]

    return [np.array(each) for each in differentiate()]


@pytest.mark.parametrize(
    ("policy", "kind"),
    [
        ("float32", "transformer"),
        pytest.param("mixed_bfloat16", "transformer", marks=pytest.mark.slow),
        pytest.param("float32", "gpt2", marks=pytest.mark.slow),
    ],
)
def test_gradients_are_equal_with_the_same_dropout(policy, kind):
    found = []
    keras.config.set_dtype_policy(policy)
    try:
        for rematerialize in (False, True):
            network = generator(rematerialize, 0.3, kind)
            # The random states of the blocks advance alike: the second call has other masks.
            first, second = loss_and_gradients(network), loss_and_gradients(network)
            assert second[0] != first[0]
            found.append([*first, *second])
    finally:
        keras.config.set_dtype_policy("float32")
    # Gradients of biases of keys are zero but for rounding.
    tolerance = (1e-6 if policy == "float32" else 1e-2) * max(np.abs(one).max() for one in found[0])
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, atol=tolerance)


def test_the_penalty_has_the_same_second_derivative():
    def penalty_gradients(rematerialize: bool) -> list[np.ndarray]:
        critic = NextTokenCritic(generator(rematerialize))
        critic.score_head.set_weights(
            [np.ones_like(each) for each in critic.score_head.get_weights()]
        )

        @tf.function
        def differentiate() -> list[tf.Tensor]:
            captions = [
                EmbeddedCaptions(critic.embedding(ids), tf.ones(ids.shape))
                for ids in (TOKEN_IDS, TOKEN_IDS[::-1])
            ]
            with tf.GradientTape() as tape:
                memory = critic.encode(Regions(tf.constant(REGION_FEATURES)), training=True)
                penalty = gradient_penalty(
                    lambda embeddings, mask: critic(embeddings, mask, memory, training=True),
                    *captions,
                    seed=7,
                )
            gradients = tape.gradient(
                penalty, critic.trainable_variables, unconnected_gradients="zero"
            )
            return [penalty, *map(tf.convert_to_tensor, gradients)]

        return [np.array(each) for each in differentiate()]

    whole, again = penalty_gradients(False), penalty_gradients(True)
    for one, other in zip(whole, again, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5 * (1 + np.abs(one).max()))
    assert sum(np.abs(one).max() > 1e-6 for one in whole) > len(whole) / 2


def test_blocks_are_computed_again_for_the_gradient(monkeypatch):
    calls = []
    call = TransformerBlock.call
    monkeypatch.setattr(
        TransformerBlock, "call", lambda self, *a, **b: calls.append(self) or call(self, *a, **b)
    )
    for rematerialize in (False, True):
        network = generator(rematerialize)
        loss_and_gradients(network)
        assert len(calls) == (4 if rematerialize else 2)  # There are two blocks.
        calls.clear()
