"""Runs the contract tests against any server with TensorFlow Serving's API.

Write the models, start the server on them, then test it:

    python -m tests.serving.check_contract --write /tmp/contract
    tensorflow_model_server --port=8500 --rest_api_port=8501 \
        --model_config_file=/tmp/contract/models.config \
        --monitoring_config_file=/tmp/contract/monitoring.config \
        --enable_grpc_healthcheck_service=true
    python -m tests.serving.check_contract --grpc localhost:8500 --rest http://localhost:8501 \
        --models /tmp/contract

`--models` is the path of the folder on the server, which differs if it runs in a container.
"""

import argparse
import sys
from pathlib import Path

import pytest

from tests.serving import saved_models

NAMES = ("adder", "echo", "tf1", "slow")
VERSIONS = {"adder": (1, 2), "echo": (1,), "tf1": (3,), "slow": (1,)}
ALL = "model_version_policy { all {} }"
FLAGS = ("--enable_grpc_healthcheck_service=true",)
METRICS = "/monitoring/prometheus/metrics"


def write_models(folder: Path, server_path: Path) -> tuple[str, ...]:
    """Writes models and configuration files; returns the flags to serve them."""
    for name, versions in VERSIONS.items():
        for version in versions:
            getattr(saved_models, f"write_{name}")(folder / name, version)
    (folder / "models.config").write_text(configuration(server_path))
    (folder / "monitoring.config").write_text(
        f'prometheus_config {{ enable: true path: "{METRICS}" }}\n'
    )
    return (
        f"--model_config_file={server_path}/models.config",
        f"--monitoring_config_file={server_path}/monitoring.config",
        *FLAGS,
    )


def configuration(server_path: Path, labels: str = "") -> str:
    """Returns a ModelServerConfig in text format; the labels are those of `adder`."""
    configs = "".join(
        f"config {{ name: '{name}' base_path: '{server_path}/{name}' model_platform: 'tensorflow' "
        f"{ALL} {labels if name == 'adder' else ''} }}\n"
        for name in NAMES
    )
    return f"model_config_list {{\n{configs}}}\n"


def main() -> None:
    """Writes the models, or tests a server."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", type=Path, metavar="DIR", help="write the models and exit")
    parser.add_argument("--grpc", metavar="HOST:PORT", help="gRPC address of the server")
    parser.add_argument("--rest", metavar="URL", help="REST address of the same server")
    parser.add_argument("--models", type=Path, help="path of the written folder on the server")
    arguments = parser.parse_args()
    if arguments.write:
        folder = arguments.write.absolute()
        print("Start the server with", *write_models(folder, arguments.models or folder))
        return
    if not (arguments.grpc and arguments.rest and arguments.models):
        parser.error("give --write DIR, or all of --grpc, --rest and --models")
    tests = Path(__file__).with_name("test_contract.py")
    engine = f"--engine={arguments.grpc},{arguments.rest},{arguments.models}"
    sys.exit(pytest.main([str(tests), engine]))


if __name__ == "__main__":
    main()
