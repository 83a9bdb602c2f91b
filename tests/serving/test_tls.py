"""Who may talk to a server with TLS, and which keys and certificates it refuses to start with."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace

import grpc
import pytest

from serving.errors import ServingError
from serving.tls import server_credentials

CURVE = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"


@pytest.fixture(scope="module")
def pem(tmp_path_factory) -> dict[str, str]:
    """Keys and certificates by name.

    `server` and `other` are signed by themselves, `client` by `server`; `rsa` is of another kind,
    `encrypted` is the server's key.
    """
    if not shutil.which("openssl"):
        pytest.skip("openssl, which makes keys and certificates, is not installed")
    folder = tmp_path_factory.mktemp("pem")

    def openssl(arguments: str) -> None:
        command = ["openssl", *arguments.split()]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)

    for name, algorithm in (("server", CURVE), ("other", CURVE), ("rsa", "-newkey rsa -nodes")):
        openssl(
            f"req -x509 {algorithm} -keyout {name}.key -out {name}.crt -days 2 "
            "-subj /CN=localhost -addext subjectAltName=DNS:localhost"
        )
    openssl(f"req -new {CURVE} -keyout client.key -out client.csr -subj /CN=client")
    openssl("x509 -req -in client.csr -CA server.crt -CAkey server.key -days 2 -out client.crt")
    openssl("pkcs8 -topk8 -in server.key -passout pass:secret -out encrypted.key")
    return {path.name: path.read_text() for path in folder.iterdir()}


def config(key: str, certificate: str, custom_ca: str = "", client_verify: bool = False):
    return SimpleNamespace(
        server_key=key, server_cert=certificate, custom_ca=custom_ca, client_verify=client_verify
    )


@contextmanager
def answering(ssl_config) -> Iterator[str]:
    """The address of a server that says what it is told."""
    server = grpc.server(ThreadPoolExecutor(1))
    echo = grpc.unary_unary_rpc_method_handler(lambda request, context: request)
    handler = grpc.method_handlers_generic_handler("test", {"Echo": echo})
    server.add_generic_rpc_handlers([handler])
    port = server.add_secure_port("localhost:0", server_credentials(ssl_config))
    server.start()
    try:
        yield f"localhost:{port}"
    finally:
        server.stop(None).wait()


def is_served(address: str, trusted: str, key: str | None = None, certificate: str | None = None):
    credentials = grpc.ssl_channel_credentials(
        trusted.encode(), key and key.encode(), certificate and certificate.encode()
    )
    with grpc.secure_channel(address, credentials) as channel:
        return _is_served(channel)


def _is_served(channel: grpc.Channel) -> bool:
    try:
        return channel.unary_unary("/test/Echo")(b"hello", timeout=20) == b"hello"
    except grpc.RpcError as error:
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        return False


@pytest.mark.parametrize("custom_ca", ["", "other.crt"])
def test_clients_verify_the_server(pem, custom_ca):
    ca = custom_ca and pem[custom_ca]
    with answering(config(pem["server.key"], pem["server.crt"], ca)) as address:
        assert is_served(address, pem["server.crt"])
        assert not is_served(address, pem["other.crt"])
        with grpc.insecure_channel(address) as channel:
            assert not _is_served(channel)


def test_the_server_verifies_clients_if_wanted(pem):
    server = pem["server.crt"]
    with answering(config(pem["server.key"], server, server, True)) as address:
        assert is_served(address, server, pem["client.key"], pem["client.crt"])
        assert not is_served(address, server)
        assert not is_served(address, server, pem["other.key"], pem["other.crt"])


def test_a_certificate_may_be_followed_by_others(pem):
    chain = pem["rsa.crt"] + pem["server.crt"]
    with answering(config(pem["rsa.key"], chain)) as address:
        assert is_served(address, pem["rsa.crt"])


NO_MATCH = "server_key does not belong to server_cert"
NO_KEY = "server_key cannot be used"
NO_CERTIFICATE = "server_cert is no certificate"


@pytest.mark.parametrize(
    ("key", "certificate", "fault"),
    [
        ("other.key", "server.crt", NO_MATCH),
        ("rsa.key", "server.crt", NO_MATCH),
        ("encrypted.key", "server.crt", NO_KEY),
        ("server.crt", "server.crt", NO_KEY),
        ("/keys/server.pem", "server.crt", NO_KEY),
        ("\N{LATIN SMALL LETTER E WITH ACUTE}", "server.crt", NO_KEY),
        ("server.key", "server.key", NO_CERTIFICATE),
        ("server.key", "client.csr", NO_CERTIFICATE),
        ("server.key", "/keys/server.crt", NO_CERTIFICATE),
        ("server.key", "", NO_CERTIFICATE),
        ("server.key", "\N{LATIN SMALL LETTER E WITH ACUTE}", NO_CERTIFICATE),
    ],
)
def test_what_cannot_be_used_is_refused(pem, monkeypatch, tmp_path, key, certificate, fault):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    message = refusal(config(pem.get(key, key), pem.get(certificate, certificate)))
    assert message.startswith(f"SSL configuration: {fault}")
    # Nothing of a key is left behind.
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("field", ["server.key", "server.crt"])
def test_half_a_text_is_refused(pem, field):
    pem = pem | {field: pem[field][: len(pem[field]) // 2]}
    message = refusal(config(pem["server.key"], pem["server.crt"]))
    assert (NO_KEY if field == "server.key" else NO_CERTIFICATE) in message


def test_who_verifies_clients_has_to_be_a_certificate(pem):
    message = refusal(config(pem["server.key"], pem["server.crt"], "ca.crt", True))
    assert message == (
        "SSL configuration: custom_ca is no certificate; expected PEM, which begins with "
        "-----BEGIN CERTIFICATE-----, not the name of a file"
    )


def refusal(ssl_config) -> str:
    with pytest.raises(ServingError) as raised:
        server_credentials(ssl_config)
    message = str(raised.value)
    assert "\n" not in message
    return message
