"""Exports a run as a numbered SavedModel version for TensorFlow Serving, whole or not at all."""

import dataclasses
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from caption_gan import signature
from caption_gan.config.data import DataConfig
from caption_gan.data.skips import Skips
from caption_gan.data.sources.registry import open_source
from caption_gan.errors import CaptionGANError
from caption_gan.exporting.allowed_operations import check_operations, release_number
from caption_gan.exporting.model_card import model_card
from caption_gan.exporting.quantization import QuantizationLoss, WeightType, quantize
from caption_gan.exporting.served_captioner import ServedCaptioner
from caption_gan.run import RunDirectory, load_ensemble
from caption_gan.storage.atomic import check_writable

ASSETS_EXTRA = "assets.extra"
QUANTIZATION_FILE = "rounding.json"
WARM_UP_FILE = "tf_serving_warmup_requests"
# A server answers warm-up requests of these batch sizes before it reports that it is ready.
WARM_UP_BATCHES = (1, 8)
EXAMPLE_IMAGES = 4

# Loads the model without importing this project, as a server does.
_FRESH_PROCESS = """
import json, sys
import tensorflow as tf, tensorflow_text
model = tf.saved_model.load(sys.argv[1])
images = tf.constant([open(path, "rb").read() for path in sys.argv[2:]])
found = model.signatures["serving_default"](image_bytes=images)
assert "caption_gan" not in sys.modules
print(json.dumps([caption.decode() for caption in found["caption"].numpy()]))
"""


def export_run(
    path: Path,
    directory: Path,
    engine: str,
    others: Sequence[Path] = (),
    weights: WeightType | None = None,
    changes: Sequence[str] = (),
) -> Path:
    """Exports a run.

    Args:
        path: The run directory.
        directory: Folder of versions.
        engine: Release of TensorFlow Serving, `2.N`, that must have all operations.
        others: Run directories whose captioners form an ensemble with this one.
        weights: How weights are stored; float32 if None.
        changes: Settings that replace those of the run, as on a command line: where the data set
            is, whose captions measure the loss of other weights.

    Returns:
        Folder of the version, named after the time in seconds.

    Raises:
        CaptionGANError: The run cannot be served, or the folder cannot be written.
    """
    release_number(engine)
    try:
        check_writable(directory)
    except OSError as error:
        raise _cannot_write(directory, error) from error
    config, tokenizer, captioner = load_ensemble([path, *others])
    run = RunDirectory(path)
    if not captioner.encoder.needs_pixels:
        raise CaptionGANError(
            f"{path} was trained on precomputed regions and cannot encode images, so it cannot be "
            "served; train with an encoder that takes pixels."
        )
    served = ServedCaptioner(captioner, tokenizer, config)
    loss: QuantizationLoss | None = None
    if weights:
        served.quantized, loss = quantize(
            captioner,
            lambda images: served.default(images)[signature.CAPTION],
            run.read_config(changes),
            weights,
        )
    images = example_images()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        # Inside the folder of versions, so that the rename stays within one file system. Servers
        # ignore names that are not numbers.
        with tempfile.TemporaryDirectory(prefix="unfinished-", dir=directory) as temporary:
            model = Path(temporary) / "model"
            served.archive().write_out(str(model), verbose=False)
            check_operations(model, engine)
            extra = model / ASSETS_EXTRA
            extra.mkdir()
            shutil.copy(run.config, extra / run.config.name)
            if run.architecture.is_file():
                shutil.copy(run.architecture, extra / run.architecture.name)
            # The metrics are scores of one run, not of the ensemble.
            evaluated = run.metrics.is_file() and not others
            metrics = json.loads(run.metrics.read_text()) if evaluated else {}
            names = [RunDirectory(member).name for member in (path, *others)]
            (extra / run.metrics.name).write_text(json.dumps(metrics))
            card = model_card(" + ".join(names), config, metrics)
            if loss:
                (extra / QUANTIZATION_FILE).write_text(json.dumps(dataclasses.asdict(loss)))
                card += "\n## Quantization\n\n"
                card += f"The scores above are those of float32 weights; {loss.summary()}.\n"
            (extra / "MODEL_CARD.md").write_text(card, encoding="utf-8")
            _write_warm_up(extra / WARM_UP_FILE, served.endpoints(), images)
            check_in_fresh_process(model, served, images)
            version = directory / str(next_version(directory))
            model.rename(version)
    except OSError as error:
        raise _cannot_write(directory, error) from error
    return version


