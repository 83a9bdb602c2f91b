"""Tests of the model manager: versions appear, disappear, fail to load and are swapped."""

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

from serving.loader import LoadOptions
from serving.manager import ModelManager
from serving.servable import Servable
from serving.version_states import VersionStates
from tests.serving.manager_helpers import (
    ALL,
    AVAILABLE,
    END,
    LOADING,
    POLL,
    START,
    UNLOADING,
    configuration,
    model_config,
    model_spec,
    request_error,
    served_version,
    serving,
    version_of,
    version_states,
    wait_until,
)
from tests.serving.saved_models import write_broken, write_warm_up

INVALID_ARGUMENT = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND


def test_a_new_version_serves_before_the_old_one_unloads(base_path, publish, monkeypatch):
    recorded_states: list[tuple[int, int]] = []
    record = VersionStates.record

    def record_state(self, name, version, state, error=None):
        if (version, state) not in recorded_states:  # Each poll records AVAILABLE again.
            recorded_states.append((version, state))
        record(self, name, version, state, error)

    monkeypatch.setattr(VersionStates, "record", record_state)
    publish(1)
    with serving(model_config(base_path)) as manager:
        publish(2)
        wait_until(lambda: version_states(manager).get(1) == END)
        assert served_version(manager) == 2
    assert recorded_states == [
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


def test_the_latest_of_several_new_versions_is_loaded(base_path, publish, started_loads):
    publish(1)
    with serving(model_config(base_path), poll=0.3) as manager:
        publish(2, 3, 4)
        wait_until(lambda: served_version(manager) == 4)
    assert started_loads[0] == 1
    assert started_loads[-1] == 4


def test_a_leased_version_is_not_unloaded(base_path, publish, polls):
    publish(1)
    unloaded: list[Servable] = []
    with serving(model_config(base_path), on_unload=unloaded.append) as manager:
        with ExitStack() as outer:
            first = outer.enter_context(manager.lease(model_spec()))
            with manager.lease(model_spec(version=1)) as second:
                assert second is first
                publish(2)
                wait_until(lambda: version_states(manager)[1] == UNLOADING)
                assert served_version(manager) == 2
                polls.wait_for(3)
                assert version_of(second) == 1
                assert request_error(served_version, manager, version=1).code is NOT_FOUND
            polls.wait_for(3)
            assert version_states(manager) == {2: AVAILABLE, 1: UNLOADING}
            assert version_of(first) == 1
            assert unloaded == []
        wait_until(lambda: version_states(manager)[1] == END)
        assert unloaded == [first]
    assert [servable.version for servable in unloaded] == [1, 2]


def test_a_failing_request_ends_its_lease(base_path, publish):
    publish(1)
    with serving(model_config(base_path)) as manager:
        with pytest.raises(ZeroDivisionError), manager.lease(model_spec()):
            raise ZeroDivisionError
        publish(2)
        wait_until(lambda: version_states(manager)[1] == END)


def test_an_older_version_serves_again_when_the_newest_folder_is_removed(base_path, publish):
    publish(1, 2)
    with serving(model_config(base_path)) as manager:
        assert served_version(manager) == 2
        shutil.rmtree(base_path / "2")
        wait_until(lambda: version_states(manager)[2] == END)
        assert served_version(manager) == 1
        publish(2)
        wait_until(lambda: served_version(manager) == 2)


@pytest.mark.parametrize("policy", ["", ALL, "specific { versions: 2 versions: 3 }"])
def test_an_emptied_folder_keeps_its_versions_serving(base_path, publish, polls, caplog, policy):
    publish(2)
    with serving(model_config(base_path, policy)) as manager:
        caplog.clear()
        base_path.rename(base_path.parent / "elsewhere")
        polls.wait_for(2)
        base_path.mkdir()
        polls.wait_for(10)
        assert served_version(manager) == 2
        assert version_states(manager) == {2: AVAILABLE}
        warnings = [message for message in caplog.messages if "still serving 2" in message]
        assert len(warnings) == 1  # Not one per poll.
        publish(3)
        wait_until(lambda: version_states(manager)[2] == END)
        assert served_version(manager) == 3


def test_the_old_version_serves_if_a_new_one_fails(base_path, publish, polls, started_loads):
    publish(1)
    with serving(model_config(base_path)) as manager:
        write_broken(base_path, 2)
        wait_until(lambda: version_states(manager).get(2) == END)
        polls.wait_for(10)
        assert started_loads == [1, 2]  # The first retry comes after a minute.
        assert served_version(manager) == 1
        bad, good = manager.status(model_spec())
        assert (good.version, good.state) == (1, AVAILABLE)
        assert (bad.version, bad.state) == (2, END)
        assert bad.status.error_code == INVALID_ARGUMENT.value[0]
        assert "saved_model.pb" in bad.status.error_message
        assert str(base_path / "2") in bad.status.error_message
        publish(3)
        wait_until(lambda: served_version(manager) == 3)
        wait_until(lambda: version_states(manager) == {3: AVAILABLE, 2: END, 1: END})


def test_a_failed_load_is_retried_a_limited_number_of_times(
    base_path, publish, polls, started_loads
):
    publish(1)
    options = LoadOptions(max_retries=2, retry_seconds=0)
    with serving(model_config(base_path), options=options) as manager:
        write_broken(base_path, 2)
        wait_until(lambda: len(started_loads) == 4)
        polls.wait_for(10)
        assert started_loads == [1, 2, 2, 2]
        # A folder that was removed and added again is tried again.
        shutil.rmtree(base_path / "2")
        polls.wait_for(2)
        publish(2)
        wait_until(lambda: served_version(manager) == 2)


def test_an_incomplete_version_is_loaded_later(base_path, publish, ready_versions):
    publish(1)
    options = LoadOptions(retry_seconds=0.5)
    with serving(model_config(base_path), options=options) as manager:
        (base_path / "2").mkdir()
        wait_until(lambda: version_states(manager).get(2) == END)
        shutil.copytree(ready_versions / "2", base_path / "2", dirs_exist_ok=True)
        wait_until(lambda: served_version(manager) == 2)


def test_a_version_whose_warm_up_fails_does_not_serve(
    base_path, publish, ready_versions, started_loads
):
    publish(1)
    with serving(model_config(base_path)) as manager:
        unfinished = shutil.copytree(ready_versions / "2", base_path / "unfinished")
        write_warm_up(unfinished, [predict_pb2.PredictRequest()])
        unfinished.rename(base_path / "2")
        wait_until(lambda: version_states(manager).get(2) == END)
        (status,) = manager.status(model_spec(version=2))
        assert "request 1: input size does not match signature" in status.status.error_message
        assert served_version(manager) == 1


def test_unloaded_versions_are_freed(base_path, publish):
    publish(1)
    write_broken(base_path.parent / "broken", 1)
    with serving(model_config(base_path)) as manager:
        with manager.lease(model_spec()) as servable:
            reference = weakref.ref(servable)
        del servable
        write_broken(base_path, 2)
        wait_until(lambda: version_states(manager).get(2) == END)
        publish(3)
        wait_until(lambda: version_states(manager)[1] == END)
        time.sleep(2 * POLL)
        gc.collect()
        assert reference() is None
        models = [thing for thing in gc.get_objects() if isinstance(thing, Servable)]
        assert [model.version for model in models if model.path.parent == base_path] == [3]


def test_requests_succeed_while_versions_are_swapped(base_path, publish, monkeypatch, caplog):
    """Sixteen callers, eleven swaps and eleven reloads.

    One version computes each answer, and no version closes while a call computes on it.
    """
    publish(1)
    running: Counter[Servable] = Counter()
    lock = threading.Lock()
    run, close = Servable.run, Servable.close
    errors: list[str] = []

    def counting_run(servable, *arguments):
        with lock:
            running[servable] += 1
        try:
            return run(servable, *arguments)
        finally:
            with lock:
                running[servable] -= 1

    def checking_close(servable):
        if running[servable]:
            errors.append(f"closed version {servable.version} while it ran")
        close(servable)

    monkeypatch.setattr(Servable, "run", counting_run)
    monkeypatch.setattr(Servable, "close", checking_close)
    swapped = threading.Event()

    def call(manager: ModelManager) -> list[int]:
        versions = []
        for number in itertools.count():
            with manager.lease(model_spec()) as servable:
                versions.append(version_of(servable, float(number % 1000)))
            if swapped.is_set() and number >= 125:
                return versions
        raise AssertionError

    caplog.set_level(logging.ERROR)
    with serving(model_config(base_path)) as manager, ThreadPoolExecutor(16) as pool:
        calls = [pool.submit(call, manager) for _ in range(16)]
        try:
            for version in range(2, 13):
                publish(version)
                wait_until(partial(lambda expected: served_version(manager) == expected, version))
                manager.reload(configuration(model_config(base_path)))
                if version % 3 == 0:
                    shutil.rmtree(base_path / str(version - 1))
        finally:
            swapped.set()
        seen = [made.result() for made in calls]
        wait_until(lambda: version_states(manager)[12] == AVAILABLE)
        wait_until(
            lambda: version_states(manager) == {12: AVAILABLE} | dict.fromkeys(range(1, 12), END)
        )
    assert not errors
    assert not caplog.messages
    for versions in seen:
        assert versions == sorted(versions)  # The latest version never decreases.
    assert sum(map(len, seen)) >= 2000
    assert len(set().union(*seen)) > 6
