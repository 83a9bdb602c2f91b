"""A model server on one machine: `python -m serving.server --model_name=N --model_base_path=DIR`.

It takes the flags of `tensorflow_model_server`, loads the same folders and returns the same
responses. `ModelServer` connects the parts: flags -> models (`manager`) -> requests
(`prediction_service`) -> gRPC and REST.
"""

import argparse
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import tensorflow as tf
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from serving.batch_scheduler import BatchScheduler
from serving.config_files import (
    read_batching_parameters,
    read_model_config,
    read_monitoring_config,
    read_ssl_config,
)
from serving.errors import RequestError, ServingError
from serving.grpc_api import start_grpc
from serving.http_server import GRACE_SECONDS, serve_rest
from serving.manager import ModelManager
from serving.model_configs import PLATFORM, absolute_path
from serving.monitoring import Monitoring
from serving.prediction_service import PredictionService
from serving.rest_api import rest_app
from serving.tls import server_credentials

logger = logging.getLogger("serving")


class ModelServer:
    """A running server: the constructor starts it, `stop` stops it.

    Args:
        options: Flags parsed by `argument_parser`.

    Raises:
        ServingError: A flag is wrong, a model cannot be loaded or a port is taken.
    """

    def __init__(self, options: argparse.Namespace):
        check_flags(options)
        if options.profiler_port:
            start_profiler(options.profiler_port)
        monitoring = Monitoring()
        metrics_path = None
        if options.monitoring_config_file:
            prometheus = read_monitoring_config(options.monitoring_config_file).prometheus_config
            metrics_path = prometheus.path if prometheus.enable else None
        credentials = None
        if options.ssl_config_file:
            credentials = server_credentials(read_ssl_config(options.ssl_config_file))
        manager = ModelManager(
            model_server_config(options),
            options.file_system_poll_wait_seconds,
            session_config(options),
        )
        scheduler = None
        if options.enable_batching:
            scheduler = BatchScheduler(read_batching_parameters(options.batching_parameters_file))
        self._stopping = threading.Event()
        # Both APIs stop first and at the same time, then the scheduler and the models they use.
        self._stop_apis: list[Callable[[], None]] = []
        with ExitStack() as stack:
            stack.callback(manager.stop)
            if scheduler:
                stack.callback(scheduler.close)
            stack.callback(self._stop_all_apis)
            manager.start()
            if options.port or options.grpc_socket_path:
                grpc_server = start_grpc(
                    PredictionService(manager, scheduler, monitoring, "GRPC"),
                    port=options.port or None,
                    socket_path=options.grpc_socket_path,
                    credentials=credentials,
                    threads=options.grpc_max_threads,
                    with_health=options.enable_grpc_healthcheck_service,
                )
                self._stop_apis.append(lambda: grpc_server.stop(GRACE_SECONDS))
                addresses = filter(None, (options.port, options.grpc_socket_path))
                logger.info("Running gRPC ModelServer at %s", " and ".join(map(str, addresses)))
            if options.rest_api_port:
                app = rest_app(
                    PredictionService(manager, scheduler, monitoring, "REST"),
                    options.rest_api_timeout_in_ms / 1000,
                    metrics_path,
                    monitoring,
                )
                host = "::" if socket.has_dualstack_ipv6() else "0.0.0.0"
                http_server = serve_rest(app, host, options.rest_api_port)
                self._stop_apis.append(http_server.stop)
                logger.info("Exporting HTTP/REST API at %d", http_server.port)
            if options.model_config_file and options.model_config_file_poll_wait_seconds > 0:
                threading.Thread(
                    target=self._poll_config_file, args=(options, manager), daemon=True
                ).start()
            self._stack = stack.pop_all()

    def stop(self) -> None:
        """Refuses new requests, finishes those in flight and unloads the models."""
        self._stopping.set()
        self._stack.close()

    def _stop_all_apis(self) -> None:
        threads = [threading.Thread(target=stop) for stop in self._stop_apis]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _poll_config_file(self, options: argparse.Namespace, manager: ModelManager) -> None:
        """Reloads the model config file when it changes; ignores a wrong file with a warning."""
        before = model_server_config(options)
        while not self._stopping.wait(options.model_config_file_poll_wait_seconds):
            try:
                config = model_server_config(options)
                if config != before:
                    manager.reload(config)
                    before = config
            except (ServingError, RequestError) as error:
                logger.warning("The model config is not reloaded: %s", error)


