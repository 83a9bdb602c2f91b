"""The client with a small captioner behind gRPC and REST servers of the test.

B batch, K captions per image, T time, R regions.
"""

import base64
import http.server
import json
import os
import ssl
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from caption_gan import signature
from serving import client, predict_messages
from serving.client import caption_images
from serving.connections import connect_grpc, connect_rest
from serving.errors import ServingError
from tests.serving.certificates import Certificates

Code = grpc.StatusCode
HTTP = {
    Code.INVALID_ARGUMENT: 400,
    Code.NOT_FOUND: 404,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.UNAVAILABLE: 503,
    Code.DEADLINE_EXCEEDED: 504,
}
LARGE = 6 << 20  # Bytes; more than gRPC's own limit of 4 MiB.


class FakeCaptioner:
    """Captions state the size and the settings; images that begin with `bad` get an error."""

    def __init__(self):
        self.reset()

    def reset(self) -> None:
        self.failures: list[Code] = []  # Status codes of the next calls.
        self.batches: list[int] = []
        self.calls = 0
        self.hold = threading.Event()
        self.hold.set()

    def answer(self, name: str, inputs: dict[str, list]) -> dict[str, np.ndarray]:
        """The outputs, unless `failures` has a status code to raise."""
        self.calls += 1
        self.hold.wait(30)
        if self.failures:
            raise CallError(self.failures.pop(0))
        images = inputs.pop("image_bytes")
        rows = len(images)
        self.batches.append(rows)
        valid = np.array([not image.startswith(b"bad") for image in images])
        texts = [f"{len(image)} ä" for image in images]
        for key, values in sorted(inputs.items()):
            texts = [f"{text} {key}={value:g}" for text, value in zip(texts, values, strict=True)]
        captions = np.array([[f"{text} {k}" for k in range(3)] for text in texts], object)
        scores = -np.array([[len(image) + k for k in range(3)] for image in images]) / 3
        captions[~valid], scores[~valid] = "", 0
        error = np.where(valid, "", "not an image").astype(object)
        if name in (signature.SAMPLE, signature.BEAM):
            return {"captions": captions, "scores": scores, "error": error}
        if name == signature.ATTENTION:
            weights = np.linspace(0, 1, rows * 12).reshape(rows, 3, 4)  # [B, T, R]
            return {
                "caption": captions[:, 0],
                "tokens": captions,
                "attention": weights,
                "error": error,
            }
        if name == "long":
            words = np.array([["x" * LARGE]] * rows, object)
            return {"captions": words, "scores": scores[:, :1], "error": error}
        return {"caption": captions[:, 0], "score": scores[:, 0], "error": error}


class CallError(Exception):
    def __init__(self, code: Code):
        super().__init__(f"planned error\n {code.name}")
        self.code = code


