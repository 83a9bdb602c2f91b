"""Pushes a run to a model server: `python -m serving.push RUN --to MODELS/captioner`.

Exports the run as a new version in the folder MODELS/captioner if two checks pass, named as in TFX:

1. BLESSED: its CIDEr is high enough, also in comparison with the version that is served now, and
   there is no sign of collapse.
2. INFRA_BLESSED: a fresh server loads the version and returns the outputs of the run over gRPC and
   REST.

The version appears by a rename, so a push that is killed leaves nothing that a server loads.
`--rollback --to MODELS/captioner` withdraws the newest version. `pushes.jsonl` in that folder logs
all pushes, failed ones too.
"""

import contextlib
import datetime
import fcntl
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, PositiveFloat

from caption_gan.command_line import ArgumentParser, run_program
from caption_gan.errors import CaptionGANError
from caption_gan.evaluation.changed_settings import add_settings, given_settings
from caption_gan.exporting import gate
from caption_gan.exporting.allowed_operations import NEWEST_ENGINE, release_number
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
from caption_gan.storage.paths import local_path
from serving.errors import ServingError
from serving.infra_validation import (
    CORRUPT_ROW,
    TIMEOUT_SECONDS,
    Progress,
    SignatureCheck,
    validate,
)
from serving.version_policy import Policy, aspired_versions

# Servers ignore names that are not numbers.
UNFINISHED = "unfinished-push-"
ROLLED_BACK = "rolled-back-"
LOCK, LOG = ".push.lock", "pushes.jsonl"
RECORD_FILE = "push.json"  # In the version's `assets.extra`.

Record = dict[str, Any]


def main() -> None:
    """The program."""
    first_line, _, rest = (__doc__ or "").partition("\n\n")
    parser = ArgumentParser(prog="python -m serving.push", description=f"{first_line} {rest}")
    parser.add_argument(
        "run", nargs="?", metavar="RUN", type=local_path, help="run directory that fit wrote"
    )
    parser.add_argument(
        "--to", required=True, type=local_path, help="folder of the model's versions"
    )
    parser.add_argument("--rollback", action="store_true", help="withdraw the newest version")
    parser.add_argument("--evaluate", action="store_true", help="evaluate the run again")
    parser.add_argument(
        "--min_cider",
        type=NonNegativeFloat,
        default=gate.MIN_CIDER,
        help="minimum CIDEr",
    )
    parser.add_argument(
        "--tolerance",
        type=ClosedUnitInterval,
        default=gate.TOLERANCE,
        help="allowed loss of CIDEr against the served version, as a share of it; "
        "1 skips the comparison",
    )
    parser.add_argument(
        "--engine",
        default=f"2.{NEWEST_ENGINE}",
        help="release of TensorFlow Serving that will serve it",
    )
    parser.add_argument(
        "--timeout",
        type=PositiveFloat,
        default=TIMEOUT_SECONDS,
        help="seconds for the check in a fresh server",
    )
    parser.add_argument("--json", action="store_true", help="print only one JSON object")
    add_settings(parser, ["data"])
    arguments = parser.parse_args()
    if bool(arguments.run) == arguments.rollback:
        parser.error("give either RUN or --rollback")
    # This process and the server share a GPU; by default the first would take all of its memory.
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")

    directory = arguments.to
    record: Record = {"action": "rollback" if arguments.rollback else "push"}
    try:
        if arguments.run:
            directory.mkdir(parents=True, exist_ok=True)
        with _logged(directory, record), _locked(directory):
            if arguments.rollback:
                roll_back(directory, record)
            else:
                push(
                    arguments.run,
                    directory,
                    record,
                    min_cider=arguments.min_cider,
                    tolerance=arguments.tolerance,
                    reevaluate=arguments.evaluate,
                    engine=arguments.engine,
                    timeout=arguments.timeout,
                    changes=given_settings(arguments),
                )
    except OSError as error:
        raise CaptionGANError(f"{error.filename or directory}: {error.strerror}.") from error
    finally:
        print(json.dumps(record) if arguments.json else "\n".join(_lines(record)))


