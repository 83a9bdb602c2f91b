"""Standard error of the programs holds only lines that the project prints."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

# Each takes seconds in a process of its own; tests/test_programs.py asks the others in one.
PROGRAMS = ["caption_gan.fit", "serving.client"]
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
    noise = call(
        *("-c", "import caption_gan, tensorflow"),
        TF_CPP_MIN_LOG_LEVEL="0",
        TF_ENABLE_ONEDNN_OPTS="1",
    )
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
