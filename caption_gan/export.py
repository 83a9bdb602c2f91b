"""Exports a run for serving: `python -m caption_gan.export RUN [--to DIR]`.

Writes DIR/VERSION, a SavedModel for TensorFlow Serving whose signatures take image bytes. VERSION
is the time in seconds, so that a server loads the newest; the folder appears whole or not at all.
"""

import json
import shlex
import time

from caption_gan.command_line import ArgumentParser, run_program
from caption_gan.evaluation.changed_settings import add_settings, given_settings
from caption_gan.exporting.allowed_operations import NEWEST_ENGINE
from caption_gan.exporting.quantization import WEIGHT_TYPES, QuantizationLoss
from caption_gan.exporting.versions import ASSETS_EXTRA, QUANTIZATION_FILE, export_run
from caption_gan.storage.paths import local_path


def main() -> None:
    """The program."""
    parser = ArgumentParser(
        prog="python -m caption_gan.export", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("run", metavar="RUN", type=local_path, help="run directory that fit wrote")
    parser.add_argument(
        "--to", type=local_path, help="folder of versions; if not given, RUN/export"
    )
    parser.add_argument(
        "--ensemble",
        nargs="+",
        type=local_path,
        default=[],
        metavar="RUN",
        help="more runs, to form an ensemble",
    )
    parser.add_argument(
        "--engine",
        default=f"2.{NEWEST_ENGINE}",
        help="release of TensorFlow Serving that will serve it",
    )
    parser.add_argument(
        "--weights",
        choices=WEIGHT_TYPES,
        default=None,
        help="quantize the weights and print the loss in CIDEr; if not given, float32",
    )
    parser.add_argument("--json", action="store_true", help="print only one JSON object")
    add_settings(parser, ["data"])
    arguments = parser.parse_args()
    started = time.monotonic()
    run = arguments.run
    to = arguments.to or run / "export"
    version = export_run(
        run,
        to,
        arguments.engine,
        arguments.ensemble,
        arguments.weights,
        given_settings(arguments),
    )
    seconds = time.monotonic() - started
    description = version / ASSETS_EXTRA / QUANTIZATION_FILE
    loss = json.loads(description.read_text()) if arguments.weights else {}
    if arguments.json:
        result = {"saved_model": str(version), "seconds": round(seconds, 1)}
        print(json.dumps(result | ({"rounding": loss} if loss else {})))
    else:
        print(f"{version} in {seconds:.0f} seconds")
        if loss:
            print(QuantizationLoss(**loss).summary())
        print(f"evaluate it: python -m caption_gan.evaluate {shlex.quote(str(version))}")


if __name__ == "__main__":
    run_program(main)
