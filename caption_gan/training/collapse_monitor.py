"""Watches for the ways in which a captioner collapses, and acts."""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from tqdm import tqdm

from caption_gan.config.run import MonitorConfig
from caption_gan.metrics.collapse import out_of_bounds


class CollapseMonitor(keras.callbacks.Callback):
    """Measures what is written freely; warns, then goes back to the last healthy state, then stops.

    A first unhealthy measurement is only told. At the second in a row all variables go back to
    what they were when last healthy; random states do not, so that what follows is another
    course. When that has been done `rollbacks` times, or there has not been any healthy state
    for `patience` measurements, training ends.

    Args:
        measure: Returns the figures by name; see `metrics/collapse.py`.
        config: Bounds.
        variables: What is put back.
        log: Gets the figures and the step, for TensorBoard.
        stop: Called with the reason.
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
        self.kept = variables
        self.log = log
        self.stop = stop
        with keras.device("cpu"):  # An accelerator's memory is short, and they are seldom used.
            self.healthy_state = [_variable(variable) for variable in variables]
            self.has_been_healthy, self.unhealthy, self.rollbacks = map(_variable, (0, 0, 0))
        self.figures: Mapping[str, float] = {}
        self.healthy = False
        self.step = self.checked = 0

    @property
    def state(self) -> list[keras.Variable]:
        """All that it knows of what went before."""
        return [*self.healthy_state, self.has_been_healthy, self.unhealthy, self.rollbacks]

    def on_epoch_begin(self, epoch, logs=None):
        self.before = epoch * self.params["steps"]

    def on_train_batch_begin(self, batch, logs=None):
        self.step = self.before + batch

    def on_train_batch_end(self, batch, logs=None):
        before, self.step = self.step, self.before + batch + 1
        if self.step // self.config.every_steps > before // self.config.every_steps:
            self.checked = self.step
            self._check(self.step)

    def on_epoch_end(self, epoch, logs=None):
        if self.step != self.checked:
            self._check(self.step)
        logs.update({f"val_sample_{name}": value for name, value in self.figures.items()})
        logs["val_healthy"] = float(self.healthy)

    def _check(self, step: int) -> None:
        self.figures = self.measure()
        self.log(self.figures, step)
        signs = out_of_bounds(self.figures, self.config)
        self.healthy = not signs
        if self.healthy:
            self.unhealthy.assign(0)
            self.has_been_healthy.assign(1)
            _copy(self.kept, self.healthy_state)
            return
        self.unhealthy.assign_add(1)
        unhealthy, rollbacks = int(self.unhealthy), int(self.rollbacks)
        reason = "; ".join(signs)
        self._tell(f"signs of collapse at step {step}: {reason}")
        if not int(self.has_been_healthy):
            if unhealthy >= self.config.patience:
                self.stop(f"{unhealthy} times in a row, {reason}")
        elif unhealthy >= 2:
            if rollbacks == self.config.rollbacks:
                self.stop(f"after {rollbacks} times back to a healthy state, {reason}")
            self.rollbacks.assign_add(1)
            self.unhealthy.assign(0)
            _copy(self.healthy_state, self.kept)
            self._tell("back to the last healthy state")

    @staticmethod
    def _tell(text: str) -> None:
        tqdm.write(text, file=sys.stderr)


def _variable(value: Any) -> keras.Variable:
    """A copy that is not trained."""
    value = np.array(value)
    return keras.Variable(value, trainable=False, dtype=value.dtype.name)


def _copy(source: Sequence[keras.Variable], target: Sequence[keras.Variable]) -> None:
    for one, other in zip(source, target, strict=True):
        other.assign(one)
