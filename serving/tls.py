"""TLS credentials of the gRPC server, checked at startup: gRPC would only log errors later."""

import ssl
import tempfile
from pathlib import Path
from typing import Any

import grpc

from serving.errors import ServingError

# The second is OpenSSL's reason if key and certificate have different algorithms.
_MISMATCH_REASONS = ("KEY_VALUES_MISMATCH", "NO_CERTIFICATE_ASSIGNED")


def server_credentials(config: Any) -> grpc.ServerCredentials:
    """Credentials of a server, which requires client certificates if `client_verify` is set.

    Args:
        config: SSLConfig with `server_key`, `server_cert` (may include its chain) and `custom_ca`,
            which verifies clients. Each is PEM text, not the name of a file.

    Raises:
        ServingError: A key or certificate cannot be used, or key and certificate do not match.
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
    except (ssl.SSLError, ValueError, TypeError) as error:  # TypeError: not ASCII.
        raise ServingError(
            f"SSL configuration: {field} is not a certificate; expected PEM text, which begins "
            "with -----BEGIN CERTIFICATE-----, not the name of a file"
        ) from error


def _check_key(key: str, certificates: str) -> None:
    # Only the user can read a temporary folder, so the key stays private.
    with tempfile.TemporaryDirectory() as folder:
        key_file, certificate_file = Path(folder, "key.pem"), Path(folder, "certificate.pem")
        key_file.write_text(key, "utf-8")
        certificate_file.write_text(certificates, "utf-8")
        try:
            # With no password given, OpenSSL would ask for one on the terminal.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
                certificate_file, key_file, password=""
            )
        except ssl.SSLError as error:
            if error.reason in _MISMATCH_REASONS:
                raise ServingError(
                    "SSL configuration: server_key does not match server_cert; expected the "
                    "private key of that certificate"
                ) from error
            reason = f" ({error.reason.replace('_', ' ').lower()})" if error.reason else ""
            raise ServingError(
                f"SSL configuration: server_key cannot be used{reason}; expected an unencrypted "
                "private key as PEM text, which begins with -----BEGIN, not the name of a file"
            ) from error
