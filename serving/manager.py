"""Which models and versions serve now: folders are watched, versions loaded, swapped and unloaded.

A version that replaces others serves before they go, and they go when the last request that
computes on them is done.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import grpc
import tensorflow as tf
from tensorflow_serving.apis import model_pb2

from serving.errors import RequestError, ServingError, invalid
from serving.loader import LoadedVersion, Loader, NoVersionsError, ServedModel
from serving.model_configs import ModelConfig, ModelServerConfig, check_labels, checked
from serving.servable import Servable
from serving.version_states import ModelVersionStatus, VersionStates

logger = logging.getLogger("serving")


class ModelManager:
    """Serves what a configuration names; requests, polling and reloading go on at the same time.

    Args:
        config: Models, each with a folder of versions.
        poll_seconds: How often folders are looked at; with zero or less only at the start and when
            a configuration is loaded.
        session_config: Options of the models' sessions.
        on_unload: Called with a servable on which nothing computes any more, before it is closed.
    """

    def __init__(
        self,
        config: ModelServerConfig,
        poll_seconds: float = 1.0,
        session_config: tf.compat.v1.ConfigProto | None = None,
        on_unload: Callable[[Servable], object] = lambda servable: None,
    ):
        self._config = config
        self._poll_seconds = poll_seconds
        self._on_unload = on_unload
        self._models: Mapping[str, ServedModel] = {}
        self._states = VersionStates()
        self._lock = threading.Lock()  # Of models and leases; held for moments only.
        self._changing = threading.Lock()  # One change of what serves at a time, loading included.
        self._stopping = threading.Event()
        self._loader = Loader(self._states, session_config, self._stopping)
        self._poller = threading.Thread(target=self._poll, name="versions", daemon=True)

    def start(self) -> None:
        """Loads all models, waiting for those that have no version yet, and begins to poll.

        Raises:
            ServingError: The configuration is wrong, a model cannot be loaded, has no version and
                is not polled for one, or `stop` was called meanwhile.
        """
        try:
            self._replace(self._config, at_start=True)
        except RequestError as error:
            raise ServingError(error.message) from error
        if self._poll_seconds > 0:
            self._poller.start()

    def stop(self) -> None:
        """Ends polling and unloads all models, each when nothing computes on it any more.

        A version that is being loaded is waited for. Not to be called by a signal handler, which
        may have interrupted `start`.
        """
        self._stopping.set()
        if self._poller.is_alive():
            self._poller.join()
        with self._changing:
            self._serve({})

    @contextmanager
    def lease(self, model_spec: model_pb2.ModelSpec) -> Iterator[Servable]:
        """Gives the version that a request means and keeps it loaded meanwhile.

        Raises:
            RequestError: There is no such model, version or label.
        """
        with self._lock:
            loaded = _find(self._models, model_spec)
            loaded.leases += 1
        try:
            yield loaded.servable
        finally:
            with self._lock:
                loaded.leases -= 1
                last = loaded.retired and not loaded.leases
            if last:  # Another thread unloads: in this one an answer waits to be sent.
                threading.Thread(target=self._unload, args=[loaded.servable], daemon=False).start()

    def status(self, model_spec: model_pb2.ModelSpec) -> list[ModelVersionStatus]:
        """States of one version or of all, newest first; a label means all, as in the engine.

        Raises:
            RequestError: There never was such a version.
        """
        return self._states.of(model_spec)

    def reload(self, config: ModelServerConfig) -> None:
        """Replaces the configuration: loads what it names, then unloads what it does not.

        Raises:
            RequestError: It is wrong; a model that is new, or is to be found elsewhere, has no
                version that can be loaded; a label is for a version that does not serve. All that
                served goes on then.
        """
        if config.WhichOneof("config"):
            self._replace(config, at_start=False)
        else:
            logger.warning("A configuration without model_config_list changes nothing")

    def _replace(self, config: ModelServerConfig, at_start: bool) -> None:
        configs = checked(config)
        with self._changing:
            fresh: dict[str, ServedModel] = {}
            try:
                for name, model_config in configs.items():
                    before = self._models.get(name) or ServedModel(ModelConfig(name=name))
                    refreshed = self._awaited if at_start else self._loader.refreshed
                    fresh[name] = refreshed(model_config, before)
                    if not at_start:
                        check_labels(model_config, before.config, fresh[name].serving)
            except BaseException:
                self._retire_unused(fresh)
                raise
            self._serve(fresh)

    def _awaited(self, config: ModelConfig, before: ServedModel) -> ServedModel:
        while True:
            try:
                return self._loader.refreshed(config, before)
            except NoVersionsError:
                if self._poll_seconds <= 0 or self._stopping.wait(self._poll_seconds):
                    raise

    def _poll(self) -> None:
        while not self._stopping.wait(self._poll_seconds):
            with self._changing:
                for name, model in self._models.items():
                    try:
                        fresh = self._loader.refreshed(model.config, model)
                    except Exception:
                        logger.exception("Looking for versions of model %s failed", name)
                    else:
                        self._serve({**self._models, name: fresh})

    def _serve(self, models: Mapping[str, ServedModel]) -> None:
        """From now on these models serve, and no others."""
        with self._lock:
            before, self._models = self._models, models
        for name, model in models.items():
            for version in model.serving:
                self._states.note(name, version, ModelVersionStatus.AVAILABLE)
        self._retire_unused(before)

    def _retire_unused(self, models: Mapping[str, ServedModel]) -> None:
        """Unloads versions of these models that do not serve, each when nothing computes on it."""
        serving = [loaded for model in self._models.values() for loaded in model.serving.values()]
        for name, model in models.items():
            numbers = self._models[name].serving if name in self._models else {}
            for version, loaded in model.serving.items():
                if loaded in serving:
                    continue
                if version not in numbers:
                    self._states.note(name, version, ModelVersionStatus.UNLOADING)
                with self._lock:
                    loaded.retired = True
                    idle = not loaded.leases
                if idle:
                    self._unload(loaded.servable)

    def _unload(self, servable: Servable) -> None:
        self._on_unload(servable)
        servable.close()
        self._states.note(servable.name, servable.version, ModelVersionStatus.END)
        logger.info("Version %d of model %s was unloaded", servable.version, servable.name)


def _find(models: Mapping[str, ServedModel], model_spec: model_pb2.ModelSpec) -> LoadedVersion:
    name, choice = model_spec.name, model_spec.WhichOneof("version_choice")
    if not name:
        raise invalid("ModelSpec has no name specified.")
    model = models.get(name)
    serving = model.serving if model else {}
    if choice is None:
        if not serving:
            raise _not_found(f"Latest({name})")
        return serving[max(serving)]
    version = model_spec.version.value
    if choice == "version_label":
        label = model_spec.version_label
        if not model or label not in model.config.version_labels:
            raise invalid(f"Unrecognized servable version label: {label}")
        version = model.config.version_labels[label]
    if version not in serving:
        raise _not_found(f"Specific({name}, {version})")
    return serving[version]


def _not_found(request: str) -> RequestError:
    return RequestError(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: {request}")
