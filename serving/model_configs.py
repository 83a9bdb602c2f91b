"""Validates the configuration of models, with TensorFlow Serving's error messages."""

import os
from collections.abc import Collection

import grpc
from tensorflow_serving.config import model_server_config_pb2
from tensorflow_serving.config.model_server_config_pb2 import ModelConfig, ModelServerConfig

from serving.errors import RequestError, invalid

PLATFORM = "tensorflow"


def absolute_path(path: str) -> str:
    """Returns a folder of the operator as an absolute path, relative to the working directory."""
    return os.path.abspath(os.path.expanduser(path)) if path and "://" not in path else path


def validated_models(config: ModelServerConfig) -> dict[str, ModelConfig]:
    """Returns copies of the models' configurations by name.

    Raises:
        RequestError: A configuration is wrong, or two have the same name.
    """
    if config.WhichOneof("config") == "custom_model_config":
        raise RequestError(
            grpc.StatusCode.FAILED_PRECONDITION,
            "Cannot transition to requested config. It is only legal to transition from one "
            "ModelConfigList to another.",
        )
    models: dict[str, ModelConfig] = {}
    for model in config.model_config_list.config:
        if model.name in models:
            raise invalid(f"Illegal to list model {model.name} multiple times in config list")
        _validate(model)
        models[model.name] = ModelConfig()
        models[model.name].CopyFrom(model)
    return models


def _validate(model: ModelConfig) -> None:
    if not model.name:
        raise invalid(f"Expected a name for the model in {model.base_path!r}; got none")
    platform = model.model_platform
    if model.model_type != model_server_config_pb2.MODEL_TYPE_UNSPECIFIED:
        if platform:
            raise invalid(
                "Illegal setting both ModelServerConfig::model_type (deprecated) and "
                "ModelServerConfig::model_platform."
            )
        platform = model_server_config_pb2.ModelType.Name(model.model_type).lower()
    if not platform:
        raise invalid(
            "Illegal setting neither ModelServerConfig::model_type (deprecated) nor "
            "ModelServerConfig::model_platform."
        )
    if platform != PLATFORM:
        raise invalid(f"Model {model.name} requests unsupported platform {platform}")
    if model.HasField("logging_config"):  # Requests are logged by builds of others.
        raise invalid("No request-logger-creator provided.")
    # Unlike TensorFlow Serving, this server does not read from cloud storage.
    if not os.path.isabs(model.base_path):
        raise invalid(
            f"Expected model {model.name} to have an absolute path; "
            f"got base_path()={model.base_path}"
        )


def check_labels(
    model: ModelConfig, before: ModelConfig, available: Collection[int], allow_unavailable: bool
) -> None:
    """Checks that each label names an available version.

    Versions that the same configuration adds are not available yet, as in TensorFlow Serving.

    Args:
        model: The new configuration.
        before: The configuration that it replaces.
        available: Versions that serve.
        allow_unavailable: Whether labels that are new, or unchanged, may name any version.

    Raises:
        RequestError: A label names another version.
    """
    for label, version in sorted(model.version_labels.items()):
        allowed = allow_unavailable and before.version_labels.get(label, version) == version
        if version not in available and not allowed:
            raise RequestError(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"Request to assign label to version {version} of model {model.name}, which is "
                "not currently available for inference",
            )
