"""The training process's side of a tf.data service, whose workers make the batches.

The dispatcher hands out the shards of an epoch one at a time, each to one worker (dynamic
sharding), so an epoch contains each image once however fast the workers are. Without sharding each
worker would read all images in its own order, and an epoch would repeat some and miss others.
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

# A worker would otherwise optimize the same graph again for each epoch.
NO_GRAPH_OPTIMIZATION = tf.data.Options()
NO_GRAPH_OPTIMIZATION.experimental_optimization.apply_default_optimizations = False

START_TIMEOUT = 30.0  # Seconds; the dispatcher and the first worker may still be starting.
CHECK_INTERVAL = 5.0  # Seconds.
# Raised by TensorFlow when the dispatcher is gone or has lost its state, or a file is missing.
_SERVICE_ERRORS = (
    tf.errors.UnavailableError,
    tf.errors.DeadlineExceededError,
    tf.errors.AbortedError,
    tf.errors.NotFoundError,
)


def distribute(batches: tf.data.Dataset, address: str) -> tf.data.Dataset:
    """The same batches, made by workers; each element of the first dataset goes to one of them.

    Args:
        batches: Their graph must contain everything they need, except files that the workers can
            read.
        address: Host and port of the dispatcher.
    """
    with warnings.catch_warnings():
        # Inside a tf.function TensorFlow warns that it may not know the dataset's options.
        warnings.simplefilter("ignore", UserWarning)
        return batches.with_options(NO_GRAPH_OPTIMIZATION).apply(
            tf.data.experimental.service.distribute(
                tf.data.experimental.service.ShardingPolicy.DYNAMIC, f"grpc://{address}"
            )
        )


def is_listening(address: str) -> bool:
    """Whether a connection to host:port is accepted."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=CHECK_INTERVAL):
            return True
    except OSError:
        return False


def wait_for_dispatcher(address: str, with_worker: bool = False) -> None:
    """Returns as soon as a dispatcher answers.

    Args:
        address: Host and port of the dispatcher.
        with_worker: Whether to wait for a first worker too.

    Raises:
        CaptionGANError: There is no dispatcher, or no worker, within `START_TIMEOUT`.
    """
    dispatcher, deadline = Dispatcher(address), time.monotonic() + START_TIMEOUT
    while True:
        workers = dispatcher.workers()
        if workers or (workers is not None and not with_worker):
            return
        if time.monotonic() > deadline:
            break
        time.sleep(0.5)
    if workers is None:
        raise CaptionGANError(
            f"no tf.data service dispatcher answers at {address} within {START_TIMEOUT:.0f} "
            "seconds; start one with `python -m caption_gan.input_server --dispatcher`."
        )
    raise CaptionGANError(
        f"the tf.data service at {address} has no worker within {START_TIMEOUT:.0f} seconds; start "
        f"one with `python -m caption_gan.input_server --worker --dispatcher_address {address}`."
    )


@contextlib.contextmanager
def monitored_service(address: str | None) -> Iterator[None]:
    """Reports trouble of the tf.data service while the block trains with its batches.

    TensorFlow waits in silence for a dispatcher or worker that has gone; this writes a line to
    standard error.

    Args:
        address: Host and port of the dispatcher; None if batches are made in this process.

    Raises:
        CaptionGANError: There is no such service, or it failed.
    """
    if address is None:
        yield
        return
    wait_for_dispatcher(address, with_worker=True)
    stop = threading.Event()
    monitor = threading.Thread(target=_monitor, args=(Dispatcher(address), stop), daemon=True)
    monitor.start()
    try:
        yield
    except _SERVICE_ERRORS as error:
        # Strips TensorFlow's names of functions and operations.
        reason = re.sub(r"\{\{.*?\}\} ?| ?\[Op:.*", "", str(error.message)).splitlines()[0]
        raise CaptionGANError(
            f"data.service {address} failed ({reason[:300]}). Its workers must reach the shards by "
            "the same path as this machine, and its dispatcher needs a --work_dir to survive a "
            "restart; run the same command again to continue."
        ) from error
    finally:
        stop.set()
        monitor.join()


def _monitor(dispatcher: Dispatcher, stop: threading.Event) -> None:
    """Prints a line whenever the state of the service changes."""
    reported = None
    while not stop.wait(CHECK_INTERVAL):
        workers, problem = dispatcher.workers(), None
        if workers is None:
            problem = f"the dispatcher at {dispatcher.address} does not answer"
        elif not any(map(is_listening, workers)):
            problem = "none of the workers answers"
        if problem != reported:
            state = f"{problem}; training waits for it" if problem else "the service works again"
            print(f"\ndata.service: {state}", file=sys.stderr)
        reported = problem
