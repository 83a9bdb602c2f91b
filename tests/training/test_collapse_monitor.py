"""The collapse monitor names the metric out of bounds, restores a healthy state, stops."""

from collections.abc import Iterable

import keras
import numpy as np
import pytest

from caption_gan.config.run import MonitorConfig
from caption_gan.metrics.collapse import out_of_bounds
from caption_gan.training.collapse_monitor import CollapseMonitor

HEALTHY = {
    "repeated_token_rate": 0.0,
    "mbleu": 0.5,
    "distinct_captions": 1.0,
    "distinct_2": 1.0,
    "vocabulary": 1.0,
    "image_dependence": 0.9,
    "CIDEr": 0.4,
}
# Metrics of a generator that repeats one word.
COLLAPSED = HEALTHY | {"repeated_token_rate": 0.95, "distinct_captions": 0.005}


class StoppedError(Exception):
    """Training was stopped."""


class Play:
    """Training steps with given measurements; the weight counts the steps."""

    def __init__(self, measurements: Iterable[dict[str, float]], **settings):
        self.weight = keras.Variable(0.0)
        self.logged: list[int] = []
        metrics = iter(measurements)
        config = MonitorConfig(every_steps=1, **settings)

        def stop(reason: str) -> None:
            raise StoppedError(reason)

        self.monitor = CollapseMonitor(
            lambda: next(metrics),
            config,
            [self.weight],
            lambda _, step: self.logged.append(step),
            stop,
        )
        self.monitor.set_params({"steps": 100})
        self.begin_epoch(0)

    def begin_epoch(self, number: int) -> None:
        self.batch = 0
        self.monitor.on_epoch_begin(number)

    def step(self, times: int = 1, together: int = 1) -> list[float]:
        weights = []
        for _ in range(times):
            self.weight.assign(self.weight + 1)
            self.monitor.on_train_batch_begin(self.batch)
            self.batch += together
            self.monitor.on_train_batch_end(self.batch - 1)
            weights.append(float(self.weight))
        return weights


def test_healthy_metrics_change_nothing(capsys):
    play = Play([HEALTHY] * 3)
    assert play.step(3) == [1, 2, 3]
    assert play.logged == [1, 2, 3]
    assert not capsys.readouterr().err


def test_it_warns_then_restores_then_stops(capsys):
    play = Play([HEALTHY, HEALTHY, *[COLLAPSED] * 6], rollbacks=2)
    assert play.step(2) == [1, 2]
    assert play.step() == [3]
    warning = capsys.readouterr().err
    assert "step 3" in warning
    assert "repeated_token_rate is 0.950, more than 0.05" in warning
    assert "distinct_captions is 0.005, less than 0.5" in warning
    assert play.step() == [2]  # The last healthy state.
    assert "restored the last healthy state" in capsys.readouterr().err
    assert play.step(2) == [3, 2]
    play.step()
    with pytest.raises(StoppedError, match=r"after 2 rollbacks, repeated_token_rate is 0.950"):
        play.step()


def test_a_single_unhealthy_measurement_changes_nothing():
    play = Play([HEALTHY, COLLAPSED, HEALTHY, COLLAPSED, HEALTHY])
    assert play.step(5) == [1, 2, 3, 4, 5]


def test_training_that_is_never_healthy_stops():
    """Training from scratch starts unhealthy and gets `patience` measurements."""
    play = Play([COLLAPSED] * 3, patience=3)
    play.step(2)
    with pytest.raises(StoppedError, match="3 times in a row"):
        play.step()


@pytest.mark.parametrize(
    ("name", "value", "crosses"),
    [
        ("repeated_token_rate", 0.06, True),
        ("repeated_token_rate", 0.04, False),
        ("mbleu", 0.96, True),
        ("distinct_captions", 0.49, True),
        ("distinct_2", 0.29, True),
        ("vocabulary", 0.19, True),
        ("image_dependence", 0.29, True),
        ("image_dependence", 0.31, False),
        ("CIDEr", 0.0, False),
    ],
)
def test_each_bound(name, value, crosses):
    monitor = Play([]).monitor
    found = out_of_bounds(HEALTHY | {name: value}, monitor.config)
    assert len(found) == crosses
    assert not crosses or found[0].startswith(name)


def test_the_logs_of_an_epoch_contain_a_measurement():
    play = Play([HEALTHY, COLLAPSED])
    play.monitor.config = MonitorConfig(every_steps=10)
    play.step(3)
    assert not play.logged
    logs: dict[str, float] = {}
    play.monitor.on_epoch_end(0, logs)
    assert logs["val_healthy"] == 1
    assert logs["val_sample_CIDEr"] == 0.4
    play.begin_epoch(1)
    play.step(3)
    play.monitor.on_epoch_end(1, logs)
    assert logs["val_healthy"] == 0
    assert play.logged == [3, 103]


def test_it_measures_after_the_call_that_contains_the_step():
    play = Play([HEALTHY] * 3)
    play.monitor.config = MonitorConfig(every_steps=10)
    play.step(7, together=4)
    assert play.logged == [12, 20]
    play.monitor.on_epoch_end(0, {})
    assert play.logged == [12, 20, 28]


def test_all_variables_are_restored():
    play = Play([HEALTHY, COLLAPSED, COLLAPSED])
    play.weight.assign(np.float32(5))
    assert play.step(3) == [6, 7, 6]
