"""Exports a run to be served: `python -m caption_gan.export RUN [--to DIR]`.

Writes DIR/VERSION, a SavedModel for TensorFlow Serving whose signatures take image bytes. VERSION
is the time in seconds, so that a server takes the newest; the folder is whole or absent.
"""

import json
import time
from pathlib import Path

from caption_gan.command_line import ArgumentParser, run_program
from caption_gan.exporting.allowed_operations import NEWEST
from caption_gan.exporting.quantization import Rounding
from caption_gan.exporting.small_weights import SMALL_KINDS
from caption_gan.exporting.versions import EXTRA, ROUNDING, export_run


def main() -> None:
    """The program."""
    parser = ArgumentParser(
        prog="python -m caption_gan.export", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("run", metavar="RUN", help="run directory that fit wrote")
    parser.add_argument("--to", default=None, help="folder of versions; RUN/export if left out")
    parser.add_argument(
        "--ensemble", nargs="+", default=[], metavar="RUN", help="runs that write together with it"
    )
    parser.add_argument(
        "--engine", default=f"2.{NEWEST}", help="release of TensorFlow Serving it has to run in"
    )
    parser.add_argument(
        "--weights",
        choices=SMALL_KINDS,
        default=None,
        help="stores them in fewer bytes than float32, and says what that costs",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object and no more")
    arguments = parser.parse_args()
    started = time.monotonic()
    run = Path(arguments.run)
    to = Path(arguments.to) if arguments.to else run / "export"
    others = [Path(other) for other in arguments.ensemble]
    version = export_run(run, to, arguments.engine, others, arguments.weights)
    seconds = time.monotonic() - started
    described = version / EXTRA / ROUNDING
    rounding = json.loads(described.read_text()) if arguments.weights else {}
    if arguments.json:
        written = {"saved_model": str(version), "seconds": round(seconds, 1)}
        print(json.dumps(written | ({"rounding": rounding} if rounding else {})))
    else:
        print(f"{version} in {seconds:.0f} seconds")
        if rounding:
            print(Rounding(**rounding).line())
        print(f"scored like a run by: python -m caption_gan.evaluate {version}")


if __name__ == "__main__":
    run_program(main)
