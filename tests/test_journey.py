"""README's commands, run one after another as they stand in a folder of a user."""

import contextlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from caption_gan.exporting.versions import example_images
from caption_gan.run import RunDirectory
from tests.commands import BLOCK, ROOT, commands_of
from tests.programs import SMALL
from tests.serving.server_processes import free_port, listening

README = ROOT / "README.md"
# Sizes at which a run takes seconds; for `configs/flickr8k.yaml` also no download.
PHOTOS = [
    "--encoder.weights=none",
    "--encoder.image_height=32",
    "--encoder.image_width=32",
    "--maximum_likelihood.epochs=1",
    "--maximum_likelihood.batch_size=4",
    "--text.minimum_count=1",
    "--data.held_out=0.2",
    "--decoding.beam=1",
]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A folder with the images and settings that README speaks of."""
    images = example_images()
    (tmp_path / "photo.jpg").write_bytes(images[0])
    (tmp_path / "chart.png").write_bytes(images[1])
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "photos").mkdir()
    rows = ["file_name,caption_1,caption_2"]
    for number in range(20):
        name = f"{number:04}.jpg"
        (tmp_path / "photos" / name).write_bytes(images[number % len(images)])
        rows.append(f"{name},a dog runs on the beach,a wet dog near the sea")
    (tmp_path / "photos" / "metadata.csv").write_text("\n".join(rows))
    # What the commands need and nothing else: METEOR would use Java, half a minute for each run.
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("bash", "base64", "curl"):
        (tools / tool).symlink_to(shutil.which(tool) or pytest.skip(f"there is no {tool}"))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{tools}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(command: str, *more: str) -> str:
    """Runs a command of README with more arguments; returns what it prints."""
    line = " ".join([command, *map(shlex.quote, more)])
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout


def readme(*begin: str) -> list[str]:
    """README's commands that begin with these words, in the order in which they stand there."""
    commands = [command.words for command in commands_of(README)]
    return [shlex.join(words) for words in commands if words[: len(begin)] == begin]


@contextlib.contextmanager
def in_background(command: str, port: int, *more: str) -> Iterator[None]:
    """Runs a server of README until the end of the block."""
    process = subprocess.Popen([*shlex.split(command), *more])
    try:
        end = time.monotonic() + 120
        while not listening(port):
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        assert process.wait(60) == 0


@pytest.mark.slow
def test_readme_from_training_to_a_push(folder):
    fit = ("python", "-m", "caption_gan.fit")
    default, *_ = readme(*fit)
    run(default, *SMALL, "--run_dir=runs/NAME", "--maximum_likelihood.epochs=1")

    plain, sampled, beam = readme("python", "-m", "caption_gan.caption")
    assert run(plain).split()[0] == "photo.jpg"
    assert len(run(sampled).splitlines()) == 1 + 3
    assert len(json.loads(run(beam))["images"][0]["captions"]) == 5
    ((_, code),) = [block for block in BLOCK.findall(README.read_text()) if block[0] == "python"]
    assert run("python -c", code + "\nprint(len(captions))").strip() == "3"

    (export,) = readme("python", "-m", "caption_gan.export")
    version = run(export).split()[0]
    assert Path(version).parent == Path("MODELS/captioner")  # As the user gave it.

    (serve,) = readme("python", "-m", "serving.server")
    (ask,) = readme("python", "-m", "serving.client")
    (request,) = [line for line in README.read_text().splitlines() if line.startswith("curl")]
    grpc, rest = free_port(), free_port()
    serve = serve.replace("8501", str(rest))
    with in_background(serve, rest, f"--port={grpc}"):
        assert run(ask, f"--server=localhost:{grpc}").startswith("photo.jpg")
        answer = json.loads(run(request.replace("8501", str(rest))))
        assert answer["predictions"][0]["caption"]

    # A run of one epoch would be refused.
    trained = RunDirectory("runs/NAME")
    good = {"val/greedy/CIDEr": 0.5, "collapsed": {"val": []}}
    trained.metrics.write_text(json.dumps(good | {"weights": {"val": trained.weights_digest()}}))
    (push,) = readme("python", "-m", "serving.push")
    run(push, "--tolerance=1")
    assert len([name for name in os.listdir("MODELS/captioner") if name.isdecimal()]) == 2


@pytest.mark.slow
def test_readme_with_photographs_of_one_s_own(folder, monkeypatch):
    fit = ("python", "-m", "caption_gan.fit")
    (train,) = [line for line in readme(*fit) if "photos" in line and "--config" in line]
    (continued,) = readme(*fit, "--run_dir", "runs/photos")
    (evaluate,) = readme("python", "-m", "caption_gan.evaluate")
    run(train, *PHOTOS)
    run(continued)
    assert "CIDEr" in run(evaluate)
    # The same from another folder, and after the run was moved.
    (folder / "elsewhere").mkdir()
    os.rename("runs/photos", "elsewhere/moved")
    monkeypatch.chdir(folder / "elsewhere")
    assert "CIDEr" in run("python -m caption_gan.evaluate moved --split test")
    assert "moved/report.html" in run("python -m caption_gan.fit --run_dir moved")
