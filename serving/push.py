"""Pushes a run to where a server takes it: `python -m serving.push RUN --to MODELS/captioner`.

A version appears there only if its scores are good, no worse than the version's that is served now,
and show no collapse (BLESSED), and if a fresh server loads it and says over gRPC and REST what the
run says (INFRA_BLESSED). It appears whole, by a rename: a push that is killed leaves nothing that
a server sees. `--rollback --to MODELS/captioner` takes the newest version back. `pushes.jsonl`
there tells of all pushes, refused ones too.
"""

import contextlib
import datetime
import fcntl
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat

from caption_gan.command_line import ArgumentParser, run_program
from caption_gan.errors import CaptionGANError
from caption_gan.exporting import gate
from caption_gan.exporting.allowed_operations import NEWEST_ENGINE
from caption_gan.exporting.served_captioner import ServedCaptioner
from caption_gan.exporting.versions import (
    ASSETS_EXTRA,
    example_images,
    example_inputs,
    export_run,
    next_version,
)
from caption_gan.run import load_run
from caption_gan.storage.atomic import flush
from serving.errors import ServingError
from serving.infra_validation import SPOILT, Canary, try_out
from serving.version_policy import Policy, aspired_versions

# No name here is a number, so that servers look past them.
UNFINISHED = "unfinished-push-"
ROLLED_BACK = "rolled-back-"
LOCK, LOG = ".push.lock", "pushes.jsonl"
RECORD = "push.json"  # Beside the version's scores.

Record = dict[str, Any]


def main() -> None:
    """The program."""
    first_line, _, rest = (__doc__ or "").partition("\n\n")
    parser = ArgumentParser(prog="python -m serving.push", description=f"{first_line} {rest}")
    parser.add_argument("run", nargs="?", metavar="RUN", help="run directory that fit wrote")
    parser.add_argument("--to", required=True, help="the model's folder of versions")
    parser.add_argument("--rollback", action="store_true", help="take the newest version back")
    parser.add_argument("--evaluate", action="store_true", help="score the run anew")
    parser.add_argument(
        "--min_cider", type=NonNegativeFloat, default=gate.MIN_CIDER, help="least CIDEr"
    )
    parser.add_argument(
        "--tolerance",
        type=ClosedUnitInterval,
        default=gate.TOLERANCE,
        help="share of the served version's CIDEr that may be lost; 1: no comparison",
    )
    parser.add_argument(
        "--engine",
        default=f"2.{NEWEST_ENGINE}",
        help="release of TensorFlow Serving it has to run in",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object and no more")
    arguments = parser.parse_args()
    if bool(arguments.run) == arguments.rollback:
        parser.error("give either RUN or --rollback")
    # A run, its export and a server share a GPU, of which the first would else take all memory.
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")

    directory = Path(arguments.to)
    record: Record = {"action": "rollback" if arguments.rollback else "push"}
    try:
        if arguments.run:
            directory.mkdir(parents=True, exist_ok=True)
        with _logged(directory, record), _alone(directory):
            if arguments.rollback:
                roll_back(directory, record)
            else:
                push(
                    *(Path(arguments.run), directory, record),
                    least=arguments.min_cider,
                    tolerance=arguments.tolerance,
                    anew=arguments.evaluate,
                    engine=arguments.engine,
                )
    except OSError as error:
        raise CaptionGANError(f"{error.filename or directory}: {error.strerror}.") from error
    finally:
        print(json.dumps(record) if arguments.json else "\n".join(_lines(record)))


def push(
    path: Path,
    directory: Path,
    record: Record,
    least: float,
    tolerance: float,
    anew: bool,
    engine: str,
) -> None:
    """Pushes a run, step by step.

    Args:
        path: The run directory.
        directory: Folder of versions.
        record: Gets what was done.
        least: CIDEr that it must have.
        tolerance: Share of the served version's CIDEr that may be lost.
        anew: Whether the run is scored although its scores are known.
        engine: Release of TensorFlow Serving, `2.N`, that has to have all operations.

    Raises:
        CaptionGANError: The version is refused, or a step failed.
    """
    record["run"] = str(path)
    record["removed"] = remove_unfinished(directory)
    served, folder = next(iter(aspired_versions(directory, Policy()).folders.items()), (None, None))
    record["served_before"] = served

    run = load_run(path)
    cider, collapsed = gate.run_scores(path, run, anew)
    served_cider = gate.served_cider(folder, run[0].data) if folder and tolerance < 1 else None
    reasons = gate.rejection_reasons(cider, collapsed, served_cider, least, tolerance)
    record |= {"cider": cider, "served_cider": served_cider}
    record["evaluation"] = "NOT_BLESSED" if reasons else "BLESSED"
    if reasons:
        raise CaptionGANError(f"NOT_BLESSED: {'; '.join(reasons)}")

    with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=directory) as staging:
        model = export_run(path, Path(staging), engine)
        record["operations"] = f"TensorFlow Serving {engine}"
        try:
            record["loaded_in"] = round(try_out(Path(staging), canaries(run)), 1)
        except ServingError as error:
            record["infrastructure"] = "INFRA_NOT_BLESSED"
            raise CaptionGANError(f"INFRA_NOT_BLESSED: {error}") from error
        record["infrastructure"] = "INFRA_BLESSED"
        record["version"] = next_version(directory)
        reveal(model, directory / str(record["version"]), record)


