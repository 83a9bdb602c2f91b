"""Optimizers, weight decay, clipping and learning rate schedules."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from caption_gan.training.optimizers import build_optimizer

# Shapes of all kinds of variables of the networks, by the last part of their names.
SHAPES = {
    "kernel": (4, 6),
    "recurrent_kernel": (6, 4),
    "embeddings": (5, 4),
    "positions": (5, 4),
    "bias": (6,),
    "gamma": (6,),
    "beta": (6,),
}
DECAYING = {"kernel", "recurrent_kernel"}
RNG = np.random.default_rng(0)


def variables() -> dict[str, keras.Variable]:
    values = {name: RNG.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
    return {
        name: keras.Variable(value, name="embedding" if name == "embeddings" else name)
        for name, value in values.items()
    }


def optimizer(steps: int = 10, **settings) -> keras.optimizers.Optimizer:
    defaults = {
        "learning_rate": 0.1,
        "matrix_learning_rate": 0.0,
        "warmup_fraction": 0.0,
        "weight_decay": 0.0,
        "gradient_clip": 1e9,
    }
    return build_optimizer(steps, **{**defaults, **settings})


def changes(gradients: dict[str, np.ndarray], **settings) -> dict[str, np.ndarray]:
    """Returns the change of each variable in one step."""
    updated = variables()
    before = {name: np.array(variable) for name, variable in updated.items()}
    one = optimizer(**settings)
    one.build(list(updated.values()))
    one.apply([tf.constant(gradients[name]) for name in updated], list(updated.values()))
    return {name: np.array(updated[name]) - before[name] for name in updated}


def random_gradients() -> dict[str, np.ndarray]:
    return {name: RNG.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}


@pytest.mark.parametrize("matrix_learning_rate", [0.0, 0.4])
def test_weight_decay_applies_to_weight_matrices_only(matrix_learning_rate):
    updated = variables()
    before = {name: np.array(variable) for name, variable in updated.items()}
    one = optimizer(weight_decay=0.5, matrix_learning_rate=matrix_learning_rate)
    one.build(list(updated.values()))
    one.apply([tf.zeros(shape) for shape in SHAPES.values()], list(updated.values()))
    kept = 1 - 0.5 * (matrix_learning_rate or 0.1)
    for name, variable in updated.items():
        expected = before[name] * (kept if name in DECAYING else 1.0)
        np.testing.assert_allclose(variable, expected, rtol=1e-5, err_msg=name)


def test_adamw_changes_all_variables_by_its_rate_in_the_first_step():
    for name, change in changes(random_gradients()).items():
        np.testing.assert_allclose(np.abs(change), 0.1, rtol=0.02, err_msg=name)


def test_muon_changes_matrices_by_the_same_amount_in_all_directions():
    gradients = random_gradients()
    found = changes(gradients, matrix_learning_rate=0.4)
    for name, change in found.items():
        if name not in DECAYING:
            np.testing.assert_allclose(np.abs(change), 0.1, rtol=0.02, err_msg=name)
            continue
        left, _, right = np.linalg.svd(-gradients[name], full_matrices=False)
        # Scaled for a root mean square of a fifth of the rate (Liu et al., 2025, section 2.2);
        # Newton and Schulz's iteration leaves singular values between about 0.7 and 1.2.
        sizes = np.diag(left.T @ change @ right.T) / (0.4 * 0.2 * np.sqrt(6))
        assert (sizes > 0.6).all() and (sizes < 1.3).all(), (name, sizes)


@pytest.mark.parametrize("matrix_learning_rate", [0.0, 0.4])
def test_pretrained_variables_have_a_separate_rate_and_no_weight_decay(matrix_learning_rate):
    updated = variables()
    before = {name: np.array(variable) for name, variable in updated.items()}
    one = optimizer(
        matrix_learning_rate=matrix_learning_rate,
        weight_decay=0.5,
        pretrained=[updated["kernel"], updated["bias"]],
        pretrained_learning_rate=0.001,
    )
    one.build(list(updated.values()))
    one.apply([tf.ones(shape) for shape in SHAPES.values()], list(updated.values()))
    moved = {name: np.abs(before[name] - updated[name]).mean() for name in updated}
    assert moved["bias"] == pytest.approx(0.001, rel=0.01)
    assert moved["beta"] == pytest.approx(0.1, rel=0.01)
    assert 0 < moved["kernel"] < 0.002 < 0.05 < moved["recurrent_kernel"]


@pytest.mark.parametrize("matrix_learning_rate", [0.0, 0.4])
def test_pretrained_variables_that_start_late_begin_with_their_rate(matrix_learning_rate):
    updated, late = variables(), 30
    pretrained = [updated["bias"], updated["positions"]]
    one = optimizer(
        steps=10**6,  # So that the rate stays the same.
        matrix_learning_rate=matrix_learning_rate,
        pretrained=pretrained,
        pretrained_learning_rate=0.001,
        pretrained_steps=late,
    )
    one.build(list(updated.values()))
    others = [variable for name, variable in updated.items() if name not in ("bias", "positions")]
    for _ in range(late):
        one.apply([tf.ones(variable.shape) for variable in others], others)
    for _ in range(3):
        before = [np.array(variable) for variable in pretrained]
        one.apply([tf.ones(shape) for shape in SHAPES.values()], list(updated.values()))
        for old, variable in zip(before, pretrained, strict=True):
            # Equal gradients move a variable by its rate; Keras alone would do so by 3 times it.
            np.testing.assert_allclose(old - variable, 0.001, rtol=1e-2)


def test_gradients_are_clipped_by_their_global_norm():
    gradients = {name: np.full(shape, 1e-4, np.float32) for name, shape in SHAPES.items()}
    gradients["kernel"][:] = 1e6
    # Gradients clipped to almost zero are below AdamW's epsilon, so the variable hardly changes.
    still = changes(gradients, gradient_clip=1.0)
    assert np.abs(still["bias"]).max() < 1e-4 < 0.09 < np.abs(changes(gradients)["bias"]).min()


def rates(steps: int, **settings) -> list[float]:
    one = optimizer(steps, **settings)
    found = []
    for step in range(steps + 1):
        one.iterations.assign(step)
        found.append(float(one.learning_rate))
    return found


@pytest.mark.parametrize("name", ["learning_rate", "matrix_learning_rate"])
def test_learning_rate_warms_up_and_ends_at_zero(name):
    warm = rates(100, warmup_fraction=0.1, **{name: 0.4})
    assert warm[0] == 0
    assert warm[5] == pytest.approx(0.2, rel=1e-5)
    assert max(warm) == warm[10] == pytest.approx(0.4, rel=1e-5)
    assert warm[55] == pytest.approx(0.2, rel=1e-4)  # Half-way down the cosine.
    assert warm[100] == pytest.approx(0, abs=1e-7)
    assert warm[10:] == sorted(warm[10:], reverse=True)


def test_learning_rate_without_warm_up_starts_high():
    cold = rates(10, learning_rate=0.4)
    assert cold[0] == pytest.approx(0.4, rel=1e-5)
    assert cold == sorted(cold, reverse=True)
    assert cold[10] == pytest.approx(0, abs=1e-7)
