"""Reads `tensorflow_model_server`'s configuration files, which are in protobuf text format.

The package `tensorflow-serving-api` has only the message of the model config file. This module
builds the messages of the others.
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
from tensorflow.core.protobuf import config_pb2
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from serving.errors import RequestError, ServingError
from serving.model_configs import absolute_path, validated_models

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
# Example values by type, for error messages; they follow the field's name.
_EXAMPLES = {
    "Int64Value": " { value: 8 }",
    "StringValue": ' { value: "text" }',
    "BoolValue": " { value: true }",
    "repeated int64": ": 8",
    "bool": ": true",
    "string": ': "text"',
}
_MODEL_CONFIG_EXAMPLE = (
    'model_config_list { config { name: "m" base_path: "/models/m" model_platform: "tensorflow" } }'
)
_MAX_THREADS = 1024
DEFAULT_METRICS_PATH = "/monitoring/prometheus/metrics"


def read_batching_parameters(path: Path | None) -> Any:
    """Reads `--batching_parameters_file`; without a path, returns the defaults.

    Returns:
        BatchingParameters with every number set. Missing values are TensorFlow Serving's defaults.
        `max_batch_size` limits the rows of a request, `max_execution_batch_size` those of a batch.
        They are equal unless large requests are split.

    Raises:
        ServingError: The file cannot be read, or a value is out of range.
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
    for error in _batching_errors(parameters):
        raise ServingError(f"{path}: {error}")
    return parameters


def _set_default(parameters: Any, field: str, value: int | str) -> None:
    if not parameters.HasField(field):
        getattr(parameters, field).value = value


def _batching_errors(parameters: Any) -> Iterator[str]:
    ranges = {
        "max_batch_size": (1, None),
        "batch_timeout_micros": (0, None),
        "max_enqueued_batches": (1, None),
        "num_batch_threads": (1, _MAX_THREADS),
        "max_execution_batch_size": (1, parameters.max_batch_size.value),
    }
    for field, (low, high) in ranges.items():
        value = getattr(parameters, field).value
        if value < low or (high is not None and value > high):
            expected = f"at least {low}" if high is None else f"{low} to {high}"
            yield f"expected {field} to be {expected}, got {value}"
    allowed, largest = parameters.allowed_batch_sizes, parameters.max_execution_batch_size.value
    if any(size >= next_size for size, next_size in pairwise([0, *allowed])):
        yield f"expected allowed_batch_sizes to be positive and to increase, got {list(allowed)}"
    if allowed and allowed[-1] != largest:
        splitting = parameters.enable_large_batch_splitting.value
        name = "max_execution_batch_size" if splitting else "max_batch_size"
        yield f"expected the last of allowed_batch_sizes to be {name}, {largest}, got {allowed[-1]}"


def read_monitoring_config(path: Path) -> Any:
    """Reads `--monitoring_config_file`.

    Returns:
        MonitoringConfig whose `prometheus_config.path` is set.

    Raises:
        ServingError: The file cannot be read, or the path does not begin with a slash.
    """
    config = _read(path, "MonitoringConfig")
    prometheus = config.prometheus_config
    prometheus.path = prometheus.path or DEFAULT_METRICS_PATH
    if not prometheus.path.startswith("/"):
        raise ServingError(f"{path}: expected a path that begins with /, got {prometheus.path!r}")
    return config


def read_ssl_config(path: Path) -> Any:
    """Reads `--ssl_config_file`.

    Returns:
        SSLConfig; its fields contain PEM text, not names of files.

    Raises:
        ServingError: The file cannot be read, or a field is missing.
    """
    config = _read(path, "SSLConfig")
    required = ["server_key", "server_cert"]
    if config.client_verify:
        required.append("custom_ca")
    for field in required:
        if not getattr(config, field):
            reason = " to verify clients" if field == "custom_ca" else ""
            raise ServingError(f"{path}: expected {field} (PEM){reason}; got none")
    return config


def read_model_config(path: Path) -> ModelServerConfig:
    """Reads `--model_config_file`; relative folders in it are in the working directory.

    Raises:
        ServingError: The file cannot be read, or a model's configuration is wrong.
    """
    config = _parse(path, ModelServerConfig(), _MODEL_CONFIG_EXAMPLE)
    if config.WhichOneof("config") is None:
        raise ServingError(f"{path}: expected {_MODEL_CONFIG_EXAMPLE}; got no model_config_list")
    for model in config.model_config_list.config:
        model.base_path = absolute_path(model.base_path)
    try:
        validated_models(config)
    except RequestError as error:
        raise ServingError(f"{path}: {error.message}") from error
    return config


def read_session_config(path: Path) -> config_pb2.ConfigProto:
    """Reads `--tensorflow_session_config_file`.

    Raises:
        ServingError: The file cannot be read or is not a ConfigProto.
    """
    return _parse(path, config_pb2.ConfigProto(), "inter_op_parallelism_threads: 2")


def _read(path: Path, name: str) -> Any:
    return _parse(path, _MESSAGES[name](), _example(name))


def _parse(path: Path, message: Any, example: str) -> Any:
    try:
        return text_format.Parse(path.read_text("utf-8"), message)
    except OSError as error:
        raise ServingError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ServingError(f"{path}: expected text in UTF-8, got {error.reason}") from error
    except text_format.ParseError as error:
        # The parser's message quotes the file, which may contain a private key.
        secret = message.DESCRIPTOR.name == "SSLConfig"
        reason = "it cannot be parsed" if secret else str(error).partition(" : ")[2]
        reason = " ".join(reason.split()).rstrip(".")
        place = f"{error.GetLine()}:{error.GetColumn()}"
        raise ServingError(
            f"Error parsing text-format {message.DESCRIPTOR.full_name}: {place}: {reason} in "
            f"{path}; expected {example}"
        ) from None


def _example(name: str) -> str:
    """Returns a message with all of its fields, in text format."""
    return ", ".join(
        field + (_EXAMPLES[kind] if kind in _EXAMPLES else f" {{ {_example(kind)} }}")
        for field, kind in _FIELDS[name].items()
    )


def _build_messages() -> dict[str, type[Message]]:
    file = descriptor_pb2.FileDescriptorProto(
        name="serving/config_files.proto",
        package=_PACKAGE,
        syntax="proto3",
        dependency=[wrappers_pb2.DESCRIPTOR.name],
    )
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        for number, (field, kind) in enumerate(fields.items(), start=1):
            _set_type(message.field.add(name=field, number=number), kind)
    # Use a separate pool: `tensorflow-serving-api` may add these messages to the default one.
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
        for name in _FIELDS
    }


def _set_type(field: Any, kind: str) -> None:
    repeated, name = kind.startswith("repeated "), kind.removeprefix("repeated ")
    field.label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
    if name in ("bool", "int64", "string"):
        field.type = field.Type.Value(f"TYPE_{name.upper()}")
    else:
        field.type = field.TYPE_MESSAGE
        package = _PACKAGE if name in _FIELDS else "google.protobuf"
        field.type_name = f".{package}.{name}"


_MESSAGES = _build_messages()