class GrpcService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Uses the messages of TensorFlow Serving."""

    def __init__(self, captioner: FakeCaptioner):
        self.captioner = captioner

    def Predict(self, request, context):  # noqa: N802
        inputs = {name: tf.make_ndarray(proto).tolist() for name, proto in request.inputs.items()}
        assert request.model_spec.name == "captioner"
        try:
            outputs = self.captioner.answer(request.model_spec.signature_name, inputs)
        except CallError as failure:
            context.abort(failure.code, str(failure))
        response = predict_pb2.PredictResponse()
        for name, array in outputs.items():
            dtype = tf.string if array.dtype == object else tf.float32
            response.outputs[name].CopyFrom(tf.make_tensor_proto(array, dtype))
        # The client does not declare this field and must skip it.
        response.model_spec.version.value = 7
        return response


def rest_handler(captioner: FakeCaptioner) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            assert self.path == "/v1/models/captioner:predict"
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            inputs = body["inputs"]
            inputs["image_bytes"] = [
                base64.b64decode(image["b64"]) for image in inputs["image_bytes"]
            ]
            try:
                outputs = captioner.answer(body["signature_name"], inputs)
                code, answer = 200, {"outputs": {n: a.tolist() for n, a in outputs.items()}}
            except CallError as failure:
                code, answer = HTTP[failure.code], {"error": str(failure)}
            self.send_response(code)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *_):
            pass

    return Handler


class Servers:
    """A gRPC and a REST server of one captioner, each also with TLS."""

    def __init__(self, tls: Certificates):
        self.captioner = FakeCaptioner()
        self.grpc_server = grpc.server(
            ThreadPoolExecutor(4),
            options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)],
        )
        add = prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server
        add(GrpcService(self.captioner), self.grpc_server)
        self.grpc = f"localhost:{self.grpc_server.add_insecure_port('localhost:0')}"
        pair = (tls.key.read_bytes(), tls.cert.read_bytes())
        credentials = grpc.ssl_server_credentials([pair], tls.ca.read_bytes(), True)
        self.grpc_tls = f"localhost:{self.grpc_server.add_secure_port('localhost:0', credentials)}"
        self.grpc_server.start()

        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(tls.ca))
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(tls.cert, tls.key)
        self.http_servers = [self._http_server(), self._http_server()]
        encrypted = self.http_servers[1]
        encrypted.socket = context.wrap_socket(encrypted.socket, server_side=True)
        self.rest, self.rest_tls = (
            f"{scheme}://localhost:{server.server_port}"
            for scheme, server in zip(("http", "https"), self.http_servers, strict=True)
        )

    def _http_server(self):
        server = http.server.ThreadingHTTPServer(("localhost", 0), rest_handler(self.captioner))
        server.handle_error = lambda *_: None
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server

    def stop(self) -> None:
        self.grpc_server.stop(None)
        for server in self.http_servers:
            server.shutdown()
            server.server_close()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def running(certificates):
    servers = Servers(certificates)
    yield servers
    servers.stop()


@pytest.fixture
def servers(running):
    """The servers, with the captioner reset."""
    running.captioner.reset()
    return running


@pytest.fixture(params=["grpc", "rest"])
def api(request, servers):
    """Options of the program, and the Predict function, for one protocol."""
    if request.param == "grpc":
        return [f"--server={servers.grpc}"], connect_grpc(servers.grpc)
    return [f"--rest={servers.rest}"], connect_rest(servers.rest)


@pytest.fixture
def call(monkeypatch, capsys):
    """Runs the program in this process."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["client", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            client.main()
        out, err = capsys.readouterr()
        if isinstance(left.value.code, str):  # Printed by Python; status 1.
            return 1, out, left.value.code
        return left.value.code, out, err

    return run


@pytest.fixture
def images(tmp_path) -> list[Path]:
    paths = [tmp_path / name for name in ("a.png", "b.png", "c.png")]
    for path, content in zip(paths, (b"ok", b"bad", b"fine"), strict=True):
        path.write_bytes(content)
    return paths


@pytest.mark.parametrize(
    "name", [signature.DEFAULT, signature.SAMPLE, signature.BEAM, signature.ATTENTION]
)
def test_grpc_and_rest_return_the_same(servers, name):
    images = [b"ok", b"bad", bytes(range(256))]
    settings = {"temperature": 0.7, "top_p": 0.9, "seed": -(2**63)}
    over_grpc = caption_images(connect_grpc(servers.grpc), images, name, **settings)
    over_rest = caption_images(connect_rest(servers.rest), images, name, **settings)
    assert len(over_grpc) == len(over_rest) == 3
    for first, second in zip(over_grpc, over_rest, strict=True):
        assert first.keys() == second.keys()
        for key in first:
            np.testing.assert_array_equal(first[key], second[key])
            assert np.asarray(first[key]).dtype == np.asarray(second[key]).dtype
    assert [row["error"] for row in over_grpc] == ["", "not an image", ""]
    assert servers.captioner.batches == [3, 3]


def test_only_samples_use_sampling_settings(api):
    _, predict = api
    (row,) = caption_images(predict, [b"ok"], signature.SAMPLE, temperature=2, top_p=0.5, seed=9)
    assert row["captions"].tolist() == [f"2 ä seed=9 temperature=2 top_p=0.5 {k}" for k in range(3)]
    (row,) = caption_images(predict, [b"ok"], signature.BEAM, temperature=2)
    assert row["captions"].tolist() == ["2 ä 0", "2 ä 1", "2 ä 2"]
    np.testing.assert_allclose(row["scores"], [-2 / 3, -1, -4 / 3], rtol=1e-6)


