"""Loads the versions that a model's policy selects, and remembers those that failed."""

import logging
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import tensorflow as tf

from serving.errors import RequestError
from serving.model_configs import ModelConfig
from serving.servable import Servable
from serving.version_policy import aspired_versions
from serving.version_states import ModelVersionStatus, VersionStates
from serving.warm_up import load_and_warm_up

# A version that fails to load may be incomplete yet. The values are TensorFlow Serving's.
RETRIES = 5
RETRY_SECONDS = 60.0

logger = logging.getLogger("serving")


class NoVersionsError(RequestError):
    """A model's folder has no version yet that its policy selects."""


@dataclass(eq=False)
class LoadedVersion:
    """A loaded version, and the number of requests that use it.

    A retired version is unloaded when its last lease ends.
    """

    servable: Servable
    leases: int = 0
    retired: bool = False


@dataclass
class LoadFailure:
    reason: str
    attempts: int
    time: float  # Monotonic.

    @property
    def may_be_retried(self) -> bool:
        return self.attempts <= RETRIES and time.monotonic() >= self.time + RETRY_SECONDS


@dataclass
class ServedModel:
    """The versions of a model. A model that serves is replaced, never modified."""

    config: ModelConfig
    serving: dict[int, LoadedVersion] = field(default_factory=dict)  # By version.
    failures: dict[Path, LoadFailure] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)  # Logged once, not at each poll.


class Loader:
    """Loads models, one version at a time.

    Args:
        states: Records the state of each version.
        session_config: Options of the models' sessions.
        stopping: Once it is set, no further version is loaded.
    """

    def __init__(
        self,
        states: VersionStates,
        session_config: tf.compat.v1.ConfigProto | None,
        stopping: threading.Event,
    ):
        self._states = states
        self._session_config = session_config
        self._stopping = stopping

    def load(self, config: ModelConfig, before: ServedModel) -> ServedModel:
        """Returns the model with the versions that its policy selects; loads the missing ones.

        If none can serve and neither folder nor policy changed, the versions that served before go
        on serving: an emptied folder does not end a service.

        Args:
            config: Folder and policy of the model.
            before: The model that serves so far, perhaps with another configuration.

        Raises:
            RequestError: None of the selected versions can serve.
        """
        aspired, warnings = aspired_versions(Path(config.base_path), config.model_version_policy)
        paths = set(aspired.values())
        # A folder that was removed and added again is tried again at once.
        failures = {path: failure for path, failure in before.failures.items() if path in paths}
        model = ServedModel(config, failures=failures, warnings=warnings)
        pending: dict[int, Path] = {}
        for version, path in aspired.items():
            loaded = before.serving.get(version)
            if loaded and loaded.servable.path == path:
                model.serving[version] = loaded
            elif path not in failures or failures[path].may_be_retried:
                pending[version] = path
                self._states.record(config.name, version, ModelVersionStatus.START)
        for version, path in pending.items():
            if not self._stopping.is_set():
                self._load(model, version, path)
        if not aspired:
            served = f"; still serving {_list(before.serving)}" if before.serving else ""
            warnings.append(f"{config.base_path} has no version of model {config.name}{served}")
        for warning in warnings:
            if warning not in before.warnings:
                logger.warning("%s", warning)
        before.warnings = warnings  # Does not repeat them if this load fails and is retried.
        if not model.serving and _source(config) == _source(before.config):
            model.serving = before.serving
        if not model.serving:
            raise _nothing_serves(model, aspired)
        return model

    def _load(self, model: ServedModel, version: int, path: Path) -> None:
        """Loads a version; adds it to `model.serving` or to `model.failures`."""
        name, start = model.config.name, time.monotonic()
        self._states.record(name, version, ModelVersionStatus.LOADING)
        try:
            servable = load_and_warm_up(name, version, path, self._session_config)
        except RequestError as error:
            attempts = model.failures[path].attempts + 1 if path in model.failures else 1
            model.failures[path] = LoadFailure(error.message, attempts, time.monotonic())
            self._states.record(name, version, ModelVersionStatus.END, error)
            retry = f"retry in {RETRY_SECONDS:.0f} s" if attempts <= RETRIES else "no more retries"
            logger.error(
                "Cannot load version %d of model %s (%s): %s", version, name, retry, error.message
            )
        else:
            model.failures.pop(path, None)
            model.serving[version] = LoadedVersion(servable)
            seconds = time.monotonic() - start
            logger.info("Loaded version %d of model %s in %.1f s", version, name, seconds)


def _source(config: ModelConfig) -> tuple[str, bytes]:
    return config.base_path, config.model_version_policy.SerializeToString(deterministic=True)


def _nothing_serves(model: ServedModel, aspired: Collection[int]) -> RequestError:
    name = model.config.name
    if not aspired:
        return NoVersionsError(
            grpc.StatusCode.NOT_FOUND,
            f"Unable to find a numerical version path for servable {name} at: "
            f"{model.config.base_path}",
        )
    reasons = "; ".join(failure.reason for failure in model.failures.values())
    return RequestError(
        grpc.StatusCode.UNKNOWN,
        f"Some models did not become available: {name}, versions {_list(aspired)}: {reasons}",
    )


def _list(numbers: Collection[int]) -> str:
    return ", ".join(map(str, sorted(numbers)))
