"""Work done ahead by threads, in order and without piling up."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int, ahead: int
) -> Iterator[Result]:
    """Results in the order of the items; at most `ahead` of them wait to be taken.

    `Executor.map` would begin all items at once and hold all results.

    Args:
        function: Is called in threads, so it gains where it waits or leaves Python, as reading
            files and TensorFlow's operations do.
        items: Read as needed.
        threads: Number of calls at a time.
        ahead: Number of items that are begun before their results are asked for.
    """
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) >= ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
