"""Every objective trains a Transformer and a GPT-2."""

import numpy as np
import pytest

from tests.distribution.test_precision import build, train, weights

SLOW = ("policy_gradient", "self_critical")
CASES = [
    pytest.param(
        kind,
        name,
        # The gradient penalty's second derivative goes through all parts of a generator.
        marks=[pytest.mark.slow] * (name in SLOW or (kind != "transformer" and name != "wgan_gp")),
    )
    for kind in ("transformer", "gpt2", "gpt2_cross_attention")
    for name in ("maximum_likelihood", "wgan_gp", "self_play", *SLOW)
]


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_a_step_changes_every_weight(kind, name, step_batch):
    model = build(name, "float32", step_batch, kind)
    before = weights(model)
    figures = train(model, step_batch, steps=2)
    assert np.isfinite(list(figures.values())).all(), figures
    for variable, old, new in zip(model.trainable_variables, before, weights(model), strict=True):
        assert np.isfinite(new).all(), variable.path
        if "noise_projection" in variable.path and "trunk" in variable.path:
            continue  # A critic's noise is zero.
        # Tables have rows that short captions do not reach.
        assert (old != new).any(), variable.path
