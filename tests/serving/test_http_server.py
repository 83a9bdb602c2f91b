"""The HTTP server on real sockets: starting, stopping, broken connections, invalid HTTP."""

import asyncio
import errno
import http.client
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from serving import http_connection
from serving.errors import ServingError
from serving.http_server import HttpServer, serve_rest
from serving.rest_api import rest_app
from tests.serving.fake_api import FakeApi, FakeMonitoring

PATH = "/v1/models/m:predict"
BODY = b'{"instances": [1]}'
ANSWER = {"predictions": [2.0]}


class Waiting(FakeApi):
    """Answers predictions only after `finish` is set."""

    def __init__(self):
        super().__init__()
        self.started = threading.Semaphore(0)
        self.finish = threading.Event()

    def predict(self, request, timeout):
        self.started.release()
        assert self.finish.wait(10)
        return super().predict(request, timeout)


def serve(api: FakeApi) -> HttpServer:
    return serve_rest(rest_app(api, 5.0, None, FakeMonitoring()), "127.0.0.1", 0)


@pytest.fixture
def api():
    api = Waiting()
    yield api
    api.finish.set()


@pytest.fixture
def server(api):
    server = serve(api)
    yield server
    server.stop()


def post(server: HttpServer, body: bytes = BODY) -> tuple[int, dict]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.request("POST", PATH, body)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def start_request(server: HttpServer, body: bytes = BODY, length: int = len(BODY)) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    head = f"POST {PATH} HTTP/1.1\r\nHost: here\r\nContent-Length: {length}\r\n\r\n"
    connection.sendall(head.encode() + body)
    return connection


def received(connection: socket.socket) -> bytes:
    """Everything received until the server closes the connection."""
    with connection, connection.makefile("rb") as stream:
        return stream.read()


def test_connections_are_kept_open_and_answers_do_not_name_the_software(server, api):
    api.finish.set()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.connect()
    first = connection.sock
    for _ in range(3):
        connection.request("POST", PATH, BODY, {"Expect": "100-continue"})
        response = connection.getresponse()
        assert (response.status, json.loads(response.read())) == (200, ANSWER)
        assert response.headers["Server"] is None
        assert connection.sock is first
    connection.request("POST", PATH, iter([BODY[:5], BODY[5:]]), encode_chunked=True)
    assert json.loads(connection.getresponse().read()) == ANSWER
    connection.close()


def test_answers_do_not_wait_for_acknowledgements(server, api):
    """Waiting would take 40 ms per answer."""
    api.finish.set()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    seconds = []
    for _ in range(20):
        start = time.perf_counter()
        connection.request("POST", PATH, BODY)
        connection.getresponse().read()
        seconds.append(time.perf_counter() - start)
    connection.close()
    assert sorted(seconds)[5] < 0.03


def test_large_requests_and_answers_are_complete(server, api):
    api.finish.set()
    text = "x" * (10 << 20)
    body = json.dumps({"signature_name": "text", "instances": [text]}).encode()
    assert post(server, body) == (200, {"predictions": [2 * text]})


def test_requests_are_answered_concurrently(server, api):
    with ThreadPoolExecutor(32) as pool:
        answers = [pool.submit(post, server) for _ in range(32)]
        for _ in answers:  # All have started before the first is answered.
            assert api.started.acquire(timeout=10)
        api.finish.set()
        assert {answer.result()[0] for answer in answers} == {200}


@pytest.mark.parametrize(
    ("host", "port"), [("127.0.0.1", None), ("no.such.host.invalid", 0), ("127.0.0.1", 1 << 16)]
)
def test_addresses_that_cannot_be_used_are_errors(server, host, port):
    """A port of None stands for the port of the other server."""
    port = server.port if port is None else port
    with pytest.raises(ServingError, match=f"^Cannot listen on {host}:{port}: .+; choose"):
        serve_rest(rest_app(FakeApi(), None, None, FakeMonitoring()), host, port)


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="the machine has no IPv6")
def test_ipv4_clients_reach_a_server_on_all_addresses(api):
    api.finish.set()
    server = serve_rest(rest_app(api, None, None, FakeMonitoring()), "::", 0)
    assert post(server) == (200, ANSWER)
    server.stop()


