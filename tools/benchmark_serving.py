"""Measures the server: `python tools/benchmark_serving.py MODELS/captioner [--rounds 5]`.

Measures alternately, for the newest version of an exported captioner:

- the median time of a gRPC Predict of one image over loopback, against the same call of the
  SavedModel loaded in this process, for `serving_default`;
- images per second of 32 clients that send one image each, batched by the server, against calls of
  the loaded SavedModel with batches of the same size;
- the server's resident memory in MB over `--requests` requests of those clients.

`--profile LOGS` writes a trace of one second of the server under this load.

The clients share the machine with the server. Run it on an otherwise idle machine.
"""

import argparse
import itertools
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import tensorflow as tf
import tensorflow_text  # noqa: F401  Registers operations of the exported model.
from measuring import MEBIBYTE, resident_mib
from tensorflow_serving.apis import predict_pb2

from caption_gan import signature
from caption_gan.exporting.versions import example_images
from caption_gan.storage.paths import local_path

PREDICT = "/tensorflow.serving.PredictionService/Predict"
CLIENTS, BATCH = 32, 16
MODEL = "captioner"


def free_port() -> int:
    with socket.create_server(("localhost", 0)) as listener:
        return listener.getsockname()[1]


@contextmanager
def server(models: Path, *flags: str) -> Iterator[tuple[grpc.Channel, int]]:
    """Starts a server; a channel to it and its process number."""
    port = free_port()
    command = [sys.executable, "-m", "serving.server", f"--port={port}", f"--model_name={MODEL}"]
    process = subprocess.Popen(
        [*command, f"--model_base_path={models.absolute()}", *flags], stderr=subprocess.DEVNULL
    )
    try:
        channel = grpc.insecure_channel(f"localhost:{port}")
        grpc.channel_ready_future(channel).result(120)
        yield channel, process.pid
    finally:
        process.kill()
        process.wait()


def requests(images: list[bytes]) -> list[bytes]:
    """One serialized request per image."""
    serialized = []
    for image in images:
        request = predict_pb2.PredictRequest(model_spec={"name": MODEL})
        request.inputs[signature.IMAGE_BYTES].CopyFrom(tf.make_tensor_proto([image]))
        serialized.append(request.SerializeToString())
    return serialized


def seconds_of(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def latency(models: Path, model: Callable, images: list[bytes], calls: int) -> None:
    """Prints median times of single calls, in this process and over gRPC."""
    sent = itertools.cycle(requests(images))
    given = itertools.cycle([tf.constant([image]) for image in images])

    def local() -> None:
        {name: tensor.numpy() for name, tensor in model(image_bytes=next(given)).items()}

    with server(models) as (channel, _):
        predict = channel.unary_unary(PREDICT)

        def remote() -> None:
            predict_pb2.PredictResponse.FromString(predict(next(sent)))

        for work in (local, remote):
            for _ in range(20):
                work()
        pairs = [(seconds_of(local), seconds_of(remote)) for _ in range(calls)]
    here, there = (1000 * statistics.median(times) for times in zip(*pairs, strict=True))
    print(f"{'one image, ms':30}{'in process':>12}{'gRPC':>10}{'ratio':>8}")
    print(f"{'median':30}{here:12.2f}{there:10.2f}{there / here:8.2f}")


def batched(
    models: Path, model: Callable, images: list[bytes], options: argparse.Namespace
) -> None:
    """Prints throughput in this process and of the clients, then the server's memory."""
    sent = requests(images)
    batch = tf.constant([images[row % len(images)] for row in range(BATCH)])

    def in_batches(count: int) -> None:
        for _ in range(count // BATCH):
            {name: tensor.numpy() for name, tensor in model(image_bytes=batch).items()}

    with tempfile.TemporaryDirectory() as folder:
        parameters = Path(folder) / "batching.config"
        parameters.write_text(
            f"max_batch_size {{ value: {BATCH} }} "
            f"batch_timeout_micros {{ value: {options.batch_timeout_micros} }} "
            "max_enqueued_batches { value: 100 } "
            f"num_batch_threads {{ value: {options.batch_threads} }}"
        )
        flags = ["--enable_batching", f"--batching_parameters_file={parameters}"]
        profiler = free_port()
        if options.profile:
            flags.append(f"--profiler_port={profiler}")
        with (
            server(models, *flags, f"--grpc_max_threads={2 * CLIENTS}") as (channel, process),
            ThreadPoolExecutor(CLIENTS) as pool,
        ):
            predict = channel.unary_unary(PREDICT)

            def by_clients(count: int) -> None:
                list(pool.map(lambda number: predict(sent[number % len(sent)]), range(count)))

            for work in (in_batches, by_clients):
                work(10 * BATCH)
            count = options.images
            pairs = [
                (seconds_of(lambda: in_batches(count)), seconds_of(lambda: by_clients(count)))
                for _ in range(options.rounds)
            ]
            here, there = (count / statistics.median(times) for times in zip(*pairs, strict=True))
            ratio = statistics.median(local / remote for local, remote in pairs)
            print(f"{'images/s':30}{'in process':>12}{'batched':>10}{'ratio':>8}")
            name = f"{CLIENTS} clients, batches of {BATCH}"
            print(f"{name:30}{here:12.1f}{there:10.1f}{ratio:8.2f}")
            if options.profile:
                with ThreadPoolExecutor(1) as beside:
                    asking = beside.submit(by_clients, 4 * count)
                    tf.profiler.experimental.client.trace(
                        f"grpc://localhost:{profiler}", str(options.profile), 1000
                    )
                    asking.result()
            for part in range(10 if options.requests else 0):
                by_clients(options.requests // 10)
                memory = resident_mib(process) * MEBIBYTE / 1e6
                print(f"after {(part + 1) * options.requests // 10} requests: {memory:.0f} MB")


def main() -> None:
    """Reads the command line, prints the measurements."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", type=local_path, help="folder of versions")
    parser.add_argument("--calls", type=int, default=200, help="calls with one image")
    parser.add_argument("--images", type=int, default=960, help="images per round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch_threads", type=int, default=2)
    parser.add_argument(
        "--batch_timeout_micros", type=int, default=20_000, help="about the time of one batch"
    )
    parser.add_argument("--profile", type=local_path, help="folder for a trace of the server")
    parser.add_argument("--requests", type=int, default=50_000, help="for memory; 0 for none")
    options = parser.parse_args()
    images = example_images()
    newest = max(int(path.name) for path in options.models.iterdir() if path.name.isdecimal())
    model = tf.saved_model.load(str(options.models / str(newest))).signatures[signature.DEFAULT]
    latency(options.models, model, images, options.calls)
    batched(options.models, model, images, options)


if __name__ == "__main__":
    main()
