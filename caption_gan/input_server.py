"""Input from other machines: `python -m caption_gan.input_server --dispatcher --worker`.

A tf.data service: one dispatcher, which tells workers what to read, and workers on any number of
CPU hosts, which read shards, decode, tokenize and make batches for the `fit` whose `data.service`
names the dispatcher.
"""

import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import grpc
import tensorflow as tf
import tensorflow_text  # noqa: F401  Registers the operations of the batches' graphs.
from jsonargparse.typing import PositiveInt

from caption_gan.command_line import ArgumentParser, run_program
from caption_gan.data.service.client import is_listening, wait_for_dispatcher
from caption_gan.data.service.dispatcher import Dispatcher
from caption_gan.errors import CaptionGANError

DISPATCHER_PORT, WORKER_PORT = 5050, 5051
LOOK_SECONDS = 5.0
# A worker that starts again at its address by then goes on with what it had to do.
LOST_SECONDS = 20.0


def start_dispatcher(
    port: int, work_dir: str | None
) -> tf.data.experimental.service.DispatchServer:
    """A dispatcher, which outlives its end if it has a folder to keep its state in.

    Raises:
        CaptionGANError: The port is taken, or the folder cannot be used.
    """
    _check_free(port)
    config = tf.data.experimental.service.DispatcherConfig(
        port=port, protocol="grpc", work_dir=work_dir, fault_tolerant_mode=work_dir is not None
    )
    with _starting("dispatcher", f"--port {port} and --work_dir {work_dir}"):
        return tf.data.experimental.service.DispatchServer(config)


def start_worker(
    port: int, worker_address: str, dispatcher_address: str
) -> tf.data.experimental.service.WorkerServer:
    """A worker, known to the dispatcher.

    Raises:
        CaptionGANError: The port is taken, or no dispatcher answers.
    """
    _check_free(port)
    wait_for_dispatcher(dispatcher_address)
    config = tf.data.experimental.service.WorkerConfig(
        dispatcher_address, worker_address=worker_address, port=port, protocol="grpc"
    )
    with _starting("worker", f"--port {port} and --dispatcher_address {dispatcher_address}"):
        return tf.data.experimental.service.WorkerServer(config)


def follow_workers(dispatcher: Dispatcher, stopping: threading.Event) -> None:
    """Takes what lost workers had to do for done, until it is told to stop.

    TensorFlow's dispatcher waits for a lost worker to come back to its address, and with it the
    epoch, which would not end.
    """
    looks: dict[str, int] = {}  # By worker, how many in a row it has not answered.
    while not stopping.wait(LOOK_SECONDS):
        for worker in dispatcher.workers() or []:
            looks[worker] = 0 if is_listening(worker) else looks.get(worker, 0) + 1
            lost = looks[worker] * LOOK_SECONDS - LOST_SECONDS
            if lost == 0:
                print(f"worker {worker} is gone; the others go on without it", file=sys.stderr)
            if lost >= 0:
                try:
                    dispatcher.finish(worker)
                except grpc.RpcError as error:
                    print(f"worker {worker}: {error.code().name}", file=sys.stderr)


def _check_free(port: int) -> None:
    """Refuses a taken port, which gRPC would share with whoever listens there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            raise CaptionGANError(
                f"port {port} cannot be used: {error.strerror}; choose another --port."
            ) from error


@contextmanager
def _starting(server: str, settings: str) -> Iterator[None]:
    """Says in a line why TensorFlow does not start a server."""
    try:
        yield
    except (tf.errors.OpError, RuntimeError) as error:
        reason = str(error).splitlines()[0][:300]
        raise CaptionGANError(f"The {server} cannot start: {reason}. Check {settings}.") from error


def main() -> None:
    """The program."""
    parser = ArgumentParser(
        prog="python -m caption_gan.input_server", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--dispatcher", action="store_true", help="run the dispatcher")
    parser.add_argument("--worker", action="store_true", help="run a worker")
    parser.add_argument(
        "--port",
        type=PositiveInt | None,
        help=f"{DISPATCHER_PORT} of a dispatcher, {WORKER_PORT} of a worker; of the dispatcher if "
        "both are run, and the worker has the next one",
    )
    parser.add_argument(
        "--work_dir", type=str | None, help="the dispatcher's state, so that it can start again"
    )
    parser.add_argument(
        "--dispatcher_address", type=str | None, help="host:port of a worker's dispatcher"
    )
    parser.add_argument(
        "--worker_host", default=socket.gethostname(), help="by which others reach a worker"
    )
    options = parser.parse_args()
    if not (options.dispatcher or options.worker):
        parser.error("nothing to do; give --dispatcher or --worker, or both.")
    if options.worker and not (options.dispatcher or options.dispatcher_address):
        parser.error("--worker needs --dispatcher_address, such as input-dispatcher:5050.")
    port, address = options.port, options.dispatcher_address
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    # A host's GPUs are for training.
    tf.config.set_visible_devices([], "GPU")
    with ExitStack() as stack:
        if options.dispatcher:
            port = port or DISPATCHER_PORT
            server = start_dispatcher(port, options.work_dir)
            stack.callback(server.stop)
            address, port = f"localhost:{port}", port + 1
            follower = threading.Thread(target=follow_workers, args=(Dispatcher(address), stopping))
            follower.start()
            stack.callback(follower.join)
            print(f"dispatcher at port {port - 1}", file=sys.stderr)
        if options.worker:
            port = port or WORKER_PORT
            worker = start_worker(port, f"{options.worker_host}:{port}", address)
            stack.callback(worker.stop)
            print(f"worker at port {port}, of {address}", file=sys.stderr)
        stopping.wait()


if __name__ == "__main__":
    run_program(main)
