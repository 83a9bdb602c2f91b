"""Checkpoints of a stage, from which an interrupted training continues exactly."""

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

MAX_CHECKPOINTS = 2  # The newest, and the one before it in case the newest is damaged.


class TrainingCheckpoint(keras.callbacks.Callback):
    """Writes the state of training at its start, at intervals, and after each epoch.

    A checkpoint is a folder that is written atomically. TensorFlow stores a checksum of each
    variable, by which `restore` detects damage.

    Variables are saved as lists. The object graph that `tf.train.Checkpoint(model=...)` makes of a
    Keras model silently omits its random states and the variables that some layers create when
    they are built (`keras.layers.MultiHeadAttention`).

    Args:
        directory: Folder of the checkpoints.
        variables: All variables that training changes, by group; see
            `Trainer.checkpoint_variables`.
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
        """Folders of the checkpoints, oldest first."""
        return sorted(self.directory.glob("epoch-*"))

    def restore(self) -> Position:
        """Restores the newest readable checkpoint, if there is one, and returns its position.

        Raises:
            CaptionGANError: All checkpoints are damaged, or they belong to other settings.
        """
        damaged = []
        for path in reversed(self.saved):
            try:
                self.checkpoint.read(str(path / "state")).assert_consumed()
            except (AssertionError, ValueError, tf.errors.InvalidArgumentError) as error:
                raise CaptionGANError(
                    f"{path} does not fit the settings ({_reason(error)}). Continue with the "
                    "settings it was written with, or choose another run_dir."
                ) from error
            except (tf.errors.OpError, IndexError) as error:  # IndexError: the file is truncated.
                damaged.append(path)
                print(f"{path} is damaged and is skipped: {_reason(error)}", file=sys.stderr)
            else:
                for newer in damaged:  # It would count as the newest.
                    shutil.rmtree(newer)
                return self.position
        if damaged:
            raise CaptionGANError(
                f"none of the checkpoints in {self.directory} can be read. Remove that folder to "
                "train this stage from its start."
            )
        return Position()

    @property
    def position(self) -> Position:
        """Completed epochs and steps."""
        return Position(int(self.epochs.numpy()), int(self.steps.numpy()))

    def save(self) -> None:
        """Writes a checkpoint and removes old ones.

        Raises:
            CaptionGANError: It cannot be written; earlier checkpoints are intact.
        """
        epochs, steps = self.position
        path = self.directory / f"epoch-{epochs:05d}-step-{steps:08d}"
        if path.exists():
            return
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            with replacing(path) as temporary:
                temporary.mkdir()
                self.checkpoint.write(str(temporary / "state"))
            for old in self.saved[:-MAX_CHECKPOINTS]:
                shutil.rmtree(old)
        except (OSError, tf.errors.OpError) as error:
            raise CaptionGANError(
                f"cannot save to {self.directory}: {_reason(error)}. Earlier checkpoints are "
                "intact; make room and run the same command again."
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
        """Writes a checkpoint, except after the last step, which `on_epoch_end` saves."""
        if self.position.steps < self.params["steps"]:
            self.save()

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.assign(epoch + 1)
        self.steps.assign(0)
        self.save()


def _reason(error: Exception) -> str:
    """Returns the first line of an error without TensorFlow's names of functions and operations."""
    text = str(getattr(error, "message", error)).strip().splitlines()[0]
    return re.sub(r"\{\{.*?\}\} ?| ?\[Op:\w+\]", "", text)
