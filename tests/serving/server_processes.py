"""Starts and stops model servers as processes."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

EMBEDDED = (sys.executable, "-m", "serving.server")
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Server:
    """A running server, and its process if a test started it."""

    grpc_address: str
    rest_address: str
    process: subprocess.Popen[str] | None = None
    log: Path | None = None

    def channel(self) -> grpc.Channel:
        return grpc.insecure_channel(self.grpc_address, [("grpc.max_receive_message_length", -1)])

    def prediction(self):
        return prediction_service_pb2_grpc.PredictionServiceStub(self.channel())

    def models(self):
        return model_service_pb2_grpc.ModelServiceStub(self.channel())

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Sends a signal and waits; returns the exit status."""
        self.process.send_signal(number)
        return self.process.wait(60)


def free_port() -> int:
    with socket.create_server(("localhost", 0)) as listener:
        return listener.getsockname()[1]


@contextmanager
def serving(log: Path, *flags: str, program: Sequence[str] = EMBEDDED) -> Iterator[Server]:
    """Starts a server and yields it once its models are loaded; kills it at the end."""
    port, rest_port = free_port(), free_port()
    command = [*program, f"--port={port}", f"--rest_api_port={rest_port}", *flags]
    with log.open("w") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, text=True, cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
    try:
        end = time.monotonic() + 90
        while not listening(rest_port):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.05)
        yield Server(f"localhost:{port}", f"http://localhost:{rest_port}", process, log)
    finally:
        process.kill()
        process.wait()


def listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("localhost", port)) == 0


def run_to_exit(*flags: str) -> subprocess.CompletedProcess[str]:
    """Runs a server that is expected to exit by itself."""
    return subprocess.run([*EMBEDDED, *flags], capture_output=True, text=True, timeout=60, cwd=ROOT)
