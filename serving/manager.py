"""Manages the models that serve: polls their folders, and loads, swaps and unloads versions.

A new version serves before the old one is unloaded. A version is unloaded when its last request
is done.
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import grpc
from tensorflow_serving.apis import model_pb2

from serving.errors import RequestError, ServingError, invalid
from serving.loader import LoadedVersion, Loader, LoadOptions, ServedModel
from serving.model_configs import ModelConfig, ModelServerConfig, check_labels, validated_models
from serving.servable import Servable
from serving.version_states import ModelVersionStatus, VersionStates

REMINDER_SECONDS = 60.0  # Between warnings while the server waits for a first version.

DEFAULTS = LoadOptions()

logger = logging.getLogger("serving")


class ModelManager:
    """Serves the models of a configuration. All methods are safe to call from several threads.

    Args:
        config: Models, each with a folder of versions.
        poll_seconds: Interval at which folders are read. Zero or less: only at the start and when
            a configuration is loaded.
        options: How to load and unload versions.
        on_unload: Called with each servable after its last request and before it is closed.
        allow_unavailable_labels: Whether new labels may name versions that do not serve yet.
    """

    def __init__(
        self,
        config: ModelServerConfig,
        poll_seconds: float = 1.0,
        options: LoadOptions = DEFAULTS,
        on_unload: Callable[[Servable], object] = lambda servable: None,
        allow_unavailable_labels: bool = False,
    ):
        self._config = config
        self._poll_seconds = poll_seconds
        self._on_unload = on_unload
        self._allow_unavailable_labels = allow_unavailable_labels
        self._models: Mapping[str, ServedModel] = {}
        self._states = VersionStates()
        self._lock = threading.Lock()  # Guards models and leases; held for moments only.
        self._changing = threading.Lock()  # Held while models load and change.
        self._stopping = threading.Event()
        self._no_waiting = threading.Event()
        self._unloading = threading.Semaphore(options.unload_threads)
        self._loader = Loader(self._states, options, self._stopping)
        self._poller = threading.Thread(target=self._poll, name="versions", daemon=True)

    def start(self) -> None:
        """Loads all models, waiting for the first version of each, then starts to poll.

        A version that cannot be loaded is retried as the options say. Meanwhile, the other models
        serve.

        Raises:
            ServingError: The configuration is wrong; a model cannot be loaded; a model has no
                version and polling is off; or `stop` was called meanwhile.
        """
        try:
            configs = self._validated(self._config)
            with self._changing:
                self._load_all({name: ServedModel(config) for name, config in configs.items()})
        except RequestError as error:
            raise ServingError(error.message) from error
        if self._poll_seconds > 0:
            self._poller.start()

    def _load_all(self, models: dict[str, ServedModel]) -> None:
        reminded = time.monotonic()
        try:
            while True:
                for name, model in models.items():
                    models[name] = self._loader.load(model.config, model)
                    self._serve({**self._models, name: models[name]})
                waiting = [model for model in models.values() if not model.serving]
                if not waiting:
                    return
                for model in waiting:
                    if self._is_final(model):
                        raise model.error()
                if self._stopping.wait(self._pause(waiting)):
                    raise waiting[0].error()
                if time.monotonic() >= reminded + REMINDER_SECONDS:
                    reminded = time.monotonic()
                    for model in waiting:
                        logger.warning("Waiting for a first version. %s", model.error().message)
        except BaseException:
            self._serve({})
            raise

    def _is_final(self, model: ServedModel) -> bool:
        """Whether no version of a model will serve."""
        return model.retry_time == math.inf and (bool(model.aspired) or self._poll_seconds <= 0)

    def _pause(self, waiting: Iterable[ServedModel]) -> float:
        """Seconds until one of the models may serve."""
        times = [model.retry_time - time.monotonic() for model in waiting]
        if self._poll_seconds > 0:
            times.append(self._poll_seconds)
        return max(min(times), 0)

    def stop(self) -> None:
        """Stops polling and unloads all models, each after its last request.

        Waits for a version that is being loaded. Do not call it in a signal handler: it may have
        interrupted `start`, whose lock it needs.
        """
        self._stopping.set()
        self.stop_waiting()
        if self._poller.is_alive():
            self._poller.join()
        with self._changing:
            self._serve({})

    @contextmanager
    def lease(self, model_spec: model_pb2.ModelSpec) -> Iterator[Servable]:
        """Yields the version that a request asks for, and keeps it loaded meanwhile.

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
            if last:  # Unloads in another thread: this one has a response to send.
                threading.Thread(target=self._unload, args=[loaded.servable], daemon=False).start()

    def is_known(self, name: str) -> bool:
        """Returns whether the configuration has a model of this name."""
        return name in self._models

    def status(self, model_spec: model_pb2.ModelSpec) -> list[ModelVersionStatus]:
        """Returns the states of one version, or of all versions of a model, newest first.

        A label is ignored, as in TensorFlow Serving.

        Raises:
            RequestError: No such version was ever found.
        """
        return self._states.status(model_spec)

    def reload(
        self, config: ModelServerConfig, timeout: float | None = None, wait: bool = True
    ) -> None:
        """Replaces the configuration: loads its models, then unloads those that it does not name.

        Args:
            config: The new configuration.
            timeout: Seconds to wait for the first versions of new models; None for no limit.
            wait: Whether to wait for them.

        Raises:
            RequestError: The configuration is wrong; a new or moved model has versions of which
                none can be loaded; a moved model has no version; or a label names a version that
                does not serve. Nothing changes then. Or the time is over: the new configuration
                holds, and its models serve once they have a version.
        """
        if not config.WhichOneof("config"):
            logger.warning("Ignored a configuration without model_config_list")
            return
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        with self._changing:
            configs = self._validated(config)
            new = configs.keys() - self._models.keys()
            loaded: dict[str, ServedModel] = {}
            try:
                for name, model_config in configs.items():
                    before = self._models.get(name) or ServedModel(ModelConfig(name=name))
                    model = self._loader.load(model_config, before, keeps_failed=False)
                    loaded[name] = model
                    comes_later = name in new and not model.aspired and self._poll_seconds > 0
                    if not (model.serving or comes_later):
                        raise model.error()
            except BaseException:
                self._retire_unused(loaded)
                raise
            self._serve(loaded)
        if wait:
            self._wait_for(new, deadline)

    def _wait_for(self, names: Iterable[str], deadline: float) -> None:
        """Waits until models serve, or are no longer in the configuration."""
        for name in names:
            while (model := self._models.get(name)) and not model.serving:
                if self._is_final(model):
                    raise model.error()
                if time.monotonic() >= deadline:
                    raise RequestError(grpc.StatusCode.DEADLINE_EXCEEDED, model.error().message)
                if self._no_waiting.wait(self._poll_seconds):
                    raise RequestError(grpc.StatusCode.UNAVAILABLE, "The server is stopping")

    def stop_waiting(self) -> None:
        """Ends reloads that wait for the first version of a model."""
        self._no_waiting.set()

    def _validated(self, config: ModelServerConfig) -> dict[str, ModelConfig]:
        configs = validated_models(config)
        for name, model_config in configs.items():
            before = self._models.get(name) or ServedModel(ModelConfig())
            check_labels(
                model_config, before.config, before.serving, self._allow_unavailable_labels
            )
        return configs

    def _poll(self) -> None:
        while not self._stopping.wait(self._poll_seconds):
            with self._changing:
                for name, model in self._models.items():
                    try:
                        loaded = self._loader.load(model.config, model)
                    except Exception:
                        logger.exception("Cannot look for versions of model %s", name)
                    else:
                        self._serve({**self._models, name: loaded})

    def _serve(self, models: Mapping[str, ServedModel]) -> None:
        """Replaces the models that serve."""
        with self._lock:
            before, self._models = self._models, models
        for name, model in models.items():
            for version in model.serving:
                self._states.record(name, version, ModelVersionStatus.AVAILABLE)
        self._retire_unused(before)

    def _retire_unused(self, models: Mapping[str, ServedModel]) -> None:
        """Unloads versions of these models that no longer serve, each after its last request."""
        serving = [loaded for model in self._models.values() for loaded in model.serving.values()]
        for name, model in models.items():
            numbers = self._models[name].serving if name in self._models else {}
            for version, loaded in model.serving.items():
                if loaded in serving:
                    continue
                if version not in numbers:
                    self._states.record(name, version, ModelVersionStatus.UNLOADING)
                with self._lock:
                    loaded.retired = True
                    idle = not loaded.leases
                if idle:
                    self._unload(loaded.servable)

    def _unload(self, servable: Servable) -> None:
        with self._unloading:
            self._on_unload(servable)
            servable.close()
        self._states.record(servable.name, servable.version, ModelVersionStatus.END)
        logger.info("Unloaded version %d of model %s", servable.version, servable.name)


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
