"""Maps a function over items in threads, in order and with bounded memory."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def parallel_map(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int, buffer_size: int
) -> Iterator[Result]:
    """Yields the results in the order of the items.

    `Executor.map` would submit all items at once and hold all results in memory.

    Args:
        function: Called in threads, so it should wait for files or leave Python, as TensorFlow's
            operations do.
        items: Read as needed.
        threads: Number of concurrent calls.
        buffer_size: Largest number of items that are submitted and not yet yielded.
    """
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) >= buffer_size:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
