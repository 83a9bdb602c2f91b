"""Batches concurrent calls, as TensorFlow Serving's BatchingSession does.

The BatchingSession rejects inputs without a common number of rows and rows of different shapes, and
one bad call fails its whole batch. This scheduler runs such calls separately instead.
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

from serving.batch_runner import Arrays, BatchKey, BatchRunner, Runnable, common_rows, concatenated
from serving.errors import RequestError
from serving.monitoring import Monitoring


class _Task:
    """A call, or a part of one. Once done it has a result, an error, or neither.

    Neither means that its batch failed, and that the caller runs it alone.
    """

    def __init__(self, inputs: Arrays, deadline: float):
        self.inputs = inputs
        self.queued = time.monotonic()
        self.deadline = deadline  # On the monotonic clock; infinity for none.
        self.holds_servable = False  # Its caller must wait until it is done.
        self.done = threading.Event()
        self.result: dict[str, np.ndarray] | None = None
        self.error: Exception | None = None


class _Batch:
    def __init__(self, due: float):
        self.due = due
        self.tasks: list[_Task] = []
        self.rows = 0


class BatchScheduler:
    """Batches concurrent calls of `Servable.run` and runs the batches in its own threads.

    A batch takes tasks until it is full, or, after its timeout, until a thread is free.

    Args:
        parameters: BatchingParameters from `read_batching_parameters`.
        monitoring: Counts batches and times the waits for them.
    """

    def __init__(self, parameters: Any, monitoring: Monitoring | None = None):
        self._monitoring = monitoring or Monitoring()
        self._pool_name = parameters.thread_pool_name.value
        self._max_task_rows = parameters.max_batch_size.value
        self._splits = parameters.enable_large_batch_splitting.value
        self._batch_rows = parameters.max_execution_batch_size.value
        self._max_batches = parameters.max_enqueued_batches.value
        self._timeout_seconds = parameters.batch_timeout_micros.value / 1e6
        self._runner = BatchRunner(
            parameters.allowed_batch_sizes, parameters.pad_variable_length_inputs
        )
        # Empty queues are removed: an unloaded version or a rare shape must not stay in memory.
        # Keys take turns: the first one is next.
        self._queues: dict[BatchKey, deque[_Batch]] = {}
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._closed = False
        self._threads = [
            threading.Thread(
                target=self._run_batches,
                name=f"{parameters.thread_pool_name.value}_{number}",
                daemon=True,
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
        """Runs a servable as `Servable.run` does, after waiting for other calls to batch.

        The servable must stay open until the call returns, and is not used after that.

        Raises:
            RequestError: The call has too many rows (INVALID_ARGUMENT); the queue is full
                (UNAVAILABLE); the timeout is over (DEADLINE_EXCEEDED); outputs do not have a row
                per input row (FAILED_PRECONDITION); or the servable failed.
        """
        rows = common_rows(inputs)
        if not rows:
            return servable.run(signature, inputs, outputs, timeout)
        if rows > self._max_task_rows:
            raise RequestError(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"Task size {rows} is larger than maximum input batch size {self._max_task_rows}",
            )
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        key = self._runner.key(servable, signature, inputs, outputs)
        results, errors = [], []
        for task in self._enqueue(key, inputs, rows, deadline):
            try:
                results.append(self._wait(key, task))
            except Exception as error:  # Waits for the other parts, which may still run.
                errors.append(error)
        if errors:
            raise errors[0]
        return concatenated(results)

    def close(self) -> None:
        """Runs the queued batches, then stops; later calls are UNAVAILABLE."""
        with self._lock:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _enqueue(
        self, key: BatchKey, inputs: Arrays, rows: int, deadline: float
    ) -> Sequence[_Task]:
        """Queues a call as one task, or as several if it is split."""
        with self._lock:
            if self._closed:
                raise RequestError(grpc.StatusCode.UNAVAILABLE, "The batch scheduler is closed")
            batches = self._queues.get(key, deque())
            room = self._batch_rows - batches[-1].rows if batches else 0
            if rows > room and not self._splits:
                room = 0
            new_starts = range(min(rows, room), rows, self._batch_rows)  # Rows that begin a batch.
            if len(batches) + len(new_starts) > self._max_batches:
                raise RequestError(
                    grpc.StatusCode.UNAVAILABLE,
                    "The batch scheduling queue to which this task was submitted is full; "
                    f"currently {len(batches)} batches enqueued and max_enqueued_batches is "
                    f"{self._max_batches}",
                )
            tasks = []
            for start, end in pairwise(sorted({0, *new_starts, rows})):
                if start in new_starts:
                    batches.append(_Batch(due=time.monotonic() + self._timeout_seconds))
                part = {name: array[start:end] for name, array in inputs.items()}
                tasks.append(_Task(part, deadline))
                batches[-1].tasks.append(tasks[-1])
                batches[-1].rows += end - start
            self._queues[key] = batches
            if new_starts or batches[-1].rows == self._batch_rows:
                self._changed.notify()
        return tasks

    def _wait(self, key: BatchKey, task: _Task) -> dict[str, np.ndarray]:
        seconds = task.deadline - time.monotonic()
        if not task.done.wait(min(max(seconds, 0), threading.TIMEOUT_MAX)):
            with self._lock:
                if not task.holds_servable:
                    task.deadline = -math.inf  # Threads must skip it: its caller is gone.
                    raise _deadline_exceeded()
            task.done.wait()
        if task.error:
            raise task.error
        if task.result is not None:
            return task.result
        return self._run_tasks(key, [task])[0]

    def _run_batches(self) -> None:
        while self._run_batch():
            pass

    # A function of its own, so that a waiting thread has no reference to a servable.
    def _run_batch(self) -> bool:
        """Runs the next batch; returns False if the scheduler is closed and no batch is left."""
        key, tasks = self._take()
        if key is None:
            return False
        try:
            self._record(tasks)
            results = self._run_tasks(key, tasks) if tasks else []
        except Exception as error:  # Any error is the callers': the model or the inputs raised it.
            if len(tasks) == 1:
                tasks[0].error = error
        else:
            for task, result in zip(tasks, results, strict=True):
                task.result = result
        for task in tasks:
            task.done.set()
        return True

    def _record(self, tasks: Sequence[_Task]) -> None:
        now = time.monotonic()
        for task in tasks:
            self._monitoring.record_queuing(self._pool_name, now - task.queued)
        if tasks:
            self._monitoring.record_batch()

    def _take(self) -> tuple[BatchKey | None, list[_Task]]:
        """Waits for a batch; returns its key and those of its tasks whose callers still wait."""
        with self._lock:
            while True:
                now = time.monotonic()
                key, due = self._next_ready(now)
                if key is not None:
                    return key, self._pop(key, now)
                if self._closed:
                    return None, []
                self._changed.wait(min(due - now, threading.TIMEOUT_MAX))

    def _next_ready(self, now: float) -> tuple[BatchKey | None, float]:
        """Returns the key of the first queue with a ready batch, or None, and the next due time."""
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
        if self._queues:  # Wakes another thread for the rest.
            self._changed.notify()
        tasks = [task for task in batch.tasks if task.deadline > now]
        if tasks:
            # One caller must keep the servable open while the batch runs: the one with the latest
            # deadline, which ends the computation.
            max(tasks, key=lambda task: task.deadline).holds_servable = True
        return tasks

    def _run_tasks(self, key: BatchKey, tasks: Sequence[_Task]) -> list[dict[str, np.ndarray]]:
        timeout = max(task.deadline for task in tasks) - time.monotonic()
        if timeout <= 0:
            raise _deadline_exceeded()
        calls = [task.inputs for task in tasks]
        return self._runner.run(key, calls, timeout if timeout < math.inf else None)


def _deadline_exceeded() -> RequestError:
    return RequestError(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
