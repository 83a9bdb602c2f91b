"""Helpers of tests of the model manager: configurations, requests, states and waiting."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from tensorflow_serving.apis import model_pb2
from tensorflow_serving.config.model_server_config_pb2 import ModelConfig, ModelServerConfig

from serving.errors import RequestError
from serving.manager import ModelManager
from serving.servable import Servable
from serving.version_states import ModelVersionStatus

POLL = 0.05  # Seconds.
START, LOADING = ModelVersionStatus.START, ModelVersionStatus.LOADING
AVAILABLE = ModelVersionStatus.AVAILABLE
UNLOADING, END = ModelVersionStatus.UNLOADING, ModelVersionStatus.END
ALL = "all {}"


def model_config(
    path: Path, policy: str = "", labels: dict[str, int] | None = None, name: str = "m"
) -> ModelConfig:
    config = ModelConfig(name=name, base_path=str(path), model_platform="tensorflow")
    text_format.Parse(policy, config.model_version_policy)
    config.version_labels.update(labels or {})
    return config


def configuration(*models: ModelConfig) -> ModelServerConfig:
    config = ModelServerConfig()
    config.model_config_list.SetInParent()
    config.model_config_list.config.extend(models)
    return config


@contextmanager
def serving(*models: ModelConfig, poll: float = POLL, **options) -> Iterator[ModelManager]:
    manager = ModelManager(configuration(*models), poll, **options)
    try:
        manager.start()
        yield manager
    finally:
        manager.stop()


def model_spec(name: str = "m", version: int | None = None, label: str = "") -> model_pb2.ModelSpec:
    request = model_pb2.ModelSpec(name=name)
    if version is not None:
        request.version.value = version
    if label:
        request.version_label = label
    return request


def version_of(servable: Servable, x: float = 0.5) -> int:
    """Runs the model y = x + version, and returns the version that it adds."""
    inputs = {"x": np.array([x], np.float32)}
    (y,) = servable.run("serving_default", inputs, ["y"], 30)["y"]
    assert y - x == servable.version
    return servable.version


def served_version(manager: ModelManager, name: str = "m", **version_or_label) -> int:
    with manager.lease(model_spec(name, **version_or_label)) as servable:
        assert servable.name == name
        return version_of(servable)


def request_error(function: Callable, *arguments, **named) -> RequestError:
    with pytest.raises(RequestError) as raised:
        function(*arguments, **named)
    return raised.value


def version_states(manager: ModelManager, name: str = "m") -> dict[int, int]:
    return {status.version: status.state for status in manager.status(model_spec(name))}


def wait_until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "waited for 20 s"
        time.sleep(0.005)


def resident_megabytes(process: int | str = "self") -> float:
    """Returns the resident memory of a process in megabytes."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * 4096 / 1e6
