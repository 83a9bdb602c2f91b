"""TensorFlow Serving's REST API as an ASGI application on a `PredictionService`."""

import asyncio
import logging
import re
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import grpc
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    predict_pb2,
    regression_pb2,
)

from serving.errors import RequestError, invalid
from serving.json_values import parse
from serving.monitoring import Monitoring
from serving.prediction_service import PredictionService
from serving.rest_bodies import BodyBudget, BodyShare
from serving.rest_requests import fill_examples, fill_inputs, signature_name
from serving.rest_responses import (
    write_classifications,
    write_columns,
    write_error,
    write_metadata,
    write_regressions,
    write_rows,
    write_status,
)

# Requests processed at a time. More than a batch holds, because each waits for its batch to fill.
REST_THREADS = 64

_VERSION = r"(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_INFERENCE = re.compile(
    rf"/v1/models/(?P<name>[^/:]+){_VERSION}:(?P<method>classify|regress|predict)",
    re.IGNORECASE,
)
_MODEL = re.compile(
    rf"/v1/models(?:/(?P<name>[^/:]+))?{_VERSION}(?:/(?P<part>metadata))?",
    re.IGNORECASE,
)
# Clients that take the server for a proxy send the whole URL.
_ORIGIN = re.compile(r"^https?://[^/]*", re.IGNORECASE)
_HTTP_STATUS = {
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
}  # All other codes become 500.

# TensorFlow Serving's.
CORS_HEADERS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "POST, GET",
    "Access-Control-Allow-Headers": "Content-Type",
}

_log = logging.getLogger(__name__)

# Takes the model, the request document and the deadline (of `time.monotonic`); returns the body of
# the answer.
_Inference = Callable[[model_pb2.ModelSpec, dict[str, Any], float | None], bytes]


def rest_app(
    api: PredictionService,
    timeout_seconds: float | None,
    metrics_path: str | None,
    monitoring: Monitoring,
    *,
    threads: int = REST_THREADS,
    with_cors: bool = False,
) -> ASGIApp:
    """The REST API as an ASGI application.

    Args:
        api: Answers the requests.
        timeout_seconds: Limit for each Predict, Classify and Regress request from the arrival of
            its body, waiting time included; None for no limit.
        metrics_path: Absolute path of the metrics for Prometheus; None to not serve them.
        monitoring: Source of these metrics.
        threads: Number of requests that are processed at a time; others wait.
        with_cors: Whether web pages of any origin may read the answers.
    """
    return _RestApp(
        api,
        timeout_seconds,
        metrics_path,
        monitoring,
        ThreadPoolExecutor(threads, "rest"),
        CORS_HEADERS if with_cors else {},
        BodyBudget(),
    )


