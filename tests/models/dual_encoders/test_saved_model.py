"""Loading a dual encoder from a SavedModel, embedding with it, and the error messages."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from caption_gan.errors import CaptionGANError
from caption_gan.models.dual_encoders.saved_model import DESCRIPTION, INPUTS, DualEncoder
from caption_gan.models.encoders.encoder import Encoder


class Letters(tf.Module):
    """Embeds as how often `a`, `b` and `c` occur, so that an image `aab` lies near a text `aab`."""

    def __init__(self):
        self.letters = tf.Variable(["a", "b", "c"])
        self.most = tf.Variable(0, dtype=tf.int32)  # The largest batch that was embedded.

    def embed(self, values: tf.Tensor) -> dict[str, tf.Tensor]:
        self.most.assign(tf.maximum(self.most, tf.size(values)))
        letters = tf.strings.bytes_split(values).to_tensor()  # [B, L]
        found = letters[:, :, None] == self.letters
        return {"embedding": tf.reduce_sum(tf.cast(found, tf.float32), axis=1)}  # [B, 3]


Function = Callable[[tf.Tensor], dict[str, tf.Tensor]]


def save(path: Path, module: tf.Module, functions: dict[str, tuple[str, tf.DType, Function]]):
    """Saves functions by the signature's name, with the name and type of their input."""
    signatures = {
        name: tf.function(function).get_concrete_function(
            tf.TensorSpec([None], of_type, name=argument)
        )
        for name, (argument, of_type, function) in functions.items()
    }
    tf.saved_model.save(module, str(path), signatures)
    return path


def right(module: Letters) -> dict[str, tuple[str, tf.DType, Function]]:
    return {
        "images": ("image_bytes", tf.string, module.embed),
        "texts": ("text", tf.string, lambda text: module.embed(text)),
    }


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    module = Letters()
    return save(tmp_path_factory.mktemp("dual") / "letters", module, right(module))


def test_rows_have_length_1_and_keep_their_order(letters: Path) -> None:
    encoder = DualEncoder(letters)
    images = encoder.embed_images([b"aaabbbb", b"c\xff"])
    np.testing.assert_allclose(images, [[0.6, 0.8, 0.0], [0.0, 0.0, 1.0]], rtol=1e-6)
    np.testing.assert_allclose(encoder.embed_texts(["ab\u00e9"]), np.sqrt([[0.5, 0.5, 0]]))


def test_embeddings_do_not_depend_on_the_batch_size(letters: Path) -> None:
    texts = ["abc"[: 1 + i % 3] + "c" * i for i in range(7)]
    encoder = DualEncoder(letters, batch_size=3)
    np.testing.assert_array_equal(
        encoder.embed_texts(texts), DualEncoder(letters, batch_size=7).embed_texts(texts)
    )
    of_model = encoder._model.signatures["texts"].variables
    assert [int(variable) for variable in of_model if variable.dtype == tf.int32] == [3]


class Mean(tf.Module):
    """Embeds pixels, regions and PNG files by their mean per channel, texts by their length."""

    def __init__(self):
        self.one = tf.Variable(1.0)

    def mean(self, values: tf.Tensor) -> dict[str, tf.Tensor]:
        axes = list(range(1, len(values.shape) - 1))
        return {"embedding": self.one * tf.reduce_mean(tf.cast(values, tf.float32), axes)}

    def files(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        pixels = tf.map_fn(
            lambda file: tf.io.decode_png(file, 3), image_bytes, fn_output_signature=tf.uint8
        )
        return self.mean(tf.ensure_shape(pixels, [None, None, None, 3]))

    def texts(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        length = self.one * tf.cast(tf.strings.length(text), tf.float32)
        return {"embedding": tf.stack([length, length, length], axis=1)}


def save_trained(path: Path, own_inputs: bool) -> DualEncoder:
    """A model as training writes it, or one that only embeds files."""
    module = Mean()
    strings = tf.TensorSpec([None], tf.string)
    specs = {"images": (module.files, strings), "texts": (module.texts, strings)}
    if own_inputs:
        specs["pixels"] = (module.mean, tf.TensorSpec([None, None, None, 3], tf.uint8))
        specs["cached"] = (module.mean, tf.TensorSpec([None, 4, 3], tf.float32))
    signatures = {
        name: tf.function(function).get_concrete_function(
            tf.TensorSpec(spec.shape, spec.dtype, name=INPUTS[name])
        )
        for name, (function, spec) in specs.items()
    }
    tf.saved_model.save(module, str(path), signatures)
    if own_inputs:
        (path / DESCRIPTION).write_text('{"scale": 20.0, "encoder": {"backbone": "A", "cut": 3}}')
    return DualEncoder(path)


PIXELS = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3), np.uint8)


