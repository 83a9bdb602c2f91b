"""Reads the bodies of REST requests within a budget of memory."""

import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
from starlette.requests import Request

from serving.errors import RequestError, invalid

MAX_UNCOMPRESSED_BYTES = 100 << 20  # TensorFlow Serving's: small bodies can expand to any size.
# Parsed JSON can take 20 times as much memory as its text.
MAX_BYTES_IN_WORK = 256 << 20


class BodyBudget:
    """Limits the bytes of all bodies in work. A request that is alone may be larger.

    Args:
        limit: Number of bytes, after decompression.
    """

    def __init__(self, limit: int = MAX_BYTES_IN_WORK):
        self._limit = limit
        self._used = 0
        self._lock = threading.Lock()

    @contextmanager
    def share(self) -> Iterator["BodyShare"]:
        """Yields the share of a request, and gives it back at the end."""
        share = BodyShare(self)
        try:
            yield share
        finally:
            with self._lock:
                self._used -= share.size

    def take(self, share: "BodyShare", size: int) -> None:
        with self._lock:
            others = self._used - share.size
            if others and self._used + size > self._limit:
                raise RequestError(
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                    f"The bodies of all requests in work have more than {self._limit} bytes; "
                    "try again later",
                )
            self._used += size
            share.size += size


class BodyShare:
    """The bytes that one request takes of a budget."""

    def __init__(self, budget: BodyBudget):
        self.size = 0
        self._budget = budget

    async def read(self, request: Request) -> bytes:
        """Returns the body of a request as it was sent.

        Raises:
            RequestError: The budget is used up.
        """
        chunks = []
        async for chunk in request.stream():
            self._budget.take(self, len(chunk))
            chunks.append(chunk)
        return b"".join(chunks)

    def uncompress(self, body: bytes) -> bytes:
        """Returns the content of a body in gzip's format.

        Raises:
            RequestError: The body is invalid or expands too much, or the budget is used up.
        """
        stream = zlib.decompressobj(wbits=31)  # Only gzip.
        try:
            text = stream.decompress(body, MAX_UNCOMPRESSED_BYTES)
        except zlib.error as error:
            raise invalid(f"The body is not valid gzip: {error}") from None
        if stream.unconsumed_tail:
            raise invalid(f"The uncompressed body has more than {MAX_UNCOMPRESSED_BYTES} bytes")
        if not stream.eof or stream.unused_data:
            raise invalid("The body is not valid gzip: it is truncated, or data follow its end")
        self._budget.take(self, len(text))
        return text
