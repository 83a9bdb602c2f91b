"""A server's Predict call as a function of Python values, over gRPC or REST, without TensorFlow.

Either way the same inputs give the same outputs, what was unavailable is tried again and nothing
else is, and what goes wrong is a `ServingError` of one line.
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

PAUSES = (0.1, 0.2, 0.4, 0.8)  # Seconds before another attempt.
START = (
    "start one with `python -m serving.server --port=8500 --rest_api_port=8501 "
    "--model_name=captioner --model_base_path=/MODELS/captioner`"
)

Inputs = Mapping[str, Sequence[bytes] | Sequence[float] | Sequence[int]]
Outputs = dict[str, np.ndarray]
# Of model, signature, inputs by name ([B] each) and seconds.
Predict = Callable[[str, str, Inputs, float], Outputs]


def connect_grpc(
    address: str, ca: str | None = None, cert: str | None = None, key: str | None = None
) -> Predict:
    """The gRPC API; TLS where a file is given.

    Args:
        address: `host:port` or `unix:PATH`. Of several addresses that a host's name stands for, one
            request goes to one and the next to another.
        ca: PEM file of who vouches for the server.
        cert: PEM file of who the client is, where the server asks for it.
        key: PEM file of the key to `cert`.

    Raises:
        ServingError: A file cannot be read, or is none of its kind.
    """
    retry = {
        "maxAttempts": 1 + len(PAUSES),
        "initialBackoff": f"{PAUSES[0]}s",
        "maxBackoff": f"{PAUSES[-1]}s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    service = {
        "methodConfig": [{"name": [{}], "retryPolicy": retry}],
        "loadBalancingConfig": [{"round_robin": {}}],
    }
    options = [
        ("grpc.service_config", json.dumps(service)),
        # What is larger is never sent again; by default that is 256 KiB, less than many an image.
        ("grpc.per_rpc_retry_buffer_size", 2**31 - 1),
        ("grpc.max_receive_message_length", -1),
    ]
    if ca or cert:
        _trust(ca, cert, key)
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
                raise _too_late(address, timeout) from error
            raise _refused(address, error.details()) from error
        except EncodeError as error:
            raise ServingError(
                "A request of more than 2 GiB cannot be sent; give smaller images."
            ) from error
        except (DecodeError, ValueError) as error:
            raise _not_understood(address, error) from error

    return predict


def connect_rest(
    address: str, ca: str | None = None, cert: str | None = None, key: str | None = None
) -> Predict:
    """The REST API; TLS where the address is `https`.

    Args:
        address: `http://host:port` or `https://host:port`.
        ca: PEM file of who vouches for the server; without it, the system's authorities do.
        cert: PEM file of who the client is, where the server asks for it.
        key: PEM file of the key to `cert`.

    Raises:
        ServingError: A file cannot be read, or is none of its kind.
    """
    context = _trust(ca, cert, key) if address.startswith("https:") else None

    def predict(model: str, signature: str, inputs: Inputs, timeout: float) -> Outputs:
        columns = {name: [_to_json(value) for value in values] for name, values in inputs.items()}
        body = json.dumps({"signature_name": signature, "inputs": columns}).encode()
        request = urllib.request.Request(
            f"{address.rstrip('/')}/v1/models/{quote(model, '')}:predict", body
        )
        deadline, pauses = time.monotonic() + timeout, iter(PAUSES)
        while True:
            try:
                answer = _post(request, max(deadline - time.monotonic(), 1e-3), context)
                outputs = json.loads(answer)["outputs"]
                return {name: _from_json(values) for name, values in outputs.items()}
            except ConnectionError as error:
                pause = next(pauses, timeout)
                if time.monotonic() + pause >= deadline:
                    raise _unavailable(address, error) from error
                time.sleep(pause)
            except TimeoutError as error:
                raise _too_late(address, timeout) from error
            except RuntimeError as error:
                raise _refused(address, error) from error
            except (ValueError, LookupError, TypeError, AttributeError) as error:
                raise _not_understood(address, error) from error

    return predict


def _trust(ca: str | None, cert: str | None, key: str | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca)
        if cert:
            context.load_cert_chain(cert, key)
        return context
    except OSError as error:
        files = ", ".join(filter(None, (ca, cert, key)))
        raise ServingError(f"{files}: {error.strerror or error}; give PEM files.") from error


def _post(request: urllib.request.Request, timeout: float, context: ssl.SSLContext | None) -> bytes:
    """Sends a request once.

    Raises:
        ConnectionError: What gRPC calls UNAVAILABLE.
        TimeoutError: The time was over.
        RuntimeError: The server's reason for not answering.
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
    kinds: dict[int, type[Exception]] = {503: ConnectionError, 504: TimeoutError}
    raise kinds.get(code, RuntimeError)(_reason(body))


def _reason(body: bytes) -> str:
    """What a server says in the body of an answer that is an error."""
    try:
        return json.loads(body)["error"]
    except (ValueError, LookupError, TypeError):
        return str(body[:200])


def _to_json(value: Any) -> Any:
    return {"b64": b64encode(value).decode()} if isinstance(value, bytes) else value


def _from_json(values: Any) -> np.ndarray:
    """As `to_array` gives it."""
    array = np.asarray(values)
    return array.astype({"f": np.float32, "U": object}.get(array.dtype.kind, array.dtype))


def _unavailable(address: str, reason: object) -> ServingError:
    return ServingError(
        f"{address} is unavailable ({_one_line(reason)}); if no server runs there, {START}."
    )


def _too_late(address: str, timeout: float) -> ServingError:
    return ServingError(f"No answer from {address} within {timeout:g} s; allow it more.")


def _refused(address: str, reason: object) -> ServingError:
    return ServingError(f"{address} refuses: {_one_line(reason)}")


def _not_understood(address: str, reason: object) -> ServingError:
    return ServingError(f"{address} does not answer as a model server: {_one_line(reason)}.")


def _one_line(reason: object) -> str:
    return " ".join(str(reason).split())
