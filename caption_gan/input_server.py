"""A tf.data service for training: `python -m caption_gan.input_server --dispatcher --worker`.

The dispatcher assigns shards to workers. The workers, on any number of hosts without accelerators,
read shards, decode, tokenize and make batches for the `fit` whose `data.service` is the address of
the dispatcher.
"""

import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import grpc
import tensorflow as tf
import tensorflow_text  # noqa: F401  Registers operations that the workers' graphs contain.
from jsonargparse.typing import PositiveInt

from caption_gan.command_line import ArgumentParser, run_program
from caption_gan.config.data import Address
from caption_gan.data.service.client import is_listening, wait_for_dispatcher
from caption_gan.data.service.dispatcher import Dispatcher
from caption_gan.errors import CaptionGANError
from caption_gan.storage.paths import resolve

DISPATCHER_PORT, WORKER_PORT = 5050, 5051
CHECK_INTERVAL = 5.0  # Seconds.
# Seconds; a worker that restarts at the same address within this time resumes its tasks.
RESTART_TIMEOUT = 20.0


def start_dispatcher(
    port: int, work_dir: str | None
) -> tf.data.experimental.service.DispatchServer:
    """Starts a dispatcher.

    Args:
        port: To listen at.
        work_dir: Folder for its state, from which a restarted dispatcher resumes; None to not store
            it.

    Raises:
        CaptionGANError: The port is taken, or the folder cannot be used.
    """
    _check_free(port)
    config = tf.data.experimental.service.DispatcherConfig(
        port=port, protocol="grpc", work_dir=work_dir, fault_tolerant_mode=work_dir is not None
    )
    with _start_errors("dispatcher", f"--port {port} and --work_dir {work_dir}"):
        return tf.data.experimental.service.DispatchServer(config)


def start_worker(
    port: int, worker_address: str, dispatcher_address: str
) -> tf.data.experimental.service.WorkerServer:
    """Starts a worker and registers it with the dispatcher.

    Args:
        port: To listen at.
        worker_address: Host and port by which other machines reach the worker.
        dispatcher_address: Host and port of the dispatcher.

    Raises:
        CaptionGANError: The port is taken, or no dispatcher answers.
    """
    _check_free(port)
    wait_for_dispatcher(dispatcher_address)
    config = tf.data.experimental.service.WorkerConfig(
        dispatcher_address, worker_address=worker_address, port=port, protocol="grpc"
    )
    with _start_errors("worker", f"--port {port} and --dispatcher_address {dispatcher_address}"):
        return tf.data.experimental.service.WorkerServer(config)


def finish_lost_workers(dispatcher: Dispatcher, stop: threading.Event) -> None:
    """Marks the tasks of lost workers as completed until `stop` is set.

    TensorFlow's dispatcher waits for a lost worker to return to its address; until then the epoch
    does not end.
    """
    failed_checks: dict[str, int] = {}  # By worker, how many in a row.
    while not stop.wait(CHECK_INTERVAL):
        for worker in dispatcher.workers() or []:
            failed_checks[worker] = 0 if is_listening(worker) else failed_checks.get(worker, 0) + 1
            overdue = failed_checks[worker] * CHECK_INTERVAL - RESTART_TIMEOUT
            if overdue == 0:
                print(f"worker {worker} is lost; the others continue without it", file=sys.stderr)
            if overdue >= 0:
                try:
                    dispatcher.finish(worker)
                except grpc.RpcError as error:
                    print(f"worker {worker}: {error.code().name}", file=sys.stderr)


def _check_free(port: int) -> None:
    """Raises an error if the port is taken; gRPC would share it with the other process."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            raise CaptionGANError(
                f"port {port} cannot be used: {error.strerror}; choose another --port."
            ) from error


@contextmanager
def _start_errors(server: str, settings: str) -> Iterator[None]:
    """Raises TensorFlow's errors at the start of a server as one line."""
    try:
        yield
    except (tf.errors.OpError, RuntimeError) as error:
        reason = str(error).splitlines()[0][:300]
        raise CaptionGANError(f"The {server} cannot start: {reason}. Check {settings}.") from error


def main() -> None:
    """Runs the program."""
    parser = ArgumentParser(
        prog="python -m caption_gan.input_server", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--dispatcher", action="store_true", help="run the dispatcher")
    parser.add_argument("--worker", action="store_true", help="run a worker")
    parser.add_argument(
        "--port",
        type=PositiveInt | None,
        help=f"default: {DISPATCHER_PORT} for a dispatcher, {WORKER_PORT} for a worker; with both, "
        "the dispatcher's port, and the worker has the next one",
    )
    parser.add_argument(
        "--work_dir",
        type=resolve,
        help="folder for the dispatcher's state, so that it can restart",
    )
    parser.add_argument(
        "--dispatcher_address", type=Address | None, help="host:port of the worker's dispatcher"
    )
    parser.add_argument(
        "--worker_host",
        default=socket.gethostname(),
        help="name by which other machines reach the worker",
    )
    options = parser.parse_args()
    if not (options.dispatcher or options.worker):
        parser.error("nothing to do; add --dispatcher, --worker or both.")
    if options.worker and not (options.dispatcher or options.dispatcher_address):
        parser.error("--worker needs --dispatcher_address, such as input-dispatcher:5050.")
    port, address = options.port, options.dispatcher_address
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    # Leaves the GPUs of the host to training.
    tf.config.set_visible_devices([], "GPU")
    with ExitStack() as stack:
        if options.dispatcher:
            port = port or DISPATCHER_PORT
            server = start_dispatcher(port, options.work_dir)
            stack.callback(server.stop)
            address, port = f"localhost:{port}", port + 1
            monitor = threading.Thread(target=finish_lost_workers, args=(Dispatcher(address), stop))
            monitor.start()
            stack.callback(monitor.join)
            print(f"dispatcher listens at port {port - 1}", file=sys.stderr)
        if options.worker:
            port = port or WORKER_PORT
            worker = start_worker(port, f"{options.worker_host}:{port}", address)
            stack.callback(worker.stop)
            print(f"worker listens at port {port}, for dispatcher {address}", file=sys.stderr)
        stop.wait()


if __name__ == "__main__":
    run_program(main)
