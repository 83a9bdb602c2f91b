"""Asks a model in a fresh server what its clients will ask, and compares with what it must say.

B batch.
"""

import contextlib
import dataclasses
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from caption_gan.signature import ERROR
from serving.connections import Inputs, Outputs, Predict, connect_grpc, connect_rest
from serving.errors import ServingError

MODEL = "captioner"
SPOILT = 1  # The row that is no image; it has neighbours on both sides.
LOAD_SECONDS, ANSWER_SECONDS, STOP_SECONDS = 600, 120, 60
# Nats a token. The same computation as a graph and step by step differs by 1e-6 on a CPU; on a GPU
# that rounds products to ten bits, by more.
TOLERANCE = 1e-3

# The server ends with the push, however that ends: a process that is killed closes its pipes.
_SERVER = """
import os, runpy, sys, threading

def end():
    sys.stdin.read()
    os._exit(1)

threading.Thread(target=end, daemon=True).start()
runpy.run_module("serving.server", run_name="__main__", alter_sys=True)
"""


@dataclasses.dataclass(frozen=True)
class Canary:
    """What is asked of one signature.

    Attributes:
        signature: Its name.
        inputs: Of good images, [B] each.
        spoilt: The same, but what is no image in row `SPOILT`.
        outputs: What is answered to `inputs`, as `connect_grpc` gives it.
    """

    signature: str
    inputs: Inputs
    spoilt: Inputs
    outputs: Outputs


def try_out(base_path: Path, canaries: Sequence[Canary]) -> float:
    """Loads a model in a server of its own, asks over gRPC and over REST, and stops the server.

    Args:
        base_path: Folder of versions.
        canaries: What to ask.

    Returns:
        Seconds until the server answered, its warm-up included.

    Raises:
        ServingError: It does not load, answer or stop as it must.
    """
    started = time.monotonic()
    with _fresh_server(base_path) as (grpc_address, rest_address):
        loaded = time.monotonic() - started
        connected = {"gRPC": connect_grpc(grpc_address), "REST": connect_rest(rest_address)}
        for protocol, predict in connected.items():
            for canary in canaries:
                try:
                    ask(predict, canary)
                except ServingError as error:
                    raise ServingError(f"{canary.signature} over {protocol}: {error}") from error
    return loaded


def ask(predict: Predict, canary: Canary) -> None:
    """Sends a canary's requests.

    Raises:
        ServingError: There is no answer, or a wrong one.
    """
    found = predict(MODEL, canary.signature, canary.inputs, ANSWER_SECONDS)
    _compare(found, canary.outputs)
    found = predict(MODEL, canary.signature, canary.spoilt, ANSWER_SECONDS)
    if not found[ERROR][SPOILT]:
        raise ServingError("what is no image has no error")
    neighbours = [row for row in range(len(canary.outputs[ERROR])) if row != SPOILT]
    try:
        _compare(_rows(found, neighbours), _rows(canary.outputs, neighbours))
    except ServingError as error:
        raise ServingError(f"beside what is no image, {error}") from error


def _rows(outputs: Outputs, rows: list[int]) -> Outputs:
    return {name: values[rows] for name, values in outputs.items()}


def _compare(found: Outputs, expected: Outputs) -> None:
    if set(found) != set(expected):
        raise ServingError(f"the outputs are {sorted(found)}, expected {sorted(expected)}")
    for name, values in expected.items():
        if found[name].shape != values.shape:
            raise ServingError(f"{name} has the shape {found[name].shape}, expected {values.shape}")
        for row, (answer, right) in enumerate(zip(found[name], values, strict=True)):
            if not _same(answer, right):
                # Attention, in full, fills pages.
                raise ServingError(f"{name} {row} is {answer!r:.200}, expected {right!r:.200}")


def _same(answer: np.ndarray | str | float, right: np.ndarray | str | float) -> bool:
    """Numbers have to be finite besides."""
    one, other = np.asarray(answer), np.asarray(right)
    if one.dtype.kind == other.dtype.kind == "f":
        return bool(np.isfinite(one).all()) and np.allclose(one, other, rtol=0, atol=TOLERANCE)
    return np.array_equal(one, other)


@contextlib.contextmanager
def _fresh_server(base_path: Path) -> Iterator[tuple[str, str]]:
    """Gives its addresses for gRPC and REST."""
    # A socket's path may have 107 bytes, which that of a model may exceed.
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "log").open("w+") as log:
        port = _free_port()
        command = [
            *(sys.executable, "-c", _SERVER),
            *("--port=0", f"--grpc_socket_path={folder}/socket", f"--rest_api_port={port}"),
            *(f"--model_name={MODEL}", f"--model_base_path={base_path.absolute()}"),
        ]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log) as process:
            try:
                _wait_for(process, port, Path(log.name))
                yield f"unix:{folder}/socket", f"http://localhost:{port}"
                process.terminate()
                if status := process.wait(STOP_SECONDS):
                    raise ServingError(f"the server ends with {_last_words(status, log.name)}")
            except subprocess.TimeoutExpired as error:
                raise ServingError(f"the server runs on {STOP_SECONDS} s after SIGTERM") from error
            finally:
                process.kill()


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("", 0))
        return taken.getsockname()[1]


def _wait_for(process: subprocess.Popen, port: int, log: Path) -> None:
    """REST is what a server opens last."""
    end = time.monotonic() + LOAD_SECONDS
    while time.monotonic() < end:
        if (status := process.poll()) is not None:
            raise ServingError(f"the server ends with {_last_words(status, log)}")
        with contextlib.suppress(OSError), socket.create_connection(("localhost", port), 1):
            return
        time.sleep(0.1)
    raise ServingError(f"no server answers within {LOAD_SECONDS} s")


def _last_words(status: int, log: str | Path) -> str:
    lines = Path(log).read_text(errors="replace").strip().splitlines()
    return f"status {status}: {lines[-1] if lines else 'no reason'}"
