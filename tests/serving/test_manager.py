"""Who asks gets the version that is meant; a manager starts, polls and stops."""

import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from serving.errors import ServingError
from serving.manager import ModelManager
from tests.serving.managed import (
    ALL,
    AVAILABLE,
    END,
    POLL,
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
from tests.serving.models import write_broken

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
def test_a_policy_s_versions_are_served(base, place, policy, expected):
    place(1, 2, 3)
    with serving(model_config(base, policy)) as manager:
        assert answer(manager) == 3
        assert states(manager) == {version: AVAILABLE for version in expected}
        assert list(states(manager)) == sorted(expected, reverse=True)
        for version in range(5):
            if version in expected:
                assert answer(manager, version=version) == version
            else:
                error = refusal(answer, manager, version=version)
                assert error.code is NOT_FOUND
                text = f"Servable not found for request: Specific(m, {version})"
                assert error.message == text


def test_names_that_are_not_there(base, place):
    place(1)
    with serving(model_config(base)) as manager:
        error = refusal(answer, manager, "other")
        assert (error.code, error.message) == (
            NOT_FOUND,
            "Servable not found for request: Latest(other)",
        )
        error = refusal(answer, manager, "other", version=1)
        assert error.message == "Servable not found for request: Specific(other, 1)"
        error = refusal(answer, manager, "")
        assert (error.code, error.message) == (
            INVALID_ARGUMENT,
            "ModelSpec has no name specified.",
        )
        for name in ("m", "other"):
            error = refusal(answer, manager, name, label="x")
            assert (error.code, error.message) == (
                INVALID_ARGUMENT,
                "Unrecognized servable version label: x",
            )
        error = refusal(manager.status, spec("other"))
        assert (error.code, error.message) == (
            NOT_FOUND,
            "Could not find any versions of model other",
        )
        error = refusal(manager.status, spec("m", 2))
        assert (error.code, error.message) == (NOT_FOUND, "Could not find version 2 of model m")
        (status,) = manager.status(spec("m", 1))
        assert (status.version, status.state) == (1, AVAILABLE)
        assert (status.status.error_code, status.status.error_message) == (0, "")
        assert status.HasField("status")


def test_numbers_may_have_zeros_before_them(base, place):
    place(5)
    place(11, name="00000011")
    with serving(model_config(base)) as manager:
        assert answer(manager) == answer(manager, version=11) == 11


def test_models_do_not_disturb_each_other(base, place, tmp_path):
    place(1, 2)
    place(3, at=tmp_path / "other")
    with serving(model_config(base), model_config(tmp_path / "other", name="o")) as manager:
        assert (answer(manager), answer(manager, "o")) == (2, 3)
        write_broken(tmp_path / "other", 4)
        place(5)
        until(lambda: answer(manager) == 5)
        until(lambda: states(manager, "o").get(4) == END)
        assert answer(manager, "o") == 3


def test_two_models_may_share_a_folder(base, place):
    place(1, 2)
    first = model_config(base, "specific { versions: 1 }", name="first")
    with serving(first, model_config(base, name="latest")) as manager:
        assert (answer(manager, "first"), answer(manager, "latest")) == (1, 2)


def test_a_model_that_cannot_be_loaded_ends_the_start(base, place):
    place(1)
    write_broken(base, 2)
    with pytest.raises(ServingError, match=f"{base}/2: .*saved_model.pb") as raised:
        ModelManager(configuration(model_config(base)), POLL).start()
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("poll", [0, -1])
def test_without_polling_a_model_without_versions_ends_the_start(base, poll):
    with pytest.raises(ServingError, match="Unable to find a numerical version path"):
        ModelManager(configuration(model_config(base)), poll).start()


@pytest.mark.parametrize("poll", [0, -1])
def test_without_polling_only_reloading_looks_at_folders(base, place, polls, poll):
    place(1)
    with serving(model_config(base), poll=poll) as manager:
        place(2)
        time.sleep(0.1)
        assert answer(manager) == 1
        manager.reload(configuration(model_config(base)))
        assert answer(manager) == 2


def test_the_start_waits_for_a_first_version(base, place, polls, caplog):
    manager = ModelManager(configuration(model_config(base)), POLL)
    with ThreadPoolExecutor() as pool:
        started = pool.submit(manager.start)
        try:
            polls.pass_by(5)
            assert not started.done()
            warnings = [text for text in caplog.messages if "no version of model m" in text]
            assert len(warnings) == 1
            place(4)
            started.result(20)
            assert answer(manager) == 4
        finally:
            manager.stop()


def test_a_start_that_waits_can_be_stopped(base, polls):
    manager = ModelManager(configuration(model_config(base)), POLL)
    with ThreadPoolExecutor() as pool:
        started = pool.submit(manager.start)
        polls.pass_by(2)
        manager.stop()
        with pytest.raises(ServingError):
            started.result(20)


def test_stopping_lets_what_computes_end(base, place):
    place(1)
    with serving(model_config(base)) as manager:
        with manager.lease(spec()) as servable:
            manager.stop()
            assert refusal(answer, manager).code is NOT_FOUND
            assert states(manager) == {1: UNLOADING}
            assert computed(servable) == 1
        until(lambda: states(manager) == {1: END})
