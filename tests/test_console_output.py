"""Standard error of the programs holds only lines that the project prints."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.programs import SMALL

# Each takes seconds in a process of its own; tests/test_programs.py asks the others in one.
PROGRAMS = ["caption_gan.fit", "serving.server", "serving.client"]
TOOLS = sorted(Path("tools").glob("benchmark_*.py"))


def call(*arguments: object, **environment: str) -> subprocess.CompletedProcess:
    """Runs Python without the level of TensorFlow's log that this process has set."""
    inherited = {name: text for name, text in os.environ.items() if "LOG_LEVEL" not in name}
    # METEOR, which needs Java, takes half a minute per run.
    inherited["PATH"] = str(Path(sys.executable).parent)
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, env=inherited | environment
    )
    # `text=True` would make line ends of the carriage returns that redraw a bar.
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_and_a_wrong_call(program):
    asked = call("-m", program, "--help")
    assert asked.returncode == 0
    assert asked.stdout.startswith("usage:")
    assert asked.stderr == ""
    wrong = call("-m", program, "--no_such_flag=1")
    assert wrong.returncode == 2
    lines = wrong.stderr.splitlines()
    assert "no_such_flag" in lines[-1] or "required" in lines[-1]
    # argparse prints the usage before its message.
    assert lines[:-1] == [] or lines[0].startswith("usage:")
    assert not re.search(r"\.cc:\d+\]|absl|TensorFlow binary|Warning", wrong.stderr)


@pytest.mark.slow
@pytest.mark.parametrize("tool", TOOLS, ids=lambda path: path.stem)
def test_a_tool(tool):
    asked = call(tool, "--help", PYTHONPATH=os.getcwd())
    assert asked.returncode == 0
    assert asked.stderr == ""


def test_the_users_log_level_wins():
    noise = call("-c", "import caption_gan, tensorflow", TF_CPP_MIN_LOG_LEVEL="0")
    assert "oneDNN" in noise.stderr
    # Lines that are no notes of TensorFlow's stay.
    script = "import caption_gan, sys, os; os.write(2, b'before\\n'); import tensorflow"
    assert call("-c", script).stderr == "before\n"


def test_what_is_written_during_the_import_is_kept(tmp_path):
    package = tmp_path / "tensorflow"
    package.mkdir()
    (package / "__init__.py").write_text(
        "import os\n"
        "os.write(2, b'I0000 00:00:1796037117.463142   25531 port.cc:153] oneDNN is on.\\n')\n"
        "os.write(2, b'E0000 00:00:1796037117.463142   25531 port.cc:153] no memory\\n')\n"
        "raise ImportError('a library is missing')\n"
    )
    done = call(
        *("-c", "import caption_gan, tensorflow"),
        PYTHONPATH=f"{tmp_path}:{os.getcwd()}",
        TF_CPP_MIN_LOG_LEVEL="2",
    )
    assert "E0000" in done.stderr
    assert done.stderr.endswith("ImportError: a library is missing\n")
    assert "I0000" not in done.stderr


def test_a_run_prints_one_line_per_epoch_and_activity(tmp_path):
    done = call(
        *("-m", "caption_gan.fit"),
        *(*SMALL, "--maximum_likelihood.epochs=2"),
        *(f"--run_dir={tmp_path / 'run'}", f"--data.cache={tmp_path / 'cache'}"),
    )
    assert done.returncode == 0, done.stderr
    # A bar is redrawn in its line after a carriage return.
    lines = [line.rsplit("\r", 1)[-1].strip() for line in done.stderr.rstrip().split("\n")]
    expected = [
        r"preparing \S+/train: 100%.*",
        r"preparing \S+/val: 100%.*",
        r"\d+ training captions, .*",
        r"maximum_likelihood, epoch 1: loss .*",
        r"maximum_likelihood, epoch 2: loss .*",
        r"maximum_likelihood: 100%.*",
        r"captioning: 100%.*",
    ]
    shown = [line for line in lines if not line.startswith("signs of collapse: ")]
    assert len(shown) == len(expected), done.stderr
    for line, pattern in zip(shown, expected, strict=True):
        assert re.fullmatch(pattern, line), line
