"""Calls of the programs in tests."""

import os
import subprocess
import sys
from pathlib import Path

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
]


def call(
    program: str, *arguments: object, java: bool = False, cwd: Path | None = None
) -> subprocess.CompletedProcess:
    """Runs a program in a new process, by default without Java on the path.

    METEOR, which needs Java, takes half a minute per run.
    """
    environment = dict(os.environ)
    # This checkout, whatever the folder.
    environment["PYTHONPATH"] = str(Path(__file__).parent.parent)
    if not java:
        environment["PATH"] = str(Path(sys.executable).parent)
    return subprocess.run(
        [sys.executable, "-m", f"caption_gan.{program}", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=cwd,
    )