def test_attention_keeps_its_shape(api):
    _, predict = api
    rows = caption_images(predict, [b"ok", b"fine"], signature.ATTENTION)
    assert rows[0]["attention"].shape == (3, 4)
    assert rows[0]["attention"].dtype == np.float32
    np.testing.assert_allclose(rows[1]["attention"][2, 3], 1)
    assert rows[1]["tokens"].tolist() == ["4 ä 0", "4 ä 1", "4 ä 2"]


def test_captions_go_to_standard_output_and_errors_to_standard_error(api, call, images):
    options, _ = api
    code, out, err = call(*images, *options)
    assert code == 1
    assert out == f"{images[0]}: 2 ä 0\n{images[2]}: 4 ä 0\n"
    assert err == f"{images[1]}: not an image\n"


def test_the_first_n_captions_are_printed_with_scores(api, call, images):
    options, _ = api
    code, out, err = call(images[0], "--signature=beam", "--n=2", *options)
    assert (code, err) == (0, "")
    assert out == f"{images[0]}: 2 ä 0 (-0.667)\n{images[0]}: 2 ä 1 (-1.000)\n"
    _, out, _ = call(images[0], "--signature=sample", "--seed=3", "--temperature=.5", *options)
    assert out.splitlines()[2] == f"{images[0]}: 2 ä seed=3 temperature=0.5 top_p=1 2 (-1.333)"


def test_json_prints_one_object(api, call, images, tmp_path):
    options, _ = api
    missing = tmp_path / "missing.png"
    code, out, err = call(*images, missing, "--json", "--signature=beam", "--n=1", *options)
    first, second, third, fourth = json.loads(out)["images"]
    assert first["image"] == str(images[0])
    assert first["captions"] == [{"caption": "2 ä 0", "score": pytest.approx(-2 / 3)}]
    assert second == {"image": str(images[1]), "error": "not an image"}
    assert third["captions"][0]["score"] == pytest.approx(-4 / 3)
    assert fourth["error"] == "cannot be read: No such file or directory"
    assert code == 1
    assert len(err.splitlines()) == 2


def test_unreadable_files_do_not_stop_the_others(api, call, images, tmp_path, servers):
    options, _ = api
    code, out, err = call(tmp_path, images[0], *options)
    assert (code, out) == (1, f"{images[0]}: 2 ä 0\n")
    assert err == f"{tmp_path}: cannot be read: Is a directory\n"
    assert servers.captioner.batches == [1]
    code, _, _ = call(tmp_path, *options)
    assert code == 1
    assert servers.captioner.calls == 1  # There was no image to send.


def test_many_images_are_sent_in_batches(api, call, tmp_path, servers):
    options, _ = api
    paths = [tmp_path / f"{number}.png" for number in range(70)]
    for number, path in enumerate(paths):
        path.write_bytes(b"x" * number)
    code, out, _ = call(*paths, *options)
    assert code == 0
    assert out.splitlines() == [f"{path}: {n} ä 0" for n, path in enumerate(paths)]
    assert servers.captioner.batches == [32, 32, 6]


def test_unavailable_is_retried(api, servers):
    _, predict = api
    servers.captioner.failures = [Code.UNAVAILABLE] * 2
    (row,) = caption_images(predict, [b"ok"])
    assert row["caption"] == "2 ä 0"
    assert servers.captioner.calls == 3


def test_requests_alternate_between_servers_and_avoid_unavailable_ones(servers, certificates):
    other = Servers(certificates)
    ports = [address.rpartition(":")[2] for address in (servers.grpc, other.grpc)]
    predict = connect_grpc(f"ipv4:127.0.0.1:{ports[0]},127.0.0.1:{ports[1]}")
    for _ in range(200):  # The second connection may take longer.
        caption_images(predict, [b"ok"])
        if min(servers.captioner.calls, other.captioner.calls) >= 3:
            break
    else:
        pytest.fail("All requests went to one of the two servers.")
    other.captioner.failures = [Code.UNAVAILABLE] * 100
    for _ in range(4):
        caption_images(predict, [b"ok"])
    other.stop()
    caption_images(predict, [b"ok"])


