"""The state of each version: START, LOADING, AVAILABLE, UNLOADING or END."""

import threading
from collections import defaultdict

import grpc
from tensorflow_serving.apis import model_pb2
from tensorflow_serving.apis.get_model_status_pb2 import ModelVersionStatus

from serving.errors import RequestError


class VersionStates:
    """States by model and version; an unloaded version keeps its last state."""

    def __init__(self) -> None:
        self._states: dict[str, dict[int, ModelVersionStatus]] = defaultdict(dict)
        self._lock = threading.Lock()

    def record(
        self, model: str, version: int, state: int, error: RequestError | None = None
    ) -> None:
        """Sets the state of a version.

        Two folders may have the same version number: one loads while the other serves or unloads.
        The state is then that of the serving one.
        """
        status = ModelVersionStatus(version=version, state=state)
        status.status.SetInParent()  # OK.
        if error:
            status.status.error_code = error.code.value[0]
            status.status.error_message = error.message
        with self._lock:
            states = self._states[model]
            before = states[version].state if version in states else ModelVersionStatus.UNKNOWN
            serving = before == ModelVersionStatus.AVAILABLE
            if serving and state != ModelVersionStatus.UNLOADING:
                return
            unloaded = state == ModelVersionStatus.END and not error
            if unloaded and before != ModelVersionStatus.UNLOADING:
                return
            states[version] = status

    def status(self, model_spec: model_pb2.ModelSpec) -> list[ModelVersionStatus]:
        """Returns the states of one version, or of all versions of a model, newest first.

        Raises:
            RequestError: No such version was ever found.
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
