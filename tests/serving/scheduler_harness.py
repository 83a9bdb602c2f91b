"""Calls of a made-up model, begun in threads of their own and merged."""

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from serving.batch_scheduler import BatchScheduler
from serving.config_files import read_batching_parameters
from serving.errors import RequestError
from tests.serving.manager_helpers import wait_until

LONG = 30  # Seconds; nothing lasts so long.
MICROS = 1_000_000


def double(name: str, x: np.ndarray, z: np.ndarray | None = None) -> np.ndarray:
    """`y`, which is 2 x + z, or the greatest element of each row."""
    if name == "greatest":
        return np.array([row.max() for row in x.reshape(len(x), -1)], x.dtype)
    return x + x if z is None else x + x + z


class FakeModel:
    """Computes each output with a function of its name and the inputs; remembers its calls.

    A gate holds computations back while it is closed.
    """

    def __init__(self, compute: Callable[..., np.ndarray] = double):
        self.compute = compute
        self.gate = threading.Event()
        self.gate.set()
        self.running = threading.Semaphore(0)
        self.calls: list[tuple[Mapping[str, np.ndarray], float | None]] = []

    def run(self, signature, inputs, outputs, timeout=None):
        self.calls.append((inputs, timeout))
        self.running.release()
        assert self.gate.wait(LONG)
        return {name: self.compute(name, **inputs) for name in outputs}

    @property
    def x(self) -> list[Any]:
        """What it was given in each call."""
        return [inputs["x"].tolist() for inputs, _ in self.calls]

    @property
    def rows(self) -> list[int]:
        return list(map(len, self.x))


class Harness:
    """A scheduler, a model and callers.

    Args:
        compute: The model's.
        allowed: Allowed batch sizes.
        pad: Whether rows are padded.
        numbers: Other settings; there is one thread, and batches wait long for others, unless
            they say something else.
    """

    def __init__(
        self,
        compute: Callable[..., np.ndarray] = double,
        allowed: Sequence[int] = (),
        pad: bool = False,
        **numbers: Any,
    ):
        parameters = read_batching_parameters(None)
        numbers = {"num_batch_threads": 1, "batch_timeout_micros": LONG * MICROS} | numbers
        if "max_batch_size" in numbers:
            numbers.setdefault("max_execution_batch_size", numbers["max_batch_size"])
        for name, value in numbers.items():
            getattr(parameters, name).value = value
        parameters.allowed_batch_sizes.extend(allowed)
        parameters.pad_variable_length_inputs = pad
        self.scheduler = BatchScheduler(parameters)
        self.model = FakeModel(compute)
        self.callers = ThreadPoolExecutor(40)

    def __enter__(self) -> "Harness":
        return self

    def __exit__(self, *error: object) -> None:
        self.model.gate.set()
        self.scheduler.close()
        self.callers.shutdown()

    def call(
        self,
        x: Any,
        *,
        z: Any = None,
        signature: str = "double",
        outputs: Sequence[str] = ("y",),
        timeout: float | None = None,
        model: Any = None,
    ) -> Future:
        inputs = {"x": np.asarray(x)} | ({} if z is None else {"z": np.asarray(z)})
        return self.callers.submit(
            self.scheduler.run, model or self.model, signature, inputs, list(outputs), timeout
        )

    def call_in_turn(self, *xs: Any, **options: Any) -> list[Future]:
        """Calls of which each waits, or fills a batch that waited, before the next is begun."""
        return [self._call_and_wait(x, **options) for x in xs]

    def _call_and_wait(self, x: Any, **options: Any) -> Future:
        before = self.queued_rows()
        future = self.call(x, **options)
        wait_until(lambda: self.queued_rows() != before)
        return future

    def occupy_thread(self, *xs: Any) -> list[Future]:
        """Blocks the only thread with a call until the gate opens, then queues the others."""
        self.model.gate.clear()
        first = self.call([0])
        assert self.model.running.acquire(timeout=LONG)
        return [first, *self.call_in_turn(*xs)]

    def queued_rows(self) -> list[int]:
        """Rows of the batches that wait."""
        with self.scheduler._lock:
            queues = self.scheduler._queues.values()
            return [batch.rows for batches in queues for batch in batches]


def result_of(future: Future, name: str = "y") -> Any:
    return future.result(LONG)[name].tolist()


def error_of(future: Future) -> RequestError:
    error = future.exception(LONG)
    assert isinstance(error, RequestError), error
    return error
