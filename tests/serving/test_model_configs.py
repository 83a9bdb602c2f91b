"""Tests of validating a model configuration, with TensorFlow Serving's error messages."""

import grpc
import pytest
from google.protobuf import text_format
from tensorflow_serving.config.model_server_config_pb2 import ModelConfig, ModelServerConfig

from serving.errors import ServingError
from serving.manager import ModelManager
from tests.serving.manager_helpers import model_config, request_error, served_version, serving

INVALID_ARGUMENT = grpc.StatusCode.INVALID_ARGUMENT
FAILED_PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        (
            'model_config_list { config { name: "m" base_path: "/x" model_platform: "tensorflow" } '
            'config { name: "m" base_path: "/y" model_platform: "tensorflow" } }',
            INVALID_ARGUMENT,
            "Illegal to list model m multiple times in config list",
        ),
        (
            'model_config_list { config { base_path: "/x" model_platform: "tensorflow" } }',
            INVALID_ARGUMENT,
            "Expected a name for the model in '/x'; got none",
        ),
        (
            'model_config_list { config { name: "m" base_path: "x/y" '
            'model_platform: "tensorflow" } }',
            INVALID_ARGUMENT,
            "Expected model m to have an absolute path; got base_path()=x/y",
        ),
        (
            'model_config_list { config { name: "m" base_path: "/x" } }',
            INVALID_ARGUMENT,
            "Illegal setting neither ModelServerConfig::model_type (deprecated) nor "
            "ModelServerConfig::model_platform.",
        ),
        (
            'model_config_list { config { name: "m" base_path: "/x" model_type: TENSORFLOW '
            'model_platform: "tensorflow" } }',
            INVALID_ARGUMENT,
            "Illegal setting both ModelServerConfig::model_type (deprecated) and "
            "ModelServerConfig::model_platform.",
        ),
        (
            'model_config_list { config { name: "m" base_path: "/x" model_platform: "onnx" } }',
            INVALID_ARGUMENT,
            "Model m requests unsupported platform onnx",
        ),
        (
            'model_config_list { config { name: "m" base_path: "/x" model_platform: "tensorflow" '
            "logging_config {} } }",
            INVALID_ARGUMENT,
            "No request-logger-creator provided.",
        ),
        (
            "custom_model_config {}",
            FAILED_PRECONDITION,
            "Cannot transition to requested config. It is only legal to transition from one "
            "ModelConfigList to another.",
        ),
    ],
)
def test_a_wrong_configuration_changes_nothing(base_path, publish, text, code, message):
    publish(1)
    config = text_format.Parse(text, ModelServerConfig())
    with serving(model_config(base_path), poll=0) as manager:
        error = request_error(manager.reload, config)
        assert (error.code, error.message) == (code, message)
        assert served_version(manager) == 1
    with pytest.raises(ServingError) as raised:
        ModelManager(config).start()
    assert str(raised.value) == message


def test_the_deprecated_model_type_is_accepted(base_path, publish):
    publish(1)
    config = ModelConfig(name="m", base_path=str(base_path), model_type="TENSORFLOW")
    with serving(config, poll=0) as manager:
        assert served_version(manager) == 1