def test_large_requests_are_retried(api, servers):
    _, predict = api
    servers.captioner.failures = [Code.UNAVAILABLE]
    (row,) = caption_images(predict, [b"x" * LARGE])
    assert row["caption"] == f"{LARGE} ä 0"


def test_the_client_gives_up_if_the_server_stays_unavailable(api, servers):
    _, predict = api
    servers.captioner.failures = [Code.UNAVAILABLE] * 9
    with pytest.raises(ServingError, match=r"planned error UNAVAILABLE.*serving\.server"):
        caption_images(predict, [b"ok"])
    assert servers.captioner.calls == 5


@pytest.mark.parametrize("code", [Code.INVALID_ARGUMENT, Code.NOT_FOUND, Code.RESOURCE_EXHAUSTED])
def test_other_errors_are_not_retried(api, servers, code, call, images):
    options, predict = api
    servers.captioner.failures = [code] * 2
    with pytest.raises(ServingError, match=f"answered with an error: planned error {code.name}"):
        caption_images(predict, [b"ok"])
    assert servers.captioner.calls == 1
    status, out, err = call(images[0], *options)
    assert (status, out) == (1, "")
    assert err.startswith("error: ") and "\n" not in err


def test_the_timeout_ends_the_wait(api, servers):
    _, predict = api
    servers.captioner.hold.clear()
    start = time.monotonic()
    with pytest.raises(ServingError, match=r"within 0\.3 s"):
        caption_images(predict, [b"ok"], timeout=0.3)
    assert time.monotonic() - start < 10
    assert servers.captioner.calls == 1
    servers.captioner.hold.set()


def test_attempts_share_the_timeout(api, servers):
    _, predict = api
    servers.captioner.failures = [Code.UNAVAILABLE] * 9
    with pytest.raises(ServingError):
        caption_images(predict, [b"ok"], timeout=0.5)
    assert servers.captioner.calls <= 3


def test_a_timeout_of_the_server_is_reported(api, servers):
    _, predict = api
    servers.captioner.failures = [Code.DEADLINE_EXCEEDED]
    with pytest.raises(ServingError, match="No answer"):
        caption_images(predict, [b"ok"])
    assert servers.captioner.calls == 1


def test_large_requests_and_answers(api):
    _, predict = api
    (row,) = caption_images(predict, [b"x" * LARGE], "long")
    assert len(row["captions"][0]) == LARGE


@pytest.mark.parametrize("options", [["--server=localhost:1"], ["--rest=http://localhost:1"]])
def test_without_a_server_the_error_says_how_to_start_one(call, images, options):
    code, out, err = call(images[0], *options)
    assert (code, out) == (1, "")
    assert "python -m serving.server" in err and "\n" not in err


def test_mutual_tls(servers, certificates, call, images):
    files = [f"--{name}={getattr(certificates, name)}" for name in ("ca", "cert", "key")]
    for address in (f"--server={servers.grpc_tls}", f"--rest={servers.rest_tls}"):
        code, out, err = call(images[0], address, *files)
        assert (code, out) == (0, f"{images[0]}: 2 ä 0\n"), err
        code, _, _ = call(images[0], address, files[0], "--timeout=.5")
        assert code == 1  # There is no client certificate.


def test_a_server_with_an_unknown_certificate_is_an_error(servers, tmp_path, call, images):
    other = Certificates(tmp_path)
    for address in (f"--server={servers.grpc_tls}", f"--rest={servers.rest_tls}"):
        code, out, err = call(images[0], address, f"--ca={other.ca}")
        assert (code, out) == (1, "")
        assert "certificate" in err.lower()
    assert servers.captioner.calls == 0


