"""A batch in parts gives the update of the whole batch."""

import dataclasses
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from caption_gan.config.adversarial import PolicyGradientConfig, WGANGPConfig
from caption_gan.config.objective_config import ObjectiveConfig
from caption_gan.config.objectives import MaximumLikelihoodConfig
from caption_gan.config.self_play import SelfPlayConfig
from caption_gan.distribution import replicas
from caption_gan.training.accumulation import Part
from tests.captioners import Bending, captioner
from tests.distribution.replicated import same_for_all_images

SHARED: dict[str, Any] = {
    "batch_size": 4,
    "critic_updates": 2,
    "critic_warmup_steps": 0,
    "train_encoder": True,
}
OBJECTIVES: dict[str, ObjectiveConfig] = {
    "maximum_likelihood": MaximumLikelihoodConfig(batch_size=8, length_buckets=2),
    "wgan_gp": WGANGPConfig(**SHARED, near_misses=0.5),
    "policy_gradient": PolicyGradientConfig(**SHARED | {"train_encoder": False}, discount=0.9),
    "self_play": SelfPlayConfig(batch_size=8, opponent_steps=1),
}


@pytest.fixture(autouse=True)
def _same_random_numbers_in_all_parts(monkeypatch):
    """Each part draws its own numbers, which would hide what is compared."""
    for module, name in (
        (tf.random, "stateless_normal"),
        (tf.random, "stateless_uniform"),
        (keras.random, "normal"),
        (keras.random, "uniform"),
    ):
        monkeypatch.setattr(module, name, same_for_all_images(getattr(module, name)))
    monkeypatch.setattr(replicas.SeedGenerator, "next", lambda *_: tf.constant([3, 4], tf.uint32))


def step(
    name: str, parts: int, batch: dict[str, tf.Tensor], eagerly: bool = True
) -> tuple[list[np.ndarray], dict[str, float]]:
    """Changes of weights by one step of gradient descent, and its metrics."""
    config = dataclasses.replace(OBJECTIVES[name], accumulation_steps=parts)
    data: dict[str, Any] = {}
    if config.has_rewards:
        data["references"] = batch["token_ids"][..., 1:].numpy()
    network = captioner(dropout=0.0, encoder=Bending)
    model = config.load_trainer()(network, config, 8, 5, **data)
    optimizers = {"optimizer": keras.optimizers.SGD(0.2)}
    if config.has_critic:
        # The penalty's gradient is large.
        rate = 0.02 if config.constraint == "gradient_penalty" else 1.0
        optimizers["critic_optimizer"] = keras.optimizers.SGD(rate)
    for optimizer in optimizers.values():
        optimizer.build(model.trainable_variables)
    model.compile(**optimizers)
    model.run_eagerly = eagerly
    model.make_train_function()
    before = [np.array(weight) for weight in model.weights]
    figures = model.train_function(iter(tf.data.Dataset.from_tensors(batch)))
    changes = [np.array(now) - then for now, then in zip(model.weights, before, strict=True)]
    return changes, {metric: float(value) for metric, value in figures.items()}


def differs(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    """Whether changes differ by more than rounding, which is at most 1e-7 of a weight near 1."""
    return not all(
        np.allclose(left, right, atol=max(1e-3 * np.abs(left).max(), 3e-7))
        for left, right in zip(one, other, strict=True)
    )


@pytest.mark.parametrize(
    "name",
    [
        "maximum_likelihood",
        pytest.param("wgan_gp", marks=pytest.mark.slow),
        "policy_gradient",
        pytest.param("self_play", marks=pytest.mark.slow),
    ],
)
def test_parts_give_the_update_of_the_whole_batch(name, step_batch, monkeypatch):
    whole, figures = step(name, 1, step_batch)
    assert max(np.abs(change).max() for change in whole) > 1e-4
    found, figures_of_parts = step(name, 3, step_batch)  # 8 images: 2, 3 and 3.
    assert not differs(whole, found)
    assert figures_of_parts == pytest.approx(figures, rel=1e-4, abs=1e-5)
    if name != "maximum_likelihood":
        # The comparison detects that parts of two and of three images count the same.
        monkeypatch.setattr(Part, "share", lambda self, rows: 1 / self.count)
        found, _ = step(name, 3, step_batch)
        assert differs(whole, found)


@pytest.mark.parametrize(
    ("name", "several"),
    [
        ("maximum_likelihood", False),
        pytest.param("maximum_likelihood", True, marks=pytest.mark.slow),
        pytest.param("wgan_gp", False, marks=pytest.mark.slow),
    ],
)
def test_parts_in_a_graph(name, several, step_batch, monkeypatch):
    whole, _ = step(name, 1, step_batch)
    # Several replicas have no loop in the graph.
    monkeypatch.setattr("caption_gan.training.accumulation.replicas.several", lambda: several)
    found, _ = step(name, 4, step_batch, eagerly=False)
    assert not differs(whole, found)


@pytest.mark.parametrize("parts", [1, 3, 4, 8])
def test_every_image_is_in_one_part(parts):
    rows = tf.reshape(tf.range(16), [8, 2])
    split = [Part(tf.constant(index), parts) for index in range(parts)]
    np.testing.assert_array_equal(tf.concat([part(rows) for part in split], axis=0), rows)
    shares = [float(part.share(rows)) for part in split]
    assert shares == pytest.approx([len(part(rows)) / 8 for part in split])
