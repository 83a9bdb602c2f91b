"""Files that are whole or absent, whatever interrupts the writing."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

UNFINISHED = ".writing-"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary path in the same folder that becomes `path` at the end of the block.

    What is written there may be a file, or a folder, which then replaces none that has anything in
    it. The name's end stays, as some libraries tell the format by it.
    """
    temporary = path.with_name(f"{UNFINISHED}{os.getpid()}-{path.name}")
    try:
        yield temporary
        # A rename may reach the disk before what was renamed does, and the power fail in between.
        flush(*temporary.rglob("*"), temporary)
        os.replace(temporary, path)
        flush(path.parent)
    finally:
        _remove(temporary)


def remove_unfinished(folder: Path) -> None:
    """Removes what a process that was killed was writing in a folder, or deeper in it."""
    for left in list(folder.rglob(f"{UNFINISHED}*")):
        _remove(left)


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file in one piece."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")


def flush(*paths: Path) -> None:
    """Waits until files, or the names in folders, would survive a loss of power."""
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
