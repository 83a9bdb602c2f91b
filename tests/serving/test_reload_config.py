"""Tests of reloading the configuration of models, which succeeds or changes nothing."""

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from tensorflow_serving.config.model_server_config_pb2 import ModelConfig, ModelServerConfig

from serving.errors import ServingError
from serving.servable import Servable
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
FAILED_PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
NOT_FOUND = grpc.StatusCode.NOT_FOUND
NO_VERSIONS = "Unable to find a numerical version path for servable {} at: "
NOT_AVAILABLE = (
    "Request to assign label to version {} of model m, which is not currently available for "
    "inference"
)
UNAVAILABLE = "Some models did not become available: {}, versions {}: "


def test_labels(base_path, publish):
    publish(1, 2, 3)
    with serving(model_config(base_path, ALL)) as manager:
        labels = {"stable": 1, "canary": 3}
        manager.reload(configuration(model_config(base_path, ALL, labels)))
        assert served_version(manager, label="stable") == 1
        assert served_version(manager, label="canary") == 3

        manager.reload(configuration(model_config(base_path, ALL, {"stable": 2})))
        assert served_version(manager, label="stable") == 2
        assert request_error(served_version, manager, label="canary").code is INVALID_ARGUMENT

        for label, version in (("stable", 9), ("new", 8)):
            refused = configuration(model_config(base_path, ALL, {label: version}))
            error = request_error(manager.reload, refused)
            assert error.code is FAILED_PRECONDITION
            assert error.message == NOT_AVAILABLE.format(version)
            assert served_version(manager, label="stable") == 2


def test_labels_name_versions_that_serve_before_the_reload(base_path, publish):
    publish(1, 2)
    with serving(model_config(base_path)) as manager:
        labeled = configuration(model_config(base_path, ALL, {"old": 1}))
        assert request_error(manager.reload, labeled).message == NOT_AVAILABLE.format(1)
        manager.reload(configuration(model_config(base_path, ALL)))
        manager.reload(labeled)
        assert served_version(manager, label="old") == 1


def test_labels_at_the_start_need_a_flag(base_path, publish):
    publish(1)
    labeled = model_config(base_path, ALL, {"only": 1, "none": 9})
    with pytest.raises(ServingError, match=NOT_AVAILABLE.format("1|9")), serving(labeled):
        pass
    with serving(labeled, allow_unavailable_labels=True) as manager:
        assert served_version(manager, label="only") == 1
        error = request_error(served_version, manager, label="none")
        assert error.message == "Servable not found for request: Specific(m, 9)"
        manager.reload(configuration(model_config(base_path, ALL, {"only": 1, "later": 2})))
        moved = configuration(model_config(base_path, ALL, {"only": 2}))
        assert request_error(manager.reload, moved).message == NOT_AVAILABLE.format(2)


def test_a_reload_waits_for_the_first_version_of_a_new_model(base_path, publish, tmp_path):
    publish(1)
    later = tmp_path / "later"
    both = configuration(model_config(base_path), model_config(later, name="n"))
    with serving(model_config(base_path)) as manager, ThreadPoolExecutor() as pool:
        waiting = pool.submit(manager.reload, both)
        time.sleep(5 * POLL)
        assert not waiting.done()
        assert served_version(manager) == 1
        publish(2, at=later)
        waiting.result(20)
        assert served_version(manager, "n") == 2


def test_a_waiting_reload_ends_with_its_timeout_or_the_server(base_path, publish, tmp_path):
    publish(1)
    both = configuration(model_config(base_path), model_config(tmp_path / "later", name="n"))
    with serving(model_config(base_path)) as manager, ThreadPoolExecutor() as pool:
        manager.reload(both, wait=False)
        manager.reload(configuration(model_config(base_path)))
        assert request_error(manager.reload, both, 0.1).code is grpc.StatusCode.DEADLINE_EXCEEDED
        manager.reload(configuration(model_config(base_path)))
        waiting = pool.submit(request_error, manager.reload, both)
        time.sleep(2 * POLL)
        manager.stop_waiting()
        assert waiting.result(20).code is grpc.StatusCode.UNAVAILABLE


def test_reload_replaces_the_whole_configuration(base_path, publish, tmp_path):
    publish(1)
    publish(2, at=tmp_path / "a")
    publish(3, at=tmp_path / "b")
    given = configuration(model_config(tmp_path / "b", name="b"), model_config(base_path))
    with serving(
        model_config(base_path), model_config(tmp_path / "a", name="a"), poll=0
    ) as manager:
        manager.reload(given)
        given.model_config_list.config[1].version_labels["later"] = 1  # The manager has a copy.
        assert request_error(served_version, manager, label="later").code is INVALID_ARGUMENT
        assert (served_version(manager), served_version(manager, "b")) == (1, 3)
        assert request_error(served_version, manager, "a").message == (
            "Servable not found for request: Latest(a)"
        )
        assert version_states(manager, "a") == {2: END}
        manager.reload(configuration())
        assert request_error(served_version, manager).code is NOT_FOUND
        manager.reload(configuration(model_config(tmp_path / "a", name="a")))
        assert served_version(manager, "a") == 2
        assert version_states(manager, "a") == {2: AVAILABLE}