@pytest.mark.parametrize("own_inputs", [True, False])
def test_pixels_of_a_batch_are_embedded_in_the_graph(tmp_path: Path, own_inputs: bool) -> None:
    encoder = save_trained(tmp_path / "model", own_inputs)
    embed = tf.function(lambda image: encoder.images({"image": image}))
    mean = PIXELS.mean((1, 2))
    expected = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    np.testing.assert_allclose(embed(tf.constant(PIXELS)), expected, rtol=1e-5)
    assert encoder.scale == (20 if own_inputs else 100)
    texts = tf.function(encoder.texts)(tf.constant(["a", "red line"]))
    np.testing.assert_allclose(texts, np.full((2, 3), 3**-0.5), rtol=1e-6)


def test_cached_regions_of_a_batch_are_embedded(tmp_path: Path) -> None:
    encoder = save_trained(tmp_path / "model", True)
    regions = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float16)
    found = tf.function(encoder.images)({"regions": tf.constant(regions)})
    mean = regions.astype(float).mean(1)
    np.testing.assert_allclose(found, mean / np.linalg.norm(mean, axis=1, keepdims=True), rtol=1e-3)


class Caching(Encoder):
    """An encoder that caches what it is told."""

    def __init__(self, **key):
        super().__init__()
        self.key = key

    @property
    def cache_key(self) -> dict[str, object]:
        return dict(self.key)


def test_regions_of_another_encoder_are_refused(tmp_path: Path) -> None:
    encoder = save_trained(tmp_path / "model", True)
    encoder.check_fits(Caching(backbone="A", cut=3))
    encoder.check_fits(Caching())  # Its batches hold pixels.
    with pytest.raises(CaptionGANError, match=r"encoder.cut 3, this run has 4; train one"):
        encoder.check_fits(Caching(backbone="A", cut=4))
    with pytest.raises(CaptionGANError, match=r"encoder.cut 3, this run has None"):
        encoder.check_fits(Caching(backbone="A"))
    of_files = save_trained(tmp_path / "files", False)
    of_files.check_fits(Caching())
    with pytest.raises(CaptionGANError, match="takes no cached regions"):
        of_files.check_fits(Caching(backbone="A"))


def test_a_missing_saved_model_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(
            CaptionGANError, match=f"directory of a SavedModel, found none at {path}"
        ):
            DualEncoder(path)


def test_a_broken_saved_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(b"\xffnot a model")
    with pytest.raises(CaptionGANError, match="TensorFlow can load"):
        DualEncoder(tmp_path)


def embeds(result: Callable[[tf.Tensor], tf.Tensor], name: str = "embedding") -> Function:
    return lambda value: {name: result(value)}


@pytest.mark.parametrize(
    ("signature", "found"),
    [
        (None, r"expected the signatures \['images', 'texts'\], found \['images'\]"),
        (("caption", tf.string, Letters().embed), r"found `caption`, string"),
        (("text", tf.int64, embeds(lambda ids: tf.zeros([1, 3]))), r"found `text`, int64"),
        (
            ("text", tf.string, embeds(lambda text: tf.zeros([1, 3]), "logits")),
            r"`embedding`, float \[batch, size\]; found `text`, string \(None,\) to `logits`",
        ),
        (
            ("text", tf.string, embeds(lambda text: tf.zeros([tf.size(text), 2]))),
            r"embeddings of one size, found \(None, 3\) and \(None, 2\)",
        ),
        (("text", tf.string, embeds(tf.strings.length)), r"to `embedding`, int32 \(None,\)"),
    ],
)
def test_other_signatures_are_refused(
    tmp_path: Path, signature: tuple[str, tf.DType, Function] | None, found: str
) -> None:
    module = Letters()
    functions = right(module)
    if signature is None:
        del functions["texts"]
    else:
        functions["texts"] = signature
        # A function's variables are saved only if the module tracks them.
        module.other = getattr(signature[2], "__self__", None)
    save(tmp_path, module, functions)
    with pytest.raises(CaptionGANError, match=found):
        DualEncoder(tmp_path)


@pytest.mark.parametrize(
    ("result", "found"),
    [
        (lambda text: tf.zeros([tf.size(text), 3]), "not all zero; found .* for number 0"),
        (lambda text: tf.fill([tf.size(text), 3], float("nan")), "finite embeddings"),
        (lambda text: tf.ones([1, 3]), r"embeddings \[2, size\], found \[1, 3\]"),
        (lambda text: tf.ones([tf.size(text)]), "embeddings of one size"),
    ],
)
def test_invalid_embeddings_are_refused(tmp_path: Path, result: Callable, found: str) -> None:
    module = Letters()
    save(tmp_path, module, right(module) | {"texts": ("text", tf.string, embeds(result))})
    with pytest.raises(CaptionGANError, match=found):
        DualEncoder(tmp_path).embed_texts(["a", "b"])
