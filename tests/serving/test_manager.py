"""Tests of the model manager: finding a version, starting, polling and stopping."""

import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from serving.errors import RequestError, ServingError
from serving.loader import LoadOptions
from serving.manager import ModelManager
from tests.serving.manager_helpers import (
    ALL,
    AVAILABLE,
    END,
    POLL,
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
from tests.serving.saved_models import write_broken

INVALID_ARGUMENT = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("", {3}),
        ("latest {}", {3}),
        ("latest { num_versions: 2 }", {2, 3}),
        ("latest { num_versions: 9 }", {1, 2, 3}),
        (ALL, {1, 2, 3}),
        ("specific { versions: 1 versions: 3 versions: 7 }", {1, 3}),
    ],
)
def test_the_versions_of_a_policy_serve(base_path, publish, policy, expected):
    publish(1, 2, 3)
    with serving(model_config(base_path, policy)) as manager:
        assert served_version(manager) == 3
        assert version_states(manager) == {version: AVAILABLE for version in expected}
        assert list(version_states(manager)) == sorted(expected, reverse=True)
        for version in range(5):
            if version in expected:
                assert served_version(manager, version=version) == version
            else:
                error = request_error(served_version, manager, version=version)
                assert error.code is NOT_FOUND
                text = f"Servable not found for request: Specific(m, {version})"
                assert error.message == text


def test_unknown_names_versions_and_labels(base_path, publish):
    publish(1)
    with serving(model_config(base_path)) as manager:
        error = request_error(served_version, manager, "other")
        assert (error.code, error.message) == (
            NOT_FOUND,
            "Servable not found for request: Latest(other)",
        )
        error = request_error(served_version, manager, "other", version=1)
        assert error.message == "Servable not found for request: Specific(other, 1)"
        error = request_error(served_version, manager, "")
        assert (error.code, error.message) == (
            INVALID_ARGUMENT,
            "ModelSpec has no name specified.",
        )
        for name in ("m", "other"):
            error = request_error(served_version, manager, name, label="x")
            assert (error.code, error.message) == (
                INVALID_ARGUMENT,
                "Unrecognized servable version label: x",
            )
        error = request_error(manager.status, model_spec("other"))
        assert (error.code, error.message) == (
            NOT_FOUND,
            "Could not find any versions of model other",
        )
        error = request_error(manager.status, model_spec("m", 2))
        assert (error.code, error.message) == (NOT_FOUND, "Could not find version 2 of model m")
        (status,) = manager.status(model_spec("m", 1))
        assert (status.version, status.state) == (1, AVAILABLE)
        assert (status.status.error_code, status.status.error_message) == (0, "")
        assert status.HasField("status")


def test_folder_names_may_have_leading_zeros(base_path, publish):
    publish(5)
    publish(11, name="00000011")
    with serving(model_config(base_path)) as manager:
        assert served_version(manager) == served_version(manager, version=11) == 11


def test_models_are_independent(base_path, publish, tmp_path):
    publish(1, 2)
    publish(3, at=tmp_path / "other")
    with serving(model_config(base_path), model_config(tmp_path / "other", name="o")) as manager:
        assert (served_version(manager), served_version(manager, "o")) == (2, 3)
        write_broken(tmp_path / "other", 4)
        publish(5)
        wait_until(lambda: served_version(manager) == 5)
        wait_until(lambda: version_states(manager, "o").get(4) == END)
        assert served_version(manager, "o") == 3


def test_two_models_may_share_a_folder(base_path, publish):
    publish(1, 2)
    first = model_config(base_path, "specific { versions: 1 }", name="first")
    with serving(first, model_config(base_path, name="latest")) as manager:
        assert (served_version(manager, "first"), served_version(manager, "latest")) == (1, 2)


def test_start_fails_after_the_last_retry_of_a_load(base_path, publish, started_loads, caplog):
    publish(1)
    write_broken(base_path, 2)
    options = LoadOptions(max_retries=2, retry_seconds=0.01)
    with pytest.raises(ServingError, match=f"{base_path}/2: .*saved_model.pb") as raised:
        ModelManager(configuration(model_config(base_path)), POLL, options).start()
    assert "\n" not in str(raised.value)
    assert started_loads == [2, 2, 2]
    assert sum("retry in 0.01 s" in text for text in caplog.messages) == 2
    assert "no retry" in caplog.messages[-1]


