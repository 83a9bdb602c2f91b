"""Files of settings in protobuf's text format, as `tensorflow_model_server` takes them.

The package with its API has messages for the models' file only; the others are built here.
"""

import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
    wrappers_pb2,
)
from google.protobuf.message import Message
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from serving.errors import RequestError, ServingError
from serving.model_configs import checked

_PACKAGE = "tensorflow.serving"
_FIELDS = {
    "BatchingParameters": {
        "max_batch_size": "Int64Value",
        "batch_timeout_micros": "Int64Value",
        "max_enqueued_batches": "Int64Value",
        "num_batch_threads": "Int64Value",
        "thread_pool_name": "StringValue",
        "allowed_batch_sizes": "repeated int64",
        "pad_variable_length_inputs": "bool",
        "enable_large_batch_splitting": "BoolValue",
        "max_execution_batch_size": "Int64Value",
    },
    "PrometheusConfig": {"enable": "bool", "path": "string"},
    "MonitoringConfig": {"prometheus_config": "PrometheusConfig"},
    "SSLConfig": {
        "server_key": "string",
        "server_cert": "string",
        "custom_ca": "string",
        "client_verify": "bool",
    },
}
# How a field of a type is written, after its name.
_FORMS = {
    "Int64Value": " { value: 8 }",
    "StringValue": ' { value: "text" }',
    "BoolValue": " { value: true }",
    "repeated int64": ": 8",
    "bool": ": true",
    "string": ': "text"',
}
_MODELS_FORM = (
    'model_config_list { config { name: "m" base_path: "/models/m" model_platform: "tensorflow" } }'
)
_MOST_THREADS = 1024
METRICS_PATH = "/monitoring/prometheus/metrics"


def read_batching(path: Path | None) -> Any:
    """What `--batching_parameters_file` says, or would without a file.

    Returns:
        BatchingParameters in which every number is set: what the file does not say is as
        TensorFlow Serving has it, and `max_execution_batch_size`, the rows of a batch, is
        `max_batch_size`, the rows of a request, unless large requests are split.

    Raises:
        ServingError: The file cannot be read, or has values that do not go together.
    """
    parameters = _read(path, "BatchingParameters") if path else _MESSAGES["BatchingParameters"]()
    _set_default(parameters, "max_batch_size", 1000)
    _set_default(parameters, "batch_timeout_micros", 0)
    _set_default(parameters, "max_enqueued_batches", 10)
    _set_default(parameters, "num_batch_threads", os.cpu_count() or 1)
    _set_default(parameters, "thread_pool_name", "batch_threads")
    if not parameters.enable_large_batch_splitting.value:
        parameters.ClearField("max_execution_batch_size")
    _set_default(parameters, "max_execution_batch_size", parameters.max_batch_size.value)
    for fault in _batching_faults(parameters):
        raise ServingError(f"{path}: {fault}")
    return parameters


def _set_default(parameters: Any, field: str, value: int | str) -> None:
    if not parameters.HasField(field):
        getattr(parameters, field).value = value


def _batching_faults(parameters: Any) -> Iterator[str]:
    ranges = {
        "max_batch_size": (1, None),
        "batch_timeout_micros": (0, None),
        "max_enqueued_batches": (1, None),
        "num_batch_threads": (1, _MOST_THREADS),
        "max_execution_batch_size": (1, parameters.max_batch_size.value),
    }
    for field, (least, most) in ranges.items():
        value = getattr(parameters, field).value
        if value < least or (most is not None and value > most):
            limit = f"at least {least}" if most is None else f"{least} to {most}"
            yield f"expected {field} to be {limit}, got {value}"
    allowed, largest = parameters.allowed_batch_sizes, parameters.max_execution_batch_size.value
    if any(size >= following for size, following in pairwise([0, *allowed])):
        yield f"expected allowed_batch_sizes to be positive and to increase, got {list(allowed)}"
    if allowed and allowed[-1] != largest:
        split = parameters.enable_large_batch_splitting.value
        name = "max_execution_batch_size" if split else "max_batch_size"
        yield f"expected the last of allowed_batch_sizes to be {name}, {largest}, got {allowed[-1]}"


