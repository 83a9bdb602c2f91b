"""Calls a model server's Predict method over gRPC or REST with Python values, without TensorFlow.

Both protocols return the same outputs. Both retry only requests that failed as unavailable, and
report errors as a `ServingError` with a message of one line.
"""

import json
import ssl
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import quote

import grpc
import numpy as np
from google.protobuf.message import DecodeError, EncodeError

from serving.errors import ServingError
from serving.predict_messages import PREDICT, PredictRequest, PredictResponse, to_array, to_tensor

BACKOFF_SECONDS = (0.1, 0.2, 0.4, 0.8)  # Before each further attempt.
HOW_TO_START = (
    "start one with `python -m serving.server --port=8500 --rest_api_port=8501 "
    "--model_name=captioner --model_base_path=/MODELS/captioner`"
)

Inputs = Mapping[str, Sequence[bytes] | Sequence[float] | Sequence[int]]
Outputs = dict[str, np.ndarray]
# Arguments: model, signature, inputs by name ([B] each), timeout in seconds.
Predict = Callable[[str, str, Inputs, float], Outputs]


def connect_grpc(
    address: str, ca: str | None = None, cert: str | None = None, key: str | None = None
) -> Predict:
    """A function that sends Predict requests over gRPC, with TLS if `ca` or `cert` is given.

    Args:
        address: `host:port` or `unix:PATH`. If a host name has several addresses, requests are
            distributed to them in turn.
        ca: CA certificate (PEM file).
        cert: Client certificate (PEM file), for servers that require one.
        key: Private key of `cert` (PEM file).

    Raises:
        ServingError: A file cannot be read or is not a certificate or key in PEM.
    """
    retry = {
        "maxAttempts": 1 + len(BACKOFF_SECONDS),
        "initialBackoff": f"{BACKOFF_SECONDS[0]}s",
        "maxBackoff": f"{BACKOFF_SECONDS[-1]}s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    service = {
        "methodConfig": [{"name": [{}], "retryPolicy": retry}],
        "loadBalancingConfig": [{"round_robin": {}}],
    }
    options = [
        ("grpc.service_config", json.dumps(service)),
        # gRPC does not retry larger requests. The default of 256 KiB is smaller than many images.
        ("grpc.per_rpc_retry_buffer_size", 2**31 - 1),
        ("grpc.max_receive_message_length", -1),
    ]
    if ca or cert:
        _tls_context(ca, cert, key)  # Raises an error now if a file cannot be used.
        files = (Path(path).read_bytes() if path else None for path in (ca, key, cert))
        credentials = grpc.ssl_channel_credentials(*files)
        channel = grpc.secure_channel(address, credentials, options)
    else:
        channel = grpc.insecure_channel(address, options)
    call = channel.unary_unary(PREDICT)

    def predict(model: str, signature: str, inputs: Inputs, timeout: float) -> Outputs:
        request = PredictRequest()
        request.model_spec.name, request.model_spec.signature_name = model, signature
        for name, values in inputs.items():
            request.inputs.add(key=name).value.CopyFrom(to_tensor(values))
        try:
            answer = PredictResponse.FromString(call(request.SerializeToString(), timeout=timeout))
            return {output.key: to_array(output.value) for output in answer.outputs}
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.UNAVAILABLE:
                raise _unavailable(address, error.details()) from error
            if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
                raise _timed_out(address, timeout) from error
            raise _error_answer(address, error.details()) from error
        except EncodeError as error:
            raise ServingError(
                "gRPC cannot send a request of more than 2 GiB; give smaller or fewer images."
            ) from error
        except (DecodeError, ValueError) as error:
            raise _unexpected_answer(address, error) from error

    return predict


