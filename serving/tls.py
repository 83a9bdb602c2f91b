"""TLS for gRPC; what cannot be used is refused at once, where gRPC would only log it later."""

import ssl
import tempfile
from pathlib import Path
from typing import Any

import grpc

from serving.errors import ServingError

# The second is OpenSSL's reason where the two are of different kinds.
_OF_ANOTHER_CERTIFICATE = ("KEY_VALUES_MISMATCH", "NO_CERTIFICATE_ASSIGNED")


def server_credentials(config: Any) -> grpc.ServerCredentials:
    """Credentials of a server, which asks clients for theirs if `client_verify` is set.

    Args:
        config: SSLConfig with `server_key`, `server_cert` (which may be followed by its chain) and
            `custom_ca`, by which clients are verified; each is PEM, none is a file's name.

    Raises:
        ServingError: A key or certificate cannot be used, or they do not belong together.
    """
    _check_certificates("server_cert", config.server_cert)
    if config.custom_ca:
        _check_certificates("custom_ca", config.custom_ca)
    _check_key(config.server_key, config.server_cert)
    return grpc.ssl_server_credentials(
        [(config.server_key.encode(), config.server_cert.encode())],
        root_certificates=config.custom_ca.encode() or None,
        require_client_auth=config.client_verify,
    )


def _check_certificates(field: str, certificates: str) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cadata=certificates)
    except (ssl.SSLError, ValueError, TypeError) as error:  # TypeError if it is not ASCII.
        raise ServingError(
            f"SSL configuration: {field} is no certificate; expected PEM, which begins with "
            "-----BEGIN CERTIFICATE-----, not the name of a file"
        ) from error


def _check_key(key: str, certificates: str) -> None:
    # The folder is the user's alone, so that others cannot read the key.
    with tempfile.TemporaryDirectory() as folder:
        key_file, certificate_file = Path(folder, "key.pem"), Path(folder, "certificate.pem")
        key_file.write_text(key, "utf-8")
        certificate_file.write_text(certificates, "utf-8")
        try:
            # Without a password OpenSSL would ask for one at the terminal.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
                certificate_file, key_file, password=""
            )
        except ssl.SSLError as error:
            if error.reason in _OF_ANOTHER_CERTIFICATE:
                raise ServingError(
                    "SSL configuration: server_key does not belong to server_cert; expected the "
                    "key with which that certificate was made"
                ) from error
            reason = f" ({error.reason.replace('_', ' ').lower()})" if error.reason else ""
            raise ServingError(
                f"SSL configuration: server_key cannot be used{reason}; expected a private key in "
                "PEM, which begins with -----BEGIN, is not encrypted and is not the name of a file"
            ) from error