def test_stopping_finishes_requests_in_flight_and_refuses_new_ones(server, api):
    idle = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    with ThreadPoolExecutor(2) as pool:
        answer = pool.submit(post, server)
        assert api.started.acquire(timeout=10)
        stopped = pool.submit(server.stop)
        assert idle.recv(1) == b""  # Closed, because it is idle.
        with pytest.raises(OSError):
            post(server)
        assert not stopped.done()
        assert not answer.done()
        api.finish.set()
        assert answer.result() == (200, ANSWER)
        stopped.result(timeout=5)
    idle.close()
    server.stop()  # A second call does no harm.


def test_stopping_aborts_requests_after_the_grace_period(api, capfd, caplog, monkeypatch):
    monkeypatch.setattr(http_connection, "SHUTDOWN_SILENCE_SECONDS", 0.2)
    server = serve(api)
    complete = start_request(server)
    assert api.started.acquire(timeout=10)
    incomplete = start_request(server, BODY[:5])
    start = time.monotonic()
    server.stop(grace_seconds=1)
    assert 1 <= time.monotonic() - start < 4
    answer = received(complete)
    assert answer.startswith(b"HTTP/1.1 503")
    assert b'"The server is stopping"' in answer
    assert received(incomplete) == b""
    assert "Traceback" not in capfd.readouterr().err + caplog.text


@pytest.mark.parametrize("complete", [True, False])
def test_broken_connections_do_no_harm(server, api, complete, capfd, caplog):
    for _ in range(5):
        connection = start_request(server) if complete else start_request(server, BODY[:5])
        if complete:
            assert api.started.acquire(timeout=10)
        connection.close()
    api.finish.set()
    assert post(server) == (200, ANSWER)
    assert caplog.text + capfd.readouterr().err == ""


@pytest.mark.parametrize("sent", [b"\x16\x03\x01\x02\x00\x01\x00", b"GET\r\n\r\n", b"\xff" * 100])
def test_invalid_http_is_answered_without_logging(server, api, sent, capfd, caplog):
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(sent + b"\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 400")
    api.finish.set()
    assert post(server) == (200, ANSWER)
    assert caplog.text + capfd.readouterr().err == ""


def test_a_request_may_have_the_whole_url(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("GET", "http://localhost:8501/v1/models/m")
    answer = connection.getresponse()
    assert answer.status == 200
    assert b"AVAILABLE" in answer.read()
    connection.request("GET", "HTTP://localhost:8501")
    answer = connection.getresponse()
    assert (answer.status, json.load(answer)) == (404, {"error": "Malformed request: GET /"})
    connection.close()


HALF_SENT = {
    "nothing": b"",
    "headers": b"POST /v1/models/m:predict HTTP/1.1\r\nHost: x\r\n",
    "body": b"POST /v1/models/m:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{",
}


@pytest.mark.parametrize("text", HALF_SENT.values(), ids=HALF_SENT)
def test_a_silent_client_s_connection_is_closed(server, monkeypatch, text):
    monkeypatch.setattr(http_connection, "SILENCE_SECONDS", 0.3)
    with socket.create_connection(("127.0.0.1", server.port), 10) as connection:
        connection.sendall(text)
        assert connection.recv(1000) == b""
    # A second request may be half sent too.
    with socket.create_connection(("127.0.0.1", server.port), 10) as connection:
        connection.sendall(b"GET /v1/models/m HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert b"AVAILABLE" in answer.read()
        connection.sendall(text or b"GET")
        assert connection.recv(1000) == b""


def test_a_client_may_wait_long_for_its_answer(server, api, monkeypatch):
    monkeypatch.setattr(http_connection, "SILENCE_SECONDS", 0.1)
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(post, server)
        time.sleep(0.5)
        api.finish.set()
        assert answer.result() == (200, ANSWER)


def test_a_half_sent_request_does_not_delay_the_shutdown(api):
    server = serve_rest(rest_app(api, 5.0, None, FakeMonitoring()), "127.0.0.1", 0)
    with socket.create_connection(("127.0.0.1", server.port), 10) as connection:
        connection.sendall(HALF_SENT["body"])
        time.sleep(0.2)
        start = time.monotonic()
        server.stop()
        assert time.monotonic() - start < 5


def test_a_lack_of_file_descriptors_is_one_warning(caplog):
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(http_connection.ResourceWarnings())
    for _ in range(1000):
        error = OSError(errno.EMFILE, "Too many open files")
        loop.call_exception_handler({"message": "accept", "exception": error})
    loop.call_exception_handler({"message": "another", "exception": ValueError("x")})
    loop.close()
    first, second = caplog.messages
    assert "Too many open files" in first
    assert "another" in second
