"""Tests of the server as a program: flags, start and stop, version swaps under load, bad input."""

import itertools
import json
import random
import shutil
import signal
import socket
import threading
import time
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import get_model_status_pb2, predict_pb2

from serving.connections import connect_grpc
from serving.errors import ServingError
from serving.flags import parse_flags
from serving.server import ModelServer
from tests.serving import saved_models
from tests.serving.certificates import Certificates
from tests.serving.manager_helpers import resident_megabytes, wait_until
from tests.serving.server_processes import free_port, run_to_exit, serving

Code = grpc.StatusCode


def request(x=1.0, model="m", name="x"):
    message = predict_pb2.PredictRequest(model_spec={"name": model})
    message.inputs[name].CopyFrom(tf.make_tensor_proto([x], tf.float32))
    return message


def version_of(answer) -> int:
    return answer.model_spec.version.value


def flags_of(folder: Path, *more: str, name: str = "m") -> list[str]:
    return [f"--model_name={name}", f"--model_base_path={folder}", *more]


@pytest.fixture(scope="module")
def adder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adder")
    saved_models.write_adder(folder, 1)
    return folder


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "model_base_path and server_options.model_config_file are empty!"),
        (["--model_base_path=gs://m"], "Expected model default to have an absolute path"),
        (
            ["--model_base_path=/m", "--batching_parameters_file=b"],
            "set without setting server_options.enable_batching to true",
        ),
        (["--model_base_path=/m", "--port=0"], "The server has no address"),
        (["--model_config_file=/none"], "/none cannot be read"),
        (["--model_base_path=/m", "--ssl_config_file=/none"], "/none cannot be read"),
        (
            ["--model_base_path=/m", "--file_system_poll_wait_seconds=0"],
            "Unable to find a numerical version path for servable default at: /m",
        ),
    ],
)
def test_wrong_flags_and_files_are_one_line_errors(flags, message):
    with pytest.raises(ServingError) as raised:
        ModelServer(parse_flags(flags))
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("flag", ["--port", "--rest_api_port", "--profiler_port"])
def test_a_taken_port_is_an_error(adder, flag):
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = taken.getsockname()[1]
        flags = {"--port": 0, "--rest_api_port": free_port()} | {flag: port}
        with pytest.raises(ServingError, match=f"Cannot listen on .*{port}") as raised:
            ModelServer(
                parse_flags(flags_of(adder, *(f"{name}={value}" for name, value in flags.items())))
            )
    assert "\n" not in str(raised.value)


def test_an_error_at_the_start_is_one_line_and_a_status(adder):
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = taken.getsockname()[1]
        done = run_to_exit(*flags_of(adder, f"--port={port}"))
    assert done.returncode == 1
    assert f"error: Cannot listen on 0.0.0.0:{port}" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_waits_for_a_first_version_and_finishes_requests_on_sigterm(tmp_path):
    folder = tmp_path / "m"
    folder.mkdir()
    threading.Timer(6, saved_models.write_slow, (folder, 1)).start()
    started = time.monotonic()
    with serving(tmp_path / "log.txt", *flags_of(folder)) as server:
        # The port opens once a model serves.
        assert time.monotonic() - started > 6
        stub = server.prediction()
        with ThreadPoolExecutor() as pool:
            # These requests are in flight when the server is told to stop.
            in_flight = [pool.submit(stub.Predict, request(2.0, name="seconds")) for _ in range(2)]
            body = json.dumps({"instances": [2.0]}).encode()
            address = f"{server.rest_address}/v1/models/m:predict"
            over_rest = pool.submit(lambda: urllib.request.urlopen(address, body).read())
            time.sleep(1)
            assert server.stop(signal.SIGTERM) == 0
            assert [version_of(future.result()) for future in in_flight] == [1, 1]
            assert json.loads(over_rest.result()) == {"predictions": [1]}
    assert "Unloaded version" in (tmp_path / "log.txt").read_text()


def test_a_second_signal_exits_at_once(tmp_path):
    saved_models.write_slow(tmp_path / "m", 1)
    with serving(tmp_path / "log.txt", *flags_of(tmp_path / "m")) as server:
        call = server.prediction().Predict.future(request(60.0, name="seconds"))
        time.sleep(0.5)
        server.process.send_signal(signal.SIGINT)
        wait_until(lambda: "Stopping" in server.log.read_text())
        time.sleep(0.2)
        assert server.stop(signal.SIGINT) == -signal.SIGINT
        assert call.code() == Code.UNAVAILABLE


