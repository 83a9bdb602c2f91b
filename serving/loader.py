"""Loads the versions of a model that are wanted and do not serve yet, and remembers failures."""

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

# A version that fails may not be all there yet; the numbers are TensorFlow Serving's.
RETRIES = 5
RETRY_SECONDS = 60.0

logger = logging.getLogger("serving")


class NoVersionsError(RequestError):
    """There is nothing to load, or not yet."""


@dataclass(eq=False)
class LoadedVersion:
    """A version, how many requests hold it, and whether it is unloaded after the last of them."""

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
    """Once it serves it stays as it is; another one takes its place."""

    config: ModelConfig
    serving: dict[int, LoadedVersion] = field(default_factory=dict)  # By version.
    failures: dict[Path, LoadFailure] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)  # Said once, not at each poll.


class Loader:
    """Loads models, one at a time.

    Args:
        states: Is told what becomes of versions.
        session_config: Options of the models' sessions.
        stopping: Once set, no further version is begun.
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

    def refreshed(self, config: ModelConfig, before: ServedModel) -> ServedModel:
        """Loads what is wanted and does not serve yet; what does is taken over.

        Args:
            config: Says what is wanted.
            before: What served until now, perhaps by another configuration.

        Raises:
            RequestError: Nothing that is wanted can serve. If the same was wanted before, what
                served then goes on instead: an emptied folder does not end a service.
        """
        wanted, warnings = aspired_versions(Path(config.base_path), config.model_version_policy)
        paths = set(wanted.values())
        # A folder that was taken away in between is another chance.
        failures = {path: failed for path, failed in before.failures.items() if path in paths}
        model = ServedModel(config, failures=failures, warnings=warnings)
        pending: dict[int, Path] = {}
        for version, path in wanted.items():
            loaded = before.serving.get(version)
            if loaded and loaded.servable.path == path:
                model.serving[version] = loaded
            elif path not in failures or failures[path].may_be_retried:
                pending[version] = path
                self._states.note(config.name, version, ModelVersionStatus.START)
        for version, path in pending.items():
            if not self._stopping.is_set():
                self._load(model, version, path)
        if not wanted:
            kept = f"; still serving {_list(before.serving)}" if before.serving else ""
            warnings.append(f"no version of model {config.name} is in {config.base_path}{kept}")
        for warning in warnings:
            if warning not in before.warnings:
                logger.warning("%s", warning)
        before.warnings = warnings  # Not again, should this fail and be tried again.
        if not model.serving and _source(config) == _source(before.config):
            model.serving = before.serving
        if not model.serving:
            raise _nothing_serves(model, wanted)
        return model

    def _load(self, model: ServedModel, version: int, path: Path) -> None:
        """Adds the version to those that serve, or to the failures."""
        name, start = model.config.name, time.monotonic()
        self._states.note(name, version, ModelVersionStatus.LOADING)
        try:
            servable = load_and_warm_up(name, version, path, self._session_config)
        except RequestError as error:
            attempts = model.failures[path].attempts + 1 if path in model.failures else 1
            model.failures[path] = LoadFailure(error.message, attempts, time.monotonic())
            self._states.note(name, version, ModelVersionStatus.END, error)
            then = f"once more in {RETRY_SECONDS:.0f} s" if attempts <= RETRIES else "no more"
            logger.error(
                "Version %d of model %s cannot be loaded and is tried %s: %s",
                *(version, name, then, error.message),
            )
        else:
            model.failures.pop(path, None)
            model.serving[version] = LoadedVersion(servable)
            seconds = time.monotonic() - start
            logger.info("Version %d of model %s was loaded in %.1f s", version, name, seconds)


def _source(config: ModelConfig) -> tuple[str, bytes]:
    return config.base_path, config.model_version_policy.SerializeToString(deterministic=True)


def _nothing_serves(model: ServedModel, wanted: Collection[int]) -> RequestError:
    name = model.config.name
    if not wanted:
        return NoVersionsError(
            grpc.StatusCode.NOT_FOUND,
            f"Unable to find a numerical version path for servable {name} at: "
            f"{model.config.base_path}",
        )
    reasons = "; ".join(failure.reason for failure in model.failures.values())
    return RequestError(
        grpc.StatusCode.UNKNOWN,
        f"Some models did not become available: {name}, versions {_list(wanted)}: {reasons}",
    )


def _list(numbers: Collection[int]) -> str:
    return ", ".join(map(str, sorted(numbers)))