def test_reload_does_not_load_a_serving_version_again(base_path, publish, started_loads):
    publish(1, 2)
    config = model_config(base_path, ALL)
    with serving(config, poll=0) as manager, manager.lease(model_spec()) as before:
        manager.reload(configuration(config))
        with manager.lease(model_spec()) as after:
            assert before is after
    assert started_loads == [2, 1]


def test_reload_changes_the_policy(base_path, publish):
    publish(1, 2, 3)
    with serving(model_config(base_path)) as manager:
        manager.reload(configuration(model_config(base_path, "specific { versions: 1 }")))
        assert served_version(manager) == 1
        assert version_states(manager) == {1: AVAILABLE, 3: END}
        manager.reload(configuration(model_config(base_path, ALL)))
        assert version_states(manager) == dict.fromkeys((1, 2, 3), AVAILABLE)


def test_reload_moves_a_model_to_another_folder(ready_versions, base_path, publish, tmp_path):
    """The same version number in the new folder takes over without a gap."""
    publish(1)
    publish(1, at=tmp_path / "moved")
    with serving(model_config(base_path)) as manager, manager.lease(model_spec()) as old:
        manager.reload(configuration(model_config(tmp_path / "moved")))
        with manager.lease(model_spec(version=1)) as new:
            assert new.path == tmp_path / "moved" / "1"
            assert old.path == base_path / "1"
            assert version_of(old) == version_of(new) == 1
        assert version_states(manager) == {1: AVAILABLE}
    assert version_states(manager) == {1: END}


def test_reload_of_a_version_that_is_unloading(base_path, publish):
    publish(1, 2)
    with serving(model_config(base_path)) as manager:
        with manager.lease(model_spec()) as held:
            manager.reload(configuration(model_config(base_path, "specific { versions: 1 }")))
            assert version_states(manager) == {2: UNLOADING, 1: AVAILABLE}
            manager.reload(configuration(model_config(base_path)))
            with manager.lease(model_spec()) as fresh:
                assert fresh is not held
                assert version_of(held) == version_of(fresh) == 2
            assert version_states(manager) == {2: AVAILABLE, 1: END}
        assert served_version(manager) == 2
        time.sleep(3 * POLL)
        assert version_states(manager)[2] == AVAILABLE


def broken_model(base_path: Path) -> ModelConfig:
    write_broken(base_path.parent / "broken", 4)
    return model_config(base_path.parent / "broken", name="n")


def moved_away(base_path: Path) -> ModelConfig:
    return model_config(base_path.parent / "nowhere")


def moved_to_broken(base_path: Path) -> ModelConfig:
    write_broken(base_path.parent / "broken", 1)
    return model_config(base_path.parent / "broken")


def empty_policy(base_path: Path) -> ModelConfig:
    return model_config(base_path, "specific { versions: 9 }")


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        (
            broken_model,
            grpc.StatusCode.UNKNOWN,
            UNAVAILABLE.format("n", 4),
        ),
        (
            moved_away,
            NOT_FOUND,
            NO_VERSIONS.format("m"),
        ),
        (
            moved_to_broken,
            grpc.StatusCode.UNKNOWN,
            UNAVAILABLE.format("m", 1),
        ),
        (
            empty_policy,
            NOT_FOUND,
            NO_VERSIONS.format("m"),
        ),
    ],
)
def test_a_failed_reload_changes_nothing(base_path, publish, ready_versions, change, code, message):
    publish(1)
    publish(2, at=base_path.parent / "new")
    unloaded: list[Servable] = []
    with serving(model_config(base_path), on_unload=unloaded.append) as manager:
        new = model_config(base_path.parent / "new", name="new")
        changed = change(base_path)
        same = [] if changed.name == "m" else [model_config(base_path)]
        error = request_error(manager.reload, configuration(new, *same, changed))
        assert error.code is code
        assert error.message.startswith(message)
        assert served_version(manager) == 1
        assert version_states(manager) == {1: AVAILABLE}
        # Versions loaded before the failure are unloaded again.
        assert [servable.name for servable in unloaded] == ["new"]
        assert version_states(manager, "new") == {2: END}
        assert request_error(served_version, manager, "new").code is NOT_FOUND
        # Polling uses the old configuration.
        publish(3)
        wait_until(lambda: served_version(manager) == 3)


def test_a_failed_model_may_be_reloaded_at_once(base_path, publish, ready_versions):
    publish(1)
    write_broken(base_path.parent / "new", 2)
    with serving(model_config(base_path), poll=0) as manager:
        both = configuration(
            model_config(base_path), model_config(base_path.parent / "new", name="new")
        )
        assert "new/2: " in request_error(manager.reload, both).message
        shutil.rmtree(base_path.parent / "new" / "2")
        publish(2, at=base_path.parent / "new")
        manager.reload(both)
        assert served_version(manager, "new") == 2


def test_reload_keeps_a_model_whose_folder_is_emptied(base_path, publish, tmp_path):
    publish(1)
    publish(2, at=tmp_path / "o")
    with serving(model_config(base_path)) as manager:
        shutil.rmtree(base_path)
        manager.reload(
            configuration(model_config(base_path), model_config(tmp_path / "o", name="o"))
        )
        assert (served_version(manager), served_version(manager, "o")) == (1, 2)


def test_an_empty_configuration_changes_nothing(base_path, publish):
    """Such as that of a file that is being written."""
    publish(1)
    with serving(model_config(base_path), poll=0) as manager:
        manager.reload(ModelServerConfig())
        assert served_version(manager) == 1
