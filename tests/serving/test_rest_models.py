"""The REST API with loaded models: inputs, outputs and errors."""

import time

import numpy as np
import pytest
from starlette.testclient import TestClient

from serving.monitoring import Monitoring
from serving.prediction_service import PredictionService
from serving.rest_api import rest_app
from tests.serving.manager_helpers import model_config, serving
from tests.serving.saved_models import write_adder, write_echo, write_slow, write_tf1

ECHO = {
    "text": ["é", "b"],
    "image_bytes": [{"b64": "/wA="}, {"b64": ""}],
    "floats": [[0.2, 1e-30], [-3.0, 16777215.0]],
    "integers": [-(1 << 63), (1 << 63) - 1],
    "flags": [True, False],
    "matrix": [[[0.1, 1.0, 2.0], [3.0, 4.0, 5.0]], [[1e300, 0.0, 0.0], [0.0, 0.0, -1.5]]],
}


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for version in (1, 2):
        write_adder(folder / "adder", version)
    write_echo(folder / "echo", 1)
    write_tf1(folder / "tf1", 3)
    write_slow(folder / "slow", 1)
    configs = [
        model_config(folder / "adder", "all {}", {"first": 1}, name="adder"),
        *(model_config(folder / name, name=name) for name in ("echo", "tf1", "slow")),
    ]
    monitoring = Monitoring()
    with serving(*configs, allow_unavailable_labels=True) as manager:
        api = PredictionService(manager, None, monitoring, counts_requests=False)
        yield TestClient(rest_app(api, 0.5, "/metrics", monitoring))


def ask(client: TestClient, path: str, **document) -> tuple[int, object]:
    response = client.post(f"/v1/models/{path}", json=document)
    return response.status_code, next(iter(response.json().values()))


def test_values_of_all_types_come_back(client):
    assert ask(client, "echo:predict", inputs=ECHO) == (200, ECHO)
    rows = [{name: values[row] for name, values in ECHO.items()} for row in range(2)]
    assert ask(client, "echo:predict", instances=rows) == (200, rows)


def test_requests_for_versions_labels_and_signatures(client):
    for path, version in (("adder", 2), ("adder/versions/1", 1), ("adder/labels/first", 1)):
        status, answer = ask(client, f"{path}:predict", instances=[0.5])
        assert (status, answer) == (200, [{"y": version + 0.5, "version": version}])
    status, answer = ask(
        client, "adder:predict", signature_name="sum", inputs={"x": [1, 2], "z": [10, 20]}
    )
    assert (status, answer) == (200, [13.0, 24.0])
    assert ask(client, "tf1:predict", signature_name="words", instances=["two", "?"]) == (
        200,
        [2, -1],
    )


def test_examples_are_classified_and_regressed(client):
    document = {"signature_name": "classify", "examples": [{"x": 0.25}, {"x": -2.0}]}
    assert ask(client, "tf1:classify", **document) == (
        200,
        [[["small", -0.25], ["large", 0.25]], [["small", 2.0], ["large", -2.0]]],
    )
    document = {"signature_name": "regress", "context": {"x": 1.5}, "examples": [{}]}
    assert ask(client, "tf1/versions/3:regress", **document) == (200, [4.5])


def test_an_empty_batch_has_empty_outputs(client):
    assert ask(client, "adder:predict", inputs=[]) == (200, {"y": [], "version": []})


def test_the_maximum_number_of_dimensions(client):
    status, answer = ask(client, "adder:predict", inputs=np.ones([1] * 64).tolist())
    assert status == 200
    assert np.array_equal(answer["y"], np.full([1] * 64, 3.0))


def test_the_status_and_the_metadata(client):
    statuses = client.get("/v1/models/adder").json()["model_version_status"]
    assert {found["version"]: found["state"] for found in statuses} == {
        "1": "AVAILABLE",
        "2": "AVAILABLE",
    }
    assert {found["status"]["error_code"] for found in statuses} == {"OK"}
    metadata = client.get("/v1/models/tf1/metadata").json()
    assert metadata["model_spec"] == {"name": "tf1", "signature_name": "", "version": "3"}
    signatures = metadata["metadata"]["signature_def"]["signature_def"]
    assert signatures["classify"]["method_name"] == "tensorflow/serving/classify"
    assert signatures["words"]["inputs"]["word"]["dtype"] == "DT_STRING"
    assert signatures["words"]["inputs"]["word"]["tensor_shape"] == {
        "dim": [{"size": "-1", "name": ""}],
        "unknown_rank": False,
    }


@pytest.mark.parametrize(
    ("path", "document", "status", "text"),
    [
        ("a:predict", {}, 404, "Servable not found for request: Latest(a)"),
        ("adder/versions/9:predict", {}, 404, "Servable not found for request: Specific(adder, 9)"),
        ("adder/labels/a:predict", {}, 400, "Unrecognized servable version label: a"),
        (
            "adder:predict",
            {"signature_name": "a"},
            400,
            'Serving signature name: "a" not found in signature def',
        ),
    ],
)
def test_unknown_names_are_errors(client, path, document, status, text):
    assert ask(client, path, **document) == (status, text)


@pytest.mark.parametrize(
    ("path", "document"),
    [
        ("adder:predict", {"signature_name": "sum", "inputs": {"x": [1, 2, 3], "z": [1, 2]}}),
        ("tf1:predict", {"signature_name": "classify", "instances": ["no example"]}),
        ("tf1:classify", {"signature_name": "classify", "examples": [{"y": 1.0}]}),
        ("tf1:regress", {"signature_name": "words", "examples": [{"x": 1.0}]}),
    ],
)
def test_inputs_that_do_not_match_are_errors_of_the_request(client, path, document):
    status, text = ask(client, path, **document)
    assert status == 400
    assert text


def test_the_timeout_cancels_the_computation(client):
    start = time.monotonic()
    status, text = ask(client, "slow:predict", instances=[20.0])
    assert (status, type(text)) == (504, str)
    assert time.monotonic() - start < 5
    assert ask(client, "slow:predict", instances=[0.0]) == (200, [1])


def requests_of(client: TestClient, model: str) -> dict[str, int]:
    """The counts of a model's requests by status, and how many were timed."""
    counts: dict[str, int] = {}
    for line in client.get("/metrics").text.splitlines():
        name, _, value = line.rpartition(" ")
        if f'{{model_name="{model}",' in line and name.startswith(":tensorflow:serving:request"):
            if name.startswith(":tensorflow:serving:request_count"):
                counts[name.split('"')[3]] = int(value)
            elif name.startswith(":tensorflow:serving:request_latency_count"):
                counts["timed"] = counts.get("timed", 0) + int(value)
    return counts


def test_every_request_counts_whether_it_fails_or_not(client):
    before, unknown = requests_of(client, "adder"), requests_of(client, "")

    def changes() -> dict[str, int]:
        now = requests_of(client, "adder")
        return {key: now[key] - before.get(key, 0) for key in now if now[key] != before.get(key)}

    ask(client, "adder:predict", instances=[1])
    client.post("/v1/models/adder:predict", content="{")
    ask(client, "adder:predict", instances=["a"])
    ask(client, "adder/versions/9:predict", instances=[1])
    client.get("/v1/models/adder")
    assert changes() == {"OK": 2, "INVALID_ARGUMENT": 2, "NOT_FOUND": 1, "timed": 1}
    ask(client, "invented:predict", instances=[1])
    assert requests_of(client, "")["NOT_FOUND"] == unknown.get("NOT_FOUND", 0) + 1
    assert not requests_of(client, "invented")
