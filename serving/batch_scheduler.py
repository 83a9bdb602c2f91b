"""What several callers ask for at a time is computed as one batch, as TensorFlow Serving does.

Where its BatchingSession refuses a request, or fails one for another's fault, this one computes it
by itself: inputs without a common number of rows, rows whose shape is not that of others, and each
task of a batch that failed.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import grpc
import numpy as np

from serving.batch_runner import Arrays, BatchKey, BatchRunner, Runnable, common_rows, joined
from serving.errors import RequestError


class _Task:
    """What a caller waits for: `result` or `error`, or neither if it has to compute by itself."""

    def __init__(self, inputs: Arrays, deadline: float):
        self.inputs = inputs
        self.deadline = deadline  # On the monotonic clock; infinity if there is none.
        self.stays = False  # Its caller may not leave before it is done.
        self.done = threading.Event()
        self.result: dict[str, np.ndarray] | None = None
        self.error: Exception | None = None


class _Batch:
    def __init__(self, due: float):
        self.due = due
        self.tasks: list[_Task] = []
        self.rows = 0


class BatchScheduler:
    """Merges calls of `Servable.run` by several threads; its own threads compute the batches.

    A batch takes tasks until it is full or, when its time is over, until a thread is free for it.

    Args:
        parameters: As `read_batching` returns them.
    """

    def __init__(self, parameters: Any):
        self._largest_task = parameters.max_batch_size.value
        self._splits = parameters.enable_large_batch_splitting.value
        self._batch_rows = parameters.max_execution_batch_size.value
        self._most_batches = parameters.max_enqueued_batches.value
        self._wait_seconds = parameters.batch_timeout_micros.value / 1e6
        self._runner = BatchRunner(
            parameters.allowed_batch_sizes, parameters.pad_variable_length_inputs
        )
        # Only what waits is held: a version that is gone, or a shape asked for once, leaves nothing
        # behind. No queue is empty, and they take turns.
        self._queues: dict[BatchKey, deque[_Batch]] = {}
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._closed = False
        self._threads = [
            threading.Thread(
                target=self._work, name=f"{parameters.thread_pool_name.value}_{number}", daemon=True
            )
            for number in range(parameters.num_batch_threads.value)
        ]
        for thread in self._threads:
            thread.start()

    def run(
        self,
        servable: Runnable,
        signature: str,
        inputs: Arrays,
        outputs: Sequence[str],
        timeout: float | None = None,
    ) -> dict[str, np.ndarray]:
        """As `Servable.run`; a call that may wait for others.

        The servable must stay open until the call returns, and is not used by it afterwards.

        Raises:
            RequestError: The task is too large (INVALID_ARGUMENT), too many wait (UNAVAILABLE), its
                time is over (DEADLINE_EXCEEDED), outputs are not rows (FAILED_PRECONDITION), or
                what the servable says.
        """
        rows = common_rows(inputs)
        if not rows:
            return servable.run(signature, inputs, outputs, timeout)
        if rows > self._largest_task:
            raise RequestError(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"Task size {rows} is larger than maximum input batch size {self._largest_task}",
            )
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        key = self._runner.key(servable, signature, inputs, outputs)
        results, errors = [], []
        for task in self._enqueue(key, inputs, rows, deadline):
            try:
                results.append(self._wait(key, task))
            except Exception as error:  # Other parts may still be computed.
                errors.append(error)
        if errors:
            raise errors[0]
        return joined(results)

    def close(self) -> None:
        """Computes what waits, then ends; later tasks are UNAVAILABLE."""
        with self._lock:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _enqueue(
        self, key: BatchKey, inputs: Arrays, rows: int, deadline: float
    ) -> Sequence[_Task]:
        """Several tasks if it is split."""
        with self._lock:
            if self._closed:
                raise RequestError(grpc.StatusCode.UNAVAILABLE, "The batch scheduler is closed")
            batches = self._queues.get(key, deque())
            room = self._batch_rows - batches[-1].rows if batches else 0
            if rows > room and not self._splits:
                room = 0
            further = range(min(rows, room), rows, self._batch_rows)  # Where new batches begin.
            if len(batches) + len(further) > self._most_batches:
                raise RequestError(
                    grpc.StatusCode.UNAVAILABLE,
                    "The batch scheduling queue to which this task was submitted is full; "
                    f"currently {len(batches)} batches enqueued and max_enqueued_batches is "
                    f"{self._most_batches}",
                )
            tasks = []
            for start, end in pairwise(sorted({0, *further, rows})):
                if start in further:
                    batches.append(_Batch(due=time.monotonic() + self._wait_seconds))
                part = {name: array[start:end] for name, array in inputs.items()}
                tasks.append(_Task(part, deadline))
                batches[-1].tasks.append(tasks[-1])
                batches[-1].rows += end - start
            self._queues[key] = batches
            if further or batches[-1].rows == self._batch_rows:
                self._changed.notify()
        return tasks

    def _wait(self, key: BatchKey, task: _Task) -> dict[str, np.ndarray]:
        seconds = task.deadline - time.monotonic()
        if not task.done.wait(min(max(seconds, 0), threading.TIMEOUT_MAX)):
            with self._lock:
                if not task.stays:
                    task.deadline = -math.inf  # A thread must not see it as still in time.
                    raise _deadline_exceeded()
            task.done.wait()
        if task.error:
            raise task.error
        if task.result is not None:
            return task.result
        return self._compute(key, [task])[0]

    def _work(self) -> None:
        while self._work_once():
            pass

    # What follows is cut into functions so that a thread that waits holds no servable.

    def _work_once(self) -> bool:
        """False after the last batch of all."""
        key, tasks = self._take()
        if key is None:
            return False
        try:
            results = self._compute(key, tasks) if tasks else []
        except Exception as error:  # Of the model or of the inputs, so the callers' in any case.
            if len(tasks) == 1:
                tasks[0].error = error
        else:
            for task, result in zip(tasks, results, strict=True):
                task.result = result
        for task in tasks:
            task.done.set()
        return True

    def _take(self) -> tuple[BatchKey | None, list[_Task]]:
        """Waits for a batch; returns those of its tasks that are still wanted."""
        with self._lock:
            while True:
                now = time.monotonic()
                key, due = self._next(now)
                if key is not None:
                    return key, self._pop(key, now)
                if self._closed:
                    return None, []
                self._changed.wait(min(due - now, threading.TIMEOUT_MAX))

    def _next(self, now: float) -> tuple[BatchKey | None, float]:
        """The queue whose turn it is, or else when there will be one."""
        due = math.inf
        for key, batches in self._queues.items():
            full = len(batches) > 1 or batches[0].rows == self._batch_rows
            if full or batches[0].due <= now or self._closed:
                return key, now
            due = min(due, batches[0].due)
        return None, due

    def _pop(self, key: BatchKey, now: float) -> list[_Task]:
        batches = self._queues.pop(key)
        batch = batches.popleft()
        if batches:
            self._queues[key] = batches
        if self._queues:  # Another thread takes over.
            self._changed.notify()
        tasks = [task for task in batch.tasks if task.deadline > now]
        if tasks:
            # While it computes, somebody has to keep the servable open: the one whose deadline
            # ends the computation.
            max(tasks, key=lambda task: task.deadline).stays = True
        return tasks

    def _compute(self, key: BatchKey, tasks: Sequence[_Task]) -> list[dict[str, np.ndarray]]:
        timeout = max(task.deadline for task in tasks) - time.monotonic()
        if timeout <= 0:
            raise _deadline_exceeded()
        calls = [task.inputs for task in tasks]
        return self._runner.run(key, calls, timeout if timeout < math.inf else None)


def _deadline_exceeded() -> RequestError:
    return RequestError(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