def connect_rest(
    address: str, ca: str | None = None, cert: str | None = None, key: str | None = None
) -> Predict:
    """A function that sends Predict requests over REST, with TLS if the address is `https`.

    Args:
        address: `http://host:port` or `https://host:port`.
        ca: CA certificate (PEM file); if None, the CA certificates of the system.
        cert: Client certificate (PEM file), for servers that require one.
        key: Private key of `cert` (PEM file).

    Raises:
        ServingError: A file cannot be read or is not a certificate or key in PEM.
    """
    context = _tls_context(ca, cert, key) if address.startswith("https:") else None

    def predict(model: str, signature: str, inputs: Inputs, timeout: float) -> Outputs:
        columns = {name: [_to_json(value) for value in values] for name, values in inputs.items()}
        body = json.dumps({"signature_name": signature, "inputs": columns}).encode()
        request = urllib.request.Request(
            f"{address.rstrip('/')}/v1/models/{quote(model, '')}:predict", body
        )
        deadline, backoff = time.monotonic() + timeout, iter(BACKOFF_SECONDS)
        while True:
            try:
                answer = _post(request, max(deadline - time.monotonic(), 1e-3), context)
                outputs = json.loads(answer)["outputs"]
                return {name: _from_json(values) for name, values in outputs.items()}
            except ConnectionError as error:
                pause = next(backoff, timeout)  # After the last, none fits into the deadline.
                if time.monotonic() + pause >= deadline:
                    raise _unavailable(address, error) from error
                time.sleep(pause)
            except TimeoutError as error:
                raise _timed_out(address, timeout) from error
            except RuntimeError as error:
                raise _error_answer(address, error) from error
            except (ValueError, LookupError, TypeError, AttributeError) as error:
                raise _unexpected_answer(address, error) from error

    return predict


def _tls_context(ca: str | None, cert: str | None, key: str | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca)
        if cert:
            context.load_cert_chain(cert, key)
        return context
    except OSError as error:
        files = ", ".join(filter(None, (ca, cert, key)))
        raise ServingError(
            f"{files}: {error.strerror or error}; expected a certificate or key in PEM."
        ) from error


def _post(request: urllib.request.Request, timeout: float, context: ssl.SSLContext | None) -> bytes:
    """Sends a request once and returns the body of the answer.

    Raises:
        ConnectionError: The server is unavailable (UNAVAILABLE in gRPC).
        TimeoutError: The timeout has passed, here or on the server.
        RuntimeError: The server answered with an error; the text is its message.
    """
    try:
        try:
            with urllib.request.urlopen(request, timeout=timeout, context=context) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            code, body = error.code, error.read()
    except (OSError, HTTPException) as error:
        reason: object = getattr(error, "reason", error)
        kind = TimeoutError if isinstance(reason, TimeoutError) else ConnectionError
        raise kind(str(reason)) from error
    errors: dict[int, type[Exception]] = {503: ConnectionError, 504: TimeoutError}
    raise errors.get(code, RuntimeError)(_error_message(body))


def _error_message(body: bytes) -> str:
    """The message in the body of an error."""
    try:
        return json.loads(body)["error"]
    except (ValueError, LookupError, TypeError):
        return str(body[:200])


def _to_json(value: Any) -> Any:
    return {"b64": b64encode(value).decode()} if isinstance(value, bytes) else value


def _from_json(values: Any) -> np.ndarray:
    """An array of the type that `to_array` returns for the same tensor."""
    array = np.asarray(values)
    return array.astype({"f": np.float32, "U": object}.get(array.dtype.kind, array.dtype))


def _unavailable(address: str, reason: object) -> ServingError:
    return ServingError(
        f"{address} is unavailable ({_one_line(reason)}). If no server runs there, {HOW_TO_START}."
    )


def _timed_out(address: str, timeout: float) -> ServingError:
    return ServingError(f"No answer from {address} within {timeout:g} s; increase the timeout.")


def _error_answer(address: str, reason: object) -> ServingError:
    return ServingError(f"{address} answered with an error: {_one_line(reason)}")


def _unexpected_answer(address: str, reason: object) -> ServingError:
    return ServingError(
        f"The answer of {address} is not that of a model server: {_one_line(reason)}."
    )


def _one_line(reason: object) -> str:
    return " ".join(str(reason).split())
