"""Bounds on weights."""

import keras
import numpy as np
import pytest

from caption_gan.training import weight_constraints


@pytest.fixture
def variables() -> list[keras.Variable]:
    rng = np.random.default_rng(0)
    values = (rng.normal(size=(5, 8)), 0.01 * rng.normal(size=(8, 5)), rng.normal(size=7))
    return [keras.Variable(value.astype(np.float32)) for value in values]


def largest(variables) -> list[float]:
    """Largest singular values of the matrices."""
    return [float(np.linalg.svd(np.array(v), compute_uv=False)[0]) for v in variables[:2]]


def test_clipping(variables):
    before = [np.array(variable) for variable in variables]
    weight_constraints.apply("clipping", variables, 0.5)
    for variable, value in zip(variables, before, strict=True):
        np.testing.assert_array_equal(variable, value.clip(-0.5, 0.5))


def test_spectral_norms_are_at_most_one_and_small_ones_stay(variables):
    small, vector = np.array(variables[1]), np.array(variables[2])
    assert largest(variables)[0] > 2
    weight_constraints.apply("spectral", variables, 0.5)
    assert largest(variables)[0] == pytest.approx(1, abs=0.02)
    np.testing.assert_array_equal(variables[1], small)
    np.testing.assert_array_equal(variables[2], vector)


@pytest.mark.parametrize("kind", ["gradient_penalty", "lipschitz_penalty", "none"])
def test_penalties_leave_weights_alone(variables, kind):
    before = [np.array(variable) for variable in variables]
    weight_constraints.apply(kind, variables, 0.5)
    for variable, value in zip(variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)
