"""Files that TensorFlow can read: on disk, on `gs://`, and on plug-in file systems (`s3://`).

Paths are strings, because `pathlib` would turn `gs://` into `gs:/`.
"""

import contextlib
import os
import uuid
from collections.abc import Iterator

import tensorflow as tf


def join(folder: str, *names: str) -> str:
    """Returns a path below a folder."""
    return os.path.join(folder, *names)


def is_file(path: str) -> bool:
    """Returns whether there is a file at the path."""
    return tf.io.gfile.exists(path) and not tf.io.gfile.isdir(path)


def is_folder(path: str) -> bool:
    """Returns whether there is a folder at the path."""
    return tf.io.gfile.isdir(path)


def listing(folder: str) -> list[str]:
    """Returns the sorted names in a folder; an empty list if there is no folder."""
    if not is_folder(folder):
        return []
    return sorted(name.rstrip("/") for name in tf.io.gfile.listdir(folder))


def read_bytes(path: str) -> bytes:
    """Returns the content of a file.

    Raises:
        FileNotFoundError: There is no such file.
        OSError: It cannot be read.
    """
    with as_os_errors(), tf.io.gfile.GFile(path, "rb") as file:
        return file.read()


def write_text(path: str, text: str) -> None:
    """Writes a text file that is whole or absent, whatever interrupts the writing.

    Raises:
        OSError: It cannot be written.
    """
    temporary = f"{path}.{uuid.uuid4().hex}"
    try:
        with as_os_errors():
            with tf.io.gfile.GFile(temporary, "wb") as file:
                file.write(text.encode("utf-8", "replace"))
            tf.io.gfile.rename(temporary, path, overwrite=True)
    finally:
        remove(temporary)


def remove(path: str) -> None:
    """Removes a file if it exists."""
    with contextlib.suppress(tf.errors.NotFoundError):
        tf.io.gfile.remove(path)


@contextlib.contextmanager
def as_os_errors() -> Iterator[None]:
    """Converts TensorFlow's file errors to Python's.

    Raises:
        FileNotFoundError: There is no such file.
        OSError: Anything else, such as a full disk.
    """
    try:
        yield
    except tf.errors.NotFoundError as error:
        raise FileNotFoundError(error.message) from error
    except tf.errors.OpError as error:
        raise OSError(error.message) from error


def modified(path: str) -> list[int]:
    """Returns a file's modification time in nanoseconds and its size; zeros if it is missing.

    The size is included because TensorFlow's times are in whole seconds.
    """
    if not tf.io.gfile.exists(path):
        return [0, 0]
    status = tf.io.gfile.stat(path)
    return [status.mtime_nsec, status.length]
