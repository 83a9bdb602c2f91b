"""The REST API with a fake prediction service: paths, statuses, errors, timeouts, metrics."""

import gzip
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from starlette.testclient import TestClient

from serving import rest_bodies
from serving.errors import RequestError
from serving.rest_api import rest_app
from tests.serving.fake_api import SIGNATURES, FakeApi, FakeMonitoring


@pytest.fixture
def api():
    return FakeApi()


@pytest.fixture
def client(api):
    return TestClient(rest_app(api, 5.0, "/monitoring/metrics", FakeMonitoring()))


def error_of(response) -> str:
    assert response.headers["content-type"] == "application/json"
    assert list(response.json()) == ["error"]
    return response.json()["error"]


def test_predictions_are_rows_or_columns_like_the_request(client):
    def ask(**document):
        response = client.post("/v1/models/m:predict", json=document)
        assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
        return response.json()

    assert ask(instances=[1, 2.5]) == {"predictions": [2.0, 5.0]}
    assert ask(instances=[{"x": [1]}]) == {"predictions": [[2.0]]}
    assert ask(inputs=[1, 2.5]) == {"outputs": [2.0, 5.0]}
    assert ask(inputs=1) == {"outputs": 2.0}
    rows = [{"x": 1, "z": 2}, {"x": 3, "z": 4}]
    assert ask(signature_name="both", instances=rows) == {
        "predictions": [{"x": 2.0, "z": 4.0}, {"x": 6.0, "z": 8.0}]
    }
    columns = {"x": [1], "z": [[3]]}
    assert ask(signature_name="both", inputs=columns) == {"outputs": {"x": [2.0], "z": [[6.0]]}}
    assert ask(signature_name="text", instances=["é"]) == {"predictions": ["éé"]}


def test_classify_and_regress(client):
    response = client.post("/v1/models/m:classify", json={"examples": [{"x": 0.5}, {"x": 1.5}]})
    assert response.json() == {"results": [[["x", 0.5]], [["x", 1.5]]]}
    response = client.post(
        "/v1/models/m:regress", json={"context": {"x": 0.25}, "examples": [{"y": 1}]}
    )
    assert response.json() == {"results": [0.25]}


@pytest.mark.parametrize("method", ["predict", "classify", "regress"])
@pytest.mark.parametrize(
    ("version", "number", "label"),
    [("", 0, ""), ("/versions/000000000000000000012", 12, ""), ("/labels/a%2Fb", 0, "a/b")],
)
def test_requests_for_a_version_or_a_label(client, api, method, version, number, label):
    body = {"instances": [1]} if method == "predict" else {"examples": [{"x": 1.0}]}
    body |= {"context": {"x": 1.0}} if method == "regress" else {}
    response = client.post(f"/V1/Models/m{version}:{method}", json=body)
    assert response.status_code == 200, response.text
    assert [spec.version.value for spec in api.specs] == [number]
    assert [spec.version_label for spec in api.specs] == [label]


def test_the_status_and_the_metadata(client, api):
    status = client.get("/v1/models/m/versions/1")
    assert status.headers["content-type"] == "application/json"
    assert status.json()["model_version_status"] == [
        {
            "version": "1",
            "state": "AVAILABLE",
            "status": {"error_code": "OK", "error_message": ""},
        }
    ]
    metadata = client.get("/v1/models/m/labels/stable/metadata").json()
    assert metadata["model_spec"]["name"] == "m"
    assert set(metadata["metadata"]["signature_def"]["signature_def"]) == set(SIGNATURES)
    assert client.get("/v1/models/m").json() == status.json()
    assert [spec.version.value for spec in api.specs] == [1, 0, 0]
    assert [spec.version_label for spec in api.specs] == ["", "stable", ""]


