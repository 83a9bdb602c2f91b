"""From a run to a folder that TensorFlow Serving loads, whole or not at all."""

import dataclasses
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from caption_gan import signature
from caption_gan.config.data import DataConfig
from caption_gan.data.skips import Skips
from caption_gan.data.sources.registry import open_source
from caption_gan.errors import CaptionGANError
from caption_gan.exporting.allowed_operations import check_operations
from caption_gan.exporting.model_card import model_card
from caption_gan.exporting.quantization import round_weights
from caption_gan.exporting.served_captioner import ServedCaptioner
from caption_gan.exporting.small_weights import SmallKind
from caption_gan.run import RunDirectory, load_ensemble

EXTRA = "assets.extra"
ROUNDING = "rounding.json"
WARM_UP = "tf_serving_warmup_requests"
# Batches of these sizes are asked for before a server says that it is ready.
WARM_UP_BATCHES = (1, 8)
TRIALS = 4

# What a server does, in a process that knows nothing of this project.
_FRESH = """
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
    weights: SmallKind | None = None,
) -> Path:
    """Exports a run.

    Args:
        path: The run directory.
        directory: Folder of versions.
        others: Run directories whose captioners write together with this one's.
        engine: Release of TensorFlow Serving, `2.N`, that has to have all operations.
        weights: What weights are stored as; float32 if left out.

    Returns:
        The version's folder, named after the time in seconds.

    Raises:
        CaptionGANError: The run cannot be served, or the folder not written.
    """
    config, tokenizer, captioner = load_ensemble([path, *others])
    run = RunDirectory(path)
    if not captioner.encoder.needs_pixels:
        raise CaptionGANError(
            f"{path} was trained on precomputed regions and cannot look at an image, so that "
            "there is nothing to serve; train with another encoder."
        )
    served = ServedCaptioner(captioner, tokenizer, config)
    rounding = round_weights(served, weights) if weights else None
    trials = trial_images()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        # Beside its place, for a rename within one file system; a server reads only numbers.
        with tempfile.TemporaryDirectory(prefix="unfinished-", dir=directory) as temporary:
            model = Path(temporary) / "model"
            served.archive().write_out(str(model), verbose=False)
            check_operations(model, engine)
            extra = model / EXTRA
            extra.mkdir()
            shutil.copy(run.config, extra / run.config.name)
            # Nobody has scored the runs together yet.
            scored = run.metrics.is_file() and not others
            metrics = json.loads(run.metrics.read_text()) if scored else {}
            (extra / run.metrics.name).write_text(json.dumps(metrics))
            card = model_card(" + ".join(run.name for run in (path, *others)), config, metrics)
            if rounding:
                (extra / ROUNDING).write_text(json.dumps(dataclasses.asdict(rounding)))
                card += f"\n## Rounding\n\nThe scores are those before it; {rounding.line()}.\n"
            (extra / "MODEL_CARD.md").write_text(card)
            _write_warm_up(extra / WARM_UP, trials)
            check_in_fresh_process(model, served, trials)
            version = directory / str(next_version(directory))
            model.rename(version)
    except OSError as error:
        raise CaptionGANError(
            f"Cannot write to {directory}: {error.strerror}; make room or choose another --to."
        ) from error
    return version


def next_version(directory: Path) -> int:
    """The time in seconds, or what comes after the newest version there is."""
    versions = [int(entry.name) for entry in directory.iterdir() if entry.name.isdecimal()]
    # Two exports within a second, or a clock that was set back.
    return max([int(time.time()), *(version + 1 for version in versions)])


def trial_images() -> list[bytes]:
    """Images on which an export is tried: any will do, as its captions are only compared."""
    source = open_source(DataConfig(val_images=TRIALS), Skips())
    return [example.image for example in source.examples("val", range(TRIALS))]


def check_in_fresh_process(model: Path, served: ServedCaptioner, images: list[bytes]) -> None:
    """Compares captions of a fresh process with those of this one.

    Raises:
        CaptionGANError: They differ, or the model cannot be loaded.
    """
    expected = [
        caption.decode() for caption in served.default(tf.constant(images))["caption"].numpy()
    ]
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{number}.png" for number in range(len(images))]
        for path, image in zip(paths, images, strict=True):
            path.write_bytes(image)
        command = [sys.executable, "-c", _FRESH, str(model), *map(str, paths)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no reason"]
        raise CaptionGANError(f"The exported model cannot be loaded again: {lines[-1]}")
    found = json.loads(done.stdout)
    if found != expected:
        raise CaptionGANError(
            f"The exported model says {found}, the run says {expected}; they must not differ."
        )


def trial_inputs(name: str, images: Sequence[bytes]) -> dict[str, Sequence[Any]]:
    """Inputs of a signature by their names, a row an image."""
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


def _write_warm_up(path: Path, images: list[bytes]) -> None:
    """Requests of each signature, which an engine answers before it says that it is ready."""
    types = {bytes: tf.string, float: tf.float32, int: tf.int64}
    with tf.io.TFRecordWriter(str(path)) as writer:
        for name in signature.ALL:
            for rows in WARM_UP_BATCHES:
                request = predict_pb2.PredictRequest()
                request.model_spec.name = "captioner"
                request.model_spec.signature_name = name
                for key, values in trial_inputs(name, images[:1] * rows).items():
                    tensor = tf.make_tensor_proto(values, types[type(values[0])])
                    request.inputs[key].CopyFrom(tensor)
                log = prediction_log_pb2.PredictLog(request=request)
                record = prediction_log_pb2.PredictionLog(predict_log=log)
                writer.write(record.SerializeToString())
