"""A model server on one machine: `python -m serving.server --model_name=N --model_base_path=/DIR`.

It takes the flags of `tensorflow_model_server`, loads the same folders and gives the same answers.
From here down: flags -> models (`manager`) -> requests (`prediction_service`) -> gRPC and REST.
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
from serving.config_files import read_batching, read_model_config, read_monitoring, read_ssl
from serving.errors import RequestError, ServingError
from serving.grpc_api import start_grpc
from serving.http_server import GRACE_SECONDS, serve_rest
from serving.manager import ModelManager
from serving.model_configs import PLATFORM
from serving.monitoring import Monitoring
from serving.prediction_service import PredictionService
from serving.rest_api import rest_app
from serving.tls import server_credentials

logger = logging.getLogger("serving")


class ModelServer:
    """Serves from its making until it is stopped.

    Args:
        options: As `argument_parser` reads them.

    Raises:
        ServingError: A setting is wrong, a model cannot be loaded or a port is taken.
    """

    def __init__(self, options: argparse.Namespace):
        check(options)
        if options.profiler_port:
            tf.profiler.experimental.server.start(options.profiler_port)
        monitoring = Monitoring()
        config = options.monitoring_config_file and read_monitoring(options.monitoring_config_file)
        metrics = config.prometheus_config if config else None
        tls = options.ssl_config_file and server_credentials(read_ssl(options.ssl_config_file))
        manager = ModelManager(
            models(options), options.file_system_poll_wait_seconds, session_config(options)
        )
        batching = None
        if options.enable_batching:
            batching = BatchScheduler(read_batching(options.batching_parameters_file))
        self._stopping = threading.Event()
        # The ways in end together and first; then what they need.
        self._ways_in: list[Callable[[], None]] = []
        with ExitStack() as stack:
            stack.callback(manager.stop)
            if batching:
                stack.callback(batching.close)
            stack.callback(self._close_ways_in)
            manager.start()
            if options.port or options.grpc_socket_path:
                grpc_server = start_grpc(
                    PredictionService(manager, batching, monitoring, "GRPC"),
                    port=options.port or None,
                    socket_path=options.grpc_socket_path,
                    credentials=tls,
                    threads=options.grpc_max_threads,
                    with_health=options.enable_grpc_healthcheck_service,
                )
                self._ways_in.append(lambda: grpc_server.stop(GRACE_SECONDS))
                places = [str(place) for place in (options.port, options.grpc_socket_path) if place]
                logger.info("Running gRPC ModelServer at %s", " and ".join(places))
            if options.rest_api_port:
                app = rest_app(
                    PredictionService(manager, batching, monitoring, "REST"),
                    options.rest_api_timeout_in_ms / 1000,
                    metrics.path if metrics and metrics.enable else None,
                    monitoring,
                )
                host = "::" if socket.has_dualstack_ipv6() else "0.0.0.0"
                http_server = serve_rest(app, host, options.rest_api_port)
                self._ways_in.append(http_server.stop)
                logger.info("Exporting HTTP/REST API at %d", http_server.port)
            if options.model_config_file and options.model_config_file_poll_wait_seconds > 0:
                threading.Thread(
                    target=self._follow_config, args=(options, manager), daemon=True
                ).start()
            self._stack = stack.pop_all()

    def stop(self) -> None:
        """Refuses new requests, finishes those in flight and unloads the models."""
        self._stopping.set()
        self._stack.close()

    def _close_ways_in(self) -> None:
        closings = [threading.Thread(target=close) for close in self._ways_in]
        for closing in closings:
            closing.start()
        for closing in closings:
            closing.join()

    def _follow_config(self, options: argparse.Namespace, manager: ModelManager) -> None:
        """Loads the file of models again whenever it changes; a wrong one changes nothing."""
        before = models(options)
        while not self._stopping.wait(options.model_config_file_poll_wait_seconds):
            try:
                config = models(options)
                if config != before:
                    manager.reload(config)
                    before = config
            except (ServingError, RequestError) as error:
                logger.warning("The models stay as they were: %s", error)


def models(options: argparse.Namespace) -> ModelServerConfig:
    """Which models to serve, from a file or by name."""
    if options.model_config_file:
        return read_model_config(options.model_config_file)
    config = ModelServerConfig()
    config.model_config_list.config.add(
        name=options.model_name, base_path=options.model_base_path, model_platform=PLATFORM
    )
    return config


def session_config(options: argparse.Namespace) -> tf.compat.v1.ConfigProto:
    """Threads of a model's computations; 0 leaves them to TensorFlow."""
    return tf.compat.v1.ConfigProto(
        intra_op_parallelism_threads=options.tensorflow_intra_op_parallelism
        or options.tensorflow_session_parallelism,
        inter_op_parallelism_threads=options.tensorflow_inter_op_parallelism
        or options.tensorflow_session_parallelism,
    )


