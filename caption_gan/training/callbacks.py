"""What happens around training steps: progress, caption scores, samples, checkpoints.

T time, R regions.
"""

import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from caption_gan.text.embeddings import WordEmbedding


class Progress(keras.callbacks.Callback):
    """One bar for a stage, with the time left, on standard error.

    Args:
        stage: Shown before the bar.
    """

    def __init__(self, stage: str):
        super().__init__()
        self.stage = stage

    def on_train_begin(self, logs=None):
        self.bar = tqdm(
            total=self.params["epochs"] * self.params["steps"],
            desc=self.stage,
            unit=" steps",
            dynamic_ncols=True,
            # A log file wants a line now and then, not ten a second.
            mininterval=0.5 if sys.stderr.isatty() else 20,
        )

    def on_epoch_begin(self, epoch, logs=None):
        self.before = epoch * self.params["steps"]

    def on_train_batch_begin(self, batch, logs=None):
        # A continued stage begins where it stopped.
        if self.bar.n < self.before + batch:
            self.bar.n = self.bar.initial = self.before + batch

    def on_train_batch_end(self, batch, logs=None):
        before = self.bar.n
        self.bar.update(self.before + batch + 1 - before)
        if self.bar.n // 10 > before // 10:
            self.bar.set_postfix(loss=f"{logs['loss']:.3f}", refresh=False)

    def on_epoch_end(self, epoch, logs=None):
        figures = ", ".join(f"{name} {value:.3f}" for name, value in logs.items())
        self.bar.write(f"{self.stage}, epoch {epoch + 1}: {figures}", file=sys.stderr)

    def on_train_end(self, logs=None):
        self.bar.close()


class StopOnInvalidFigure(keras.callbacks.Callback):
    """Ends the work when a loss or a gradient is no longer a number; what follows is of no use.

    Args:
        fail: Called with the reason.
    """

    def __init__(self, fail: Callable[[str], None]):
        super().__init__()
        self.fail = fail

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        for name, value in logs.items():
            if not math.isfinite(value):
                self.fail(f"{name} is {value} at step {batch + 1} of epoch {self.epoch + 1}")


class CaptionMetrics(keras.callbacks.Callback):
    """Adds figures of freely written captions to each epoch's logs.

    The loss cannot see a collapse: it is measured on real words. Must come before the callbacks
    that read the logs.

    Args:
        measure: Returns figures by name, e.g. `{"CIDEr": 0.4}`.
    """

    def __init__(self, measure: Callable[[], dict[str, float]]):
        super().__init__()
        self.measure = measure

    def on_epoch_end(self, epoch, logs=None):
        logs.update({f"val_{name}": value for name, value in self.measure().items()})


class History(keras.callbacks.Callback):
    """Keeps the curves, those of an interrupted run included.

    Args:
        epochs: Figures of the epochs so far; new ones are appended.
        write: Called after each epoch to put them on disk.
    """

    def __init__(self, epochs: list[dict[str, float]], write: Callable[[], None]):
        super().__init__()
        self.epochs = epochs
        self.write = write

    def on_epoch_begin(self, epoch, logs=None):
        self.started = time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        figures = {name: float(value) for name, value in logs.items()}
        seconds = round(time.monotonic() - self.started, 1)
        self.epochs.append({"epoch": epoch + 1, "seconds": seconds, **figures})
        self.write()


class KeepBest(keras.callbacks.Callback):
    """Saves the captioner when its captions are as good as ever before in its stage, or better.

    Of epochs with equal figures the last is kept: its learning rate was lower. Epochs whose
    captions show signs of collapse, where that is watched, are never kept.

    Args:
        save: Saves it.
        monitor: Name of the figure that is to be high.
        past: Figures of the epochs of the stage that an interrupted run has done.
    """

    def __init__(
        self,
        save: Callable[[], None],
        monitor: str,
        past: Sequence[Mapping[str, float]] = (),
    ):
        super().__init__()
        self.save = save
        self.monitor = monitor
        healthy = [figures[monitor] for figures in past if figures.get("val_healthy", 1)]
        self.best = max(healthy, default=-math.inf)

    def on_epoch_end(self, epoch, logs=None):
        if logs[self.monitor] >= self.best and logs.get("val_healthy", 1):
            self.best = logs[self.monitor]
            self.save()


class UnfreezeEmbeddings(keras.callbacks.Callback):
    """Keeps word vectors fixed for some epochs and trains them afterwards.

    The optimizer must have been built while they were trainable.

    Args:
        embedding: The layer.
        epochs: For which it stays frozen.
    """

    def __init__(self, embedding: WordEmbedding, epochs: int):
        super().__init__()
        self.embedding = embedding
        self.epochs = epochs

    def on_epoch_begin(self, epoch, logs=None):
        trainable = epoch >= self.epochs
        if trainable != self.embedding.trainable:
            self.embedding.trainable = trainable
            # The compiled step has the list of trained variables in it.
            self.model.make_train_function(force=True)


class SampleCaptions(keras.callbacks.Callback):
    """Shows captions of a few validation images in TensorBoard, with attention.

    Args:
        logs: Folder of the stage's logs.
        draw: Returns pictures by name, each uint8 [height, width, 3].
    """

    def __init__(self, logs: Path, draw: Callable[[], dict[str, np.ndarray]]):
        super().__init__()
        self.writer = tf.summary.create_file_writer(str(logs / "captions"))
        self.draw = draw

    def on_epoch_end(self, epoch, logs=None):
        with self.writer.as_default():
            for name, picture in self.draw().items():
                tf.summary.image(name, picture[None], step=epoch)
        self.writer.flush()
