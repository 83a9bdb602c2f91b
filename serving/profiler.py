"""TensorFlow's profiler: on a port of its own, and beside the services of the gRPC API."""

import socket
from functools import cache

import grpc
import tensorflow as tf

from serving.errors import ServingError

SERVICE = "/tensorflow.ProfilerService/"


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


class ProfilerHandler(grpc.GenericRpcHandler):
    """Passes calls of the profiler service on to TensorFlow's own server.

    TensorFlow's service is written in C++ and cannot be added to a server of Python. Its server
    starts with the first call.
    """

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler | None:
        method = handler_call_details.method
        if not method.startswith(SERVICE):
            return None

        def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
            try:
                # Waits: the server answers a moment after its start.
                call = _channel().unary_unary(method)
                return call(request, timeout=context.time_remaining(), wait_for_ready=True)
            except grpc.RpcError as error:
                context.abort(error.code(), error.details())
                raise

        return grpc.unary_unary_rpc_method_handler(answer, bytes, bytes)


@cache
def _channel() -> grpc.Channel:
    with socket.create_server(("", 0)) as free:
        port = free.getsockname()[1]
    start_profiler(port)
    return grpc.insecure_channel(f"localhost:{port}", [("grpc.max_receive_message_length", -1)])
