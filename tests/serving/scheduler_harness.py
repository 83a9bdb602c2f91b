"""A batch scheduler with a fake model and concurrent callers."""

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from serving.batch_scheduler import BatchScheduler
from serving.config_files import read_batching_parameters
from serving.errors import RequestError
from serving.monitoring import Monitoring
from tests.serving.manager_helpers import wait_until

LONG = 30  # Seconds; longer than any test waits.
MICROS = 1_000_000


def double(name: str, x: np.ndarray, z: np.ndarray | None = None) -> np.ndarray:
    """Returns 2 x + z, or, for the output `greatest`, the maximum of each row."""
    if name == "greatest":
        return np.array([row.max() for row in x.reshape(len(x), -1)], x.dtype)
    return x + x if z is None else x + x + z


class FakeModel:
    """Computes outputs by `compute(name, **inputs)`, and records its calls.

    Calls wait while its gate is closed.
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
        """The input `x` of each call."""
        return [inputs["x"].tolist() for inputs, _ in self.calls]

    @property
    def rows(self) -> list[int]:
        return list(map(len, self.x))


class Harness:
    """A scheduler, a fake model and a pool of callers.

    Args:
        compute: Computes the model's outputs.
        allowed: Allowed batch sizes.
        pad: Whether rows are padded.
        values: Other BatchingParameters. Defaults: one thread, and a long batch timeout.
    """

    def __init__(
        self,
        compute: Callable[..., np.ndarray] = double,
        allowed: Sequence[int] = (),
        pad: bool = False,
        **values: Any,
    ):
        parameters = read_batching_parameters(None)
        values = {"num_batch_threads": 1, "batch_timeout_micros": LONG * MICROS} | values
        if "max_batch_size" in values:
            values.setdefault("max_execution_batch_size", values["max_batch_size"])
        for name, value in values.items():
            getattr(parameters, name).value = value
        parameters.allowed_batch_sizes.extend(allowed)
        parameters.pad_variable_length_inputs = pad
        self.monitoring = Monitoring()
        self.scheduler = BatchScheduler(parameters, self.monitoring)
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
        """Starts calls one by one, each after the one before is queued or completes a batch."""
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
        """Returns the numbers of rows of the queued batches."""
        with self.scheduler._lock:
            queues = self.scheduler._queues.values()
            return [batch.rows for batches in queues for batch in batches]


def result_of(future: Future, name: str = "y") -> Any:
    return future.result(LONG)[name].tolist()


def error_of(future: Future) -> RequestError:
    error = future.exception(LONG)
    assert isinstance(error, RequestError), error
    return error
