"""TLS: which clients and servers accept each other, and errors of keys and certificates."""

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
    """Keys and certificates by file name.

    `server`, `other` and `rsa` are self-signed, `client` is signed by `server`; `encrypted` is the
    key of the server, encrypted.
    """
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed; it creates the keys and certificates")
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
def echo_server(ssl_config) -> Iterator[str]:
    """Runs a server that echoes requests; yields its address."""
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


def answers(address: str, trusted: str, key: str | None = None, certificate: str | None = None):
    credentials = grpc.ssl_channel_credentials(
        trusted.encode(), key and key.encode(), certificate and certificate.encode()
    )
    with grpc.secure_channel(address, credentials) as channel:
        return _answers(channel)


def _answers(channel: grpc.Channel) -> bool:
    try:
        return channel.unary_unary("/test/Echo")(b"hello", timeout=20) == b"hello"
    except grpc.RpcError as error:
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        return False


@pytest.mark.parametrize("custom_ca", ["", "other.crt"])
def test_clients_verify_the_server(pem, custom_ca):
    ca = custom_ca and pem[custom_ca]
    with echo_server(config(pem["server.key"], pem["server.crt"], ca)) as address:
        assert answers(address, pem["server.crt"])
        assert not answers(address, pem["other.crt"])
        with grpc.insecure_channel(address) as channel:
            assert not _answers(channel)


def test_the_server_verifies_clients_if_configured(pem):
    server = pem["server.crt"]
    with echo_server(config(pem["server.key"], server, server, True)) as address:
        assert answers(address, server, pem["client.key"], pem["client.crt"])
        assert not answers(address, server)
        assert not answers(address, server, pem["other.key"], pem["other.crt"])


def test_the_certificate_may_include_a_chain(pem):
    chain = pem["rsa.crt"] + pem["server.crt"]
    with echo_server(config(pem["rsa.key"], chain)) as address:
        assert answers(address, pem["rsa.crt"])


NO_MATCH = "server_key does not match server_cert"
NO_KEY = "server_key cannot be used"
NO_CERTIFICATE = "server_cert is not a certificate"


@pytest.mark.parametrize(
    ("key", "certificate", "problem"),
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
def test_wrong_keys_and_certificates_are_errors(
    pem, monkeypatch, tmp_path, key, certificate, problem
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    message = error_of(config(pem.get(key, key), pem.get(certificate, certificate)))
    assert message.startswith(f"SSL configuration: {problem}")
    # The temporary file with the key has been deleted.
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("field", ["server.key", "server.crt"])
def test_truncated_text_is_an_error(pem, field):
    pem = pem | {field: pem[field][: len(pem[field]) // 2]}
    message = error_of(config(pem["server.key"], pem["server.crt"]))
    assert (NO_KEY if field == "server.key" else NO_CERTIFICATE) in message


def test_custom_ca_has_to_be_a_certificate(pem):
    message = error_of(config(pem["server.key"], pem["server.crt"], "ca.crt", True))
    assert message == (
        "SSL configuration: custom_ca is not a certificate; expected PEM text, which begins with "
        "-----BEGIN CERTIFICATE-----, not the name of a file"
    )


def error_of(ssl_config) -> str:
    with pytest.raises(ServingError) as raised:
        server_credentials(ssl_config)
    message = str(raised.value)
    assert "\n" not in message
    return message