def test_the_model_config_file_is_reloaded_when_it_changes(adder, tmp_path):
    config = tmp_path / "models.config"

    def write(*names: str, text: str = "") -> None:
        entries = "".join(
            f"config {{ name: '{name}' base_path: '{adder}' model_platform: 'tensorflow' }}"
            for name in names
        )
        new = tmp_path / "new"
        new.write_text(text or f"model_config_list {{ {entries} }}")
        new.rename(config)

    def answers(name: str) -> bool:
        try:
            return version_of(stub.Predict(request(model=name))) == 1
        except grpc.RpcError as error:
            assert error.code() == Code.NOT_FOUND
            return False

    write("a")
    flags = [f"--model_config_file={config}", "--model_config_file_poll_wait_seconds=1"]
    with serving(tmp_path / "log.txt", *flags) as server:
        stub = server.prediction()
        assert answers("a")
        write("a", "b")
        wait_until(lambda: answers("b"))
        write(text="model_config_list { nonsense")
        wait_until(lambda: "The model config is not reloaded" in server.log.read_text())
        assert answers("a")
        assert answers("b")
        write("b")
        wait_until(lambda: not answers("a"))
        assert answers("b")


def test_mutual_tls_and_a_unix_socket(adder, tmp_path):
    certificates = Certificates(tmp_path)
    ssl_config = tmp_path / "ssl.config"
    ssl_config.write_text(
        "".join(
            f"{field}: {json.dumps(path.read_text())}\n"
            for field, path in (
                ("server_key", certificates.key),
                ("server_cert", certificates.cert),
                ("custom_ca", certificates.ca),
            )
        )
        + "client_verify: true\n"
    )
    flags = flags_of(adder, f"--ssl_config_file={ssl_config}", name="captioner")
    inputs = {"x": [1.0]}
    with serving(tmp_path / "log.txt", *flags) as server:
        files = certificates.ca, certificates.cert, certificates.key
        predict = connect_grpc(server.grpc_address, *map(str, files))
        assert predict("captioner", "serving_default", inputs, 20)["y"].tolist() == [2]
        for channel in (
            server.channel(),
            grpc.secure_channel(
                server.grpc_address,
                grpc.ssl_channel_credentials(certificates.ca.read_bytes()),
            ),
        ):
            call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
            with pytest.raises(grpc.RpcError) as raised:
                call(request(model="captioner").SerializeToString(), timeout=10)
            assert raised.value.code() == Code.UNAVAILABLE
    path = tmp_path / "socket"
    with serving(
        tmp_path / "log.txt", *flags_of(adder), "--port=0", f"--grpc_socket_path={path}"
    ) as server:
        assert connect_grpc(f"unix:{path}")("m", "serving_default", inputs, 20)["y"] == [2]
        assert "gRPC ModelServer at" in server.log.read_text()


def test_batched_requests_get_their_own_rows(adder, tmp_path):
    parameters = tmp_path / "batching.config"
    parameters.write_text(
        "max_batch_size { value: 16 } batch_timeout_micros { value: 20000 } "
        "num_batch_threads { value: 2 } max_enqueued_batches { value: 100 }"
    )
    flags = [
        "--enable_batching", f"--batching_parameters_file={parameters}", "--grpc_max_threads=32",
    ]  # fmt: skip
    with serving(tmp_path / "log.txt", *flags_of(adder, *flags)) as server:
        stub = server.prediction()

        def ask(number: int) -> None:
            message = request(number)
            message.inputs["x"].CopyFrom(
                tf.make_tensor_proto([number] * (1 + number % 3), tf.float32)
            )
            values = tf.make_ndarray(stub.Predict(message).outputs["y"])
            assert values.shape == (1 + number % 3,)
            return set(values.tolist())

        with ThreadPoolExecutor(32) as pool:
            list(pool.map(ask, range(300)))
        large = request()
        large.inputs["x"].CopyFrom(tf.make_tensor_proto([0.0] * 17, tf.float32))
        with pytest.raises(grpc.RpcError, match="larger than maximum input batch size 16"):
            stub.Predict(large)


