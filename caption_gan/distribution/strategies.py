"""The devices and machines that train one model, by strategies of `tf.distribute`.

Machines are called workers. One of them, the chief, does the work that must be done once, such as
writing files.
"""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import tensorflow as tf

from caption_gan.errors import CaptionGANError

# TensorFlow's errors when another worker is lost.
_WORKER_LOST = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.DeadlineExceededError)


@contextlib.contextmanager
def using(name: str) -> Iterator[None]:
    """Trains in this context by the strategy of the given name.

    Enter it before TensorFlow runs its first operation.

    Args:
        name: As in `Config.strategy`.

    Raises:
        CaptionGANError: TF_CONFIG does not list the workers, or a worker was lost.
    """
    if name == "one_device":
        yield
        return
    if name == "mirrored":
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        strategy = tf.distribute.MirroredStrategy([device.name for device in devices])
    else:
        _check_workers()
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    # All epochs have a fixed number of batches; otherwise the workers would synchronise before
    # each batch.
    strategy.extended.experimental_enable_get_next_as_optional = False
    try:
        with strategy.scope():
            yield
    except _WORKER_LOST as error:
        raise CaptionGANError(
            f"Another worker was lost ({str(error.message).splitlines()[0][:200]}). Start all "
            "workers again with the same command to continue."
        ) from error


def _check_workers() -> None:
    """Raises CaptionGANError for a TF_CONFIG that TensorFlow would answer with a stack trace."""
    example = (
        '{"cluster": {"worker": ["a:5000", "b:5000"]}, "task": {"type": "worker", "index": 0}}'
    )
    text = os.environ.get("TF_CONFIG", "")
    try:
        config = json.loads(text)
        task = config["task"]
        config["cluster"][task["type"]][int(task["index"])]
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise CaptionGANError(
            f"strategy multi_worker needs the environment variable TF_CONFIG; it is {text!r}, but "
            f"must list all workers and this worker's index, for example {example}."
        ) from error


def is_chief() -> bool:
    """Returns whether this process is the chief."""
    resolver = tf.distribute.get_strategy().cluster_resolver
    if resolver is None or not resolver.task_type:
        return True
    with_chief = "chief" in resolver.cluster_spec().jobs
    return resolver.task_type == "chief" or (not with_chief and resolver.task_id == 0)


def from_chief(function: Callable[[], Any]) -> Any:
    """Calls a function on the chief and returns its result on all workers.

    All workers must call it; they wait until the chief is done. The function runs in a separate
    thread, outside the strategy's scope, in which the chief alone could not create variables.

    Args:
        function: Returns a value that JSON can represent.
    """
    strategy = tf.distribute.get_strategy()
    if strategy.cluster_resolver is None:
        return function()
    text = b""
    if is_chief():
        with ThreadPoolExecutor(1) as thread:
            text = json.dumps(thread.submit(function).result()).encode()
    length = int(_sum(strategy, [len(text)])[0])
    return json.loads(bytes(_sum(strategy, text or bytes(length)).numpy().tolist()))


def wait_for_all() -> None:
    """Waits until all workers have called this function."""
    from_chief(lambda: None)


@contextlib.contextmanager
def chief_first() -> Iterator[None]:
    """Runs the block on the chief first; the other workers then find its results."""
    if not is_chief():
        wait_for_all()
    yield
    if is_chief():
        wait_for_all()


def _sum(strategy: tf.distribute.Strategy, numbers: Any) -> tf.Tensor:
    """Returns the sum of numbers over the workers; numbers other than the chief's count as 0."""
    vector = tf.constant(list(numbers), tf.int32)
    zeros = tf.zeros_like(vector)

    def add() -> tf.Tensor:
        context = tf.distribute.get_replica_context()
        summand = vector if context.replica_id_in_sync_group == 0 else zeros
        return context.all_reduce(tf.distribute.ReduceOp.SUM, summand)

    return strategy.experimental_local_results(strategy.run(add))[0]
