"""Batches that the workers of a tf.data service make: what the training process has to do with it.

A dispatcher hands out the shards of an epoch one by one, each to one worker (dynamic sharding), so
that an image is seen once however fast the workers are. Without sharding each worker would read all
images in an order of its own, and an epoch would see some of them several times and others never.
"""

import contextlib
import re
import socket
import sys
import threading
import time
import warnings
from collections.abc import Iterator

import tensorflow as tf

from caption_gan.data.service.dispatcher import Dispatcher
from caption_gan.errors import CaptionGANError

# A worker would optimize the graph anew for each epoch, though it is always the same.
AS_IT_IS = tf.data.Options()
AS_IT_IS.experimental_optimization.apply_default_optimizations = False

WAIT = 30.0  # Seconds for a dispatcher and a first worker, which may be starting as well.
BETWEEN_LOOKS = 5.0  # Seconds.
# What TensorFlow raises when the dispatcher is gone or has forgotten, or a file is not there.
_FAILED = (
    tf.errors.UnavailableError,
    tf.errors.DeadlineExceededError,
    tf.errors.AbortedError,
    tf.errors.NotFoundError,
)


def distribute(batches: tf.data.Dataset, address: str) -> tf.data.Dataset:
    """The same batches, made by workers that are each given some of the first dataset's elements.

    Args:
        batches: Their graph must hold all they need, but files that the workers can reach.
        address: Of the dispatcher.
    """
    with warnings.catch_warnings():
        # In a function's graph TensorFlow doubts that it knows the options of what it sends.
        warnings.simplefilter("ignore", UserWarning)
        return batches.with_options(AS_IT_IS).apply(
            tf.data.experimental.service.distribute(
                tf.data.experimental.service.ShardingPolicy.DYNAMIC, f"grpc://{address}"
            )
        )


def answers(address: str) -> bool:
    """Whether something listens at host:port."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=BETWEEN_LOOKS):
            return True
    except OSError:
        return False


def await_dispatcher(address: str, workers: bool = False) -> None:
    """Returns when a dispatcher answers.

    Args:
        address: Host and port.
        workers: Whether it must have a worker besides.

    Raises:
        CaptionGANError: It does not answer, or has no worker, for so long.
    """
    dispatcher, until = Dispatcher(address), time.monotonic() + WAIT
    while True:
        found = dispatcher.workers()
        if found or (found is not None and not workers):
            return
        if time.monotonic() > until:
            break
        time.sleep(0.5)
    if found is None:
        raise CaptionGANError(
            f"no tf.data service dispatcher answers at {address} within {WAIT:.0f} seconds; start "
            "one with `python -m caption_gan.input_server --dispatcher`."
        )
    raise CaptionGANError(
        f"the tf.data service at {address} has no worker within {WAIT:.0f} seconds; start one with "
        f"`python -m caption_gan.input_server --worker --dispatcher_address {address}`."
    )


@contextlib.contextmanager
def using(address: str | None) -> Iterator[None]:
    """Training whose batches come from the service at that address, if any.

    TensorFlow itself waits for a dispatcher or worker that is away, and says nothing; a line on
    standard error does.

    Raises:
        CaptionGANError: There is no such service, or it failed.
    """
    if address is None:
        yield
        return
    await_dispatcher(address, workers=True)
    done = threading.Event()
    watch = threading.Thread(target=_watch, args=(Dispatcher(address), done), daemon=True)
    watch.start()
    try:
        yield
    except _FAILED as error:
        # Without TensorFlow's names of functions and operations.
        reason = re.sub(r"\{\{.*?\}\} ?| ?\[Op:.*", "", str(error.message)).splitlines()[0]
        raise CaptionGANError(
            f"data.service {address} failed ({reason[:300]}). Its workers must reach the shards by "
            "the same path as this machine, and its dispatcher needs a --work_dir to start again; "
            "the same command continues the run."
        ) from error
    finally:
        done.set()
        watch.join()


def _watch(dispatcher: Dispatcher, done: threading.Event) -> None:
    before = None
    while not done.wait(BETWEEN_LOOKS):
        workers, trouble = dispatcher.workers(), None
        if workers is None:
            trouble = f"the dispatcher at {dispatcher.address} does not answer"
        elif not any(map(answers, workers)):
            trouble = "none of the workers answers"
        if trouble != before:
            state = f"{trouble}; training waits for it" if trouble else "all is well again"
            print(f"\ndata.service: {state}", file=sys.stderr)
        before = trouble