def canaries(run: gate.LoadedRun) -> list[Canary]:
    """Requests to every signature, with what the run itself answers."""
    config, tokenizer, captioner = run
    served = ServedCaptioner(captioner, tokenizer, config)
    images = example_images()
    with_spoilt = [*images[:SPOILT], images[SPOILT][:100], *images[SPOILT + 1 :]]
    made = []
    for name, (function, specifications) in served.endpoints().items():
        inputs = example_inputs(name, images)
        tensors = [tf.constant(inputs[spec.name], spec.dtype) for spec in specifications]
        outputs = {key: _as_answered(value) for key, value in function(*tensors).items()}
        made.append(Canary(name, inputs, example_inputs(name, with_spoilt), outputs))
    return made


def _as_answered(tensor: tf.Tensor) -> np.ndarray:
    array = tensor.numpy()
    if array.dtype != object:
        return array
    texts = [value.decode() for value in array.flat]
    return np.array(texts, object).reshape(array.shape)


def reveal(model: Path, version: Path, record: Record) -> None:
    """Puts a model where servers see it, at once and for good."""
    (model / ASSETS_EXTRA / RECORD).write_text(json.dumps(record, indent=2) + "\n")
    flush(*model.rglob("*"), model)
    model.rename(version)
    flush(version.parent)


def remove_unfinished(directory: Path) -> list[str]:
    """Removes what pushes that were killed have left, and returns the names."""
    names = [entry.name for entry in directory.iterdir() if entry.name.startswith(UNFINISHED)]
    for name in names:
        shutil.rmtree(directory / name)
    return names


def roll_back(directory: Path, record: Record) -> None:
    """Hides the newest version from servers, which then take the one before.

    Raises:
        CaptionGANError: There is none before.
    """
    versions = list(aspired_versions(directory, Policy(all=Policy.All())).folders.items())
    if len(versions) < 2:
        raise CaptionGANError(
            f"{directory} has {len(versions)} versions, none to which servers could go back."
        )
    (newest, folder), (earlier, _) = versions[:2]
    hidden = folder.rename(directory / f"{ROLLED_BACK}{newest}")
    flush(directory)
    record |= {"version": earlier, "rolled_back": newest, "kept_as": str(hidden)}


@contextlib.contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Refuses a folder to which another process pushes right now."""
    # The lock ends with the process that holds it, however that ends.
    with (directory / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CaptionGANError(
                f"Another push to {directory} is running; wait for its end."
            ) from error
        yield


@contextlib.contextmanager
def _logged(directory: Path, record: Record) -> Iterator[None]:
    """Adds what is done to the log, whatever comes of it."""
    started = time.monotonic()
    record["time"] = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    try:
        yield
    except BaseException as error:
        record.pop("version", None)
        record["failed"] = str(error) or type(error).__name__
        raise
    finally:
        record["seconds"] = round(time.monotonic() - started, 1)
        with (directory / LOG).open("a") as log:
            log.write(json.dumps(record) + "\n")


def _lines(record: Record) -> list[str]:
    """For the terminal."""
    shown = {name: value for name, value in record.items() if value and name != "failed"}
    return [f"{name.replace('_', ' ') + ':':18}{value}" for name, value in shown.items()]


if __name__ == "__main__":
    run_program(main)
