"""Every objective trains a Transformer."""

import numpy as np
import pytest

from tests.distribution.test_precision import build, train, weights


@pytest.mark.parametrize(
    "name",
    [
        "maximum_likelihood",
        "wgan_gp",
        pytest.param("policy_gradient", marks=pytest.mark.slow),
        "self_play",
        pytest.param("self_critical", marks=pytest.mark.slow),
    ],
)
def test_a_step_changes_every_weight(name, step_batch):
    model = build(name, "float32", step_batch, "transformer")
    before = weights(model)
    figures = train(model, step_batch, steps=2)
    assert np.isfinite(list(figures.values())).all(), figures
    for variable, old, new in zip(model.trainable_variables, before, weights(model), strict=True):
        assert np.isfinite(new).all(), variable.path
        # Tables have rows that short captions do not reach.
        assert (old != new).any(), variable.path
