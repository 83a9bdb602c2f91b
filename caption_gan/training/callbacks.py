"""Keras callbacks of a training stage: progress, metrics of captions, best weights, samples."""

import math
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm


class Progress(keras.callbacks.Callback):
    """One progress bar per stage, with the time left, on standard error.

    Args:
        stage: Name of the stage, shown before the bar.
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
            # Fewer updates in a log file, in which each update stays.
            mininterval=0.5 if sys.stderr.isatty() else 20,
        )

    def on_epoch_begin(self, epoch, logs=None):
        self.before = epoch * self.params["steps"]

    def on_train_batch_begin(self, batch, logs=None):
        # A continued stage begins at a later step.
        if self.bar.n < self.before + batch:
            self.bar.n = self.bar.initial = self.before + batch

    def on_train_batch_end(self, batch, logs=None):
        before = self.bar.n
        self.bar.update(self.before + batch + 1 - before)
        if self.bar.n // 10 > before // 10:
            self.bar.set_postfix(loss=f"{logs['loss']:.3f}", refresh=False)

    def on_epoch_end(self, epoch, logs=None):
        metrics = ", ".join(f"{name} {value:.3f}" for name, value in logs.items())
        self.bar.write(f"{self.stage}, epoch {epoch + 1}: {metrics}", file=sys.stderr)

    def on_train_end(self, logs=None):
        self.bar.close()


class StepTime(keras.callbacks.Callback):
    """Prints once how long a step takes and, by that, all steps that are left.

    It takes the median of a few steps: one of them may compile a function.

    Args:
        first: First step of the stage, from 0, that counts. Steps before it take another time.
        say: Called with the sentence.
    """

    COUNTED = 5

    def __init__(self, first: int, say: Callable[[str], None]):
        super().__init__()
        self.first = first
        self.say = say
        self.seconds: list[float] = []

    def on_epoch_begin(self, epoch, logs=None):
        self.before = epoch * self.params["steps"]

    def on_train_batch_begin(self, batch, logs=None):
        self.began, self.started = batch, time.monotonic()

    def on_train_batch_end(self, batch, logs=None):
        if len(self.seconds) == self.COUNTED or self.before + self.began < self.first:
            return
        # The metrics are what a step computes last.
        tf.nest.map_structure(float, logs)
        self.seconds.append((time.monotonic() - self.started) / (batch + 1 - self.began))
        if len(self.seconds) < self.COUNTED:
            return
        seconds = statistics.median(self.seconds)
        left = self.params["epochs"] * self.params["steps"] - self.before - batch - 1
        minutes = seconds * left / 60
        rest = f"about {minutes:.0f} minutes" if minutes >= 1.5 else f"{60 * minutes:.0f} seconds"
        self.say(f"{seconds:.3g} seconds per step: {rest} for {left:,} steps, without validation")


class StopOnNonFinite(keras.callbacks.Callback):
    """Ends training when a loss or a gradient norm is infinite or not a number.

    Args:
        fail: Called with the reason; must raise an exception.
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
    """Adds metrics of generated captions to the logs of each epoch.

    The loss does not show a collapse, because it is computed on real captions. This callback must
    precede those that read the logs.

    Args:
        measure: Returns metrics by name, e.g. `{"CIDEr": 0.4}`.
    """

    def __init__(self, measure: Callable[[], dict[str, float]]):
        super().__init__()
        self.measure = measure

    def on_epoch_end(self, epoch, logs=None):
        logs.update({f"val_{name}": value for name, value in self.measure().items()})


class History(keras.callbacks.Callback):
    """Records the metrics of each epoch, including those of an interrupted run.

    Args:
        epochs: Metrics of the epochs so far; new ones are appended.
        write: Called after each epoch; writes the history to disk.
    """

    def __init__(self, epochs: list[dict[str, float]], write: Callable[[], None]):
        super().__init__()
        self.epochs = epochs
        self.write = write

    def on_epoch_begin(self, epoch, logs=None):
        self.started = time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        metrics = {name: float(value) for name, value in logs.items()}
        seconds = round(time.monotonic() - self.started, 1)
        self.epochs.append({"epoch": epoch + 1, "seconds": seconds, **metrics})
        self.write()


class StepCurves(keras.callbacks.Callback):
    """Records means of the training metrics over every few steps, for curves within an epoch.

    Args:
        points: Values so far; new ones are appended. `epoch` counts epochs, with a fraction.
        metrics: The running means, which are reset at the start of each epoch.
        every_steps: Steps over which a point is the mean; an epoch's last may be over fewer.
        write: Called after each point; writes the points to disk.
    """

    def __init__(
        self,
        points: list[dict[str, float]],
        metrics: Sequence[keras.metrics.Mean],
        every_steps: int,
        write: Callable[[], None],
    ):
        super().__init__()
        self.points = points
        self.metrics = metrics
        self.every_steps = every_steps
        self.write = write

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch, self.step = epoch, 0
        self.before = self._sums()

    def on_train_batch_end(self, batch, logs=None):
        before, self.step = self.step, batch + 1
        is_last = self.step == self.params["steps"]
        if not is_last and self.step // self.every_steps == before // self.every_steps:
            return
        sums, point = self._sums(), {"epoch": self.epoch + self.step / self.params["steps"]}
        for name, (total, count) in sums.items():
            total_before, count_before = self.before[name]
            if count > count_before:  # The generator has no values while the critic warms up.
                point[name] = (total - total_before) / (count - count_before)
        self.before = sums
        self.points.append(point)
        self.write()

    def _sums(self) -> dict[str, tuple[float, float]]:
        def number(variable: keras.Variable) -> float:
            # A variable of several replicas has no float().
            return float(keras.ops.convert_to_numpy(variable))

        return {
            metric.name: (number(metric.total), number(metric.count)) for metric in self.metrics
        }


class SaveBest(keras.callbacks.Callback):
    """Saves the captioner after each epoch whose monitored metric is the best of the stage so far.

    Among epochs with equal metrics the last one is saved: its learning rate was lower. Epochs with
    signs of collapse (`val_healthy` 0) are never saved.

    Args:
        save: Saves the captioner.
        monitor: Name of a metric of which higher is better.
        past: Metrics of the epochs of this stage that an interrupted run has completed.
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
        healthy = [metrics[monitor] for metrics in past if metrics.get("val_healthy", 1)]
        self.best = max(healthy, default=-math.inf)

    def on_epoch_end(self, epoch, logs=None):
        if logs[self.monitor] >= self.best and logs.get("val_healthy", 1):
            self.best = logs[self.monitor]
            self.save()


class Unfreeze(keras.callbacks.Callback):
    """Freezes a pretrained layer for some epochs and trains it afterwards.

    The optimizer must be built while it is trainable.

    Args:
        layer: The layer, such as word vectors or the last layers of an encoder.
        epochs: Number of epochs in which it stays frozen.
    """

    def __init__(self, layer: keras.layers.Layer, epochs: int):
        super().__init__()
        self.layer = layer
        self.epochs = epochs

    def on_epoch_begin(self, epoch, logs=None):
        trainable = epoch >= self.epochs
        if trainable != self.layer.trainable:
            self.layer.trainable = trainable
            # The compiled step contains the list of trainable variables.
            self.model.make_train_function(force=True)


class SampleCaptions(keras.callbacks.Callback):
    """Logs captions and attention of a few validation images for TensorBoard.

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
