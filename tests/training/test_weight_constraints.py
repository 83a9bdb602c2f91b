"""Constraints on the critic's weights, applied by Keras's optimizers after each update."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from caption_gan.training.weight_constraints import (
    SpectralNorm,
    WeightClipping,
    constrain,
    spectral_norm,
)


@pytest.fixture
def variables() -> list[keras.Variable]:
    """Returns a matrix with a large spectral norm, one with a small norm, and a vector."""
    rng = np.random.default_rng(0)
    values = (rng.normal(size=(5, 8)), 0.01 * rng.normal(size=(8, 5)), rng.normal(size=7))
    return [keras.Variable(value.astype(np.float32)) for value in values]


def update(variables: list[keras.Variable]) -> list[np.ndarray]:
    """Applies gradients of zero; returns the values before."""
    before = [np.array(variable) for variable in variables]
    optimizer = keras.optimizers.SGD(0.1)
    optimizer.apply([tf.zeros(variable.shape) for variable in variables], variables)
    return before


def largest_singular_value(variable: keras.Variable) -> float:
    return float(np.linalg.svd(np.array(variable), compute_uv=False)[0])


def test_weight_clipping(variables):
    constrain(variables, "weight_clipping", 0.5)
    before = update(variables)
    for variable, value in zip(variables, before, strict=True):
        np.testing.assert_array_equal(variable, value.clip(-0.5, 0.5))


def test_spectral_norms_are_at_most_one_and_small_ones_unchanged(variables):
    assert largest_singular_value(variables[0]) > 2
    constrain(variables, "spectral_norm", 0.5)
    _, small, vector = update(variables)
    assert largest_singular_value(variables[0]) == pytest.approx(1, abs=0.02)
    np.testing.assert_array_equal(variables[1], small)
    np.testing.assert_array_equal(variables[2], vector)


@pytest.mark.parametrize("kind", ["weight_clipping", "spectral_norm"])
def test_the_constraint_equals_the_function_applied_after_the_update(kind, variables):
    gradients = [tf.random.stateless_normal(v.shape, [0, 1]) for v in variables]
    expected = [keras.Variable(variable) for variable in variables]
    constrain(variables, kind, 0.5)
    for group in (variables, expected):
        keras.optimizers.Adam(0.1).apply(gradients, group)
    for variable in expected:
        if kind == "weight_clipping":
            variable.assign(tf.clip_by_value(variable.value, -0.5, 0.5))
        elif len(variable.shape) == 2:
            variable.assign(variable.value / tf.maximum(spectral_norm(variable.value), 1.0))
    for variable, value in zip(variables, expected, strict=True):
        np.testing.assert_array_equal(variable, value)


@pytest.mark.parametrize("kind", ["gradient_penalty", "one_sided_gradient_penalty", "none"])
def test_penalties_do_not_constrain_weights(variables, kind):
    constrain(variables, kind, 0.5)
    assert [variable.constraint for variable in variables] == [None] * 3


@pytest.mark.parametrize("constraint", [WeightClipping(0.25), SpectralNorm()])
def test_the_config_round_trip(constraint, variables):
    again = type(constraint).from_config(constraint.get_config())
    np.testing.assert_array_equal(again(variables[0]), constraint(variables[0]))
