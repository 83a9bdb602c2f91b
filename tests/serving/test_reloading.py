"""A new configuration replaces the old one whole, or not at all."""

import shutil
import time
from pathlib import Path

import grpc
import pytest
from tensorflow_serving.config.model_server_config_pb2 import ModelConfig, ModelServerConfig

from serving.servable import Servable
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
FAILED_PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
NOT_FOUND = grpc.StatusCode.NOT_FOUND


def test_labels(base, place):
    place(1, 2, 3)
    labels = {"stable": 1, "canary": 3, "none": 9}
    with serving(model_config(base, ALL, labels)) as manager:
        assert answer(manager, label="stable") == 1
        assert answer(manager, label="canary") == 3
        # As at the start anything is allowed, this one stands for what is not there.
        error = refusal(answer, manager, label="none")
        assert error.message == "Servable not found for request: Specific(m, 9)"

        manager.reload(configuration(model_config(base, ALL, {"stable": 2, "none": 9})))
        assert answer(manager, label="stable") == 2
        assert refusal(answer, manager, label="canary").code is INVALID_ARGUMENT

        for label, version in (("stable", 9), ("new", 8)):
            refused = configuration(model_config(base, ALL, {label: version}))
            error = refusal(manager.reload, refused)
            assert error.code is FAILED_PRECONDITION
            assert error.message == (
                f"Request to assign label to version {version} of model m, which is not currently "
                "available for inference"
            )
            assert answer(manager, label="stable") == 2


def test_a_label_for_a_version_that_the_same_configuration_loads(base, place):
    place(1, 2)
    with serving(model_config(base)) as manager:
        manager.reload(configuration(model_config(base, ALL, {"old": 1})))
        assert answer(manager, label="old") == 1


def test_reloading_replaces_the_whole_configuration(base, place, tmp_path):
    place(1)
    place(2, at=tmp_path / "a")
    place(3, at=tmp_path / "b")
    given = configuration(model_config(tmp_path / "b", name="b"), model_config(base))
    with serving(model_config(base), model_config(tmp_path / "a", name="a"), poll=0) as manager:
        manager.reload(given)
        given.model_config_list.config[1].version_labels["later"] = 1  # By the caller.
        assert refusal(answer, manager, label="later").code is INVALID_ARGUMENT
        assert (answer(manager), answer(manager, "b")) == (1, 3)
        assert refusal(answer, manager, "a").message == (
            "Servable not found for request: Latest(a)"
        )
        assert states(manager, "a") == {2: END}
        manager.reload(configuration())
        assert refusal(answer, manager).code is NOT_FOUND
        manager.reload(configuration(model_config(tmp_path / "a", name="a")))
        assert answer(manager, "a") == 2
        assert states(manager, "a") == {2: AVAILABLE}


def test_reloading_what_is_loaded_loads_nothing(base, place, loads):
    place(1, 2)
    config = model_config(base, ALL)
    with serving(config, poll=0) as manager, manager.lease(spec()) as before:
        manager.reload(configuration(config))
        with manager.lease(spec()) as after:
            assert before is after
    assert loads == [2, 1]


def test_reloading_changes_the_policy(base, place):
    place(1, 2, 3)
    with serving(model_config(base)) as manager:
        manager.reload(configuration(model_config(base, "specific { versions: 1 }")))
        assert answer(manager) == 1
        assert states(manager) == {1: AVAILABLE, 3: END}
        manager.reload(configuration(model_config(base, ALL)))
        assert states(manager) == dict.fromkeys((1, 2, 3), AVAILABLE)


def test_reloading_moves_a_model_to_another_folder(stock, base, place, tmp_path):
    """The same number is another model there, which takes over without a gap."""
    place(1)
    place(1, at=tmp_path / "moved")
    with serving(model_config(base)) as manager, manager.lease(spec()) as old:
        manager.reload(configuration(model_config(tmp_path / "moved")))
        with manager.lease(spec(version=1)) as new:
            assert new.path == tmp_path / "moved" / "1"
            assert old.path == base / "1"
            assert computed(old) == computed(new) == 1
        assert states(manager) == {1: AVAILABLE}
    assert states(manager) == {1: END}


