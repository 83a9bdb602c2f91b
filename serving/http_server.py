"""Serves an ASGI application over HTTP."""

import asyncio
import socket
import threading

import uvicorn
from starlette.types import ASGIApp

from serving.errors import ServingError
from serving.http_connection import HttpConnection, ResourceWarnings

BACKLOG = 2048  # Connections waiting to be accepted.
# Longer than load balancers keep idle connections, so none of them sends on a closing connection.
KEEP_ALIVE_SECONDS = 75
GRACE_SECONDS = 30


class HttpServer:
    """A running HTTP server.

    Attributes:
        port: The port on which it listens.
    """

    def __init__(self, server: uvicorn.Server, listener: socket.socket):
        self.port: int = listener.getsockname()[1]
        self._server = server
        # A daemon, so that a process can exit without calling stop().
        self._thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        self._thread.start()

    def stop(self, grace_seconds: int = GRACE_SECONDS) -> None:
        """Refuses new requests, finishes those in flight, aborts them after the grace period."""
        self._server.config.timeout_graceful_shutdown = grace_seconds
        self._server.should_exit = True
        self._thread.join()


class _Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().set_exception_handler(ResourceWarnings())
        await super().startup(sockets)


def serve_rest(app: ASGIApp, host: str, port: int) -> HttpServer:
    """Starts a server and returns it.

    Args:
        app: The application to serve.
        host: Name or address to listen on; "::" for all addresses, IPv4 included.
        port: 0 for any free port.

    Raises:
        ServingError: The port is in use, or the address does not exist.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        # Connections wait in the backlog from here on, until the server runs.
        listener = socket.create_server(
            (host, port), family=family, dualstack_ipv6=host == "::", backlog=BACKLOG
        )
        # Connections inherit this option. Without it, the last packet of an answer waits 40 ms for
        # an acknowledgement.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except (OSError, OverflowError) as error:
        raise ServingError(
            f"Cannot listen on {host}:{port}: {error}; choose another --rest_api_port."
        ) from error
    config = uvicorn.Config(
        app,
        http=HttpConnection,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
    )
    return HttpServer(_Server(config), listener)