@pytest.mark.parametrize(
    ("method", "path", "status", "text"),
    [
        ("GET", "/v1/models", 400, "Missing model name in request."),
        ("GET", "/v1/models/versions/1", 400, "Missing model name in request."),
        ("GET", "/v1/models/a%20b", 404, "Servable not found for request: Latest(a b)"),
        ("GET", "/v1/models/m?a=b", 404, "Servable not found for request: Latest(m?a=b)"),
        (
            "POST",
            f"/v1/models/m/versions/{1 << 63}:predict",
            400,
            f"Failed to convert version: {1 << 63} to numeric.",
        ),
        *(
            (method, path, 400, f"Malformed request: {method} {path}")
            for method, path in [
                ("GET", "/v1/foo"),
                ("POST", "/v1/foo"),
                ("POST", "/v1/models"),
                ("POST", "/v1/models/m"),
                ("POST", "/v1/models/m/metadata"),
                ("POST", "/v1/models/m:explain"),
                ("POST", "/v1/models/m:PREDICT"),
                ("POST", "/v1/models/m:predict/"),
                ("POST", "/v1/models/m:predict?a=b"),
                ("GET", "/v1/models/m:predict"),
                ("PUT", "/v1/models/m:predict"),
                ("DELETE", "/v1/models/m"),
                ("GET", "/v1/models/m/n"),
                ("POST", "/v1/models/m/version/50:regress"),
                ("POST", "/v1/models/m/versions/HELLO:regress"),
                ("POST", "/v1/models/m/versions/%D9%A1:regress"),
                ("POST", "/v1/models/m/versions/5/labels/a:regress"),
                ("GET", "/v1/%0A"),
            ]
        ),
        ("GET", "/", 404, "Malformed request: GET /"),
        ("POST", "/v2/models/m:predict", 404, "Malformed request: POST /v2/models/m:predict"),
        ("POST", "/monitoring/metrics", 404, "Malformed request: POST /monitoring/metrics"),
    ],
)
def test_unknown_paths_are_errors(client, method, path, status, text):
    response = client.request(method, path)
    assert (response.status_code, error_of(response)) == (status, text)


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("CANCELLED", 499),
        ("UNKNOWN", 500),
        ("INVALID_ARGUMENT", 400),
        ("DEADLINE_EXCEEDED", 504),
        ("NOT_FOUND", 404),
        ("ALREADY_EXISTS", 409),
        ("PERMISSION_DENIED", 403),
        ("UNAUTHENTICATED", 401),
        ("RESOURCE_EXHAUSTED", 429),
        ("FAILED_PRECONDITION", 400),
        ("ABORTED", 409),
        ("OUT_OF_RANGE", 400),
        ("UNIMPLEMENTED", 501),
        ("INTERNAL", 500),
        ("UNAVAILABLE", 503),
        ("DATA_LOSS", 500),
    ],
)
def test_error_codes_become_http_statuses(client, api, code, status):
    api.fails = RequestError(grpc.StatusCode[code], 'Why: "é"\n')
    for response in (
        client.post("/v1/models/m:predict", json={"instances": [1]}),
        client.get("/v1/models/m"),
    ):
        assert (response.status_code, error_of(response)) == (status, 'Why: "é"\n')


def test_internal_errors_are_logged_and_not_revealed(client, api, caplog):
    api.fails = KeyError("secret")
    response = client.post("/v1/models/m:predict", json={"instances": [1]})
    assert (response.status_code, error_of(response)) == (500, "Internal error")
    assert "KeyError: 'secret'" in caplog.text


def test_compressed_bodies(client, monkeypatch):
    def ask(content: bytes):
        headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
        return client.post("/v1/models/m:predict", content=content, headers=headers)

    body = b'{"instances": [1]}'
    assert ask(gzip.compress(body)).json() == {"predictions": [2.0]}
    for broken in (body, gzip.compress(body)[:-1], gzip.compress(body) + b"!", b""):
        response = ask(broken)
        assert response.status_code == 400
        assert error_of(response).startswith("The body is not valid gzip")
    monkeypatch.setattr(rest_bodies, "MAX_UNCOMPRESSED_BYTES", 1000)
    assert ask(gzip.compress(body.ljust(1000))).status_code == 200
    response = ask(gzip.compress(body.ljust(1001)))
    assert response.status_code == 400
    assert error_of(response) == "The uncompressed body has more than 1000 bytes"