def test_a_version_taken_back_while_it_is_on_its_way_out(base, place):
    place(1, 2)
    with serving(model_config(base)) as manager:
        with manager.lease(spec()) as held:
            manager.reload(configuration(model_config(base, "specific { versions: 1 }")))
            assert states(manager) == {2: UNLOADING, 1: AVAILABLE}
            manager.reload(configuration(model_config(base)))
            with manager.lease(spec()) as fresh:
                assert fresh is not held
                assert computed(held) == computed(fresh) == 2
            assert states(manager) == {2: AVAILABLE, 1: END}
        assert answer(manager) == 2
        time.sleep(3 * POLL)
        assert states(manager)[2] == AVAILABLE


def without_version(base: Path) -> ModelConfig:
    (base.parent / "empty").mkdir()
    return model_config(base.parent / "empty", name="n")


def broken(base: Path) -> ModelConfig:
    write_broken(base.parent / "broken", 4)
    return model_config(base.parent / "broken", name="n")


def moved_to_nothing(base: Path) -> ModelConfig:
    return model_config(base.parent / "nowhere")


def moved_to_a_broken_version(base: Path) -> ModelConfig:
    write_broken(base.parent / "broken", 1)
    return model_config(base.parent / "broken")


def narrowed_to_nothing(base: Path) -> ModelConfig:
    return model_config(base, "specific { versions: 9 }")


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        (without_version, NOT_FOUND, "Unable to find a numerical version path for servable n at:"),
        (broken, grpc.StatusCode.UNKNOWN, "Some models did not become available: n, versions 4: "),
        (moved_to_nothing, NOT_FOUND, "Unable to find a numerical version path for servable m at:"),
        (
            moved_to_a_broken_version,
            grpc.StatusCode.UNKNOWN,
            "Some models did not become available: m, versions 1: ",
        ),
        (narrowed_to_nothing, NOT_FOUND, "Unable to find a numerical version path for servable m"),
    ],
)
def test_a_failed_reload_changes_nothing(base, place, stock, change, code, message):
    place(1)
    place(2, at=base.parent / "new")
    unloaded: list[Servable] = []
    with serving(model_config(base), on_unload=unloaded.append) as manager:
        new = model_config(base.parent / "new", name="new")
        changed = change(base)
        same = [] if changed.name == "m" else [model_config(base)]
        error = refusal(manager.reload, configuration(new, *same, changed))
        assert error.code is code
        assert error.message.startswith(message)
        assert answer(manager) == 1
        assert states(manager) == {1: AVAILABLE}
        # What was loaded before the failure is gone again.
        assert [servable.name for servable in unloaded] == ["new"]
        assert states(manager, "new") == {2: END}
        assert refusal(answer, manager, "new").code is NOT_FOUND
        # The old configuration is in force: it is polled.
        place(3)
        until(lambda: answer(manager) == 3)


def test_a_model_that_failed_may_be_reloaded_at_once(base, place, stock):
    place(1)
    write_broken(base.parent / "new", 2)
    with serving(model_config(base), poll=0) as manager:
        both = configuration(model_config(base), model_config(base.parent / "new", name="new"))
        assert "new/2: " in refusal(manager.reload, both).message
        shutil.rmtree(base.parent / "new" / "2")
        place(2, at=base.parent / "new")
        manager.reload(both)
        assert answer(manager, "new") == 2


def test_an_emptied_folder_does_not_hinder_a_reload(base, place, tmp_path):
    place(1)
    place(2, at=tmp_path / "o")
    with serving(model_config(base)) as manager:
        shutil.rmtree(base)
        manager.reload(configuration(model_config(base), model_config(tmp_path / "o", name="o")))
        assert (answer(manager), answer(manager, "o")) == (1, 2)


def test_an_empty_configuration_changes_nothing(base, place):
    """As of a file that is just being written."""
    place(1)
    with serving(model_config(base), poll=0) as manager:
        manager.reload(ModelServerConfig())
        assert answer(manager) == 1
