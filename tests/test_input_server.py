"""A tf.data service of several processes that makes batches for training."""

import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from caption_gan.data.shards import files
from caption_gan.prepare import prepare
from caption_gan.run import RunDirectory
from caption_gan.settings import read_config
from tests.programs import SMALL, call
from tests.test_several_workers import free_ports


def test_invalid_arguments():
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        done = call("input_server", "--dispatcher", f"--port={taken.getsockname()[1]}")
    assert done.returncode == 1
    assert re.search(r"port \d+ cannot be used: .+; choose another --port\.", done.stderr)
    assert "Traceback" not in done.stderr
    done = call("input_server", "--worker")
    assert done.returncode == 2
    assert "--dispatcher_address, such as input-dispatcher:5050" in done.stderr


@pytest.mark.slow
def test_a_dispatcher_that_does_not_run(tmp_path):
    address = f"127.0.0.1:{free_ports(1)[0]}"
    fit = [*SMALL, f"--data.cache={tmp_path}", f"--run_dir={tmp_path / 'run'}"]
    for done in (
        call("fit", *fit, f"--data.service={address}"),
        call("input_server", "--worker", f"--dispatcher_address={address}"),
    ):
        assert done.returncode == 1
        assert f"error: no tf.data service dispatcher answers at {address}" in done.stderr
        assert "Traceback" not in done.stderr


@pytest.fixture
def started(tmp_path):
    """Starts programs, each with a log file; kills those that still run at the end."""
    processes: list[subprocess.Popen] = []

    def start(program: str, *arguments: str) -> tuple[subprocess.Popen, Path]:
        path = tmp_path / f"log-{len(processes)}"
        with path.open("w") as log:
            command = [sys.executable, "-m", f"caption_gan.{program}", *arguments]
            processes.append(subprocess.Popen(command, stdout=log, stderr=log))
        return processes[-1], path

    yield start
    for process in processes:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_training_continues_without_a_killed_worker(tmp_path, monkeypatch, started):
    monkeypatch.setattr(files, "IMAGES_PER_SHARD", 30)
    settings = [*SMALL, "--data.train_images=1500", "--data.cache", str(tmp_path / "cache")]
    prepare(read_config(settings, "test"), str(tmp_path / "shards"))
    ports = free_ports(3)
    address = f"127.0.0.1:{ports[0]}"
    servers = [
        started("input_server", "--dispatcher", "--port", str(ports[0]), "--work_dir",
                str(tmp_path / "work")),
        *(
            started("input_server", "--worker", "--worker_host", "127.0.0.1", "--port", str(port),
                    "--dispatcher_address", address)
            for port in ports[1:]
        ),
    ]  # fmt: skip
    run = RunDirectory(tmp_path / "run")
    fit, log = started(
        "fit",
        *(*settings, f"--data.shards={tmp_path / 'shards'}", f"--data.service={address}"),
        *(f"--run_dir={run.path}", "--maximum_likelihood.epochs=2"),
        "--checkpoint_minutes=0.02",
    )
    while not any(run.checkpoints.glob("0-*/epoch-00000-step-000000[1-9]?")):
        assert fit.poll() is None, log.read_text()
        time.sleep(0.1)
    killed, _ = servers.pop()
    killed.kill()
    assert fit.wait(timeout=600) == 0, log.read_text()
    assert "Traceback" not in log.read_text()
    assert len(run.read_history()["0-maximum_likelihood"]) == 2
    assert run.report.is_file()
    for (process, log), number in zip(servers, (signal.SIGTERM, signal.SIGINT), strict=True):
        process.send_signal(number)
        assert process.wait(timeout=60) == 0
        assert "Traceback" not in log.read_text()
