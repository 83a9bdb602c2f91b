"""The REST API answers arbitrary requests, and in time."""

import json
import re
import time

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient
from tensorflow_serving.apis import classification_pb2, regression_pb2

from serving.rest_api import rest_app
from tests.serving.fake_api import FakeApi, FakeMonitoring

leaves = (
    st.floats(width=32)
    | st.integers()
    | st.text(max_size=3)
    | st.none()
    | st.booleans()
    | st.builds(lambda text: {"b64": text}, st.text("aA0=+/ \n", max_size=6))
)
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["x", "z", "text", "b64"]), inner, max_size=3)
    ),
    max_leaves=6,
)
named = st.fixed_dictionaries({"x": values, "z": values}) | st.dictionaries(
    st.sampled_from(["x", "z", "text"]), values
)
rows = st.lists(leaves | named, max_size=3)
documents = st.fixed_dictionaries(
    {"signature_name": st.sampled_from(["", "both", "text", "none", "unknown"])},
    optional={"context": named | values},
).flatmap(
    lambda document: st.one_of(
        rows.map(lambda found: document | {"instances": found, "examples": found}),
        (named | values).map(lambda found: document | {"inputs": found, "examples": [found]}),
        st.dictionaries(st.sampled_from(["instances", "inputs", "examples"]), values),
    )
)


@st.composite
def broken(draw) -> bytes:
    """JSON with a part replaced, repeated or removed."""
    body = json.dumps(draw(documents)).encode()
    start = draw(st.integers(0, len(body)))
    end = draw(st.integers(start, len(body)))
    part = draw(st.binary(max_size=4) | st.sampled_from([b"", b"1e999", b"NaN", b"\\ud800", b"["]))
    return body[:start] + part + body[draw(st.sampled_from([start, end])) :]


@settings(deadline=None, max_examples=150)
@given(
    body=documents.map(lambda document: json.dumps(document).encode()) | broken() | st.binary(),
    method=st.sampled_from(["predict", "classify", "regress"]),
)
@example(body=b'{"inputs": ' + b"[" * 5000 + b"]" * 5000 + b"}", method="predict")
@example(body=b'{"instances": [1e999]}', method="predict")
def test_no_body_causes_an_internal_error(body, method):
    class Tolerant(FakeApi):
        """Accepts any examples."""

        def classify(self, request, timeout):
            return classification_pb2.ClassificationResponse()

        def regress(self, request, timeout):
            return regression_pb2.RegressionResponse()

    client = TestClient(rest_app(Tolerant(), 5.0, None, FakeMonitoring()))
    response = client.post(f"/v1/models/m:{method}", content=body)
    document = json.loads(response.content.decode("utf-8", "surrogateescape"))
    if response.status_code == 200:
        assert document.keys() <= {"predictions", "outputs"}
    else:
        assert response.status_code in (400, 501)
        assert not re.search(r"Traceback|Error\(|Internal", document["error"])


def test_a_large_tensor_takes_little_more_time_than_its_json():
    """A request takes less than ten times as long as parsing and writing its JSON."""
    client = TestClient(rest_app(FakeApi(), None, None, FakeMonitoring()))
    numbers = np.random.default_rng(0).random([10, 10_000], np.float32).tolist()
    start = time.perf_counter()
    text = json.dumps({"inputs": numbers})
    json.loads(text)
    json_seconds = time.perf_counter() - start
    start = time.perf_counter()
    response = client.post("/v1/models/m:predict", content=text)
    assert time.perf_counter() - start < 10 * json_seconds + 0.5
    assert np.array_equal(
        np.array(response.json()["outputs"], np.float32), 2 * np.array(numbers, np.float32)
    )
