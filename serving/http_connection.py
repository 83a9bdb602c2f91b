"""HTTP connections that do not wait forever for a client."""

import asyncio
import errno
import logging
import time
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

SILENCE_SECONDS = 50.0  # As in TensorFlow Serving's HTTP library.
SHUTDOWN_SILENCE_SECONDS = 1.0
WARNING_SECONDS = 60.0

_OUT_OF_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_log = logging.getLogger("serving")


class HttpConnection(H11Protocol):
    """Closes a connection on which a client starts no request, or does not complete one.

    A connection between requests is closed by uvicorn's own timeout.
    """

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]
        self._patience = SILENCE_SECONDS
        self._heard = self.loop.time()
        self._timer = self.loop.call_later(self._patience, self._check)

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._heard = self.loop.time()
        super().data_received(data)

    def shutdown(self) -> None:
        """Completes a request that is being answered; waits a moment for one that is half sent."""
        super().shutdown()
        self._patience = SHUTDOWN_SILENCE_SECONDS
        self._timer.cancel()
        self._check()

    def _check(self) -> None:
        if self.transport.is_closing():
            return
        silence = self.loop.time() - self._heard
        if self._waits_for_client() and silence >= self._patience:
            self.transport.close()
            return
        # While a request is answered, there is silence for a reason.
        pause = self._patience - silence if silence < self._patience else self._patience
        self._timer = self.loop.call_later(pause, self._check)

    def _waits_for_client(self) -> bool:
        if self.cycle is None:
            return True
        if self.cycle.response_complete:
            return self.timeout_keep_alive_task is None  # The next request has begun.
        return self.cycle.more_body


class ResourceWarnings:
    """Handles errors of an event loop: says once a minute that no connection can be accepted.

    asyncio itself logs thousands of stack traces a second. It goes on accepting by itself.
    """

    def __init__(self) -> None:
        self._warned = -WARNING_SECONDS

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not (isinstance(error, OSError) and error.errno in _OUT_OF_RESOURCES):
            loop.default_exception_handler(context)
        elif time.monotonic() >= self._warned + WARNING_SECONDS:
            self._warned = time.monotonic()
            _log.warning(
                "Cannot accept HTTP connections: %s; new ones wait. Raise the limit of open files "
                "(ulimit -n).",
                error.strerror,
            )
