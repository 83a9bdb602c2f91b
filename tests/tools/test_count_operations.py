"""The formulas of `tools/step_costs.py`, against hand computations and TensorFlow's tracer."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import tensorflow as tf

TOOLS = str(Path(__file__).parents[2] / "tools")


@pytest.fixture(scope="module")
def costs():
    sys.path.insert(0, TOOLS)
    import step_costs

    yield step_costs
    sys.path.remove(TOOLS)


@pytest.fixture
def ones(costs):
    """Sizes that are all one, but two regions."""
    return replace(costs.Sizes(*[1] * 10), regions=2)


def test_a_product_has_two_operations_per_term(costs):
    cost = costs.product(2, 3, 5, batch=7)
    assert cost.operations == 7 * 2 * (2 * 3 * 5)
    assert cost.bytes == 7 * 4 * (6 + 15 + 10)


def test_teacher_forcing_by_hand(costs, ones):
    # Projection, keys, values, initial states, first GRU, second GRU, queries, scores, context,
    # hidden output (two inputs), its projection, logits.
    initial_states, gates = (1 + 1) * 2, 3
    terms = 2 + 4 + initial_states + 2 * gates + (2 + 1) * gates + 1 + 2 + 2 + 2 + 1 + 1
    assert costs.teacher_forcing(ones, costs.INFERENCE).operations == 2 * terms
    # Three products each, but regions need no gradient.
    assert costs.teacher_forcing(ones).operations == 2 * (3 * terms - 2)
    # Projection, value and its products with the second GRU and the hidden output, and the rest.
    terms = 1 + 1 + gates + 1 + initial_states + 2 * gates + 2 * gates + 1 + 1 + 1
    one_region = replace(ones, regions=1)
    assert costs.teacher_forcing(one_region, costs.INFERENCE).operations == 2 * terms
    assert costs.teacher_forcing(one_region).operations == 2 * (3 * terms - 1)


def test_second_derivative_by_hand(costs, ones):
    with_penalty, without = (costs.critic_update(ones, penalty).operations for penalty in (1, 0))
    initial_states, gates, fusion = (1 + 1) * 2, 3, 3 * 1 + 2
    chain = 2 * gates + 1 + 2 + 2 + 2 + 1 + fusion  # Input of the second GRU to fusion
    # One word: the products of both recurrences are with initial states only.
    terms = 3 * (initial_states + 2 * gates) + 5 * gates + 6 * chain + 4 * 1 + 5 * 1
    assert with_penalty - without == 2 * terms


def test_the_cost_of_a_step_is_linear_in_its_images(costs, ones):
    sizes = replace(ones, images=3, captions=2, words=4, critic_updates=5)
    for objective in ("maximum_likelihood", "wgan_gp", "policy_gradient", "self_critical"):
        one, two = (
            costs.step(objective, replace(sizes, images=images)).operations for images in (3, 6)
        )
        assert two == 2 * one


def test_numbers_of_parameters(costs):
    import count_operations
    import random_trainer

    config = count_operations.configuration("tiny", "policy_gradient")
    examples = random_trainer.random_examples(config, "policy_gradient", 19, 7, 10)
    model = random_trainer.random_trainer(config, "policy_gradient", 19, examples)
    sizes = random_trainer.sizes_of(config, "policy_gradient", 19, 7, 10)
    assert costs.generator_weights(sizes) == model.captioner.generator.count_params()
    trained = sum(variable.value.shape.num_elements() for variable in model.generator_variables)
    assert costs.generator_weights(sizes) == trained
    trained = sum(v.value.shape.num_elements() for v in model.critic.trainable_variables)
    assert costs.critic_weights(sizes) == trained


@pytest.mark.parametrize("regions", [1, 7])
@pytest.mark.parametrize(
    "objective",
    [
        "maximum_likelihood",
        *(
            pytest.param(name, marks=pytest.mark.slow)  # Tracing takes long.
            for name in ("wgan_gp", "policy_gradient", "self_critical", "self_play")
        ),
    ],
)
def test_formulas_equal_what_tensorflow_executes(costs, objective, regions, monkeypatch):
    import count_operations

    sizes = (19, regions, 10)
    monkeypatch.setitem(count_operations.VOCABULARY_REGIONS_DEPTH, "tiny", sizes)
    expected, counted = count_operations.compare("tiny", objective)
    assert counted.products == expected


def test_cudnn_still_has_no_second_derivative():
    from tensorflow.python.framework import ops
    from tensorflow.python.ops import cudnn_rnn_grad  # noqa: F401  Registers the first derivative.

    assert hasattr(tf.raw_ops, "CudnnRNNBackpropV3")
    ops.gradient_registry.lookup("CudnnRNNV3")
    # If this fails, the gradient penalty no longer needs unrolled recurrences.
    with pytest.raises(LookupError):
        ops.gradient_registry.lookup("CudnnRNNBackpropV3")