def serves(manager: ModelManager) -> bool:
    try:
        return bool(served_version(manager))
    except RequestError:
        return False


def test_other_models_serve_while_a_load_is_retried(
    base_path, publish, tmp_path, ready_versions, caplog
):
    broken = write_broken(tmp_path / "broken", 1)
    publish(2)
    options = LoadOptions(retry_seconds=0.5)
    models = configuration(model_config(tmp_path / "broken", name="b"), model_config(base_path))
    manager = ModelManager(models, POLL, options)
    with ThreadPoolExecutor() as pool:
        started = pool.submit(manager.start)
        try:
            wait_until(lambda: serves(manager))
            assert not started.done()
            publish(3)  # Policies hold meanwhile.
            wait_until(lambda: served_version(manager) == 3)
            shutil.rmtree(broken)
            publish(1, at=tmp_path / "broken")
            started.result(20)
            assert served_version(manager, "b") == 1
        finally:
            manager.stop()


@pytest.mark.parametrize("poll", [0, -1])
def test_start_fails_without_versions_if_polling_is_off(base_path, poll):
    with pytest.raises(ServingError, match="Unable to find a numerical version path"):
        ModelManager(configuration(model_config(base_path)), poll).start()


@pytest.mark.parametrize("poll", [0, -1])
def test_if_polling_is_off_only_reload_reads_folders(base_path, publish, polls, poll):
    publish(1)
    with serving(model_config(base_path), poll=poll) as manager:
        publish(2)
        time.sleep(0.1)
        assert served_version(manager) == 1
        manager.reload(configuration(model_config(base_path)))
        assert served_version(manager) == 2


def test_start_waits_for_a_first_version(base_path, publish, polls, caplog):
    manager = ModelManager(configuration(model_config(base_path)), POLL)
    with ThreadPoolExecutor() as pool:
        started = pool.submit(manager.start)
        try:
            polls.wait_for(5)
            assert not started.done()
            for once in ("has no version of model m", "version folders must be numbers"):
                assert sum(once in text for text in caplog.messages) == 1
            publish(4)
            started.result(20)
            assert served_version(manager) == 4
        finally:
            manager.stop()


def test_a_waiting_start_reminds_the_operator(base_path, polls, caplog, monkeypatch):
    monkeypatch.setattr("serving.manager.REMINDER_SECONDS", POLL)
    stop_while_waiting(base_path, polls, 6)
    reminders = [text for text in caplog.messages if "Waiting for a first version" in text]
    assert len(reminders) >= 2
    assert all(str(base_path) in text for text in reminders)


def test_stop_ends_a_waiting_start(base_path, polls):
    stop_while_waiting(base_path, polls, 2)


def stop_while_waiting(base_path, polls, count: int) -> None:
    """Starts a manager without a version, and stops it after a number of polls."""
    manager = ModelManager(configuration(model_config(base_path)), POLL)
    with ThreadPoolExecutor() as pool:
        started = pool.submit(manager.start)
        polls.wait_for(count)
        manager.stop()
        with pytest.raises(ServingError):
            started.result(20)


def test_versions_are_unloaded_one_at_a_time(base_path, publish):
    publish(1, 2)
    unloading, numbers = set(), []

    def unload(servable):
        unloading.add(servable.version)
        numbers.append(len(unloading))
        time.sleep(0.3)
        unloading.remove(servable.version)

    with serving(model_config(base_path, ALL), on_unload=unload) as manager:
        with manager.lease(model_spec(version=1)), manager.lease(model_spec(version=2)):
            manager.stop()
        wait_until(lambda: version_states(manager) == {1: END, 2: END})
    assert numbers == [1, 1]


def test_stop_waits_for_requests_in_flight(base_path, publish):
    publish(1)
    with serving(model_config(base_path)) as manager:
        with manager.lease(model_spec()) as servable:
            manager.stop()
            assert request_error(served_version, manager).code is NOT_FOUND
            assert version_states(manager) == {1: UNLOADING}
            assert version_of(servable) == 1
        wait_until(lambda: version_states(manager) == {1: END})
