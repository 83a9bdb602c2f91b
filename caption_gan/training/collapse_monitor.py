"""Detects a collapse of the generator during training and reacts to it."""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from tqdm import tqdm

from caption_gan.config.run import MonitorConfig
from caption_gan.metrics.collapse import out_of_bounds


class CollapseMonitor(keras.callbacks.Callback):
    """Measures sampled captions; warns, then restores the last healthy state, then stops training.

    The first unhealthy measurement is only reported. After the second in a row all variables are
    reset to their last healthy values. Random states are not reset, so that the samples that follow
    differ. Training stops after `rollbacks` resets, or after `patience` unhealthy measurements in a
    row if no state has been healthy yet.

    Args:
        measure: Returns metrics by name; see `metrics/collapse.py`.
        config: Bounds of healthy metrics.
        variables: The variables to reset.
        log: Receives the metrics and the step, for TensorBoard.
        stop: Called with the reason; must raise an exception.
    """

    def __init__(
        self,
        measure: Callable[[], Mapping[str, float]],
        config: MonitorConfig,
        variables: Sequence[keras.Variable],
        log: Callable[[Mapping[str, float], int], None],
        stop: Callable[[str], None],
    ):
        super().__init__()
        self.measure = measure
        self.config = config
        self.variables = variables
        self.log = log
        self.stop = stop
        with keras.device("cpu"):  # Rarely used, so they need not occupy an accelerator's memory.
            self.healthy_values = [_variable(variable) for variable in variables]
            self.has_been_healthy, self.unhealthy, self.rollbacks = map(_variable, (0, 0, 0))
        self.metrics: Mapping[str, float] = {}
        self.healthy = False
        self.step = self.measured_step = 0

    @property
    def state(self) -> list[keras.Variable]:
        """The variables of this callback, for checkpoints."""
        return [*self.healthy_values, self.has_been_healthy, self.unhealthy, self.rollbacks]

    def on_epoch_begin(self, epoch, logs=None):
        self.first_step = epoch * self.params["steps"]

    def on_train_batch_begin(self, batch, logs=None):
        self.step = self.first_step + batch

    def on_train_batch_end(self, batch, logs=None):
        before, self.step = self.step, self.first_step + batch + 1
        if self.step // self.config.every_steps > before // self.config.every_steps:
            self._check(self.step)

    def on_epoch_end(self, epoch, logs=None):
        if self.step != self.measured_step:
            self._check(self.step)
        logs.update({f"val_sample_{name}": value for name, value in self.metrics.items()})
        logs["val_healthy"] = float(self.healthy)

    def _check(self, step: int) -> None:
        self.measured_step = step
        self.metrics = self.measure()
        self.log(self.metrics, step)
        signs = out_of_bounds(self.metrics, self.config)
        self.healthy = not signs
        if self.healthy:
            self.unhealthy.assign(0)
            self.has_been_healthy.assign(1)
            _copy(self.variables, self.healthy_values)
            return
        self.unhealthy.assign_add(1)
        unhealthy, rollbacks = int(self.unhealthy), int(self.rollbacks)
        reason = "; ".join(signs)
        _warn(f"signs of collapse at step {step}: {reason}")
        if not int(self.has_been_healthy):
            if unhealthy >= self.config.patience:
                self.stop(f"signs of collapse {unhealthy} times in a row, {reason}")
        elif unhealthy >= 2:
            if rollbacks == self.config.rollbacks:
                self.stop(f"signs of collapse after {rollbacks} rollbacks, {reason}")
            self.rollbacks.assign_add(1)
            self.unhealthy.assign(0)
            _copy(self.healthy_values, self.variables)
            _warn("restored the last healthy state")


def _warn(text: str) -> None:
    """Prints a line to standard error, above the progress bar."""
    tqdm.write(text, file=sys.stderr)


def _variable(value: Any) -> keras.Variable:
    """Returns a copy of a value as a variable that is not trained."""
    value = np.array(value)
    return keras.Variable(value, trainable=False, dtype=value.dtype.name)


def _copy(sources: Sequence[keras.Variable], targets: Sequence[keras.Variable]) -> None:
    for source, target in zip(sources, targets, strict=True):
        target.assign(source)