def test_requests_succeed_while_versions_are_swapped(tmp_path):
    """16 clients send 2,000 requests, one more cancels its own; a version is added per second."""
    stock = tmp_path / "stock"
    for version in range(1, 31):
        saved_models.write_tf1(stock, version)
    folder = tmp_path / "m"
    folder.mkdir()
    (stock / "1").rename(folder / "1")
    done = threading.Event()
    numbers = itertools.count()
    cancelled = Counter()

    def swap() -> None:
        for version in range(2, 31):
            if done.wait(1):
                return
            shutil.copytree(stock / str(version), folder / "unfinished")
            (folder / "unfinished").rename(folder / str(version))

    def cancel_requests(stub) -> None:
        while not done.wait(0.01):
            call = stub.Predict.future(request())
            time.sleep(random.random() / 500)
            cancelled[call.cancel()] += 1

    with serving(tmp_path / "log.txt", *flags_of(folder)) as server:

        def ask(_: int) -> Counter[int]:
            stub, versions = server.prediction(), Counter()
            while (number := next(numbers)) < 2000:
                answer = stub.Predict(request(number), timeout=30)
                (y,) = tf.make_ndarray(answer.outputs["y"])
                assert y == number + version_of(answer)  # The named version computed it.
                versions[version_of(answer)] += 1
                time.sleep(0.05)  # Without it, the requests end before a version is swapped.
            return versions

        others = [
            threading.Thread(target=swap),
            threading.Thread(target=cancel_requests, args=[server.prediction()]),
        ]
        for thread in others:
            thread.start()
        try:
            with ThreadPoolExecutor(16) as pool:
                versions = sum(pool.map(ask, range(16)), Counter())
        finally:
            done.set()
            for thread in others:
                thread.join()
        assert versions.total() == 2000
        assert len(versions) > 3
        assert cancelled[True] > 10
        # A broken version has an error, and the last good version goes on serving.
        stub, last = server.prediction(), max(int(path.name) for path in folder.iterdir())
        wait_until(lambda: version_of(stub.Predict(request())) == last)
        saved_models.write_broken(folder, 99)
        status = get_model_status_pb2.GetModelStatusRequest(model_spec={"name": "m"})

        def failed() -> bool:
            states = server.models().GetModelStatus(status).model_version_status
            return any(state.version == 99 and state.status.error_code for state in states)

        wait_until(failed)
        assert version_of(stub.Predict(request())) == last


def test_malformed_requests_neither_stop_the_server_nor_leak_memory(adder, tmp_path):
    rng = random.Random(0)
    valid = request().SerializeToString()
    with serving(tmp_path / "log.txt", *flags_of(adder)) as server:
        call = server.channel().unary_unary("/tensorflow.serving.PredictionService/Predict")
        huge = request()
        huge.inputs["x"].tensor_shape.dim[0].size = 2**62
        bodies = [huge.SerializeToString(), b"", valid[:-3]]
        for _ in range(300):
            body = bytearray(valid)
            for _ in range(rng.randrange(1, 6)):
                body[rng.randrange(len(body))] = rng.randrange(256)
            bodies.append(bytes(body))
        codes, memory = Counter(), []
        for body in (bytes(100_000_000), *4 * bodies):
            try:
                call(body, timeout=20)
                codes[Code.OK] += 1
            except grpc.RpcError as error:
                codes[error.code()] += 1
            memory.append(resident_megabytes(server.process.pid))
        assert memory[-1] < memory[len(bodies)] + 3
        # INTERNAL is gRPC's code for bytes that are not a message.
        assert codes.keys() <= {Code.OK, Code.INVALID_ARGUMENT, Code.NOT_FOUND,
                                Code.FAILED_PRECONDITION, Code.INTERNAL}  # fmt: skip
        host, port = server.rest_address.removeprefix("http://").split(":")
        for text in (
            b"\x00" * 1000,
            b"GET /v1/models/m HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 200_000,
            b"POST /v1/models/m:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{",
            b"POST /v1/models/m:predict HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n{}",
        ):
            with socket.create_connection((host, int(port))) as connection:
                connection.sendall(text)
        answer = server.prediction().Predict(request(), timeout=20)
        assert tf.make_ndarray(answer.outputs["y"]) == np.array([2], np.float32)
        body = urllib.request.urlopen(f"{server.rest_address}/v1/models/m").read()
        assert b"AVAILABLE" in body
        assert "Traceback" not in server.log.read_text()


def test_traces_are_captured_on_the_profiler_s_port_and_on_that_of_grpc(adder, tmp_path):
    profiler_port = free_port()
    flags = flags_of(adder, f"--profiler_port={profiler_port}")
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            stub.Predict(request())

    with serving(tmp_path / "log.txt", *flags) as server:
        stub = server.prediction()
        client = threading.Thread(target=ask)
        client.start()
        try:
            for address in (f"localhost:{profiler_port}", server.grpc_address):
                logs = str(tmp_path / address.replace(":", "-"))
                tf.profiler.experimental.client.trace(f"grpc://{address}", logs, 500)
        finally:
            done.set()
            client.join()
    traces = list(tmp_path.rglob("*.xplane.pb"))
    assert len(traces) == 2
    for trace in traces:
        assert b"Session" in trace.read_bytes()