def test_the_remaining_time_is_passed_on(client, api):
    client.post("/v1/models/m:predict", json={"instances": [1]})
    client.post("/v1/models/m:classify", json={"examples": [{"x": 1.0}]})
    assert all(4 < timeout <= 5 for timeout in api.timeouts)
    forever = TestClient(rest_app(api, None, None, FakeMonitoring()))
    forever.post("/v1/models/m:predict", json={"instances": [1]})
    assert api.timeouts[-1] is None


def test_waiting_counts_against_the_timeout_and_does_not_delay_the_status():
    """One thread computes while the timeouts of two waiting requests expire."""
    started, finish = threading.Event(), threading.Event()

    class Busy(FakeApi):
        def predict(self, request, timeout):
            started.set()
            assert finish.wait(10)
            return super().predict(request, timeout)

    api = Busy()
    client = TestClient(rest_app(api, 0.1, None, FakeMonitoring(), threads=1))

    def ask():
        return client.post("/v1/models/m:predict", json={"instances": [1]})

    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(ask)
        assert started.wait(10)
        others = [pool.submit(ask) for _ in range(2)]
        time.sleep(0.3)
        assert client.get("/v1/models/m").status_code == 200
        finish.set()
    assert first.result().status_code == 200
    assert [other.result().status_code for other in others] == [504, 504]
    assert len(api.timeouts) == 2  # Of the first request and the status; the others did not start.


def test_requests_for_models_are_counted_and_invented_names_are_not_kept(api):
    counted = []

    class Recording(FakeMonitoring):
        def record_request(self, model, method, entrypoint, status_name, seconds):
            assert 0 <= seconds < 60
            counted.append((model, method, entrypoint, status_name))

    client = TestClient(rest_app(api, 5.0, None, Recording()))
    client.post("/v1/models/m:predict", json={"instances": [1]})
    client.post("/v1/models/m:predict", content="{")
    client.post("/v1/models/invented:classify", json={"examples": [{"x": 1}]})
    client.get("/v1/models/m")
    client.get("/nowhere")
    assert counted == [
        ("m", "predict", "REST", "OK"),
        ("m", "predict", "REST", "INVALID_ARGUMENT"),
        ("", "classify", "REST", "NOT_FOUND"),
        ("m", "", "REST", "OK"),
    ]


def test_metrics_are_served_at_their_path(client, api):
    response = client.get("/monitoring/metrics")
    assert response.text == FakeMonitoring().prometheus_text()
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    nowhere = TestClient(rest_app(api, None, None, FakeMonitoring()))
    assert nowhere.get("/monitoring/metrics").status_code == 404


def test_cross_origin_requests_need_a_flag(api, client):
    """Headers and the answer to a browser's question are TensorFlow Serving's."""
    path = "/v1/models/m:predict"
    refused = client.options(path)
    assert refused.status_code == 400
    assert error_of(refused) == f"Malformed request: OPTIONS {path}"
    assert not any(name.startswith("access-control") for name in refused.headers)
    open_to_all = TestClient(rest_app(api, None, None, FakeMonitoring(), with_cors=True))
    allowed = open_to_all.options(path, headers={"Origin": "http://a", "X": "y"})
    assert (allowed.status_code, allowed.content) == (200, b"")
    answered = open_to_all.post(path, json={"instances": [1]})
    failed = open_to_all.get("/v1/models/other")
    assert (answered.status_code, failed.status_code) == (200, 404)
    for response in (allowed, answered, failed):
        assert response.headers["access-control-allow-origin"] == "*"
        assert response.headers["access-control-allow-methods"] == "POST, GET"
        assert response.headers["access-control-allow-headers"] == "Content-Type"
    assert open_to_all.options("/other").status_code == 404


def test_the_bodies_in_work_have_a_budget(api):
    """A request that is alone may exceed it; two together may not."""
    budget = rest_bodies.BodyBudget(1000)
    bomb = gzip.compress(bytes(900))
    with budget.share() as first:
        assert len(first.uncompress(gzip.compress(bytes(2000)))) == 2000
    with budget.share() as first, budget.share() as second:
        first.uncompress(bomb)
        with pytest.raises(RequestError, match="try again later") as raised:
            second.uncompress(bomb)
        assert raised.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    with budget.share() as third:  # All is given back.
        third.uncompress(bomb)
