"""Atomic writes: a file is complete or absent, even if writing is interrupted."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

UNFINISHED = ".writing-"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path in the same folder, which is renamed to `path` after the block.

    The block may create a file or a folder; a folder cannot replace one that is not empty. The
    temporary name has the same ending, because some libraries infer the format from it.
    """
    temporary = path.with_name(f"{UNFINISHED}{os.getpid()}-{path.name}")
    try:
        yield temporary
        # Without fsync, a rename can reach the disk before the content; a power failure in between
        # would leave an empty file.
        flush(*temporary.rglob("*"), temporary)
        os.replace(temporary, path)
        flush(path.parent)
    finally:
        _remove(temporary)


def check_writable(folder: Path) -> None:
    """Checks that files can be written into a folder, which need not exist; leaves nothing there.

    Raises:
        OSError: They cannot.
    """
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    with tempfile.TemporaryFile(dir=existing):
        pass


def remove_unfinished(folder: Path) -> None:
    """Removes temporary files of killed processes in a folder and its subfolders."""
    for path in list(folder.rglob(f"{UNFINISHED}*")):
        _remove(path)


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file atomically."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")


def flush(*paths: Path) -> None:
    """Waits until files, or the names in folders, would survive a power failure."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
