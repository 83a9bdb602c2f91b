"""Calls of the programs in tests."""

import contextlib
import importlib
import io
import os
import subprocess
import sys
import traceback
from pathlib import Path
from unittest import mock

from caption_gan.command_line import run_program

# Settings of a run that takes seconds.
SMALL = [
    "--data.train_images=40",
    "--data.val_images=12",
    "--data.test_images=4",
    "--encoder.image_height=32",
    "--encoder.image_width=40",
    "--encoder.width=8",
    "--generator.embedding_size=16",
    "--generator.hidden_size=16",
    "--text.minimum_count=1",
    "--maximum_likelihood.batch_size=8",
    "--logging.images=2",
    "--stages=[maximum_likelihood]",  # A stage with a critic takes half a minute to compile.
]


def call(
    program: str, *arguments: object, java: bool = False, cwd: Path = Path()
) -> subprocess.CompletedProcess:
    """Runs a program in this process, by default without Java on the path.

    A process of its own would take eight seconds to import TensorFlow; METEOR, which needs Java,
    takes half a minute per run.

    Returns:
        Exit status and output, as `subprocess.run` returns them.
    """
    module = importlib.import_module(f"caption_gan.{program}")
    output, errors = io.StringIO(), io.StringIO()
    path = os.environ["PATH"] if java else str(Path(sys.executable).parent)
    command = [module.__file__ or program, *map(str, arguments)]
    with (
        mock.patch.object(sys, "argv", command),
        mock.patch.dict(os.environ, PATH=path),
        contextlib.chdir(cwd),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
    ):
        try:
            run_program(module.main)
        except SystemExit as end:
            status = int(end.code or 0)
        except BaseException:  # A process would print it and fail.
            traceback.print_exc()
            status = 1
    return subprocess.CompletedProcess(command, status, output.getvalue(), errors.getvalue())
