"""Writes small SavedModels of several kinds, each atomically, as version N of a folder.

Shapes: B batch, T any length. Outputs depend on the version, so that tests can tell versions apart.
"""

import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import keras
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from caption_gan import signature

FEATURE = "x"  # Of the examples that `write_tf1` reads.
CLASSES = (b"small", b"large")

Write = Callable[[Path, int], Path]


def write_adder(path: Path, version: int) -> Path:
    """A tf.Module with a variable: x [B] -> y [B] = x + version, version int64 [B].

    Signature `sum`: x, z float [B] -> y [B] = x + z + version.
    """
    module = tf.Module()
    module.amount = tf.Variable(float(version))
    x = tf.TensorSpec([None], tf.float32, name="x")
    z = tf.TensorSpec([None], tf.float32, name="z")

    def add(x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {
            "y": x + module.amount,
            "version": tf.fill(tf.shape(x), tf.constant(version, tf.int64)),
        }

    def add_both(x: tf.Tensor, z: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": x + z + module.amount}

    module.add = tf.function(add, input_signature=[x])
    module.add_both = tf.function(add_both, input_signature=[x, z])
    return _save(path, version, module, {"serving_default": module.add, "sum": module.add_both})


def write_echo(path: Path, version: int) -> Path:
    """Outputs equal inputs: text string [B], image_bytes string [B], floats float32 [B, T],
    integers int64 [B], flags bool [B], matrix float64 [B, 2, 3].

    By its name, the REST API takes `image_bytes` as binary.
    """
    specs = {
        "text": tf.TensorSpec([None], tf.string),
        "image_bytes": tf.TensorSpec([None], tf.string),
        "floats": tf.TensorSpec([None, None], tf.float32),
        "integers": tf.TensorSpec([None], tf.int64),
        "flags": tf.TensorSpec([None], tf.bool),
        "matrix": tf.TensorSpec([None, 2, 3], tf.float64),
    }
    module = tf.Module()

    def echo(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return {name: tf.identity(value) for name, value in inputs.items()}

    module.echo = tf.function(echo)
    named = {name: tf.TensorSpec(spec.shape, spec.dtype, name) for name, spec in specs.items()}
    concrete = module.echo.get_concrete_function(**named)
    return _save(path, version, module, {"serving_default": concrete})


def write_slow(path: Path, version: int) -> Path:
    """A loop of given length: seconds [B] -> version int64 [B] after the maximum of `seconds`."""
    module = tf.Module()

    def wait(seconds: tf.Tensor) -> dict[str, tf.Tensor]:
        end = tf.timestamp() + tf.reduce_max(tf.cast(seconds, tf.float64))
        turns = tf.while_loop(lambda _: tf.timestamp() < end, _turn, [tf.zeros([], tf.int64)])[0]
        return {"version": tf.fill(tf.shape(seconds), turns * 0 + version)}

    spec = tf.TensorSpec([None], tf.float32, name="seconds")
    module.wait = tf.function(wait, input_signature=[spec])
    return _save(path, version, module, {"serving_default": module.wait})


def _turn(turns: tf.Tensor) -> list[tf.Tensor]:
    # Enough work per turn for few turns, and little enough to notice a deadline soon.
    numbers = tf.random.stateless_uniform([20000], tf.stack([turns, 0]))
    return [turns + 1 + tf.cast(tf.reduce_sum(numbers) < 0, tf.int64)]


def write_keras(path: Path, version: int) -> Path:
    """A Keras model's ExportArchive: x float [B, 3] -> y [B, 2] = version times the sum of x."""
    model = keras.Sequential(
        [keras.Input([3]), keras.layers.Dense(2, kernel_initializer="ones", use_bias=False)]
    )
    model.set_weights([version * weights for weights in model.get_weights()])
    archive = keras.export.ExportArchive()
    archive.track(model)
    spec = tf.TensorSpec([None, 3], tf.float32, name="x")
    archive.add_endpoint("serving_default", lambda x: {"y": model(x)}, input_signature=[spec])
    return _place(path, version, lambda folder: archive.write_out(folder, verbose=False))


def write_tf1(path: Path, version: int) -> Path:
    """A model of TensorFlow 1 with a variable and a lookup table that is loaded from an asset.

    Signatures, where `examples` are serialized tf.train.Examples with a float feature `x`:
    `serving_default` (predict): x [B] -> y [B] = x + version;
    `words` (predict): word string [B] -> number int64 [B], of "zero", "one", "two", otherwise -1;
    `classify`: examples -> classes string [B, 2] ("small", "large"), scores float [B, 2] (-x, x);
    `scores_only` (classify): examples -> scores [B, 2];
    `regress`: examples -> outputs [B, 1] = x + version.
    """

    def build(folder: str) -> None:
        with tempfile.TemporaryDirectory() as temporary, tf.Graph().as_default():
            words = Path(temporary) / "words.txt"
            words.write_text("zero\none\ntwo\n")
            _build_tf1(folder, version, str(words))

    return _place(path, version, build)


def _build_tf1(folder: str, version: int, words: str) -> None:
    v1 = tf.compat.v1
    amount = v1.get_variable("amount", initializer=float(version), use_resource=True)
    examples = v1.placeholder(tf.string, [None], "examples")
    features = {FEATURE: tf.io.FixedLenFeature([], tf.float32)}
    parsed = tf.io.parse_example(examples, features)[FEATURE]  # [B]
    x = v1.placeholder(tf.float32, [None], "x")
    asset = tf.constant(words)
    v1.add_to_collection(v1.GraphKeys.ASSET_FILEPATHS, asset)
    table = v1.lookup.StaticHashTable(
        v1.lookup.TextFileInitializer(
            asset, tf.string, v1.lookup.TextFileIndex.WHOLE_LINE,
            tf.int64, v1.lookup.TextFileIndex.LINE_NUMBER,
        ),
        -1,
    )  # fmt: skip
    word = v1.placeholder(tf.string, [None], "word")
    scores = tf.stack([-parsed, parsed], axis=1)  # [B, 2]
    classes = tf.tile(tf.constant([CLASSES]), [tf.shape(parsed)[0], 1])  # [B, 2]
    signatures = {
        "serving_default": ("predict", {"x": x}, {"y": x + amount}),
        "words": ("predict", {"word": word}, {"number": table.lookup(word)}),
        "classify": ("classify", {"inputs": examples}, {"classes": classes, "scores": scores}),
        "scores_only": ("classify", {"inputs": examples}, {"scores": scores}),
        "regress": ("regress", {"inputs": examples}, {"outputs": (parsed + amount)[:, None]}),
    }
    builder = v1.saved_model.Builder(folder)
    with v1.Session() as session:
        session.run(v1.global_variables_initializer())
        builder.add_meta_graph_and_variables(
            session,
            [v1.saved_model.tag_constants.SERVING],
            {name: _signature(*parts) for name, parts in signatures.items()},
            assets_collection=v1.get_collection(v1.GraphKeys.ASSET_FILEPATHS),
            main_op=v1.tables_initializer(),
        )
        builder.save()


def _signature(method: str, inputs: Mapping[str, tf.Tensor], outputs: Mapping[str, tf.Tensor]):
    v1 = tf.compat.v1
    infos = [
        {name: v1.saved_model.utils.build_tensor_info(tensor) for name, tensor in tensors.items()}
        for tensors in (inputs, outputs)
    ]
    return v1.saved_model.build_signature_def(*infos, f"tensorflow/serving/{method}")


def write_example_reader(path: Path, version: int) -> Path:
    """A tf.Module that reads serialized tf.train.Examples with a float feature `x`.

    Signatures: `classify`: inputs [B] -> scores [B, 2] (-x, x);
    `regress`: inputs [B] -> outputs [B] = x + version.
    """
    module = tf.Module()

    def parsed(inputs: tf.Tensor) -> tf.Tensor:
        return tf.io.parse_example(inputs, {FEATURE: tf.io.FixedLenFeature([], tf.float32)})[
            FEATURE
        ]

    def classify(inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        x = parsed(inputs)
        return {"scores": tf.stack([-x, x], axis=1)}

    def regress(inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"outputs": parsed(inputs) + version}

    spec = [tf.TensorSpec([None], tf.string, name="inputs")]
    module.classify = tf.function(classify, input_signature=spec)
    module.regress = tf.function(regress, input_signature=spec)
    signatures = {"classify": module.classify, "regress": module.regress}
    return _save(path, version, module, signatures)


def write_captioner(path: Path, version: int) -> Path:
    """A fake captioner with four signatures; an input without a PNG header is an error.

    The attention of the three words is on the first three of four regions. Sampled captions
    contain the temperature and the seed.
    """
    module = tf.Module()

    def errors(images: tf.Tensor) -> tf.Tensor:
        return tf.where(tf.strings.substr(images, 0, 4) == b"\x89PNG", "", "no picture")

    def repeated(images: tf.Tensor, row: tf.Tensor) -> tf.Tensor:
        return tf.repeat(row[None], tf.size(images), axis=0)

    def default(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        one = repeated(image_bytes, tf.constant(["a red star"]))[:, 0]
        score = repeated(image_bytes, tf.constant([-0.25]))[:, 0]
        return {"caption": one, "score": score, "error": errors(image_bytes)}

    def attention(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        return {
            "caption": default(image_bytes)["caption"],
            "tokens": repeated(image_bytes, tf.constant(["a", "red", "star", ""])),
            "attention": repeated(image_bytes, tf.linalg.diag([0.5, 0.5, 0.5, 0.0])),
            "error": errors(image_bytes),
        }

    def beam(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        return {
            "captions": repeated(image_bytes, tf.constant(["a star", "one star"])),
            "scores": repeated(image_bytes, tf.constant([-0.5, -0.75])),
            "error": errors(image_bytes),
        }

    def sample(
        image_bytes: tf.Tensor, temperature: tf.Tensor, top_p: tf.Tensor, seed: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        tenths = tf.cast(tf.round(10 * temperature), tf.int64)
        numbers = [tf.as_string(tenths), tf.as_string(seed)]
        caption = tf.strings.join(["drawn", *numbers], " ")
        return {
            "captions": tf.stack([caption + f" {number}" for number in "123"], axis=1),
            "scores": repeated(image_bytes, tf.constant([-1.0, -2.0, -3.0])),
            "error": errors(image_bytes),
        }

    images = tf.TensorSpec([None], tf.string, name="image_bytes")
    module.default = tf.function(default, input_signature=[images])
    module.attention = tf.function(attention, input_signature=[images])
    module.beam = tf.function(beam, input_signature=[images])
    drawing = [("temperature", tf.float32), ("top_p", tf.float32), ("seed", tf.int64)]
    specs = [tf.TensorSpec([None], dtype, name=name) for name, dtype in drawing]
    module.sample = tf.function(sample, input_signature=[images, *specs])
    signatures = {
        "serving_default": module.default,
        "attention": module.attention,
        "beam": module.beam,
        "sample": module.sample,
    }
    return _save(path, version, module, signatures)


def write_byte_counter(path: Path, version: int) -> Path:
    """A fake captioner with all signatures: captions are byte counts; short inputs are errors."""
    module = tf.Module()

    def look(image_bytes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        length = tf.strings.length(image_bytes)  # [B]
        fine = length > 100
        caption = tf.where(fine, tf.strings.as_string(length) + " bytes", "")
        score = tf.where(fine, -1 / tf.cast(length, tf.float32), 0.0)
        return caption, score, tf.where(fine, "", "no image")

    def one(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        caption, score, error = look(image_bytes)
        return {"caption": caption, "score": score, "error": error}

    def several(image_bytes: tf.Tensor, *_: tf.Tensor) -> dict[str, tf.Tensor]:
        caption, score, error = look(image_bytes)
        return {
            "captions": tf.stack([caption] * 2, axis=1),
            "scores": tf.stack([score] * 2, axis=1),
            "error": error,
        }

    def attention(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        caption, score, error = look(image_bytes)
        weights = tf.ones([1, 2, 3]) * score[:, None, None]
        tokens = tf.stack([caption] * 2, axis=1)
        return {"caption": caption, "tokens": tokens, "attention": weights, "error": error}

    def examples(examples: tf.Tensor) -> dict[str, tf.Tensor]:
        features = {signature.ENCODED: tf.io.FixedLenFeature([], tf.string)}
        return one(tf.io.parse_example(examples, features)[signature.ENCODED])

    image = tf.TensorSpec([None], tf.string, "image_bytes")
    settings = [
        tf.TensorSpec([None], tf.float32, "temperature"),
        tf.TensorSpec([None], tf.float32, "top_p"),
        tf.TensorSpec([None], tf.int64, "seed"),
    ]
    module.one = tf.function(one, input_signature=[image])
    module.sample = tf.function(several, input_signature=[image, *settings])
    module.beam = tf.function(several, input_signature=[image])
    module.attention = tf.function(attention, input_signature=[image])
    module.examples = tf.function(
        examples, input_signature=[tf.TensorSpec([None], tf.string, "examples")]
    )
    signatures = {
        signature.DEFAULT: module.one,
        signature.SAMPLE: module.sample,
        signature.BEAM: module.beam,
        signature.ATTENTION: module.attention,
        signature.EXAMPLES: module.examples,
    }
    return _save(path, version, module, signatures)


def write_broken(path: Path, version: int) -> Path:
    """A version whose saved_model.pb is not a SavedModel."""

    def build(folder: str) -> None:
        Path(folder).mkdir()
        (Path(folder) / "saved_model.pb").write_bytes(b"no model")

    return _place(path, version, build)


def write_warm_up(folder: Path, requests: Iterable[predict_pb2.PredictRequest]) -> None:
    """Adds warm-up requests to a version's folder."""
    extra = folder / "assets.extra"
    extra.mkdir()
    with tf.io.TFRecordWriter(str(extra / "tf_serving_warmup_requests")) as writer:
        for request in requests:
            log = prediction_log_pb2.PredictLog(request=request)
            record = prediction_log_pb2.PredictionLog(predict_log=log)
            writer.write(record.SerializeToString())


def _save(path: Path, version: int, module: tf.Module, signatures: Mapping) -> Path:
    return _place(path, version, lambda folder: tf.saved_model.save(module, folder, signatures))


def _place(path: Path, version: int, build: Callable[[str], object]) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="unfinished-", dir=path) as temporary:
        model = Path(temporary) / "model"
        build(str(model))
        return model.rename(path / str(version))
