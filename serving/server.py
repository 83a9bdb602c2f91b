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

import grpc
import tensorflow as tf
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from serving.batch_scheduler import BatchScheduler
from serving.config_files import (
    read_batching_parameters,
    read_model_config,
    read_monitoring_config,
    read_session_config,
    read_ssl_config,
)
from serving.errors import RequestError, ServingError
from serving.flags import parse_flags, versions
from serving.grpc_api import start_grpc
from serving.http_server import GRACE_SECONDS, serve_rest
from serving.loader import LoadOptions
from serving.manager import ModelManager
from serving.model_configs import PLATFORM, absolute_path
from serving.monitoring import Monitoring
from serving.prediction_service import PredictionService
from serving.profiler import ProfilerHandler, start_profiler
from serving.rest_api import REST_THREADS, rest_app
from serving.tls import server_credentials

logger = logging.getLogger("serving")


class ModelServer:
    """A running server: the constructor starts it, `stop` stops it.

    Args:
        options: Flags parsed by `parse_flags`.

    Raises:
        ServingError: A flag is wrong, a model cannot be loaded or a port is taken.
    """

    def __init__(self, options: argparse.Namespace):
        if options.profiler_port:
            start_profiler(options.profiler_port)
        monitoring = Monitoring()
        metrics_path = None
        if options.monitoring_config_file:
            prometheus = read_monitoring_config(options.monitoring_config_file).prometheus_config
            metrics_path = prometheus.path if prometheus.enable else None
        credentials = None
        if options.use_alts_credentials:
            credentials = grpc.alts_server_credentials()
        elif options.ssl_config_file:
            credentials = server_credentials(read_ssl_config(options.ssl_config_file))
        manager = ModelManager(
            model_server_config(options),
            options.file_system_poll_wait_seconds,
            load_options(options, monitoring),
            allow_unavailable_labels=options.allow_version_labels_for_unavailable_models,
        )
        scheduler = None
        if options.enable_batching:
            parameters = read_batching_parameters(options.batching_parameters_file)
            scheduler = BatchScheduler(parameters, monitoring)
        self._stopping = threading.Event()
        # Both APIs stop first and at the same time, then the scheduler and the models they use.
        self._stop_apis: list[Callable[[], None]] = []
        with ExitStack() as stack:
            stack.callback(manager.stop)
            if scheduler:
                stack.callback(scheduler.close)
            stack.callback(self._stop_all_apis)
            stack.callback(manager.stop_waiting)
            manager.start()
            if options.port or options.grpc_socket_path:
                grpc_server = start_grpc(
                    PredictionService(manager, scheduler, monitoring),
                    port=options.port or None,
                    socket_path=options.grpc_socket_path,
                    credentials=credentials,
                    threads=options.grpc_max_threads,
                    arguments=options.grpc_channel_arguments,
                    with_health=options.enable_grpc_healthcheck_service,
                    handlers=[ProfilerHandler()] if options.enable_profiler else [],
                )
                self._stop_apis.append(lambda: grpc_server.stop(GRACE_SECONDS))
                addresses = filter(None, (options.port, options.grpc_socket_path))
                logger.info("Running gRPC ModelServer at %s", " and ".join(map(str, addresses)))
            if options.rest_api_port:
                app = rest_app(
                    PredictionService(manager, scheduler, monitoring, counts_requests=False),
                    options.rest_api_timeout_in_ms / 1000 or None,
                    metrics_path,
                    monitoring,
                    threads=options.rest_api_num_threads or REST_THREADS,
                    with_cors=options.rest_api_enable_cors_support,
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
                    manager.reload(config, wait=False)
                    before = config
            except (ServingError, RequestError) as error:
                logger.warning("The model config is not reloaded: %s", error)


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


def load_options(options: argparse.Namespace, monitoring: Monitoring) -> LoadOptions:
    """Returns how versions are loaded."""
    return LoadOptions(
        session_config=session_config(options),
        record_warm_up=monitoring.record_warm_up,
        tags=options.saved_model_tags,
        warm_ups=max(options.num_request_iterations_for_warmup, 1)
        if options.enable_model_warmup
        else 0,
        max_retries=options.max_num_load_retries,
        retry_seconds=max(options.load_retry_interval_micros, 0) / 1e6,
        threads=max(options.num_load_threads, 1),
        unload_threads=max(options.num_unload_threads, 1),
    )


def session_config(options: argparse.Namespace) -> tf.compat.v1.ConfigProto:
    """Returns the options of a model's session; 0 threads let TensorFlow choose."""
    config = tf.compat.v1.ConfigProto()
    if options.tensorflow_session_config_file:
        config = read_session_config(options.tensorflow_session_config_file)
    intra, inter = options.tensorflow_intra_op_parallelism, options.tensorflow_inter_op_parallelism
    if not (intra or inter):
        intra = inter = options.tensorflow_session_parallelism
    if intra or inter:
        config.intra_op_parallelism_threads = intra
        config.inter_op_parallelism_threads = inter
    if options.per_process_gpu_memory_fraction:
        fraction = options.per_process_gpu_memory_fraction
        config.gpu_options.per_process_gpu_memory_fraction = fraction
    return config


def main() -> None:
    """Runs the server until SIGTERM or SIGINT."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)
    logger.setLevel(logging.INFO)
    tf.get_logger().setLevel(logging.ERROR)  # Its warnings are for developers.
    try:
        options = parse_flags()
    except ServingError as error:
        sys.exit(f"error: {error}")
    if options.version:
        print(versions())
        return
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
