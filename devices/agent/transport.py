"""Talk to the server.

Rules:
- Credentials go to the configured server only, never along a redirect or to a
  download address on another host. A client certificate is a credential.
- Plain HTTP is refused off loopback unless it is allowed on purpose.
- A 401 of the server is answered by one new login; every other refusal is the
  caller's to judge.
- A validator belongs to the host that gave it: two stores name the same bytes
  differently, so neither is it sent to another host nor kept from one.
- The device's own clock may be years off. Moments that the server names are measured
  from its `Date`, and a certificate that is out of its time may be the clock's fault.
- An answer is made by whoever sits at the other end: one that cannot be read is worth
  what no answer is worth, an `UnavailableError`, whatever Python makes of it.
- An answer that trickles ends with the time-out, whatever part of it trickles.
- A text of an answer that is sent again (a token, a key, a validator) is kept only if
  it can be.
- Nothing is retried here: the caller owns the waiting.
"""

import http.client
import ipaddress
import json
import logging
import re
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from email.message import Message
from email.utils import parsedate_to_datetime
from typing import IO, Any, Protocol

from devices.agent.answers import TimedResponse
from devices.agent.credentials import Credentials, FixedKey, NoKeyError
from devices.agent.protocol import (
    EnrolmentAnswer,
    HeartbeatAnswer,
    PollAnswer,
    Report,
    number,
    parse_heartbeat_answer,
    seconds_of,
)
from devices.agent.tls import TlsFiles, shared_contexts

logger = logging.getLogger(__name__)

NO_TLS_FILES = TlsFiles()
MAX_ANSWER_BYTES = 1024 * 1024
MAX_REDIRECTS = 3
READ_BYTES = 16 * 1024
TRANSIENT_STATUSES = frozenset({408, 425, 429})
PAGE_BEGINNINGS = (b"<!doctype html", b"<html")
# More than the server reads is more than a device can need.
MAX_TRUSTED_KEYS = 64
TOKEN_MARGIN_RATIO = 0.1
# Visible ASCII: what an address, a header or a key file takes unchanged.
SECRET = re.compile("[!-~]{1,8192}")
ADDRESS = re.compile("[!-~]{1,8192}")
# A weak validator promises nothing about bytes.
STRONG_ETAG = re.compile('"[!#-~]{0,512}"')
# X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED of OpenSSL.
CERTIFICATE_TIME_ERRORS = {9: "is not yet valid", 10: "has expired"}
TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"


class TransportError(Exception):
    """A request brought no usable answer."""


class UnavailableError(TransportError):
    """The server cannot be reached or is busy; worth trying again later.

    `status` is that of its answer, 0 without one; `foreign_host` as in `RefusedError`.
    """

    def __init__(
        self,
        message: str,
        *,
        retry_after_seconds: float | None = None,
        status: int = 0,
        foreign_host: str = "",
    ) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds
        self.status = status
        self.foreign_host = foreign_host


