"""The GRU cell equals Keras's, and its gradient contains no slices.

B batch, T time, D input depth, H hidden.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

from caption_gan.models.generators.gru_cell import GRUCell

B, T, D, H = 3, 4, 5, 6


def recurrence(kind: type[keras.layers.GRUCell]) -> keras.layers.RNN:
    layer = keras.layers.RNN(kind(H), return_sequences=True, unroll=True)
    layer.build((None, T, D))
    random = np.random.default_rng(0)
    layer.set_weights([random.normal(size=weight.shape) for weight in layer.get_weights()])
    return layer


@tf.function
def derivatives(layer: keras.layers.RNN, words: tf.Tensor, first: tf.Tensor):
    """States, their gradients, and the gradients of a penalty on the input gradient."""
    weights = layer.trainable_variables
    with tf.GradientTape() as outer:
        with tf.GradientTape(persistent=True) as inner:
            inner.watch(words)
            states = layer(words, initial_state=first)
            total = tf.reduce_sum(tf.square(states))
        slope = inner.gradient(total, words)
        penalty = tf.reduce_sum(tf.square(slope))
    return [states, slope, *inner.gradient(total, weights), *outer.gradient(penalty, weights)]


def test_equals_keras_up_to_the_second_derivative():
    random = np.random.default_rng(1)
    words, first = random.normal(size=(B, T, D)), random.normal(size=(B, H))
    arguments = [tf.constant(value, tf.float32) for value in (words, first)]
    found, expected = (
        derivatives(recurrence(kind), *arguments) for kind in (GRUCell, keras.layers.GRUCell)
    )
    np.testing.assert_array_equal(found[0], expected[0])
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kind", "slices"), [(GRUCell, False), (keras.layers.GRUCell, True)])
def test_gradients_contain_no_slices(kind, slices):
    graph = derivatives.get_concrete_function(
        recurrence(kind), tf.TensorSpec([B, T, D]), tf.TensorSpec([B, H])
    ).graph
    assert any(operation.type == "StridedSliceGrad" for operation in graph.get_operations()) == (
        slices
    )


def test_a_step_accepts_nested_and_plain_states():
    cell = recurrence(GRUCell).cell
    words, first = tf.ones([B, D]), tf.ones([B, H])
    state, again = cell(words, first)
    nested, (last,) = cell(words, [first])
    for other in (again, nested, last):
        np.testing.assert_array_equal(state, other)