def start_profiler(port: int) -> None:
    """Lets TensorBoard capture traces on a port.

    Raises:
        ServingError: The port is in use.
    """
    try:  # TensorFlow itself goes on without a profiler if it cannot listen.
        socket.create_server(("", port)).close()
    except OSError as error:
        raise ServingError(
            f"Cannot listen on port {port}: {error.strerror}; choose another --profiler_port."
        ) from error
    tf.profiler.experimental.server.start(port)


def model_server_config(options: argparse.Namespace) -> ModelServerConfig:
    """Returns the models to serve, from --model_config_file or --model_base_path."""
    if options.model_config_file:
        return read_model_config(options.model_config_file)
    config = ModelServerConfig()
    config.model_config_list.config.add(
        name=options.model_name,
        base_path=absolute_path(options.model_base_path),
        model_platform=PLATFORM,
    )
    return config


def session_config(options: argparse.Namespace) -> tf.compat.v1.ConfigProto:
    """Returns the numbers of threads of a model's session; 0 lets TensorFlow choose."""
    return tf.compat.v1.ConfigProto(
        intra_op_parallelism_threads=options.tensorflow_intra_op_parallelism
        or options.tensorflow_session_parallelism,
        inter_op_parallelism_threads=options.tensorflow_inter_op_parallelism
        or options.tensorflow_session_parallelism,
    )


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

    add("port", port, 8500, "port of the gRPC API; 0 for none; default %(default)s")
    add("grpc_socket_path", os.path.expanduser, None, "path of a Unix socket for the gRPC API")
    add("rest_api_port", port, 0, "port of the REST API; 0 for none; default %(default)s")
    add(
        "rest_api_timeout_in_ms", positive, 30_000, "timeout of a REST request; default %(default)s"
    )
    add("model_name", str, "default", "name of the model; default %(default)s")
    add("model_base_path", str, "", "the model's folder of versions")
    add(
        "model_config_file",
        file_path,
        None,
        "several models: a ModelServerConfig in protobuf text format",
    )
    add(
        "model_config_file_poll_wait_seconds", non_negative, 0, "interval of rereading it; 0: never"
    )
    add("file_system_poll_wait_seconds", non_negative, 1, "interval of version scans; 0: only one")
    add("enable_batching", boolean, False, "batch the inputs of concurrent requests")
    add("batching_parameters_file", file_path, None, "BatchingParameters in protobuf text format")
    add(
        "monitoring_config_file",
        file_path,
        None,
        "MonitoringConfig (Prometheus) in protobuf text format",
    )
    add("ssl_config_file", file_path, None, "SSLConfig (TLS for gRPC) in protobuf text format")
    add("enable_grpc_healthcheck_service", boolean, False, "serve grpc.health.v1.Health too")
    add("grpc_max_threads", positive, 4 * (os.cpu_count() or 1), "concurrent gRPC requests")
    add("tensorflow_session_parallelism", non_negative, 0, "default of the next two; 0: all cores")
    add("tensorflow_intra_op_parallelism", non_negative, 0, "threads per operation")
    add("tensorflow_inter_op_parallelism", non_negative, 0, "concurrent operations")
    add("profiler_port", port, 0, "port where TensorBoard captures traces; 0 for none")
    return parser


def file_path(text: str) -> Path:
    """Returns a path with `~` expanded."""
    return Path(os.path.expanduser(text))


def boolean(text: str) -> bool:
    if text not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"expected true or false, got {text!r}")
    return text == "true"


def integer(text: str, low: int, high: int = 2**31 - 1) -> int:
    number = int(text)
    if not low <= number <= high:
        raise argparse.ArgumentTypeError(f"expected {low} to {high}, got {number}")
    return number


def non_negative(text: str) -> int:
    return integer(text, 0)


def positive(text: str) -> int:
    return integer(text, 1)


def port(text: str) -> int:
    return integer(text, 0, 65_535)


def main() -> None:
    """Runs the server until SIGTERM or SIGINT."""
    options = argument_parser().parse_args()
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)
    logger.setLevel(logging.INFO)
    tf.get_logger().setLevel(logging.ERROR)  # Its warnings are for developers.
    try:
        # Signals still have their default effect: without requests, there is nothing to finish.
        server = ModelServer(options)
    except ServingError as error:
        print(f"error: {error}", file=sys.stderr)
        exit_now(1)
    signaled = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: signaled.set())
    signaled.wait()
    for number in (signal.SIGTERM, signal.SIGINT):  # A second signal exits at once.
        signal.signal(number, signal.SIG_DFL)
    logger.info("Stopping: requests in flight have %d seconds to finish", GRACE_SECONDS)
    server.stop()
    exit_now(0)


def exit_now(status: int) -> None:
    """Exits without waiting for computations that have no deadline, as `sys.exit` would."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