def check(options: argparse.Namespace) -> None:
    """Refuses flags that do not go together.

    Raises:
        ServingError: In the engine's words where it has any.
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
            "Nothing would answer: give --port, --grpc_socket_path or --rest_api_port"
        )


def argument_parser() -> argparse.ArgumentParser:
    """The flags, with the engine's names and defaults."""
    parser = argparse.ArgumentParser(
        prog="python -m serving.server",
        description="Serves SavedModels over TensorFlow Serving's gRPC and REST APIs.",
        allow_abbrev=False,
    )

    def add(name: str, kind: Callable[[str], object], default: object, text: str) -> None:
        optional = {"nargs": "?", "const": True} if kind is boolean else {}
        parser.add_argument(f"--{name}", type=kind, default=default, help=text, **optional)  # type: ignore[arg-type]

    add("port", port, 8500, "of gRPC; 0 for none; %(default)s")
    add("grpc_socket_path", str, None, "a Unix socket for gRPC")
    add("rest_api_port", port, 0, "of REST; 0, the default, for none")
    add("rest_api_timeout_in_ms", positive, 30_000, "for a REST request; %(default)s")
    add("model_name", str, "default", "without a --model_config_file; %(default)s")
    add("model_base_path", str, "", "its folder of versions, an absolute path")
    add("model_config_file", Path, None, "several models, a ModelServerConfig in text format")
    add("model_config_file_poll_wait_seconds", whole, 0, "between looks at it; 0 for never again")
    add("file_system_poll_wait_seconds", whole, 1, "between looks for versions; 0 for never again")
    add("enable_batching", boolean, False, "merge requests that come together")
    add("batching_parameters_file", Path, None, "a BatchingParameters in text format")
    add("monitoring_config_file", Path, None, "a MonitoringConfig in text format: Prometheus")
    add("ssl_config_file", Path, None, "an SSLConfig in text format: TLS for gRPC")
    add("enable_grpc_healthcheck_service", boolean, False, "grpc.health.v1.Health")
    add("grpc_max_threads", positive, 4 * (os.cpu_count() or 1), "requests at a time; %(default)s")
    add("tensorflow_session_parallelism", whole, 0, "threads for both of the next; 0 for all cores")
    add("tensorflow_intra_op_parallelism", whole, 0, "threads within an operation")
    add("tensorflow_inter_op_parallelism", whole, 0, "operations at a time")
    add("profiler_port", port, 0, "where TensorBoard captures traces; 0, the default, for none")
    return parser


def boolean(text: str) -> bool:
    if text not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"expected true or false, got {text!r}")
    return text == "true"


def whole(text: str, least: int = 0, most: int = 2**31 - 1) -> int:
    number = int(text)
    if not least <= number <= most:
        raise argparse.ArgumentTypeError(f"expected {least} to {most}, got {number}")
    return number


def positive(text: str) -> int:
    return whole(text, least=1)


def port(text: str) -> int:
    return whole(text, most=65_535)


def main() -> None:
    """The program."""
    options = argument_parser().parse_args()
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)
    logger.setLevel(logging.INFO)
    tf.get_logger().setLevel(logging.ERROR)  # Advice to who wrote the code.
    try:
        # A signal ends it at once here: nobody has asked for anything yet.
        server = ModelServer(options)
    except ServingError as error:
        print(f"error: {error}", file=sys.stderr)
        leave(1)
    wanted = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: wanted.set())
    wanted.wait()
    for number in (signal.SIGTERM, signal.SIGINT):  # Whoever asks twice does not want to wait.
        signal.signal(number, signal.SIG_DFL)
    logger.info("Stopping: requests in flight have %d seconds", GRACE_SECONDS)
    server.stop()
    leave(0)


def leave(status: int) -> None:
    """Ends the process; an ordinary exit would wait for computations that have no deadline."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