def _cannot_write(directory: Path, error: OSError) -> CaptionGANError:
    return CaptionGANError(
        f"Cannot write to {directory}: {error.strerror}; make room or choose another --to."
    )


def next_version(directory: Path) -> int:
    """The time in seconds, or one more than the newest version if that is larger."""
    versions = [int(entry.name) for entry in directory.iterdir() if entry.name.isdecimal()]
    # It is larger after two exports within a second, or after a clock was set back.
    return max([int(time.time()), *(version + 1 for version in versions)])


def example_images() -> list[bytes]:
    """Encoded images to test an export with. Any images will do: captions are only compared."""
    source = open_source(DataConfig(val_images=EXAMPLE_IMAGES), Skips())
    return [example.image for example in source.examples("val", range(EXAMPLE_IMAGES))]


def check_in_fresh_process(model: Path, served: ServedCaptioner, images: list[bytes]) -> None:
    """Checks that a fresh process generates the same captions from the model as this process.

    Raises:
        CaptionGANError: The captions differ, or the model cannot be loaded.
    """
    expected = [
        caption.decode() for caption in served.default(tf.constant(images))["caption"].numpy()
    ]
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{number}.png" for number in range(len(images))]
        for path, image in zip(paths, images, strict=True):
            path.write_bytes(image)
        command = [sys.executable, "-c", _FRESH_PROCESS, str(model.absolute()), *map(str, paths)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no error message"]
        raise CaptionGANError(f"The exported model cannot be loaded: {lines[-1]}")
    found = json.loads(done.stdout)
    if found != expected:
        raise CaptionGANError(
            f"The exported model captions the example images {found}, expected the captions of the "
            f"run, {expected}."
        )


def example_inputs(name: str, images: Sequence[bytes]) -> dict[str, Sequence[Any]]:
    """Inputs of a signature by name, one row per image."""
    rows = len(images)
    if name == signature.EXAMPLES:
        return {signature.SERIALIZED: [_example(image) for image in images]}
    inputs: dict[str, Sequence[Any]] = {signature.IMAGE_BYTES: images}
    if name == signature.SAMPLE:
        inputs[signature.TEMPERATURE] = [1.0] * rows
        inputs[signature.TOP_P] = [1.0] * rows
        inputs[signature.SEED] = [0] * rows
    return inputs


def _example(image: bytes) -> bytes:
    example = tf.train.Example()
    example.features.feature[signature.ENCODED].bytes_list.value.append(image)
    return example.SerializeToString()


def _write_warm_up(path: Path, names: Iterable[str], images: list[bytes]) -> None:
    """Writes requests to each signature, which a server answers before it reports ready."""
    types = {bytes: tf.string, float: tf.float32, int: tf.int64}
    with tf.io.TFRecordWriter(str(path)) as writer:
        for name in names:
            for rows in WARM_UP_BATCHES:
                request = predict_pb2.PredictRequest()
                request.model_spec.name = "captioner"
                request.model_spec.signature_name = name
                for key, values in example_inputs(name, images[:1] * rows).items():
                    tensor = tf.make_tensor_proto(values, types[type(values[0])])
                    request.inputs[key].CopyFrom(tensor)
                log = prediction_log_pb2.PredictLog(request=request)
                record = prediction_log_pb2.PredictionLog(predict_log=log)
                writer.write(record.SerializeToString())