def test_an_error_is_one_line(servers, certificates, images, tmp_path):
    """Libraries log nothing else to standard error."""
    other = Certificates(tmp_path)
    command = [sys.executable, "-m", "serving.client", images[0], f"--ca={other.ca}"]
    # Importing the client here has set GRPC_VERBOSITY; the process must set it by itself.
    environment = {key: value for key, value in os.environ.items() if "GRPC" not in key}
    done = subprocess.run(
        [*command, f"--server={servers.grpc_tls}", "--timeout=1"],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("options", [[], ["--rest=https://localhost:1"]])
def test_tls_files_must_be_pem(call, images, options):
    for file in (images[0], "missing.pem"):
        code, _, err = call(images[0], f"--ca={file}", *options)
        assert code == 1
        assert str(file) in err and "\n" not in err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["IMAGE", "--signature=attention"],
        ["IMAGE", "--temperature=0.5"],
        ["IMAGE", "--signature=sample", "--temperature=0"],
        ["IMAGE", "--signature=sample", "--temperature=nan"],
        ["IMAGE", "--signature=sample", "--top_p=1.1"],
        ["IMAGE", "--signature=sample", f"--seed={2**63}"],
        ["IMAGE", "--signature=sample", "--n=0"],
        ["IMAGE", "--n=2"],
        ["IMAGE", "--timeout=inf"],
        ["IMAGE", "--cert=cert.pem"],
        ["IMAGE", "--key=key.pem"],
        ["IMAGE", "--rest=http://localhost:8501", "--ca=cert.pem"],
        ["IMAGE", "--rest=http://localhost:8501", "--server=localhost:8500"],
        ["IMAGE", "--rest", "IMAGE"],
    ],
)
def test_wrong_arguments_are_errors(call, arguments):
    code, out, err = call(*arguments)
    assert (code, out) == (2, "")
    assert "error:" in err


def test_a_model_that_is_not_a_captioner_is_an_error(api):
    def predict(*_):
        return {"y": np.zeros(1)}

    with pytest.raises(ServingError, match="its outputs are y"):
        caption_images(predict, [b"ok"])


@pytest.mark.parametrize(
    "body", [b"hello", b"{}", b'{"outputs": [1]}', b'{"outputs": {"error": [[1], 2]}}']
)
def test_a_server_that_is_not_a_model_server_is_an_error(body):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("localhost", 0), Handler) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        predict = connect_rest(f"http://localhost:{server.server_port}")
        with pytest.raises(ServingError, match="is not that of a model server"):
            caption_images(predict, [b"ok"])


def test_the_client_does_not_import_tensorflow(servers, images):
    program = (
        "import sys; from serving.client import main\n"
        "try: main()\n"
        "except SystemExit: print(sorted(sys.modules.keys() & {'tensorflow', 'keras', 'grpc'}))"
    )
    for option in (f"--server={servers.grpc}", f"--rest={servers.rest}"):
        done = subprocess.run(
            [sys.executable, "-c", program, images[0], option], capture_output=True, text=True
        )
        assert done.stdout == f"{images[0]}: 2 ä 0\n['grpc']\n", done.stderr


@given(
    st.one_of(
        st.lists(st.binary(), min_size=1),
        st.lists(st.floats(width=32), min_size=1),
        st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1),
    )
)
def test_tensorflow_reads_the_tensors_of_the_client(values):
    sent = predict_messages.to_tensor(values).SerializeToString()
    read = tf.make_ndarray(tensor_pb2.TensorProto.FromString(sent))
    assert read.shape == (len(values),)
    expected = np.array(values, object if isinstance(values[0], bytes) else None)
    np.testing.assert_array_equal(read, expected.astype(read.dtype))


@pytest.mark.parametrize(
    "array",
    [
        np.arange(24, dtype=np.float32).reshape(2, 3, 4) / 7,
        np.zeros([2, 0], np.float32),
        np.array([-(2**63), 5], np.int64),
        np.array([["é", ""], ["b", "c d"]], object),
    ],
)
@pytest.mark.parametrize("as_content", [True, False])
def test_the_client_reads_the_tensors_of_tensorflow(array, as_content):
    proto = tf.make_tensor_proto(array)
    if not as_content and proto.tensor_content:
        proto.ClearField("tensor_content")
        field = proto.float_val if array.dtype == np.float32 else proto.int64_val
        field.extend(array.ravel().tolist())
    read = predict_messages.to_array(
        predict_messages.TensorProto.FromString(proto.SerializeToString())
    )
    assert read.dtype == array.dtype
    np.testing.assert_array_equal(read, array)


def test_other_data_types_are_errors():
    proto = tf.make_tensor_proto(np.array([True])).SerializeToString()
    with pytest.raises(ValueError, match="type 10"):
        predict_messages.to_array(predict_messages.TensorProto.FromString(proto))
