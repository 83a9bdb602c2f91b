"""The devices and machines that train one model, by TensorFlow's strategies.

Machines are called workers; one of them, the chief, does what is to be done once.
"""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import tensorflow as tf

from caption_gan.errors import CaptionGANError

# What TensorFlow raises when another worker is gone.
_LOST = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.DeadlineExceededError)


@contextlib.contextmanager
def using(name: str) -> Iterator[None]:
    """Everything within is trained by the strategy of that name.

    Must be entered before TensorFlow has done anything.

    Args:
        name: As in `Config.strategy`.

    Raises:
        CaptionGANError: The workers are not named as they should be, or one of them was lost.
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
    # Epochs are known to be whole; else the workers would ask each other before each batch.
    strategy.extended.experimental_enable_get_next_as_optional = False
    try:
        with strategy.scope():
            yield
    except _LOST as error:
        raise CaptionGANError(
            f"Another worker is gone ({str(error.message).splitlines()[0][:200]}). Start all "
            "workers again with the same command to continue."
        ) from error


def _check_workers() -> None:
    """Refuses a TF_CONFIG that TensorFlow would answer with a stack trace."""
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
            f"should name all workers and this one's place among them, as in {example}."
        ) from error


def is_chief() -> bool:
    """Whether this process does what is to be done once."""
    resolver = tf.distribute.get_strategy().cluster_resolver
    if resolver is None or not resolver.task_type:
        return True
    with_chief = "chief" in resolver.cluster_spec().jobs
    return resolver.task_type == "chief" or (not with_chief and resolver.task_id == 0)


def from_chief(function: Callable[[], Any]) -> Any:
    """Calls a function on the chief, and gives all workers what it returned.

    All must call it; nobody goes on before the chief is done. The function runs outside the
    strategy, in whose scope the chief alone could make no variable: strategies are a thread's own.

    Args:
        function: Returns what JSON can hold.
    """
    strategy = tf.distribute.get_strategy()
    if strategy.cluster_resolver is None:
        return function()
    text = b""
    if is_chief():
        with ThreadPoolExecutor(1) as alone:
            text = json.dumps(alone.submit(function).result()).encode()
    length = int(_sum(strategy, [len(text)])[0])
    return json.loads(bytes(_sum(strategy, text or bytes(length)).numpy().tolist()))


def wait_for_all() -> None:
    """Returns when all workers have come here."""
    from_chief(lambda: None)


@contextlib.contextmanager
def chief_first() -> Iterator[None]:
    """The chief does what is within before the others do it, who may find it done."""
    if not is_chief():
        wait_for_all()
    yield
    if is_chief():
        wait_for_all()


def _sum(strategy: tf.distribute.Strategy, numbers: Any) -> tf.Tensor:
    """Numbers added up over the workers, of which the chief alone has others than zeros."""
    vector = tf.constant(list(numbers), tf.int32)
    nothing = tf.zeros_like(vector)

    def add() -> tf.Tensor:
        context = tf.distribute.get_replica_context()
        mine = vector if context.replica_id_in_sync_group == 0 else nothing
        return context.all_reduce(tf.distribute.ReduceOp.SUM, mine)

    return strategy.experimental_local_results(strategy.run(add))[0]
