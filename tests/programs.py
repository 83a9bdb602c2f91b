"""How tests call the programs."""

import subprocess
import sys

# Settings of a run of seconds.
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


def call(program: str, *arguments: object) -> subprocess.CompletedProcess:
    """Runs a program in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", f"caption_gan.{program}", *map(str, arguments)],
        capture_output=True,
        text=True,
    )
