"""Loads a model in a fresh server and compares its answers to clients with the expected outputs.

B batch.
"""

import contextlib
import dataclasses
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from caption_gan.signature import ERROR
from serving.connections import Inputs, Outputs, Predict, connect_grpc, connect_rest
from serving.errors import ServingError

MODEL = "captioner"
CORRUPT_ROW = 1  # The row that is not an image; there are rows before and after it.
ANSWER_SECONDS, STOP_SECONDS = 120, 60
TIMEOUT_SECONDS = 600.0  # Of the whole check; a busy machine takes minutes to load a model.
# Nats per token. The graph and the same computation run eagerly differ by 1e-6 on a CPU, and by
# more on a GPU that rounds products to ten bits (TF32).
TOLERANCE = 1e-3

# Ends the server when the push ends, even if it is killed: that closes the pipe to standard input.
_SERVER = """
import os, runpy, sys, threading

def end():
    sys.stdin.read()
    os._exit(1)

threading.Thread(target=end, daemon=True).start()
runpy.run_module("serving.server", run_name="__main__", alter_sys=True)
"""


@dataclasses.dataclass(frozen=True)
class SignatureCheck:
    """Requests to one signature and the expected outputs.

    Attributes:
        signature: Name of the signature.
        inputs: Inputs [B] of valid images.
        corrupt_inputs: The same inputs, with bytes that are not an image in row `CORRUPT_ROW`.
        outputs: Expected for `inputs`, in the form in which `connect_grpc` returns them.
    """

    signature: str
    inputs: Inputs
    corrupt_inputs: Inputs
    outputs: Outputs


class Progress:
    """Prints each step of a push to standard error, with the seconds since the first."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def __call__(self, step: str) -> None:
        seconds = time.monotonic() - self._started
        print(f"[{seconds:5.0f} s] {step}", file=sys.stderr, flush=True)


def validate(
    base_path: Path,
    checks: Sequence[SignatureCheck],
    timeout: float = TIMEOUT_SECONDS,
    progress: Callable[[str], object] = lambda step: None,
) -> float:
    """Loads a model in a fresh server, checks its answers over gRPC and REST, stops the server.

    Args:
        base_path: Folder of versions.
        checks: The requests to send.
        timeout: Seconds for loading and all answers.
        progress: Called with a line about each step.

    Returns:
        Seconds until the server was ready, including warm-up.

    Raises:
        ServingError: The server failed to load, to answer correctly or to stop.
    """
    started = time.monotonic()
    end = started + timeout
    progress("loading the export in a fresh server")
    with _fresh_server(base_path, end) as (grpc_address, rest_address):
        loaded = time.monotonic() - started
        connected = {"gRPC": connect_grpc(grpc_address), "REST": connect_rest(rest_address)}
        for protocol, predict in connected.items():
            for check in checks:
                progress(f"comparing the answers of {check.signature} over {protocol}")
                if time.monotonic() >= end:
                    raise ServingError(f"the check takes more than {timeout:g} s")
                try:
                    check_answers(predict, check)
                except ServingError as error:
                    raise ServingError(f"{check.signature} over {protocol}: {error}") from error
    return loaded


def check_answers(predict: Predict, check: SignatureCheck) -> None:
    """Sends the requests of a check and compares the answers.

    Raises:
        ServingError: An answer is missing or wrong.
    """
    found = predict(MODEL, check.signature, check.inputs, ANSWER_SECONDS)
    _compare(found, check.outputs)
    found = predict(MODEL, check.signature, check.corrupt_inputs, ANSWER_SECONDS)
    if not found[ERROR][CORRUPT_ROW]:
        raise ServingError("a row that is not an image has no error")
    other_rows = [row for row in range(len(check.outputs[ERROR])) if row != CORRUPT_ROW]
    try:
        _compare(_rows(found, other_rows), _rows(check.outputs, other_rows))
    except ServingError as error:
        raise ServingError(f"in a batch with a row that is not an image, {error}") from error


def _rows(outputs: Outputs, rows: list[int]) -> Outputs:
    return {name: values[rows] for name, values in outputs.items()}


def _compare(found: Outputs, expected: Outputs) -> None:
    if set(found) != set(expected):
        raise ServingError(f"the outputs are {sorted(found)}, expected {sorted(expected)}")
    for name, values in expected.items():
        if found[name].shape != values.shape:
            raise ServingError(f"{name} has the shape {found[name].shape}, expected {values.shape}")
        for row, (value, expected_value) in enumerate(zip(found[name], values, strict=True)):
            if not _equal(value, expected_value):
                # Cut to 200 characters: attention weights would fill pages.
                raise ServingError(
                    f"{name} of row {row} is {value!r:.200}, expected {expected_value!r:.200}"
                )


def _equal(value: np.ndarray | str | float, expected: np.ndarray | str | float) -> bool:
    """Whether two values are equal; floats must be finite and equal within `TOLERANCE`."""
    one, other = np.asarray(value), np.asarray(expected)
    if one.dtype.kind == other.dtype.kind == "f":
        return bool(np.isfinite(one).all()) and np.allclose(one, other, rtol=0, atol=TOLERANCE)
    return np.array_equal(one, other)


@contextlib.contextmanager
def _fresh_server(base_path: Path, end: float) -> Iterator[tuple[str, str]]:
    """Starts a server, which must be ready at a time, and yields its gRPC and REST addresses."""
    # In a temporary folder: the path of a Unix socket is limited to 107 bytes.
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "log").open("w+") as log:
        port = _free_port()
        command = [
            sys.executable,
            "-c",
            _SERVER,
            "--port=0",
            f"--grpc_socket_path={folder}/socket",
            f"--rest_api_port={port}",
            f"--model_name={MODEL}",
            f"--model_base_path={base_path.absolute()}",
            "--max_num_load_retries=0",  # A minute later, the version is the same.
        ]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log) as process:
            try:
                _wait_for(process, port, Path(log.name), end)
                yield f"unix:{folder}/socket", f"http://localhost:{port}"
                process.terminate()
                if status := process.wait(STOP_SECONDS):
                    raise ServingError(
                        f"the server ended with status {status}: {_last_line(log.name)}"
                    )
            except subprocess.TimeoutExpired as error:
                raise ServingError(
                    f"the server still runs {STOP_SECONDS} s after SIGTERM"
                ) from error
            finally:
                process.kill()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("", 0))
        return listener.getsockname()[1]


def _wait_for(process: subprocess.Popen, port: int, log: Path, end: float) -> None:
    """Waits until the REST port is open, which the server opens last."""
    started = time.monotonic()
    while time.monotonic() < end:
        if (status := process.poll()) is not None:
            raise ServingError(f"the server ended with status {status}: {_last_line(log)}")
        with contextlib.suppress(OSError), socket.create_connection(("localhost", port), 1):
            return
        time.sleep(0.1)
    seconds = time.monotonic() - started
    raise ServingError(
        f"the server is not ready after {seconds:.0f} s (its last message: {_last_line(log)}); "
        "increase --timeout if the machine is busy"
    )


def _last_line(log: str | Path) -> str:
    lines = Path(log).read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "none"
