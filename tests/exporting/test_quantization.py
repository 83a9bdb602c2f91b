"""Quantized weights, and an export with them."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from caption_gan import signature
from caption_gan.exporting.quantization import QuantizedWeight, QuantizedWeights
from caption_gan.exporting.served_captioner import ServedCaptioner
from caption_gan.run import load_run
from tests.programs import call
from tests.runs import IMAGES


def test_int8_has_one_scale_per_channel():
    weight = QuantizedWeight(np.array([[127, 0, -2], [-50.4, 0, 1]], np.float32), "int8")
    assert weight.stored.dtype == tf.int8
    # The longest axis has three channels, with the largest values 127, 0 and 2.
    np.testing.assert_array_equal(weight.stored, [[127, 0, -127], [-50, 0, 64]])
    np.testing.assert_allclose(weight.scale, [[1, 1, 2 / 127]])
    np.testing.assert_allclose(weight.dequantize(), [[127, 0, -2], [-50, 0, 128 / 127]], rtol=1e-6)
    assert weight.nbytes == 6 + 3 * 4


@pytest.mark.parametrize(
    ("shape", "scale_shape"),
    [((9, 4), (9, 1)), ((4, 9), (1, 9)), ((4, 4), (1, 4)), ((3, 3, 8, 1), (1, 1, 8, 1))],
)
def test_channels_are_the_longest_axis(shape, scale_shape):
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    weight = QuantizedWeight(values, "int8")
    assert weight.scale.shape == scale_shape
    half_step = 0.5001 * np.array(weight.scale)
    assert (np.abs(np.array(weight.dequantize()) - values) <= half_step).all()


def test_float16_rounds_to_eleven_bits():
    weight = QuantizedWeight(np.array([[1 + 2**-10, 1 + 2**-12]], np.float32), "float16")
    assert weight.nbytes == 4
    np.testing.assert_array_equal(weight.dequantize(), [[1 + 2**-10, 1]])


def test_a_model_uses_the_quantized_weights_within_the_scope():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.layers.Input([3]), keras.layers.Dense(4)])
    bias = np.array([0.1, 0.2, 0.3, 0.4], np.float32)
    model.layers[0].bias.assign(bias)
    exact = model.layers[0].kernel.numpy()
    quantized = QuantizedWeights(model, "int8")
    # Vectors are not quantized; the model's kernel is rounded as well.
    np.testing.assert_array_equal(model.layers[0].bias, bias)
    assert not np.array_equal(model.layers[0].kernel, exact)
    inputs = tf.ones([2, 3])
    expected = np.array(model(inputs))
    model.layers[0].kernel.assign(exact)
    with quantized.scope():
        found = np.array(model(inputs))
    np.testing.assert_array_equal(found, expected)
    assert not np.array_equal(model(inputs), expected)


@pytest.mark.slow
@pytest.mark.parametrize(("weight_type", "max_share"), [("float16", 0.7), ("int8", 0.5)])
def test_an_export_stores_and_uses_the_quantized_weights(run, tmp_path, weight_type, max_share):
    done = call("export", run.path, f"--to={tmp_path}", f"--weights={weight_type}", "--json")
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    version = Path(printed["saved_model"])

    config, tokenizer, captioner = load_run(run.path)
    float32_bytes = 4 * captioner.count_params()
    expected = ServedCaptioner(captioner, tokenizer, config)
    before = expected.default(tf.constant(IMAGES))
    QuantizedWeights(captioner, weight_type)
    after = expected.default(tf.constant(IMAGES))
    model = tf.saved_model.load(str(version))
    found = model.signatures[signature.DEFAULT](image_bytes=tf.constant(IMAGES))
    np.testing.assert_array_equal(found[signature.CAPTION], after[signature.CAPTION])
    np.testing.assert_allclose(found[signature.SCORE], after[signature.SCORE], atol=1e-6)
    assert not np.allclose(before[signature.SCORE], after[signature.SCORE], atol=1e-6)

    def stored_bytes(folder: Path) -> int:
        (data,) = (folder / "variables").glob("variables.data*")
        return data.stat().st_size

    # The file also holds the names of the weights.
    assert stored_bytes(version) < max_share * float32_bytes
    loss = printed["rounding"]
    assert 0 < stored_bytes(version) - 1e6 * loss["megabytes"] < 20_000
    assert loss["weights"] == weight_type
    card = (version / "assets.extra" / "MODEL_CARD.md").read_text()
    assert f"weights as {weight_type}: {loss['megabytes']:.1f} MB" in card
    assert f"{loss['cider'] - loss['cider_before']:+.4f}" in card