class RefusedError(TransportError):
    """The server answered with a refusal.

    `is_elsewhere`: another host did, to which a redirect led. `foreign_host`: the
    address itself names a host that is not the server's, "" if it does not.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        is_elsewhere: bool = False,
        foreign_host: str = "",
    ) -> None:
        super().__init__(message)
        self.status = status
        self.is_elsewhere = is_elsewhere
        self.foreign_host = foreign_host


def is_login_refusal(error: TransportError) -> bool:
    """Say whether the server was reached and does not let the device in."""
    return isinstance(error, RefusedError) and error.status in {401, 403}


class OrderClosedError(TransportError):
    """The order of a report is cancelled, superseded or gone."""


class InsecureAddressError(TransportError):
    """An address is none, or is plain HTTP to another machine, `host`."""

    def __init__(self, message: str, *, host: str = "") -> None:
        super().__init__(message)
        self.host = host


@contextmanager
def _reading() -> Iterator[None]:
    """Take an answer at which reading fails for one that did not come.

    Raises:
        UnavailableError: it cannot be read.
    """
    try:
        yield
    except (ValueError, OverflowError, RecursionError) as error:
        raise UnavailableError(f"The answer cannot be read: {error}.") from error


@dataclass(frozen=True, slots=True)
class Body:
    """The answer to a ranged download, its bytes not yet read.

    `first` is where the bytes begin in the whole; `total_bytes` is None if unsaid.
    `encoding` is "" where the bytes come as they are.
    """

    status: int
    first: int
    total_bytes: int | None
    etag: str
    blocks: Iterator[bytes]
    media_type: str = ""
    encoding: str = ""


class Transport(Protocol):
    """The calls of the protocol.

    Every call raises `UnavailableError` or `RefusedError`.
    """

    def send_heartbeat(self, heartbeat: Mapping[str, Any]) -> HeartbeatAnswer:
        """Send a heartbeat."""

    def poll(self) -> PollAnswer:
        """Ask for an order."""

    def send_report(
        self, update_id: str, report: Report, *, traceparent: str = ""
    ) -> None:
        """Send a report; returning means that it is acknowledged.

        Raises:
            OrderClosedError: the order is closed.
        """

    def download(
        self,
        url: str,
        *,
        first: int,
        last: int,
        etag: str,
        more_headers: Mapping[str, str] | None = None,
    ) -> AbstractContextManager[Body]:
        """Ask for the bytes from `first` to `last`, both included.

        `etag` is the validator of the bytes already held, "" if none.
        """


@dataclass(slots=True)
class HttpTransport:
    """The protocol over HTTP, for one device."""

    server: str
    device_id: str
    credentials: Credentials | str = field(repr=False)
    connect_timeout_seconds: float = 10.0
    read_timeout_seconds: float = 30.0
    allow_insecure_http: bool = False
    tls: TlsFiles = NO_TLS_FILES
    # Ids of the pinned signing keys: the server signs with one that is among them.
    trusted_keys: Collection[str] = ()
    monotonic: Callable[[], float] = time.monotonic
    _opener: urllib.request.OpenerDirector = field(init=False, repr=False)
    _keys: Credentials = field(init=False, repr=False)
    _token: str = field(init=False, default="", repr=False)
    _token_expires_at: float = field(init=False, default=0.0)
    _redirects: "_RedirectHandler" = field(init=False, repr=False)
    _noted_host: str = field(init=False, default="")

    def __post_init__(self) -> None:
        """Check the address and prepare the opener.

        `credentials` may be a bare API key, for a device whose key never changes.
        """
        self._keys = (
            FixedKey(self.credentials)
            if isinstance(self.credentials, str)
            else self.credentials
        )
        self.server = self.server.rstrip("/")
        self._check_address(self.server)
        self._redirects = _RedirectHandler(self._check_address)
        self._opener = urllib.request.build_opener(
            _HttpHandler(self.connect_timeout_seconds),
            _HttpsHandler(self.connect_timeout_seconds, self.server, self.tls),
            self._redirects,
        )

    @_reading()
    def send_heartbeat(self, heartbeat: Mapping[str, Any]) -> HeartbeatAnswer:
        """See `Transport`."""
        _, _, answer = self._call("POST", f"{self._device_path}/health", heartbeat)
        return parse_heartbeat_answer(answer or {})

    @_reading()
    def poll(self) -> PollAnswer:
        """See `Transport`."""
        pins = ",".join(sorted(self.trusted_keys)[:MAX_TRUSTED_KEYS])
        _, headers, answer = self._call(
            "GET",
            f"{self._device_path}/update",
            None,
            more_headers={"Trusted-Keys": pins} if pins else None,
        )
        return PollAnswer(answer, _seconds(headers.get("Poll-Interval")))

    @_reading()
    def send_report(
        self, update_id: str, report: Report, *, traceparent: str = ""
    ) -> None:
        """See `Transport`."""
        path = f"{self._device_path}/updates/{update_id}/reports"
        try:
            self._call("POST", path, report.to_wire(), traceparent=traceparent)
        except RefusedError as error:
            if error.status in {404, 409, 410}:
                raise OrderClosedError(str(error)) from error
            raise

    @contextmanager
    def download(
        self,
        url: str,
        *,
        first: int,
        last: int,
        etag: str,
        more_headers: Mapping[str, str] | None = None,
    ) -> Iterator[Body]:
        """See `Transport`."""
        try:
            address = self._absolute(url)
        except ValueError as error:
            raise InsecureAddressError(f"{url[:200]!r} is not an address.") from error
        self._check_address(address)
        headers = {"Range": f"bytes={first}-{last}", "Accept-Encoding": "identity"}
        headers |= more_headers or {}
        if first > 0 and STRONG_ETAG.fullmatch(etag):
            headers["If-Range"] = etag
        is_own_server = _origin(address) == _origin(self.server)
        if not is_own_server:
            self._note_foreign(address)
        with self._open("GET", address, None, headers, is_own_server) as response:
            with _reading():
                is_elsewhere = _origin(response.url) != _origin(address)
                body = _body(response, has_validator=not is_elsewhere)
            yield body

    @_reading()
    def log_in(self) -> None:
        """Log in with the first key that the server takes.

        Without any key the device is enrolled first, if it can be.

        Raises:
            RefusedError: no key is taken.
        """
        if not self._keys.keys():
            try:
                self._keys.obtain(self._enrol)
            except NoKeyError as error:
                raise RefusedError(401, str(error)) from error
        keys = self._keys.keys()
        for key in keys:
            try:
                self._log_in_with(key)
            except RefusedError as error:
                if error.status != 401 or key == keys[-1]:
                    raise
            else:
                return

    @_reading()
    def ask_for_key(self) -> str:
        """Have a new API key made, on proof of the present one, and give it."""
        held = self._keys.keys()
        proof = {"apiKey": held[0]} if held else {}
        _, _, answer = self._call("POST", f"{self._device_path}/api-key", proof)
        key = _secret(answer, "apiKey")
        if not key:
            raise UnavailableError("The answer holds no API key.")
        return key

    @property
    def _device_path(self) -> str:
        return f"/devices/{urllib.parse.quote(self.device_id, safe='')}"

    def _call(
        self,
        method: str,
        path: str,
        content: Mapping[str, Any] | None,
        *,
        traceparent: str = "",
        with_token: bool = True,
        more_headers: Mapping[str, str] | None = None,
    ) -> tuple[int, Message, dict[str, Any] | None]:
        address = f"{self.server}/api/v1{path}"
        headers = {"Accept": "application/json", **(more_headers or {})}
        if traceparent:
            headers["traceparent"] = traceparent
        data = None
        if content is not None:
            data = json.dumps(content).encode()
            headers["Content-Type"] = "application/json"
        with self._open(method, address, data, headers, with_token) as response:
            try:
                raw = self._read_whole(response)
            except (OSError, http.client.HTTPException) as error:
                raise UnavailableError(f"Answer cut short: {error}.") from error
            status, answer_headers = response.status, response.headers
        return status, answer_headers, _parse_answer(raw)

    def _read_whole(
        self, response: http.client.HTTPResponse | urllib.error.HTTPError
    ) -> bytes:
        """Read an answer of up to `MAX_ANSWER_BYTES` and one more.

        `read_timeout_seconds` is for all of it: each byte of one that drips would
        begin the socket's own time-out anew.
        """
        ends_at = self.monotonic() + self.read_timeout_seconds
        raw = b""
        while len(raw) <= MAX_ANSWER_BYTES:
            block = response.read1(READ_BYTES)
            if not block:
                break
            raw += block
            if self.monotonic() > ends_at:
                raise UnavailableError("The answer takes too long.")
        if len(raw) <= MAX_ANSWER_BYTES and response.length:
            raise http.client.IncompleteRead(raw, response.length)
        return raw

    def _problem_code(self, error: urllib.error.HTTPError) -> str:
        """Give the `code` of a problem document, "" if it has none."""
        try:
            problem = _parse_answer(self._read_whole(error))
        except (OSError, http.client.HTTPException, ValueError, UnavailableError):
            return ""
        code = (problem or {}).get("code")
        return code[:100] if isinstance(code, str) else ""

    @contextmanager
    def _open(
        self,
        method: str,
        address: str,
        data: bytes | None,
        headers: Mapping[str, str],
        with_token: bool,
    ) -> Iterator[http.client.HTTPResponse]:
        for is_last in (False, True):
            try:
                response = self._send(method, address, data, headers, with_token)
            except RefusedError as error:
                is_token_refused = error.status == 401 and not error.is_elsewhere
                if not is_token_refused or is_last or not with_token:
                    raise
                self._token = ""
                continue
            with response:
                yield response
            return

    def _send(
        self,
        method: str,
        address: str,
        data: bytes | None,
        headers: Mapping[str, str],
        with_token: bool,
    ) -> http.client.HTTPResponse:
        self._check_address(address)
        foreign_host = ""
        if _origin(address) != _origin(self.server):
            foreign_host = urllib.parse.urlsplit(address).hostname or ""
        self._redirects.led_to = ""
        request = urllib.request.Request(  # noqa: S310 - the scheme was just checked
            address, data=data, headers=dict(headers), method=method
        )
        if with_token:
            # "Unredirected": urllib leaves it behind when it follows a redirect.
            request.add_unredirected_header(
                "Authorization", f"Bearer {self._fresh_token()}"
            )
        try:
            response: http.client.HTTPResponse = self._opener.open(
                request, timeout=self.read_timeout_seconds
            )
        except urllib.error.HTTPError as error:
            with closing(error), _reading():
                is_elsewhere = _origin(error.url) != _origin(address)
                raise _refusal(
                    error,
                    self._problem_code(error),
                    is_elsewhere=is_elsewhere,
                    foreign_host=foreign_host,
                ) from error
        except (OSError, http.client.HTTPException, ValueError, OverflowError) as error:
            led_to = self._redirects.led_to
            raise UnavailableError(
                f"{led_to}: {_reason(error)}" if led_to else _reason(error),
                foreign_host=foreign_host or led_to,
            ) from error
        return response

    def _fresh_token(self) -> str:
        if not self._token or self.monotonic() >= self._token_expires_at:
            self.log_in()
        return self._token

    def _log_in_with(self, key: str) -> None:
        asked_at = self.monotonic()
        _, headers, answer = self._call(
            "POST",
            "/auth/device-token",
            {"deviceId": self.device_id, "apiKey": key},
            with_token=False,
        )
        found = answer or {}
        token, expires = _secret(found, "access"), seconds_of(found.get("expiresIn"))
        if not token or expires is None:
            raise UnavailableError("The login answer holds no token.")
        self._token = token
        self._token_expires_at = asked_at + expires * (1 - TOKEN_MARGIN_RATIO)
        self._keys.accepted(
            key, _remaining_seconds(found.get("keyExpiresAt"), headers.get("Date"))
        )

    def _enrol(self, request: Mapping[str, Any]) -> EnrolmentAnswer:
        _, headers, answer = self._call(
            "POST",
            "/enrolments",
            {"deviceId": self.device_id, **request},
            with_token=False,
        )
        return EnrolmentAnswer(
            api_key=_secret(answer, "apiKey"),
            retry_after_seconds=_retry_after(headers),
        )

    def _note_foreign(self, address: str) -> None:
        """Say once which other host the image is fetched from, and how."""
        host = urllib.parse.urlsplit(address).hostname or ""
        if host != self._noted_host:
            self._noted_host = host
            logger.warning(
                "download address names another host than the configured server; "
                "no credentials are sent there",
                extra={"host": host},
            )

    def _absolute(self, url: str) -> str:
        """Give the address of a download; a path lies below the server's own address.

        Raises:
            ValueError: it is none.
        """
        if url.startswith("/") and not url.startswith("//"):
            return self.server + url
        return urllib.parse.urljoin(self.server + "/", url)

    def _check_address(self, address: str) -> None:
        try:
            parts = urllib.parse.urlsplit(address)
            is_address = parts.port is None or parts.port > 0
        except ValueError:
            is_address = False
        if not is_address or not ADDRESS.fullmatch(address):
            raise InsecureAddressError(f"{address[:200]!r} is not an address.")
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise InsecureAddressError(f"{address[:200]!r} is not an http(s) address.")
        if parts.scheme == "https":
            return
        if not (self.allow_insecure_http or is_loopback(parts.hostname)):
            raise InsecureAddressError(
                f"{address[:200]!r} is plain HTTP off this machine "
                "(allow_insecure_http = true would allow it).",
                host=parts.hostname,
            )


class _HttpConnection(http.client.HTTPConnection):
    """Connect with one timeout, then read with another."""

    connect_timeout_seconds = 10.0
    response_class = TimedResponse

    def connect(self) -> None:
        read_timeout, self.timeout = self.timeout, self.connect_timeout_seconds
        super().connect()
        self.sock.settimeout(read_timeout)


class _HttpsConnection(http.client.HTTPSConnection):
    """Connect with one timeout, then read with another."""

    connect_timeout_seconds = 10.0
    response_class = TimedResponse

    def connect(self) -> None:
        read_timeout, self.timeout = self.timeout, self.connect_timeout_seconds
        super().connect()
        self.sock.settimeout(read_timeout)


class _HttpHandler(urllib.request.HTTPHandler):
    def __init__(self, connect_timeout_seconds: float) -> None:
        super().__init__()
        self._connect_timeout_seconds = connect_timeout_seconds

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        def connection(host: str, **options: Any) -> _HttpConnection:
            made = _HttpConnection(host, **options)
            made.connect_timeout_seconds = self._connect_timeout_seconds
            return made

        return self.do_open(connection, req)


class _HttpsHandler(urllib.request.HTTPSHandler):
    """Show the client certificate to the configured server and to nobody else."""

    def __init__(
        self, connect_timeout_seconds: float, server: str, files: TlsFiles
    ) -> None:
        self._own_contexts = shared_contexts(files)
        self._other_contexts = shared_contexts(
            replace(files, client_certificate=None, client_key=None)
        )
        self._own_origin = _origin(server)
        super().__init__(context=self._own_contexts.current())
        self._connect_timeout_seconds = connect_timeout_seconds

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        def connection(host: str, **options: Any) -> _HttpsConnection:
            made = _HttpsConnection(host, **options)
            made.connect_timeout_seconds = self._connect_timeout_seconds
            return made

        is_own = _origin(req.full_url) == self._own_origin
        contexts = self._own_contexts if is_own else self._other_contexts
        return self.do_open(connection, req, context=contexts.current())


class _RedirectHandler(urllib.request.HTTPRedirectHandler):
    """Follow redirects of downloads only, and only to addresses that are allowed.

    `led_to` is the other host that the last one named, "" if it stayed where it was.
    """

    max_redirections = MAX_REDIRECTS
    led_to = ""

    def __init__(self, check_address: Callable[[str], None]) -> None:
        self._check_address = check_address

    def http_error_302(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
    ) -> http.client.HTTPResponse | None:
        # urllib reads the body of a redirect to its end, which may never come.
        fp.close()
        return super().http_error_302(req, fp, code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        is_downgrade = req.full_url.startswith("https:") and not newurl.startswith(
            "https:"
        )
        if req.get_method() != "GET" or is_downgrade:
            return None
        try:
            self._check_address(newurl)
        except InsecureAddressError as error:
            raise RefusedError(
                code, f"HTTP {code} leads to another host: {error}", is_elsewhere=True
            ) from error
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        if request is not None and _origin(newurl) != _origin(req.full_url):
            # As urllib spells it.
            request.remove_header("If-range")
            self.led_to = urllib.parse.urlsplit(newurl).hostname or ""
        return request


def _body(response: http.client.HTTPResponse, *, has_validator: bool) -> Body:
    first, total = 0, None
    status, content_range = response.status, response.headers.get("Content-Range", "")
    # Some stores (rclone's among them) say 200 over a part; its range is what counts.
    if status == 206 or content_range:
        status = 206
        first, total = _content_range(content_range)
    else:
        length = response.headers.get("Content-Length", "")
        total = number(length)
        if length and total is None:
            raise UnavailableError("The answer's Content-Length cannot be read.")
    etag = response.headers.get("ETag", "")
    return Body(
        status=status,
        first=first,
        total_bytes=total,
        etag=etag if has_validator and STRONG_ETAG.fullmatch(etag) else "",
        blocks=_blocks(response),
        media_type=response.headers.get_content_type(),
        encoding=response.headers.get("Content-Encoding", "").strip().lower(),
    )


def _blocks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    while True:
        try:
            # read1 gives what has arrived, so that a slow link does not hold up
            # the heartbeats until a whole block is there.
            block = response.read1(READ_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise UnavailableError(f"Download cut short: {error}.") from error
        if not block:
            return
        yield block


def _content_range(text: str) -> tuple[int, int | None]:
    unit, _, rest = text.partition(" ")
    span, _, total_text = rest.partition("/")
    first, total = number(span.partition("-")[0]), number(total_text)
    is_total_known = total is not None or total_text in ("", "*")
    if unit != "bytes" or first is None or not is_total_known:
        raise UnavailableError("The answer's Content-Range cannot be read.")
    return first, total


def _reason(error: Exception) -> str:
    """Say why there was no answer; of a certificate also what the clock has to do."""
    reason = getattr(error, "reason", None) or error
    if (
        isinstance(reason, ssl.SSLCertVerificationError)
        and reason.verify_code in CERTIFICATE_TIME_ERRORS
    ):
        what = CERTIFICATE_TIME_ERRORS[reason.verify_code]
        now = time.strftime(TIME_FORMAT, time.gmtime())
        return (
            f"The server's certificate {what} by this device's clock, which says "
            f"{now}: if that is wrong, set the clock."
        )
    return f"{reason}"


def _refusal(
    error: urllib.error.HTTPError,
    code: str,
    *,
    is_elsewhere: bool,
    foreign_host: str,
) -> TransportError:
    message = f"HTTP {error.code}"
    if code:
        message = f"{message} {code}"
    if is_elsewhere or foreign_host:
        # The host alone: the rest of such an address opens the image for a while.
        host = urllib.parse.urlsplit(error.url).hostname
        message = f"{message} from {host}"
    if foreign_host:
        message = (
            f"{message}, which is not the configured server and got no credentials"
        )
    if error.code >= 500 or error.code in TRANSIENT_STATUSES:
        return UnavailableError(
            message,
            retry_after_seconds=_retry_after(error.headers),
            status=error.code,
            foreign_host=foreign_host,
        )
    return RefusedError(
        error.code, message, is_elsewhere=is_elsewhere, foreign_host=foreign_host
    )


def _retry_after(headers: Message) -> float | None:
    text = headers.get("Retry-After")
    seconds = _seconds(text)
    if seconds is not None or not text:
        return seconds
    try:
        until = parsedate_to_datetime(text)
        wait = until - parsedate_to_datetime(headers.get("Date", ""))
    except (TypeError, ValueError, OverflowError):
        return None
    return max(0.0, wait.total_seconds())


def _seconds(text: str | None) -> float | None:
    try:
        return seconds_of(float(text)) if text else None
    except ValueError:
        return None


def _remaining_seconds(expires_at: object, server_date: str | None) -> float | None:
    """Say how long a key lasts by the server's own clock, None if it is not said."""
    try:
        ends_at = datetime.fromisoformat(str(expires_at))
        return (ends_at - parsedate_to_datetime(server_date or "")).total_seconds()
    except (TypeError, ValueError, OverflowError):
        return None


def _secret(answer: Mapping[str, Any] | None, key: str) -> str:
    """Give a token or key of an answer, "" if it holds none that can be used."""
    value = (answer or {}).get(key)
    return value if isinstance(value, str) and SECRET.fullmatch(value) else ""


def _parse_answer(raw: bytes) -> dict[str, Any] | None:
    if not raw:
        return None
    if len(raw) > MAX_ANSWER_BYTES:
        raise UnavailableError("The answer is too large.")
    try:
        answer = json.loads(raw)
    except (ValueError, RecursionError) as error:
        if looks_like_page(raw):
            raise UnavailableError(
                "A web page came instead of an answer: of a proxy or portal on the way."
            ) from error
        raise UnavailableError("The answer is not JSON.") from error
    if not isinstance(answer, dict):
        raise UnavailableError("The answer is not a JSON object.")
    return answer


def looks_like_page(content: bytes) -> bool:
    """Say whether bytes begin as a web page does."""
    beginning = content[:64].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return beginning.startswith(PAGE_BEGINNINGS)


def _origin(address: str) -> tuple[str, str, int]:
    parts = urllib.parse.urlsplit(address)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return parts.scheme, (parts.hostname or "").lower(), port


def is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
