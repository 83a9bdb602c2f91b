"""What has become of each version: START, LOADING, AVAILABLE, UNLOADING, END."""

import threading
from collections import defaultdict

import grpc
from tensorflow_serving.apis import model_pb2
from tensorflow_serving.apis.get_model_status_pb2 import ModelVersionStatus

from serving.errors import RequestError


class VersionStates:
    """States by model and version; those of versions that are gone stay."""

    def __init__(self) -> None:
        self._states: dict[str, dict[int, ModelVersionStatus]] = defaultdict(dict)
        self._lock = threading.Lock()

    def note(self, model: str, version: int, state: int, error: RequestError | None = None) -> None:
        """Takes down a state.

        A version may be loaded from one folder while one of the same number serves from another, or
        is on its way out: then the state is of what serves.
        """
        status = ModelVersionStatus(version=version, state=state)
        status.status.SetInParent()  # OK.
        if error:
            status.status.error_code = error.code.value[0]
            status.status.error_message = error.message
        with self._lock:
            states = self._states[model]
            now = states[version].state if version in states else ModelVersionStatus.UNKNOWN
            serves = now == ModelVersionStatus.AVAILABLE
            if serves and state != ModelVersionStatus.UNLOADING:
                return
            unloaded = state == ModelVersionStatus.END and not error
            if unloaded and now != ModelVersionStatus.UNLOADING:
                return
            states[version] = status

    def of(self, model_spec: model_pb2.ModelSpec) -> list[ModelVersionStatus]:
        """The states of one version, or of all of a model, newest first.

        Raises:
            RequestError: There never was such a version.
        """
        model = model_spec.name
        with self._lock:
            states = dict(self._states.get(model, {}))
        if model_spec.WhichOneof("version_choice") == "version":
            version = model_spec.version.value
            if version not in states:
                raise _not_found(f"Could not find version {version} of model {model}")
            return [states[version]]
        if not states:
            raise _not_found(f"Could not find any versions of model {model}")
        return [states[version] for version in sorted(states, reverse=True)]


def _not_found(message: str) -> RequestError:
    return RequestError(grpc.StatusCode.NOT_FOUND, message)
