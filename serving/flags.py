"""The flags of `serving.server`: those of `tensorflow_model_server`, and one more.

All flags of TensorFlow Serving are accepted, so that its command lines work unchanged. Those that
have no effect here, and unknown ones, are named in a warning.
"""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

from serving.errors import ServingError

logger = logging.getLogger("serving")

_LITE = "this server runs no TensorFlow Lite models"
_XLA = "TensorFlow decides which operations XLA compiles"
# Flags without an effect, and why.
WITHOUT_EFFECT = {
    "enable_per_model_batching_parameters": "all models share --batching_parameters_file",
    "flush_filesystem_caches": "the operating system manages them",
    "platform_config_file": "the only platform is tensorflow, configured by flags",
    "remove_unused_fields_from_bundle_metagraph": "only signatures are kept in memory",
    "prefer_tflite_model": _LITE,
    "num_tflite_pools": _LITE,
    "num_tflite_interpreters_per_pool": _LITE,
    "xla_cpu_compilation_enabled": _XLA,
    "xla_gpu_compilation_enabled": _XLA,
    "thread_pool_factory_config_file": "use --tensorflow_intra_op_parallelism",
    "enable_serialization_as_tensor_content": "outputs have typed fields, such as float_val",
    "enable_signature_method_name_check": "inputs and outputs tell what a signature does",
    "mixed_precision": "models run in the precision in which they were exported",
    "skip_initialize_tpu": "this server does not use TPUs",
}


