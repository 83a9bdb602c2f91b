"""What an interrupted stage continues from."""

import re
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import keras
import tensorflow as tf

from caption_gan.errors import CaptionGANError
from caption_gan.storage.atomic import replacing
from caption_gan.training.loop import Position

KEPT = 2  # The newest one, and one to fall back to.


class TrainingCheckpoint(keras.callbacks.Callback):
    """Writes all that training depends on: at its start, every so often, and after each epoch.

    A checkpoint is a folder, which appears on disk as a whole. TensorFlow keeps a checksum of each
    variable in it and finds what has been damaged since.

    Variables are kept as lists. An object graph, as `tf.train.Checkpoint(model=...)` makes of a
    Keras model, has neither its random states nor what some layers make when they are built
    (`keras.layers.MultiHeadAttention`), and says nothing of it.

    Args:
        directory: Folder of the checkpoints.
        variables: Everything that training changes, by group; see `Trainer.checkpoint_variables`.
        minutes: Minutes between checkpoints within an epoch.
    """

    def __init__(
        self,
        directory: Path,
        variables: Mapping[str, Sequence[keras.Variable]],
        minutes: float = 5.0,
    ):
        super().__init__()
        self.directory = directory
        self.seconds = 60 * minutes
        self.epochs = tf.Variable(0, dtype=tf.int64)
        self.steps = tf.Variable(0, dtype=tf.int64)
        self.checkpoint = tf.train.Checkpoint(
            **{
                group: [variable.value for variable in members]
                for group, members in variables.items()
            },
            epochs=self.epochs,
            steps=self.steps,
        )
        self.saved_at = time.monotonic()

    @property
    def saved(self) -> list[Path]:
        """Checkpoints, the oldest first."""
        return sorted(self.directory.glob("epoch-*"))

    def restore(self) -> Position:
        """Puts all variables into the newest state that can be read, if there is any.

        Raises:
            CaptionGANError: There are states, but none can be read, or they are another model's.
        """
        damaged = []
        for path in reversed(self.saved):
            try:
                self.checkpoint.read(str(path / "state")).assert_consumed()
            except (AssertionError, ValueError, tf.errors.InvalidArgumentError) as error:
                raise CaptionGANError(
                    f"{path} does not fit the settings ({_reason(error)}). Continue with those it "
                    "was written with, or choose another run_dir."
                ) from error
            except (tf.errors.OpError, IndexError) as error:  # The latter for want of bytes.
                damaged.append(path)
                print(f"{path} is damaged and is left out: {_reason(error)}", file=sys.stderr)
            else:
                for other in damaged:  # Or it would count as the newest.
                    shutil.rmtree(other)
                return self.position
        if damaged:
            raise CaptionGANError(
                f"none of the checkpoints in {self.directory} can be read. Remove that folder to "
                "train this stage from its start."
            )
        return Position()

    @property
    def position(self) -> Position:
        """What is done."""
        return Position(int(self.epochs.numpy()), int(self.steps.numpy()))

    def save(self) -> None:
        """Writes the state after a step.

        Raises:
            CaptionGANError: It cannot be written; earlier ones stay.
        """
        path = self.directory / "epoch-{:05d}-step-{:08d}".format(*self.position)
        if path.exists():
            return
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            with replacing(path) as temporary:
                temporary.mkdir()
                self.checkpoint.write(str(temporary / "state"))
            for old in self.saved[:-KEPT]:
                shutil.rmtree(old)
        except (OSError, tf.errors.OpError) as error:
            raise CaptionGANError(
                f"cannot save to {self.directory}: {_reason(error)}. What was saved before stays; "
                "make room and give the same command again."
            ) from error
        self.saved_at = time.monotonic()

    def on_train_begin(self, logs=None):
        if not self.saved:
            self.save()

    def on_train_batch_end(self, batch, logs=None):
        self.steps.assign(batch + 1)
        if time.monotonic() - self.saved_at >= self.seconds:
            self.save_within_epoch()

    def save_within_epoch(self) -> None:
        """Writes the state, but after an epoch's last step, to which its end belongs."""
        if self.position.steps < self.params["steps"]:
            self.save()

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.assign(epoch + 1)
        self.steps.assign(0)
        self.save()


def _reason(error: Exception) -> str:
    """Its first line, without TensorFlow's names of functions and operations."""
    text = str(getattr(error, "message", error)).strip().splitlines()[0]
    return re.sub(r"\{\{.*?\}\} ?| ?\[Op:\w+\]", "", text)
