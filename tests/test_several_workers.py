"""Two workers on one machine train one run."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from caption_gan.run import RunDirectory
from tests.programs import SMALL
from tests.test_adversarial_programs import ADVERSARIAL

pytestmark = pytest.mark.slow


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for opened in sockets:
        opened.bind(("127.0.0.1", 0))
    ports = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports


def start(arguments: list[str], logs: Path) -> list[subprocess.Popen]:
    """Starts two workers, each with a log file."""
    workers = [f"127.0.0.1:{port}" for port in free_ports(2)]
    processes = []
    for index in range(2):
        task = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
        environment = os.environ | {
            "TF_CONFIG": json.dumps(task),
            "PATH": str(Path(sys.executable).parent),  # Without Java.
        }
        with (logs / f"worker-{index}").open("a") as log:
            processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", "caption_gan.fit", *arguments],
                    stdout=log,
                    stderr=log,
                    env=environment,
                )
            )
    return processes


@pytest.fixture
def arguments(tmp_path) -> list[str]:
    return [
        *(*SMALL, *ADVERSARIAL, "--strategy=multi_worker", "--checkpoint_minutes=0.0000001"),
        *(f"--data.cache={tmp_path / 'cache'}", f"--run_dir={tmp_path / 'run'}"),
        "--stages=[maximum_likelihood,policy_gradient]",
        *("--maximum_likelihood.epochs=1", "--policy_gradient.epochs=1"),
    ]


def test_a_killed_worker_ends_the_other_and_both_can_continue(arguments, tmp_path):
    run = RunDirectory(tmp_path / "run")
    processes = start(arguments, tmp_path)
    while not any(run.checkpoints.glob("0-*/epoch-*-step-00000003")):
        assert all(process.poll() is None for process in processes), logs_of(tmp_path)
        time.sleep(0.1)
    processes[1].send_signal(signal.SIGKILL)
    # The other worker cannot continue alone; it ends with a message instead of waiting forever.
    assert processes[0].wait(timeout=180) == 1, logs_of(tmp_path)
    assert "Another worker was lost" in log_of(tmp_path, 0), logs_of(tmp_path)
    assert "Traceback" not in log_of(tmp_path, 0), logs_of(tmp_path)

    processes = start(arguments, tmp_path)
    assert [process.wait(timeout=600) for process in processes] == [0, 0], logs_of(tmp_path)
    history = run.read_history()
    assert [len(epochs) for epochs in history.values()] == [1, 1]
    assert run.metrics.is_file() and run.report.is_file()
    # Only the chief prints the results.
    assert [log_of(tmp_path, index).count("captions.jsonl") for index in range(2)] == [1, 0]
    shutil.rmtree(run.logs)


def log_of(logs: Path, index: int) -> str:
    return (logs / f"worker-{index}").read_text()


def logs_of(logs: Path) -> str:
    return log_of(logs, 1) + log_of(logs, 0)