def parse_flags(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses and checks a command line.

    Unknown flags do not stop the server, as in TensorFlow Serving: the usage is printed, and a
    warning follows it. A wrong value exits with status 2.

    Args:
        arguments: The command line without the program; by default, that of the process.

    Raises:
        ServingError: A flag is missing or needs another one.
    """
    parser = argument_parser()
    options, unknown = parser.parse_known_args(arguments)
    for name, reason in WITHOUT_EFFECT.items():
        if getattr(options, name) is not None:
            logger.warning("--%s has no effect: %s", name, reason)
    if unknown:
        parser.print_help(sys.stderr)
        logger.warning("unknown argument: %s. The server starts without it.", " ".join(unknown))
    if not options.version:
        check_flags(options)
    return options


def check_flags(options: argparse.Namespace) -> None:
    """Checks combinations of flags.

    Raises:
        ServingError: A flag is missing or needs another one. The message is TensorFlow Serving's
            if it has one.
    """
    if not (options.model_base_path or options.model_config_file):
        raise ServingError(
            "Both server_options.model_base_path and server_options.model_config_file are empty! "
            "Give --model_base_path=/MODELS/captioner or --model_config_file=FILE."
        )
    if options.batching_parameters_file and not options.enable_batching:
        raise ServingError(
            "server_options.batching_parameters_file is set without setting "
            "server_options.enable_batching to true."
        )
    if not (options.port or options.grpc_socket_path or options.rest_api_port):
        raise ServingError(
            "The server has no address: give --port, --grpc_socket_path or --rest_api_port."
        )
    if (
        options.tensorflow_session_parallelism
        and options.tensorflow_intra_op_parallelism
        and options.tensorflow_inter_op_parallelism
    ):
        raise ServingError(
            "Either configure server_options.tensorflow_session_parallelism or "
            "(server_options.tensorflow_intra_op_parallelism, "
            "server_options.tensorflow_inter_op_parallelism) separately. You cannot configure all."
        )


def versions() -> str:
    """Returns the answer to `--version`."""
    return (
        f"TensorFlow ModelServer: {version('tensorflow-serving-api')} (embedded)\n"
        f"TensorFlow Library: {version('tensorflow')}"
    )


def argument_parser() -> argparse.ArgumentParser:
    """Returns a parser of the flags, with the names and defaults of `tensorflow_model_server`."""
    parser = argparse.ArgumentParser(
        prog="python -m serving.server",
        description="Serves SavedModels over TensorFlow Serving's gRPC and REST APIs.",
        allow_abbrev=False,
    )

    def add(name: str, kind: Callable[[str], object], default: object, text: str) -> None:
        optional = {"nargs": "?", "const": True} if kind is boolean else {}
        parser.add_argument(f"--{name}", type=kind, default=default, help=text, **optional)  # type: ignore[arg-type]

    add("version", boolean, False, "print the versions of the server and of TensorFlow, and exit")
    _add_addresses(add)
    _add_models(add)
    _add_computation(add)
    for name, reason in WITHOUT_EFFECT.items():
        # Not `boolean`: the type of a value that is not used does not matter.
        parser.add_argument(f"--{name}", nargs="?", const="true", help=f"no effect: {reason}")
    return parser


def _add_addresses(add: Callable[..., None]) -> None:
    add("port", port, 8500, "port of the gRPC API; 0 for none; default %(default)s")
    add("grpc_socket_path", os.path.expanduser, None, "path of a Unix socket for the gRPC API")
    add("grpc_max_threads", positive, 4 * (os.cpu_count() or 1), "concurrent gRPC requests")
    add(
        "grpc_channel_arguments",
        channel_arguments,
        (),
        "arguments of the gRPC server: grpc.max_connection_age_ms=2000,NAME=VALUE",
    )
    add("enable_grpc_healthcheck_service", boolean, False, "serve grpc.health.v1.Health too")
    add("ssl_config_file", file_path, None, "SSLConfig (TLS for gRPC) in protobuf text format")
    add("use_alts_credentials", boolean, False, "Google's ALTS for gRPC instead of TLS")
    add("rest_api_port", port, 0, "port of the REST API; 0 for none; default %(default)s")
    add("rest_api_num_threads", non_negative, 0, "concurrent REST requests; 0: the server chooses")
    add("rest_api_timeout_in_ms", int32, 30_000, "timeout of a REST request; 0: none; default 30 s")
    add("rest_api_enable_cors_support", boolean, False, "let web pages of any origin use REST")
    add(
        "monitoring_config_file",
        file_path,
        None,
        "MonitoringConfig (Prometheus) in protobuf text format",
    )
    add("enable_profiler", boolean, True, "let TensorBoard capture traces on the gRPC port")
    add("profiler_port", port, 0, "port of its own where TensorBoard captures traces; 0 for none")


def _add_models(add: Callable[..., None]) -> None:
    add("model_name", str, "default", "name of the model; default %(default)s")
    add("model_base_path", str, "", "the model's folder of versions")
    add(
        "model_config_file",
        file_path,
        None,
        "several models: a ModelServerConfig in protobuf text format",
    )
    text = "let new labels name versions that are not loaded yet, as at the start"
    add("allow_version_labels_for_unavailable_models", boolean, False, text)
    add("model_config_file_poll_wait_seconds", int32, 0, "interval of rereading it; 0: never")
    add("file_system_poll_wait_seconds", int32, 1, "interval of version scans; 0: only one")
    add("saved_model_tags", tags, ("serve",), "comma-separated tags of the graph to load")
    add("num_load_threads", non_negative, 0, "versions that are loaded at a time; 0 is 1")
    add("num_unload_threads", non_negative, 0, "versions that are unloaded at a time; 0 is 1")
    add("max_num_load_retries", non_negative, 5, "retries of a failed load; default %(default)s")
    text = "microseconds between them; negative: none; default a minute"
    add("load_retry_interval_micros", int, 60_000_000, text)
    add("enable_model_warmup", boolean, True, "run the warm-up requests of a version; default true")
    add("num_request_iterations_for_warmup", int32, 0, "times each of them runs; 0 is 1")


def _add_computation(add: Callable[..., None]) -> None:
    add("enable_batching", boolean, False, "batch the inputs of concurrent requests")
    add("batching_parameters_file", file_path, None, "BatchingParameters in protobuf text format")
    add(
        "tensorflow_session_config_file",
        file_path,
        None,
        "ConfigProto of the sessions in protobuf text format; the flags below have precedence",
    )
    add("tensorflow_session_parallelism", non_negative, 0, "value of the next two; 0: all cores")
    add("tensorflow_intra_op_parallelism", non_negative, 0, "threads per operation")
    add("tensorflow_inter_op_parallelism", non_negative, 0, "concurrent operations")
    add("per_process_gpu_memory_fraction", float, 0.0, "share of a GPU's memory to take at once")


def file_path(text: str) -> Path:
    """Returns a path with `~` expanded."""
    return Path(os.path.expanduser(text))


def tags(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def channel_arguments(text: str) -> tuple[tuple[str, int | str], ...]:
    """Parses `NAME=VALUE,...`; values that are 32-bit integers become integers."""
    arguments: list[tuple[str, int | str]] = []
    for argument in filter(None, text.split(",")):
        name, separator, value = argument.partition("=")
        if not separator:
            raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got {argument!r}")
        try:
            arguments.append((name, int32(value)))
        except (ValueError, argparse.ArgumentTypeError):
            arguments.append((name, value))
    return tuple(arguments)


def boolean(text: str) -> bool:
    if text not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"expected true or false, got {text!r}")
    return text == "true"


def integer(text: str, low: int, high: int = 2**31 - 1) -> int:
    number = int(text)
    if not low <= number <= high:
        raise argparse.ArgumentTypeError(f"expected {low} to {high}, got {number}")
    return number


def int32(text: str) -> int:
    return integer(text, -(2**31))


def non_negative(text: str) -> int:
    return integer(text, 0)


def positive(text: str) -> int:
    return integer(text, 1)


def port(text: str) -> int:
    return integer(text, 0, 65_535)
