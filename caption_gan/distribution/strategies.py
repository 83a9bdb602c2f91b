"""The devices and machines that train one model, by strategies of `tf.distribute`.

Machines are called workers. One of them, the chief, does the work that must be done once, such as
writing files.
"""

import contextlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import tensorflow as tf

from caption_gan.errors import CaptionGANError

# TensorFlow's errors when another worker is lost.
_WORKER_LOST = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.DeadlineExceededError)
_EXAMPLE_TF_CONFIG = (
    '{"cluster": {"worker": ["a:5000", "b:5000"]}, "task": {"type": "worker", "index": 0}}'
)


@contextlib.contextmanager
def using(name: str) -> Iterator[None]:
    """Trains in this context by the strategy of the given name; one device needs no strategy.

    Enter it before TensorFlow runs its first operation.

    Args:
        name: As in `Config.strategy`.

    Raises:
        CaptionGANError: TF_CONFIG does not list the workers, or a worker was lost.
    """
    if tf.distribute.has_strategy():
        raise CaptionGANError(
            "Training was started within a tf.distribute strategy's scope; call it outside, and "
            "give the setting strategy: one_device, mirrored or multi_worker."
        )
    strategy = _strategy(name)
    if strategy is None:
        yield
        return
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


def _strategy(name: str) -> tf.distribute.Strategy | None:
    """The strategy of a name; None if there is one device, with which there is one replica."""
    if name == "one_device":
        return None
    if name == "multi_worker" and _count_workers() > 1:
        return tf.distribute.MultiWorkerMirroredStrategy()
    gpus = tf.config.list_logical_devices("GPU")
    devices = gpus or tf.config.list_logical_devices("CPU")
    if len(devices) > 1:
        return tf.distribute.MirroredStrategy([device.name for device in devices])
    workers = "TF_CONFIG lists one worker, which" if name == "multi_worker" else "this machine"
    print(
        f"strategy {name}: {workers} has {'one GPU' if gpus else 'no GPU'}; training on one device",
        file=sys.stderr,
    )
    return None


def _count_workers() -> int:
    """Returns the number of workers in TF_CONFIG.

    Raises:
        CaptionGANError: TensorFlow would answer this TF_CONFIG with a stack trace or wait forever.
    """
    text = os.environ.get("TF_CONFIG", "")
    try:
        config = json.loads(text)
        task = config["task"]
        # An evaluator is no worker.
        jobs = {
            job: hosts for job, hosts in config["cluster"].items() if hosts and job != "evaluator"
        }
        addresses = [address for hosts in jobs.values() for address in hosts]
        valid = (
            set(jobs) <= {"chief", "worker"}
            and len(jobs.get("chief", [])) <= 1
            and 0 <= int(task["index"]) < len(jobs[task["type"]])
            and len(set(addresses)) == len(addresses)
            and all(re.fullmatch(r".+:\d+", address) for address in addresses)
        )
    except (ValueError, KeyError, AttributeError, TypeError):
        valid = False
    if not valid:
        raise CaptionGANError(
            "strategy multi_worker needs the environment variable TF_CONFIG; it is "
            f"{repr(text) if text else 'not set'}, but must list all workers (host:port, each "
            f"once) and this worker's index, for example '{_EXAMPLE_TF_CONFIG}'. With one machine, "
            "give --strategy mirrored instead."
        )
    return len(addresses)


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
