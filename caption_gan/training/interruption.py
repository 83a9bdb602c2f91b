"""Ctrl-C ends training after the current step, with a checkpoint."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

import keras

STANDARD_ERROR = 2


class Interruption(keras.callbacks.Callback):
    """Delays Ctrl-C to the end of the step, or to the end of the work after an epoch.

    Otherwise Python raises `KeyboardInterrupt` at an arbitrary place: while a checkpoint is
    written, or in a callback of native code, which aborts the process. A second Ctrl-C exits at
    once.

    Use it as a context manager around training and as the last of its callbacks. It changes
    nothing if Ctrl-C already has another handler or is ignored, as in a background process.

    Args:
        save: Called before training ends after a step.
    """

    def __init__(self, save: Callable[[], None]):
        super().__init__()
        self.save = save
        self.pressed = False

    def __enter__(self) -> "Interruption":
        in_main_thread = threading.current_thread() is threading.main_thread()
        if in_main_thread and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._press)
        return self

    def __exit__(self, *_) -> None:
        self._restore()

    def _press(self, number: int, frame: FrameType | None) -> None:
        self.pressed = True
        self._restore()
        # Not through `sys.stderr`: it may be writing now, and a nested write raises an error.
        with contextlib.suppress(OSError):
            os.write(STANDARD_ERROR, b"\nstopping after this step; Ctrl-C again stops at once\n")

    def _restore(self) -> None:
        if signal.getsignal(signal.SIGINT) == self._press:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _stop(self) -> None:
        if self.pressed:
            raise KeyboardInterrupt

    def on_train_batch_end(self, batch, logs=None):
        if self.pressed:
            self.save()
        self._stop()

    def on_test_batch_end(self, batch, logs=None):
        self._stop()

    def on_epoch_end(self, epoch, logs=None):
        self._stop()
