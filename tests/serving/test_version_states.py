"""Tests of version states, where two folders may have the same version number."""

import grpc

from serving.errors import RequestError
from serving.version_states import ModelVersionStatus, VersionStates
from tests.serving.manager_helpers import AVAILABLE, END, LOADING, START, UNLOADING, model_spec

ERROR = RequestError(grpc.StatusCode.DATA_LOSS, "a reason")


def state(states: VersionStates) -> ModelVersionStatus:
    (status,) = states.status(model_spec(version=1))
    return status


def test_a_serving_version_is_available_until_it_unloads():
    states = VersionStates()
    states.record("m", 1, AVAILABLE)
    for attempt in (START, LOADING, END):
        states.record("m", 1, attempt, ERROR if attempt == END else None)
        assert state(states).state == AVAILABLE
        assert not state(states).status.error_message
    states.record("m", 1, UNLOADING)
    assert state(states).state == UNLOADING
    states.record("m", 1, END)
    assert state(states).state == END


def test_unloading_an_old_folder_does_not_end_a_loading_version_of_the_same_number():
    states = VersionStates()
    states.record("m", 1, UNLOADING)
    states.record("m", 1, LOADING)
    states.record("m", 1, END)
    assert state(states).state == LOADING
    states.record("m", 1, END, ERROR)
    states.record("m", 1, END)
    assert state(states).status.error_code == grpc.StatusCode.DATA_LOSS.value[0]
    assert state(states).status.error_message == "a reason"
