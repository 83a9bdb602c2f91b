"""Ctrl-C during training."""

import io
import signal
import sys
import threading

import keras
import numpy as np
import pytest

from caption_gan.training.interruption import Interruption

pytestmark = pytest.mark.usefixtures("as_in_a_terminal")


class PressCtrlC(keras.callbacks.Callback):
    """Presses Ctrl-C at the beginning of a step and records what runs afterwards."""

    def __init__(self, step: int, times: int = 1):
        super().__init__()
        self.step = step
        self.times = times
        self.done: list[str] = []

    def on_train_batch_begin(self, batch, logs=None):
        if batch == self.step:
            for _ in range(self.times):
                signal.raise_signal(signal.SIGINT)
            self.done.append("pressed")

    def on_train_batch_end(self, batch, logs=None):
        self.done.append(f"step {batch}")

    def on_epoch_end(self, epoch, logs=None):
        if self.step == -1:
            signal.raise_signal(signal.SIGINT)
            self.done.append("checkpoint")


def train(*callbacks: keras.callbacks.Callback, epochs: int = 2) -> None:
    model = keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1)])
    model.compile(optimizer="sgd", loss="mse")
    x = np.zeros((3, 1), np.float32)
    model.fit(x, x, batch_size=1, epochs=epochs, verbose=0, callbacks=list(callbacks))


def test_the_current_step_is_finished(capfd):
    press = PressCtrlC(step=1)

    def save() -> None:
        press.done.append("saved")

    with pytest.raises(KeyboardInterrupt), Interruption(save) as interruption:
        train(press, interruption)
    assert press.done == ["step 0", "pressed", "step 1", "saved"]
    assert "stopping after this step" in capfd.readouterr().err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


class InterruptedTerminal(io.RawIOBase):
    """A terminal on which Ctrl-C arrives during a write."""

    def writable(self):
        return True

    def write(self, text):
        signal.raise_signal(signal.SIGINT)
        return len(text)


def test_ctrl_c_while_progress_is_written(monkeypatch):
    terminal = io.TextIOWrapper(io.BufferedWriter(InterruptedTerminal()), line_buffering=True)
    monkeypatch.setattr(sys, "stderr", terminal)
    with Interruption(lambda: None) as interruption:
        print("1 of 3 steps", file=sys.stderr, flush=True)
    assert interruption.pressed


def test_without_the_callback_the_step_is_not_finished():
    press = PressCtrlC(step=1)
    with pytest.raises(KeyboardInterrupt):
        train(press)
    assert press.done == ["step 0"]


def test_callbacks_after_an_epoch_are_finished():
    press = PressCtrlC(step=-1)
    with pytest.raises(KeyboardInterrupt), Interruption(lambda: None) as interruption:
        train(press, interruption)
    assert press.done == ["step 0", "step 1", "step 2", "checkpoint"]


def test_a_second_ctrl_c_stops_at_once():
    press = PressCtrlC(step=1, times=2)
    with pytest.raises(KeyboardInterrupt), Interruption(lambda: None) as interruption:
        train(press, interruption)
    assert press.done == ["step 0"]


def test_a_background_process_still_ignores_ctrl_c():
    press = PressCtrlC(step=1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Interruption(lambda: None) as interruption:
        train(press, interruption, epochs=1)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    assert press.done[-1] == "step 2"


def test_training_in_another_thread():
    finished: list[bool] = []

    def work() -> None:
        with Interruption(lambda: None) as interruption:
            train(interruption, epochs=1)
        finished.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert finished
