"""Lint, format, types and the direction of imports, as tests."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CHECKS = {
    "lint": [sys.executable, "-m", "ruff", "check", "."],
    "format": [sys.executable, "-m", "ruff", "format", "--check", "."],
    "types": [sys.executable, "-m", "mypy", "caption_gan", "serving", "tools"],
    # import-linter has no `python -m`; its script lies beside the interpreter.
    "imports": [str(Path(sys.executable).with_name("lint-imports")), "--config", "setup.cfg"],
}


@pytest.mark.parametrize("name", CHECKS)
def test_check(name):
    done = subprocess.run(CHECKS[name], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_files_stay_short():
    long = {
        str(path.relative_to(ROOT)): length
        for folder in ("caption_gan", "serving", "tools")
        for path in (ROOT / folder).rglob("*.py")
        if (length := len(path.read_text().splitlines())) > 330
    }
    assert not long
