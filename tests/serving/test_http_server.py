"""Over real sockets: starting, stopping, and clients that break off or send what is no HTTP."""

import http.client
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from serving.errors import ServingError
from serving.http_server import HttpServer, serve_rest
from serving.rest_api import rest_app
from tests.serving.fake_api import FakeApi, FakeMonitoring

PATH = "/v1/models/m:predict"
BODY = b'{"instances": [1]}'
ANSWER = {"predictions": [2.0]}


class Waiting(FakeApi):
    """Answers predictions when it is let."""

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


def ask(server: HttpServer, body: bytes = BODY) -> tuple[int, dict]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.request("POST", PATH, body)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def begin(server: HttpServer, body: bytes = BODY, length: int = len(BODY)) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    head = f"POST {PATH} HTTP/1.1\r\nHost: here\r\nContent-Length: {length}\r\n\r\n"
    connection.sendall(head.encode() + body)
    return connection


def received(connection: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    with connection, connection.makefile("rb") as stream:
        return stream.read()


def test_connections_are_kept_and_nothing_is_told_of_the_software(server, api):
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


def test_no_answer_waits_for_an_acknowledgement(server, api):
    """That would take 40 ms each."""
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


def test_large_bodies_and_answers_are_whole(server, api):
    api.finish.set()
    text = "x" * (10 << 20)
    body = json.dumps({"signature_name": "text", "instances": [text]}).encode()
    assert ask(server, body) == (200, {"predictions": [2 * text]})


def test_many_are_answered_at_a_time(server, api):
    with ThreadPoolExecutor(32) as pool:
        answers = [pool.submit(ask, server) for _ in range(32)]
        for _ in answers:  # All are being computed before any is done.
            assert api.started.acquire(timeout=10)
        api.finish.set()
        assert {answer.result()[0] for answer in answers} == {200}


@pytest.mark.parametrize(
    ("host", "port"), [("127.0.0.1", None), ("no.such.host.invalid", 0), ("127.0.0.1", 1 << 16)]
)
def test_addresses_that_cannot_be_listened_at(server, host, port):
    """None stands for the port of another server."""
    port = server.port if port is None else port
    with pytest.raises(ServingError, match=f"^{host}:{port} cannot be listened at: .+; choose"):
        serve_rest(rest_app(FakeApi(), None, None, FakeMonitoring()), host, port)


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="the machine has no IPv6")
def test_all_addresses_of_both_families(api):
    api.finish.set()
    server = serve_rest(rest_app(api, None, None, FakeMonitoring()), "::", 0)
    assert ask(server) == (200, ANSWER)
    server.stop()


def test_stopping_finishes_what_is_in_flight_and_refuses_what_comes(server, api):
    idle = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    with ThreadPoolExecutor(2) as pool:
        answer = pool.submit(ask, server)
        assert api.started.acquire(timeout=10)
        stopped = pool.submit(server.stop)
        assert idle.recv(1) == b""  # Closed, since nothing was asked.
        with pytest.raises(OSError):
            ask(server)
        assert not stopped.done()
        assert not answer.done()
        api.finish.set()
        assert answer.result() == (200, ANSWER)
        stopped.result(timeout=5)
    idle.close()
    server.stop()  # Once more does no harm.


def test_stopping_breaks_off_what_lasts_longer(api, capfd, caplog):
    server = serve(api)
    computed = begin(server)
    assert api.started.acquire(timeout=10)
    incomplete = begin(server, BODY[:5])
    start = time.monotonic()
    server.stop(grace_seconds=1)
    assert 1 <= time.monotonic() - start < 4
    answer = received(computed)
    assert answer.startswith(b"HTTP/1.1 503")
    assert b'"The server is stopping"' in answer
    assert received(incomplete).startswith(b"HTTP/1.1 503")
    assert "Traceback" not in capfd.readouterr().err + caplog.text


@pytest.mark.parametrize("complete", [True, False])
def test_clients_that_break_off_do_no_harm(server, api, complete, capfd, caplog):
    for _ in range(5):
        connection = begin(server) if complete else begin(server, BODY[:5])
        if complete:
            assert api.started.acquire(timeout=10)
        connection.close()
    api.finish.set()
    assert ask(server) == (200, ANSWER)
    assert caplog.text + capfd.readouterr().err == ""


@pytest.mark.parametrize("sent", [b"\x16\x03\x01\x02\x00\x01\x00", b"GET\r\n\r\n", b"\xff" * 100])
def test_what_is_no_http_is_refused_quietly(server, api, sent, capfd, caplog):
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(sent + b"\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 400")
    api.finish.set()
    assert ask(server) == (200, ANSWER)
    assert caplog.text + capfd.readouterr().err == ""
