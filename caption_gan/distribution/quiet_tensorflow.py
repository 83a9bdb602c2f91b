"""Keeps TensorFlow's notes about the machine off standard error.

TensorFlow 2.21 writes about oneDNN and CUDA while its libraries are loaded, before it reads
TF_CPP_MIN_LOG_LEVEL. `install` applies that level to these lines, too, and sets it to 3 unless the
user has set it: errors arrive as exceptions, and the lines at level 2 are about absent GPUs. With
TF_CPP_MIN_LOG_LEVEL=0 everything is shown.
"""

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType

LEVEL = "TF_CPP_MIN_LOG_LEVEL"
_STANDARD_ERROR = 2


def install() -> None:
    """Sets the level and filters standard error during the first import of TensorFlow.

    It must run before that import and does not import TensorFlow itself.
    """
    level = os.environ.setdefault(LEVEL, "3")
    installed = any(isinstance(finder, _TensorFlowFinder) for finder in sys.meta_path)
    if level in ("1", "2", "3") and "tensorflow" not in sys.modules and not installed:
        sys.meta_path.insert(0, _TensorFlowFinder())


class _TensorFlowFinder(MetaPathFinder):
    """Finds TensorFlow as Python does, with a loader that filters standard error."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "tensorflow":
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _QuietLoader(spec.loader.name, spec.loader.path)
        return spec


class _QuietLoader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        severities = "IWE"[: int(os.environ.get(LEVEL, "3"))]
        with _without_lines(rf"[{severities}]\d{{4}} \S+ +\d+ \S+\.cc:\d+\]|WARNING: All log "):
            super().exec_module(module)


@contextlib.contextmanager
def _without_lines(pattern: str) -> Iterator[None]:
    """Leaves out the lines on standard error that begin with a pattern; the others come at the end.

    Lines of C++ do not pass through `sys.stderr`, so the file descriptor itself is replaced.
    """
    try:
        original = os.dup(_STANDARD_ERROR)
    except OSError:  # Standard error is closed.
        yield
        return
    with tempfile.TemporaryFile() as captured:
        os.dup2(captured.fileno(), _STANDARD_ERROR)
        try:
            yield
        finally:
            os.dup2(original, _STANDARD_ERROR)
            os.close(original)
            captured.seek(0)
            for line in captured:
                if not re.match(pattern.encode(), line):
                    os.write(_STANDARD_ERROR, line)
