"""TensorFlow Serving's gRPC services and the health service, on a port, a Unix socket or both."""

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

from serving.errors import RequestError, ServingError
from serving.prediction_service import PredictionService

HEALTHY_SERVICES = ("", "ModelService", "PredictionService")  # The names in health checks.
OPTIONS: dict[str, int | str] = {
    "grpc.max_receive_message_length": -1,
    "grpc.max_send_message_length": -1,
    # Otherwise a second server could share the port and answer some of the requests.
    "grpc.so_reuseport": 0,
}
QUICK_METHODS = (
    "/grpc.health.v1.Health/Check",
    "/tensorflow.serving.ModelService/GetModelStatus",
    "/tensorflow.serving.PredictionService/GetModelMetadata",
)
QUICK_THREADS = ThreadPoolExecutor(4, "grpc-quick")
QUEUE_PER_THREAD = 100  # Waiting longer than for 100 requests helps nobody.
NO_DEADLINE = 1e9  # Seconds. Without a deadline, gRPC reports more remaining time than this.
# Bytes of UTF-8. Errors are sent in a header, which clients limit to 8 KiB; escaping triples them.
MAX_MESSAGE_BYTES = 2000


class GrpcServer:
    """A running gRPC server.

    Attributes:
        port: The port on which it listens; 0 if it only listens on a Unix socket.
    """

    def __init__(self, server: grpc.Server, port: int, health_service: "_Health | None"):
        self.port = port
        self._server = server
        self._health = health_service

    def stop(self, grace_seconds: float) -> None:
        """Refuses new requests, finishes those in flight, aborts them after the grace period."""
        if self._health:
            self._health.stop()
        self._server.stop(grace_seconds).wait()


def start_grpc(
    api: PredictionService,
    *,
    port: int | None,
    socket_path: str | None = None,
    credentials: grpc.ServerCredentials | None = None,
    threads: int,
    arguments: Iterable[tuple[str, int | str]] = (),
    with_health: bool = False,
    handlers: Sequence[grpc.GenericRpcHandler] = (),
) -> GrpcServer:
    """Starts a server and returns it. Load the models first.

    Args:
        api: Finds the answers.
        port: On all addresses of the machine; 0 for any free port, None for no port.
        socket_path: File of a Unix socket.
        credentials: For TLS, on the port and the socket.
        threads: Number of requests that are processed at a time. `QUEUE_PER_THREAD` times as many
            wait; further ones are refused.
        arguments: gRPC's channel arguments, which have precedence over `OPTIONS`.
        with_health: Whether to add the service `grpc.health.v1.Health`.
        handlers: Further services.

    Raises:
        ServingError: The port is in use, or the socket cannot be created.
    """
    pool = _Pool(threads, "grpc")
    options = tuple((OPTIONS | dict(arguments)).items())
    server = grpc.server(pool, interceptors=[_RequestParser(pool)], options=options)
    _add_services(server, api)
    server.add_generic_rpc_handlers(handlers)
    health_service = _Health() if with_health else None
    if health_service:
        health_pb2_grpc.add_HealthServicer_to_server(health_service, server)
    bound = 0
    if port is not None:
        bound = _listen(server, f"0.0.0.0:{port}", credentials)
    if socket_path is not None:
        _listen(server, f"unix:{socket_path}", credentials)
    server.start()
    return GrpcServer(server, bound, health_service)


class _Pool(ThreadPoolExecutor):
    """Threads that process requests.

    Attributes:
        waiting: Number of requests that wait for a thread.
        limit: Number of requests that may wait.
    """

    def __init__(self, threads: int, name: str):
        super().__init__(threads, name)
        self.waiting = 0
        self.limit = threads * QUEUE_PER_THREAD
        self._counting = threading.Lock()

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Any:
        self._count(1)
        return super().submit(self._start, function, *arguments, **named)

    def _start(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        self._count(-1)
        return function(*arguments, **named)

    def _count(self, change: int) -> None:
        with self._counting:
            self.waiting += change


class _RequestParser(grpc.ServerInterceptor):
    """Chooses a request's threads, and parses it there, where a parse error can be answered.

    gRPC itself leaks 15 KB for each request that it cannot parse, and logs a stack trace.

    Args:
        pool: Threads for requests that compute. Others, such as health checks, have threads of
            their own: a probe of a busy server must not fail.
    """

    def __init__(self, pool: _Pool):
        self._pool = pool

    def intercept_service(self, continuation: Callable[[Any], Any], details: Any) -> Any:
        handler = continuation(details)
        if handler is None or handler.unary_unary is None:
            return handler
        refused = details.method not in QUICK_METHODS and self._pool.waiting >= self._pool.limit

        def handle(body: bytes, context: grpc.ServicerContext) -> Any:
            if refused:
                context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "Server Threadpool Exhausted")
            try:
                request = handler.request_deserializer(body)
            except DecodeError:
                context.abort(grpc.StatusCode.INTERNAL, "Exception deserializing request!")
            return handler.unary_unary(request, context)

        if refused or details.method in QUICK_METHODS:
            handle.experimental_thread_pool = QUICK_THREADS  # type: ignore[attr-defined]
        return grpc.unary_unary_rpc_method_handler(
            handle, response_serializer=handler.response_serializer
        )


def _listen(server: grpc.Server, address: str, credentials: grpc.ServerCredentials | None) -> int:
    try:
        if credentials is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise ServingError(
            f"Cannot listen on {address}: it is in use, or access is denied; "
            "choose another port or socket."
        ) from error


def _add_services(server: grpc.Server, api: PredictionService) -> None:
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        SimpleNamespace(
            Predict=_handler(api.predict),
            Classify=_handler(api.classify),
            Regress=_handler(api.regress),
            MultiInference=_handler(api.multi_inference),
            GetModelMetadata=_handler(api.get_model_metadata),
        ),
        server,
    )
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(
        SimpleNamespace(
            GetModelStatus=_handler(api.get_model_status),
            HandleReloadConfigRequest=_handler(api.reload_config),
        ),
        server,
    )


def _handler(answer: Callable[[Any, float | None], Any]) -> Callable[[Any, Any], Any]:
    def handle(request: Any, context: grpc.ServicerContext) -> Any:
        try:
            remaining = context.time_remaining()
            return answer(request, remaining if remaining < NO_DEADLINE else None)
        except RequestError as error:
            message = error.message.encode(errors="replace")[:MAX_MESSAGE_BYTES]
            context.abort(error.code, message.decode(errors="ignore"))

    return handle


class _Health(health.HealthServicer):
    """Reports SERVING until the server stops, then ends all watches, which would delay the stop."""

    def __init__(self) -> None:
        super().__init__(experimental_thread_pool=QUICK_THREADS)
        self._stopped = False
        self._watchers: set[Callable[[health_pb2.HealthCheckResponse | None], None]] = set()
        for service in HEALTHY_SERVICES:
            self.set(service, health_pb2.HealthCheckResponse.SERVING)

    def Watch(self, request, context, send_response_callback=None):  # noqa: N802
        self._watchers.add(send_response_callback)
        context.add_callback(lambda: self._watchers.discard(send_response_callback))
        super().Watch(request, context, send_response_callback)
        if self._stopped:
            send_response_callback(None)

    def stop(self) -> None:
        self.enter_graceful_shutdown()
        self._stopped = True
        for send in list(self._watchers):
            send(None)