def read_monitoring(path: Path) -> Any:
    """What `--monitoring_config_file` says.

    Returns:
        MonitoringConfig whose `prometheus_config.path` is set.

    Raises:
        ServingError: The file cannot be read, or the path is none.
    """
    config = _read(path, "MonitoringConfig")
    prometheus = config.prometheus_config
    prometheus.path = prometheus.path or METRICS_PATH
    if not prometheus.path.startswith("/"):
        raise ServingError(f"{path}: expected a path that begins with /, got {prometheus.path!r}")
    return config


def read_ssl(path: Path) -> Any:
    """What `--ssl_config_file` says.

    Returns:
        SSLConfig; its fields hold PEM, not names of files.

    Raises:
        ServingError: The file cannot be read, or lacks a field.
    """
    config = _read(path, "SSLConfig")
    needed = ["server_key", "server_cert", *(["custom_ca"] if config.client_verify else [])]
    for field in needed:
        if not getattr(config, field):
            reason = ", with which clients are verified" if field == "custom_ca" else ""
            raise ServingError(f"{path}: expected {field} in PEM{reason}; got none")
    return config


def read_model_config(path: Path) -> ModelServerConfig:
    """What `--model_config_file` says.

    Raises:
        ServingError: The file cannot be read, or has models that cannot be served.
    """
    config = _parse(path, ModelServerConfig(), _MODELS_FORM)
    if config.WhichOneof("config") is None:
        raise ServingError(f"{path}: expected {_MODELS_FORM}; got no model_config_list")
    try:
        checked(config)
    except RequestError as error:
        raise ServingError(f"{path}: {error.message}") from error
    return config


def _read(path: Path, name: str) -> Any:
    return _parse(path, _MESSAGES[name](), _forms(name))


def _parse(path: Path, message: Any, form: str) -> Any:
    try:
        return text_format.Parse(path.read_text("utf-8"), message)
    except OSError as error:
        raise ServingError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ServingError(f"{path}: expected text in UTF-8, got {error.reason}") from error
    except text_format.ParseError as error:
        # It quotes the file, which may have a private key.
        secret = message.DESCRIPTOR.name == "SSLConfig"
        reason = "it cannot be parsed" if secret else str(error).partition(" : ")[2]
        reason = " ".join(reason.split()).rstrip(".")
        raise ServingError(f"{path}:{error.GetLine()}: {reason}; expected {form}") from None


def _forms(name: str) -> str:
    """Everything that a message may have."""
    fields = _FIELDS[name].items()
    return ", ".join(
        field + (_FORMS[kind] if kind in _FORMS else f" {{ {_forms(kind)} }}")
        for field, kind in fields
    )


def _build() -> dict[str, type[Message]]:
    file = descriptor_pb2.FileDescriptorProto(
        name="serving/config_files.proto",
        package=_PACKAGE,
        syntax="proto3",
        dependency=[wrappers_pb2.DESCRIPTOR.name],
    )
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        for number, (field, kind) in enumerate(fields.items(), start=1):
            _describe(message.field.add(name=field, number=number), kind)
    # A pool of its own: the API's package may have these messages one day.
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
        for name in _FIELDS
    }


def _describe(field: Any, kind: str) -> None:
    repeated, name = kind.startswith("repeated "), kind.removeprefix("repeated ")
    field.label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
    if name in ("bool", "int64", "string"):
        field.type = field.Type.Value(f"TYPE_{name.upper()}")
    else:
        field.type = field.TYPE_MESSAGE
        package = _PACKAGE if name in _FIELDS else "google.protobuf"
        field.type_name = f".{package}.{name}"


_MESSAGES = _build()
