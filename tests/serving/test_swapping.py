"""Versions come, go and are swapped; whoever asks meanwhile is answered, by one version."""

import gc
import itertools
import logging
import shutil
import threading
import time
import weakref
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial

import grpc
import pytest
from tensorflow_serving.apis import predict_pb2

from serving import loading
from serving.manager import ModelManager
from serving.servable import Servable
from serving.version_states import VersionStates
from tests.serving.managed import (
    ALL,
    AVAILABLE,
    END,
    LOADING,
    POLL,
    START,
    UNLOADING,
    answer,
    computed,
    configuration,
    model_config,
    refusal,
    serving,
    spec,
    states,
    until,
)
from tests.serving.models import write_broken, write_warm_up

INVALID_ARGUMENT = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND


def test_a_new_version_serves_before_the_old_one_goes(base, place, monkeypatch):
    noted: list[tuple[int, int]] = []
    note = VersionStates.note

    def recorded(self, name, version, state, error=None):
        if (version, state) not in noted:  # A poll repeats AVAILABLE.
            noted.append((version, state))
        note(self, name, version, state, error)

    monkeypatch.setattr(VersionStates, "note", recorded)
    place(1)
    with serving(model_config(base)) as manager:
        place(2)
        until(lambda: states(manager).get(1) == END)
        assert answer(manager) == 2
    assert noted == [
        (1, START),
        (1, LOADING),
        (1, AVAILABLE),
        (2, START),
        (2, LOADING),
        (2, AVAILABLE),
        (1, UNLOADING),
        (1, END),
        (2, UNLOADING),
        (2, END),
    ]


def test_of_several_new_versions_the_latest_is_loaded(base, place, loads):
    place(1)
    with serving(model_config(base), poll=0.3) as manager:
        place(2, 3, 4)
        until(lambda: answer(manager) == 4)
    assert loads[0] == 1
    assert loads[-1] == 4


def test_a_version_that_computes_is_not_unloaded(base, place, polls):
    place(1)
    unloaded: list[Servable] = []
    with serving(model_config(base), on_unload=unloaded.append) as manager:
        with ExitStack() as outer:
            first = outer.enter_context(manager.lease(spec()))
            with manager.lease(spec(version=1)) as second:
                assert second is first
                place(2)
                until(lambda: states(manager)[1] == UNLOADING)
                assert answer(manager) == 2
                polls.pass_by(3)
                assert computed(second) == 1
                assert refusal(answer, manager, version=1).code is NOT_FOUND
            polls.pass_by(3)
            assert states(manager) == {2: AVAILABLE, 1: UNLOADING}
            assert computed(first) == 1
            assert unloaded == []
        until(lambda: states(manager)[1] == END)
        assert unloaded == [first]
    assert [servable.version for servable in unloaded] == [1, 2]


def test_a_request_that_breaks_gives_its_version_back(base, place):
    place(1)
    with serving(model_config(base)) as manager:
        with pytest.raises(ZeroDivisionError), manager.lease(spec()):
            raise ZeroDivisionError
        place(2)
        until(lambda: states(manager)[1] == END)


def test_an_older_version_comes_back_when_the_newest_folder_goes(base, place):
    place(1, 2)
    with serving(model_config(base)) as manager:
        assert answer(manager) == 2
        shutil.rmtree(base / "2")
        until(lambda: states(manager)[2] == END)
        assert answer(manager) == 1
        place(2)
        until(lambda: answer(manager) == 2)


@pytest.mark.parametrize("policy", ["", ALL, "specific { versions: 2 versions: 3 }"])
def test_an_emptied_folder_does_not_end_a_service(base, place, polls, caplog, policy):
    place(2)
    with serving(model_config(base, policy)) as manager:
        caplog.clear()
        base.rename(base.parent / "elsewhere")
        polls.pass_by(2)
        base.mkdir()
        polls.pass_by(10)
        assert answer(manager) == 2
        assert states(manager) == {2: AVAILABLE}
        warnings = [message for message in caplog.messages if "still serving 2" in message]
        assert len(warnings) == 1  # Not at each poll.
        place(3)
        until(lambda: states(manager)[2] == END)
        assert answer(manager) == 3


def test_a_bad_version_leaves_the_old_one_serving(base, place, polls, loads):
    place(1)
    with serving(model_config(base)) as manager:
        write_broken(base, 2)
        until(lambda: states(manager).get(2) == END)
        polls.pass_by(10)
        assert loads == [1, 2]  # No second try for a minute.
        assert answer(manager) == 1
        bad, good = manager.status(spec())
        assert (good.version, good.state) == (1, AVAILABLE)
        assert (bad.version, bad.state) == (2, END)
        assert bad.status.error_code == INVALID_ARGUMENT.value[0]
        assert "Cannot parse file" in bad.status.error_message
        assert str(base / "2") in bad.status.error_message
        place(3)
        until(lambda: answer(manager) == 3)
        until(lambda: states(manager) == {3: AVAILABLE, 2: END, 1: END})


