"""Carries an ASGI application over HTTP."""

import socket
import threading

import uvicorn
from starlette.types import ASGIApp

from serving.errors import ServingError

BACKLOG = 2048  # Connections that wait to be accepted.
# Longer than load balancers keep idle connections, so that none sends into one that is closing.
KEEP_ALIVE_SECONDS = 75
GRACE_SECONDS = 30


class HttpServer:
    """A server that answers until it is stopped.

    Attributes:
        port: Where it listens.
    """

    def __init__(self, server: uvicorn.Server, listener: socket.socket):
        self.port: int = listener.getsockname()[1]
        self._server = server
        # Whoever does not stop it need not wait for it.
        self._thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        self._thread.start()

    def stop(self, grace_seconds: int = GRACE_SECONDS) -> None:
        """Refuses new requests, finishes those in flight, breaks off what lasts longer."""
        self._server.config.timeout_graceful_shutdown = grace_seconds
        self._server.should_exit = True
        self._thread.join()


def serve_rest(app: ASGIApp, host: str, port: int) -> HttpServer:
    """Starts to answer.

    Args:
        app: What to serve.
        host: Name or number of the addresses to listen at; "::" is all of them, of IPv4 too.
        port: 0 stands for any that is free.

    Raises:
        ServingError: The port is taken, or there is no such address.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        # It listens from here on, so that nobody is refused until the server runs.
        listener = socket.create_server(
            (host, port), family=family, dualstack_ipv6=host == "::", backlog=BACKLOG
        )
        # Connections inherit it. Without it the last part of an answer waits for an
        # acknowledgement, which comes 40 ms later.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except (OSError, OverflowError) as error:
        raise ServingError(
            f"{host}:{port} cannot be listened at: {error}; choose another --rest_api_port."
        ) from error
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
    )
    return HttpServer(uvicorn.Server(config), listener)
