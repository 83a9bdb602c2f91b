"""Loads the versions that a model's policy selects, and remembers those that failed."""

import logging
import math
import threading
import time
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import tensorflow as tf

from serving.errors import RequestError
from serving.model_configs import ModelConfig
from serving.servable import Servable
from serving.version_policy import aspired_versions
from serving.version_states import ModelVersionStatus, VersionStates
from serving.warm_up import RecordWarmUp, ignore_warm_up, load_and_warm_up

logger = logging.getLogger("serving")


@dataclass(frozen=True)
class LoadOptions:
    """How versions are loaded and unloaded. The defaults are TensorFlow Serving's.

    Attributes:
        session_config: Options of the models' sessions.
        tags: Tags of the graphs to load.
        warm_ups: Number of times that each warm-up request runs.
        record_warm_up: Called with the path of a version, the name of the status code and the
            seconds of its warm-up.
        max_retries: Retries of a failed load: the version may be incomplete yet.
        retry_seconds: Interval of retries.
        threads: Number of versions that are loaded at a time.
        unload_threads: Number of versions that are unloaded at a time.
    """

    session_config: tf.compat.v1.ConfigProto | None = None
    tags: tuple[str, ...] = (tf.saved_model.SERVING,)
    warm_ups: int = 1
    record_warm_up: RecordWarmUp = ignore_warm_up
    max_retries: int = 5
    retry_seconds: float = 60.0
    threads: int = 1
    unload_threads: int = 1


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
    retry_time: float  # Monotonic; infinite after the last attempt.


@dataclass
class ServedModel:
    """The versions of a model. A model that serves is replaced, never modified."""

    config: ModelConfig
    serving: dict[int, LoadedVersion] = field(default_factory=dict)  # By version.
    failures: dict[Path, LoadFailure] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)  # Logged once, not at each poll.
    aspired: tuple[int, ...] = ()  # The versions that the policy selects.

    @property
    def retry_time(self) -> float:
        """When a failed version is loaded again; infinite if none is."""
        return min((failure.retry_time for failure in self.failures.values()), default=math.inf)

    def error(self) -> RequestError:
        """Why no version serves."""
        if not self.aspired:
            return RequestError(
                grpc.StatusCode.NOT_FOUND,
                f"Unable to find a numerical version path for servable {self.config.name} at: "
                f"{self.config.base_path}",
            )
        reasons = "; ".join(failure.reason for failure in self.failures.values())
        return RequestError(
            grpc.StatusCode.UNKNOWN,
            f"Some models did not become available: {self.config.name}, "
            f"versions {_list(self.aspired)}: {reasons}",
        )


class Loader:
    """Loads the versions of models.

    Args:
        states: Records the state of each version.
        options: How to load them.
        stopping: Once it is set, no further version is loaded.
    """

    def __init__(
        self,
        states: VersionStates,
        options: LoadOptions,
        stopping: threading.Event,
    ):
        self._states = states
        self._options = options
        self._stopping = stopping

    def load(
        self, config: ModelConfig, before: ServedModel, keeps_failed: bool = True
    ) -> ServedModel:
        """Returns the model with the versions that its policy selects; loads the missing ones.

        If none can serve and neither folder nor policy changed, the versions that served before go
        on serving: an emptied folder does not end a service.

        Args:
            config: Folder and policy of the model.
            before: The model that serves so far, perhaps with another configuration.
            keeps_failed: Whether the caller keeps a model of which no version serves, so that its
                failed loads are retried.
        """
        aspired, warnings = aspired_versions(Path(config.base_path), config.model_version_policy)
        paths = set(aspired.values())
        # A folder that was removed and added again is tried again at once.
        failures = {path: failure for path, failure in before.failures.items() if path in paths}
        model = ServedModel(config, {}, failures, warnings, tuple(aspired))
        pending: dict[int, Path] = {}
        for version, path in aspired.items():
            loaded = before.serving.get(version)
            if loaded and loaded.servable.path == path:
                model.serving[version] = loaded
            elif path not in failures or time.monotonic() >= failures[path].retry_time:
                pending[version] = path
                self._states.record(config.name, version, ModelVersionStatus.START)
        with ThreadPoolExecutor(self._options.threads, "load") as pool:
            # Collects the results, so that an unexpected error is raised.
            list(pool.map(lambda item: self._load(model, *item), pending.items()))
        if not aspired:
            served = f"; still serving {_list(before.serving)}" if before.serving else ""
            warnings.append(f"{config.base_path} has no version of model {config.name}{served}")
        for warning in warnings:
            if warning not in before.warnings:
                logger.warning("%s", warning)
        if not model.serving and _source(config) == _source(before.config):
            model.serving = before.serving
        for version, path in pending.items():
            if path in model.failures:
                self._log_failure(model, version, path, keeps_failed or bool(model.serving))
        return model

    def _load(self, model: ServedModel, version: int, path: Path) -> None:
        """Loads a version; adds it to `model.serving` or to `model.failures`."""
        if self._stopping.is_set():
            return
        name, start, options = model.config.name, time.monotonic(), self._options
        self._states.record(name, version, ModelVersionStatus.LOADING)
        try:
            servable = load_and_warm_up(
                name,
                version,
                path,
                options.session_config,
                options.tags,
                options.warm_ups,
                options.record_warm_up,
            )
        except RequestError as error:
            attempts = model.failures[path].attempts + 1 if path in model.failures else 1
            retries = attempts <= options.max_retries
            retry_time = time.monotonic() + options.retry_seconds if retries else math.inf
            model.failures[path] = LoadFailure(error.message, attempts, retry_time)
            self._states.record(name, version, ModelVersionStatus.END, error)
        else:
            model.failures.pop(path, None)
            model.serving[version] = LoadedVersion(servable)
            seconds = time.monotonic() - start
            logger.info("Loaded version %d of model %s in %.1f s", version, name, seconds)

    def _log_failure(self, model: ServedModel, version: int, path: Path, is_kept: bool) -> None:
        failure, retry = model.failures[path], "no retry"
        if is_kept and failure.retry_time < math.inf:
            retry = f"retry in {self._options.retry_seconds:g} s"
        logger.error(
            "Cannot load version %d of model %s (%s): %s",
            version,
            model.config.name,
            retry,
            failure.reason,
        )


def _source(config: ModelConfig) -> tuple[str, bytes]:
    return config.base_path, config.model_version_policy.SerializeToString(deterministic=True)


def _list(numbers: Collection[int]) -> str:
    return ", ".join(map(str, sorted(numbers)))