def test_a_bad_version_is_tried_again_and_then_given_up(base, place, polls, loads, monkeypatch):
    monkeypatch.setattr(loading, "RETRY_SECONDS", 0.0)
    place(1)
    with serving(model_config(base)) as manager:
        write_broken(base, 2)
        until(lambda: len(loads) == 2 + loading.RETRIES)
        polls.pass_by(10)
        assert loads == [1, *[2] * (1 + loading.RETRIES)]
        # Repaired on the spot it is not seen, taken away and put back it is.
        shutil.rmtree(base / "2")
        polls.pass_by(2)
        place(2)
        until(lambda: answer(manager) == 2)


def test_a_version_that_was_not_all_there_is_loaded_later(base, place, stock, monkeypatch):
    monkeypatch.setattr(loading, "RETRY_SECONDS", 0.5)
    place(1)
    with serving(model_config(base)) as manager:
        (base / "2").mkdir()
        until(lambda: states(manager).get(2) == END)
        shutil.copytree(stock / "2", base / "2", dirs_exist_ok=True)
        until(lambda: answer(manager) == 2)


def test_a_version_that_fails_its_warm_up_does_not_serve(base, place, stock, loads):
    place(1)
    with serving(model_config(base)) as manager:
        unfinished = shutil.copytree(stock / "2", base / "unfinished")
        write_warm_up(unfinished, [predict_pb2.PredictRequest()])
        unfinished.rename(base / "2")
        until(lambda: states(manager).get(2) == END)
        (status,) = manager.status(spec(version=2))
        assert "request 1: input size does not match signature" in status.status.error_message
        assert answer(manager) == 1


def test_nothing_is_kept_of_what_was_unloaded(base, place):
    place(1)
    write_broken(base.parent / "broken", 1)
    with serving(model_config(base)) as manager:
        with manager.lease(spec()) as servable:
            gone = weakref.ref(servable)
        del servable
        write_broken(base, 2)
        until(lambda: states(manager).get(2) == END)
        place(3)
        until(lambda: states(manager)[1] == END)
        time.sleep(2 * POLL)
        gc.collect()
        assert gone() is None
        models = [thing for thing in gc.get_objects() if isinstance(thing, Servable)]
        assert [model.version for model in models if model.path.parent == base] == [3]


def test_no_request_fails_while_versions_are_swapped(base, place, monkeypatch, caplog):
    """Sixteen callers, eleven swaps and as many reloads; each answer is one version's alone, and
    no version is closed while one of them computes on it."""
    place(1)
    running: Counter[Servable] = Counter()
    lock = threading.Lock()
    run, close = Servable.run, Servable.close
    faults: list[str] = []

    def watched_run(servable, *arguments):
        with lock:
            running[servable] += 1
        try:
            return run(servable, *arguments)
        finally:
            with lock:
                running[servable] -= 1

    def watched_close(servable):
        if running[servable]:
            faults.append(f"closed {servable.version} while it computed")
        close(servable)

    monkeypatch.setattr(Servable, "run", watched_run)
    monkeypatch.setattr(Servable, "close", watched_close)
    swapped = threading.Event()

    def call(manager: ModelManager) -> list[int]:
        versions = []
        for number in itertools.count():
            with manager.lease(spec()) as servable:
                versions.append(computed(servable, float(number % 1000)))
            if swapped.is_set() and number >= 125:
                return versions
        raise AssertionError

    caplog.set_level(logging.ERROR)
    with serving(model_config(base)) as manager, ThreadPoolExecutor(16) as pool:
        calls = [pool.submit(call, manager) for _ in range(16)]
        try:
            for version in range(2, 13):
                place(version)
                until(partial(lambda expected: answer(manager) == expected, version))
                manager.reload(configuration(model_config(base)))
                if version % 3 == 0:
                    shutil.rmtree(base / str(version - 1))
        finally:
            swapped.set()
        seen = [made.result() for made in calls]
        until(lambda: states(manager)[12] == AVAILABLE)
        until(lambda: states(manager) == {12: AVAILABLE} | dict.fromkeys(range(1, 12), END))
    assert not faults
    assert not caplog.messages
    for versions in seen:
        assert versions == sorted(versions)  # The latest never goes back.
    assert sum(map(len, seen)) >= 2000
    assert len(set().union(*seen)) > 6