def push(
    path: Path,
    directory: Path,
    record: Record,
    min_cider: float,
    tolerance: float,
    reevaluate: bool,
    engine: str,
    timeout: float = TIMEOUT_SECONDS,
    changes: Sequence[str] = (),
) -> None:
    """Checks a run, exports it, tests the export in a fresh server and makes it visible.

    Args:
        path: The run directory.
        directory: Folder of versions.
        record: The result of each step is added to it.
        min_cider: CIDEr that the run must reach.
        tolerance: Allowed loss of CIDEr against the served version, as a share of it.
        reevaluate: Evaluate the run even if it has up-to-date scores.
        engine: Release of TensorFlow Serving, `2.N`, that must have all operations.
        timeout: Seconds for the check in a fresh server.
        changes: Where a data set that was moved is, as on a command line.

    Raises:
        CaptionGANError: A check or a step failed.
    """
    record["run"] = str(path)
    record["removed"] = remove_unfinished(directory)
    served, folder = next(iter(aspired_versions(directory, Policy()).folders.items()), (None, None))
    record["served_before"] = served

    release_number(engine)
    progress = Progress()
    progress("loading the run and its scores")
    run = load_run(path, changes)
    cider, collapsed = gate.run_scores(path, run, reevaluate)
    served_cider = gate.served_cider(folder, run[0].data) if folder and tolerance < 1 else None
    reasons = gate.rejection_reasons(cider, collapsed, served_cider, min_cider, tolerance)
    record |= {"cider": cider, "served_cider": served_cider}
    record["evaluation"] = "NOT_BLESSED" if reasons else "BLESSED"
    if reasons:
        raise CaptionGANError(
            f"{path} is not good enough to be served (NOT_BLESSED): {'; '.join(reasons)}"
        )

    with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=directory) as staging:
        progress("exporting")
        model = export_run(path, Path(staging), engine)
        progress("computing the expected answers of all signatures")
        checks = signature_checks(run)
        record["operations"] = f"TensorFlow Serving {engine}"
        try:
            record["loaded_in"] = round(validate(Path(staging), checks, timeout, progress), 1)
        except ServingError as error:
            record["infrastructure"] = "INFRA_NOT_BLESSED"
            raise CaptionGANError(
                f"The export of {path} failed in a fresh server (INFRA_NOT_BLESSED): {error}"
            ) from error
        record["infrastructure"] = "INFRA_BLESSED"
        record["version"] = next_version(directory)
        publish(model, directory / str(record["version"]), record)


def signature_checks(run: gate.LoadedRun) -> list[SignatureCheck]:
    """Requests to all signatures, with the outputs of the run."""
    config, tokenizer, captioner = run
    served = ServedCaptioner(captioner, tokenizer, config)
    images = example_images()
    with_corrupt = [*images]
    with_corrupt[CORRUPT_ROW] = images[CORRUPT_ROW][:100]
    checks = []
    for name, (function, specifications) in served.endpoints().items():
        inputs = example_inputs(name, images)
        tensors = [tf.constant(inputs[spec.name], spec.dtype) for spec in specifications]
        outputs = {key: to_client_array(value) for key, value in function(*tensors).items()}
        checks.append(SignatureCheck(name, inputs, example_inputs(name, with_corrupt), outputs))
    return checks


def to_client_array(tensor: tf.Tensor) -> np.ndarray:
    """The array that a client of the server gets: strings are `str`, not bytes."""
    array = tensor.numpy()
    if array.dtype != object:
        return array
    texts = [value.decode() for value in array.flat]
    return np.array(texts, object).reshape(array.shape)


def publish(model: Path, version: Path, record: Record) -> None:
    """Makes a model visible to servers with one rename, after writing all of it to disk."""
    (model / ASSETS_EXTRA / RECORD_FILE).write_text(json.dumps(record, indent=2) + "\n")
    flush(*model.rglob("*"), model)
    model.rename(version)
    flush(version.parent)


def remove_unfinished(directory: Path) -> list[str]:
    """Removes the folders that killed pushes left behind; returns their names."""
    names = [entry.name for entry in directory.iterdir() if entry.name.startswith(UNFINISHED)]
    for name in names:
        shutil.rmtree(directory / name)
    return names


def roll_back(directory: Path, record: Record) -> None:
    """Renames the newest version so that servers go back to the one before.

    Raises:
        CaptionGANError: There is no earlier version.
    """
    versions = list(aspired_versions(directory, Policy(all=Policy.All())).folders.items())
    if len(versions) < 2:
        raise CaptionGANError(
            f"{directory} has {len(versions)} of the 2 versions that --rollback needs: "
            "the newest and the one before."
        )
    (newest, folder), (earlier, _) = versions[:2]
    hidden = folder.rename(directory / f"{ROLLED_BACK}{newest}")
    flush(directory)
    record |= {"version": earlier, "rolled_back": newest, "kept_as": str(hidden)}


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Locks the folder; raises an error if another push holds the lock."""
    # The operating system releases the lock when its process ends, even if it is killed.
    with (directory / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CaptionGANError(
                f"Another push to {directory} is running; wait until it ends."
            ) from error
        yield


@contextlib.contextmanager
def _logged(directory: Path, record: Record) -> Iterator[None]:
    """Appends the record to the log when the push ends, successful or not."""
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
    """The record as lines for the terminal."""
    shown = {name: value for name, value in record.items() if value and name != "failed"}
    return [f"{name.replace('_', ' ') + ':':18}{value}" for name, value in shown.items()]


if __name__ == "__main__":
    run_program(main)