@dataclass(frozen=True)
class _RestApp:
    api: PredictionService
    timeout_seconds: float | None
    metrics_path: str | None
    monitoring: Monitoring
    # Separate from the threads for other requests, so a busy server still reports its status.
    threads: ThreadPoolExecutor
    cors_headers: Mapping[str, str]
    budget: BodyBudget

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start = time.monotonic()
        code = grpc.StatusCode.OK
        try:
            response = await self._answer(Request(scope, receive))
        except ClientDisconnect:
            self._count(scope, grpc.StatusCode.CANCELLED, start)
            return
        except RequestError as error:
            code, message = error.code, error.message
        except asyncio.CancelledError:  # The grace period of a stopping server has ended.
            code, message = grpc.StatusCode.UNAVAILABLE, "The server is stopping"
        except Exception:
            _log.exception("Internal error while answering a request")
            code, message = grpc.StatusCode.INTERNAL, "Internal error"
        if code is not grpc.StatusCode.OK:
            response = _error(code, message)
        response.headers.update(self.cors_headers)
        await response(scope, receive, send)
        self._count(scope, code, start)

    def _count(self, scope: Scope, code: grpc.StatusCode, start: float) -> None:
        """Counts a request for a model in the metrics, whether it succeeded or not."""
        target = _target(scope)
        match = _INFERENCE.fullmatch(target) if scope["method"] == "POST" else None
        model = match or _MODEL.fullmatch(target)
        if model and model["name"]:
            name = unquote(model["name"])
            self.monitoring.record_request(
                name if self.api.is_known(name) else "",  # Invented names would fill the memory.
                match["method"] if match else "",
                "REST",
                code.name,
                time.monotonic() - start,
            )

    async def _answer(self, request: Request) -> Response:
        path = _path(request.scope)
        if request.method == "GET" and path == self.metrics_path:
            text = await run_in_threadpool(self.monitoring.prometheus_text)
            return Response(text, media_type="text/plain; version=0.0.4")
        target = _target(request.scope)
        if request.method == "POST" and (match := _INFERENCE.fullmatch(target)):
            inferences: dict[str, _Inference] = {
                "predict": self._predict,
                "classify": self._classify,
                "regress": self._regress,
            }
            # Unlike the rest of the path, the method is case-sensitive.
            if infer := inferences.get(match["method"]):
                return _json(await self._run(infer, _model_spec(match), request))
        if request.method == "GET" and (match := _MODEL.fullmatch(target)):
            describe = self._metadata if match["part"] else self._status
            return _json(await run_in_threadpool(describe, _model_spec(match)))
        if self.cors_headers and request.method == "OPTIONS" and target[:4].lower() == "/v1/":
            return Response()  # Before a request, browsers ask whether the server accepts it.
        malformed = f"Malformed request: {request.method} {target}"
        if target[:4].lower() != "/v1/":
            return _error(grpc.StatusCode.NOT_FOUND, malformed)
        raise invalid(malformed)

    async def _run(
        self, infer: _Inference, model_spec: model_pb2.ModelSpec, request: Request
    ) -> bytes:
        with self.budget.share() as share:
            return await self._run_body(infer, model_spec, request, share)

    async def _run_body(
        self,
        infer: _Inference,
        model_spec: model_pb2.ModelSpec,
        request: Request,
        share: BodyShare,
    ) -> bytes:
        body = await share.read(request)
        compressed = "gzip" in request.headers.get("content-encoding", "")
        seconds = self.timeout_seconds
        deadline = None if seconds is None else time.monotonic() + seconds

        def run() -> bytes:
            document = parse(share.uncompress(body) if compressed else body)
            model_spec.signature_name = signature_name(document)
            return infer(model_spec, document, deadline)

        return await asyncio.get_running_loop().run_in_executor(self.threads, run)

    def _predict(
        self, model_spec: model_pb2.ModelSpec, document: dict[str, Any], deadline: float | None
    ) -> bytes:
        request = predict_pb2.PredictRequest(model_spec=model_spec)
        # Another version may become current between these two calls. The request then goes to the
        # new version, because the old one may be unloaded.
        signature = self.api.signature(model_spec, model_spec.signature_name)
        as_rows = fill_inputs(document, signature, request)
        outputs = self.api.predict(request, _remaining(deadline)).outputs
        return write_rows(outputs) if as_rows else write_columns(outputs)

    def _classify(
        self, model_spec: model_pb2.ModelSpec, document: dict[str, Any], deadline: float | None
    ) -> bytes:
        request = classification_pb2.ClassificationRequest(model_spec=model_spec)
        fill_examples(document, request.input)
        return write_classifications(self.api.classify(request, _remaining(deadline)).result)

    def _regress(
        self, model_spec: model_pb2.ModelSpec, document: dict[str, Any], deadline: float | None
    ) -> bytes:
        request = regression_pb2.RegressionRequest(model_spec=model_spec)
        fill_examples(document, request.input)
        return write_regressions(self.api.regress(request, _remaining(deadline)).result)

    def _status(self, model_spec: model_pb2.ModelSpec) -> bytes:
        request = get_model_status_pb2.GetModelStatusRequest(model_spec=model_spec)
        return write_status(self.api.get_model_status(request, None))

    def _metadata(self, model_spec: model_pb2.ModelSpec) -> bytes:
        request = get_model_metadata_pb2.GetModelMetadataRequest(
            model_spec=model_spec, metadata_field=["signature_def"]
        )
        return write_metadata(self.api.get_model_metadata(request, None))


def _path(scope: Scope) -> str:
    return _ORIGIN.sub("", scope["raw_path"].decode("latin-1")) or "/"


def _target(scope: Scope) -> str:
    """The path with the query string, which TensorFlow Serving takes as part of the path."""
    query = scope["query_string"].decode("latin-1")
    return f"{_path(scope)}?{query}" if query else _path(scope)


def _model_spec(match: re.Match[str]) -> model_pb2.ModelSpec:
    if not match["name"]:
        raise invalid("Missing model name in request.")
    spec = model_pb2.ModelSpec(name=unquote(match["name"]))
    if match["version"]:
        digits = match["version"].lstrip("0") or "0"
        if len(digits) > 19 or int(digits) >= 1 << 63:
            raise invalid(f"Failed to convert version: {match['version']} to numeric.")
        spec.version.value = int(digits)
    elif match["label"]:
        spec.version_label = unquote(match["label"])
    return spec


def _remaining(deadline: float | None) -> float | None:
    if deadline is None:
        return None
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise RequestError(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
    return seconds


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")


def _error(code: grpc.StatusCode, message: str) -> Response:
    status = _HTTP_STATUS.get(code, 500)
    return Response(write_error(message), status, media_type="application/json")
