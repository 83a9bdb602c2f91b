"""Paths as users give them: relative to the working directory, `~` for the home folder."""

import os
from pathlib import Path

from caption_gan.errors import CaptionGANError


def is_remote(path: str) -> bool:
    """Returns whether a path is on `gs://` or another file system with a scheme."""
    return "://" in path


def expand(path: str) -> str:
    """Returns a path with `~` expanded. A relative path stays relative, as users know it."""
    return path if is_remote(path) else os.path.expanduser(path)


def resolve(path: str) -> str:
    """Returns a path with `~` expanded and, on disk, absolute."""
    return path if is_remote(path) else os.path.abspath(expand(path))


def local_path(path: str | os.PathLike[str]) -> Path:
    """Returns a path on disk with `~` expanded.

    Raises:
        CaptionGANError: The path has a scheme, such as `gs://`.
    """
    text = os.fspath(path)
    if is_remote(text):
        raise CaptionGANError(
            f"{text} is not on a disk of this machine, as it must be here; copy or mount it."
        )
    return Path(expand(text))
