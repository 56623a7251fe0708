"""Make the TLS side of every connection.

Rules:
- The server's certificate and name are always checked; nothing here turns that off.
- TLS 1.3 is the floor, 1.2 only by choice (specification, Security Requirements).
- Files that are renewed on disk count from the next connection on. Files that cannot
  be used then (half of a renewal) leave those before in use, and the log says so.
"""

import logging
import ssl
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Final, Literal

from devices.agent.freshness import Stamp, stamp_of

logger = logging.getLogger(__name__)


TlsVersion = Literal["1.2", "1.3"]
TLS_VERSIONS: Final[dict[TlsVersion, ssl.TLSVersion]] = {
    "1.2": ssl.TLSVersion.TLSv1_2,
    "1.3": ssl.TLSVersion.TLSv1_3,
}


class TlsFilesError(ValueError):
    """A certificate or key file cannot be used."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """What TLS is made of; None stands for the system's files or for none.

    `client_key` may be left out when `client_certificate` holds the key too; `minimum`
    is the lowest version that is spoken.
    """

    certificate_authorities: Path | None = None
    client_certificate: Path | None = None
    client_key: Path | None = None
    minimum: TlsVersion = "1.3"


@dataclass(slots=True)
class TlsContexts:
    """Gives the context for the next connection, made anew when a file changes."""

    files: TlsFiles
    _context: ssl.SSLContext = field(init=False)
    _stamps: tuple[Stamp, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Read the files.

        Raises:
            TlsFilesError: they cannot be used.
        """
        self._stamps = _stamps(self.files)
        self._context = make_context(self.files)

    def current(self) -> ssl.SSLContext:
        """Give the context that the files on disk make now."""
        stamps = _stamps(self.files)
        if stamps != self._stamps:
            # Noted in either case: the same unusable files are not read at each call.
            self._stamps = stamps
            try:
                self._context = make_context(self.files)
            except TlsFilesError as error:
                logger.error("renewed TLS files not used", extra={"reason": str(error)})
            else:
                logger.info("TLS files read again")
        return self._context


@cache
def shared_contexts(files: TlsFiles) -> TlsContexts:
    """Give the contexts of these files, one for all transports of the process.

    A context holds every authority of the system, and a simulator has many transports.

    Raises:
        TlsFilesError: the files cannot be used.
    """
    return TlsContexts(files)


def make_context(files: TlsFiles) -> ssl.SSLContext:
    """Give a client's context with every check on.

    Raises:
        TlsFilesError: a file cannot be used; the message names its key.
    """
    authorities = files.certificate_authorities
    try:
        context = ssl.create_default_context(
            cafile=str(authorities) if authorities else None
        )
    except (OSError, ValueError) as error:
        raise TlsFilesError(f"certificate_authorities: {error}") from error
    context.minimum_version = TLS_VERSIONS[files.minimum]
    if files.client_certificate is not None:
        try:
            context.load_cert_chain(
                files.client_certificate,
                files.client_key,
                password=_refuse_passphrase,
            )
        except (OSError, ValueError) as error:
            raise TlsFilesError(f"client_certificate, client_key: {error}") from error
    return context


def _refuse_passphrase() -> str:
    # Without this OpenSSL would ask a terminal that nobody sits at.
    raise ValueError("the key needs a passphrase, and nobody is there to type it")


def _stamps(files: TlsFiles) -> tuple[Stamp, ...]:
    """Give what changes whenever one of the files does."""
    paths = (
        files.certificate_authorities,
        files.client_certificate,
        files.client_key,
    )
    return tuple(stamp_of(path) if path else () for path in paths)
