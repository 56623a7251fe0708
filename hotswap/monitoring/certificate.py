"""When the certificate of the public address ends, as a client sees it."""

import contextlib
import socket
import ssl
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlsplit

from cryptography import x509

CONNECT_SECONDS: Final = 3.0


def certificate_end(url: str) -> datetime | None:
    """Return until when the certificate of an https address is valid.

    It is only looked at, not trusted: it may well have ended. None for other addresses,
    and where nothing answers.
    """
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname:
        return None
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with (
        contextlib.suppress(OSError, ValueError),
        socket.create_connection(
            (parts.hostname, parts.port or 443), timeout=CONNECT_SECONDS
        ) as plain,
        context.wrap_socket(plain, server_hostname=parts.hostname) as secure,
    ):
        found = secure.getpeercert(binary_form=True)
        if found:
            certificate = x509.load_der_x509_certificate(found)
            return certificate.not_valid_after_utc.astimezone(UTC)
    return None
