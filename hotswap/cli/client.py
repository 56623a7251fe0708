"""How the commands reach a server: address, credentials, requests.

Rules:
- A secret comes from the environment or a file, never from the command line, where
  every user of the machine could read it.
- Plain http is for loopback, or where it was allowed on purpose.
- Redirects are not followed, so credentials stay with the server that was named.
"""

import contextlib
import fcntl
import ipaddress
import json
import os
import time
import tomllib
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import httpx

DEFAULT_SERVER = "http://127.0.0.1:8000"
CONFIG_KEYS = {"server", "token_file", "username", "password_file", "ca_file"} | {
    "allow_insecure_http"
}
# A token that ends while it travels helps nobody.
SPARE_SECONDS = 30.0
PAGE_SIZE = 200
ANSWER_SECONDS = 120.0


class CliError(Exception):
    """A command that did not succeed: what to say, and the exit code."""

    exit_code = 1
    code = "refused"

    def __init__(self, message: str, document: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.document = document


class RefusedError(CliError):
    """The server understood and refused."""


class UsageError(CliError):
    """Options, files or settings are wrong; nothing was sent."""

    exit_code = 2
    code = "usage"


class UnreachableError(CliError):
    """The server does not answer, or cannot at the moment."""

    exit_code = 3
    code = "unreachable"


class NotAllowedError(CliError):
    """Nobody is logged in, or the role does not allow it."""

    exit_code = 4
    code = "not_allowed"


class NotConfirmedError(CliError):
    """It was asked whether this is meant, and nobody said yes; nothing was done."""

    exit_code = 5
    code = "not_confirmed"


@dataclass(frozen=True, slots=True)
class Connection:
    """Where the server is and who calls.

    Exactly one of `token`, (`username`, `password`) and the saved login is used, the
    first of them that is there.
    """

    server: str
    token: str | None = None
    username: str | None = None
    password: str | None = None
    ca_file: Path | None = None


def config_dir() -> Path:
    """Return the folder of `config.toml` and of the saved login."""
    named = os.environ.get("HOTSWAP_CONFIG_DIR")
    if named:
        return Path(named)
    base = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base) / "hotswap"


def find_connection(server: str | None, token_file: Path | None) -> Connection:
    """Put together options, environment and `config.toml`, in this order.

    Raises:
        UsageError: a file cannot be read, or says something unknown.
    """
    config = _read_config(config_dir() / "config.toml")
    environment = os.environ
    address = (
        server
        or environment.get("HOTSWAP_SERVER")
        or config.get("server")
        or DEFAULT_SERVER
    )
    insecure = environment.get("HOTSWAP_ALLOW_INSECURE_HTTP") == "1"
    _check_address(address, allowed=insecure or bool(config.get("allow_insecure_http")))
    ca_file = environment.get("HOTSWAP_CA_FILE") or config.get("ca_file")
    ca_path = Path(ca_file) if ca_file else None
    token = None
    if token_file is not None:
        token = _read_secret(token_file)
    elif environment.get("HOTSWAP_TOKEN"):
        token = environment["HOTSWAP_TOKEN"].strip()
    elif environment.get("HOTSWAP_TOKEN_FILE"):
        token = _read_secret(Path(environment["HOTSWAP_TOKEN_FILE"]))
    if token is not None:
        return Connection(address, token=token, ca_file=ca_path)
    username = environment.get("HOTSWAP_USERNAME")
    if username:
        password = environment.get("HOTSWAP_PASSWORD")
        password_file = environment.get("HOTSWAP_PASSWORD_FILE")
    elif config.get("token_file"):
        token = _read_secret(Path(config["token_file"]))
        return Connection(address, token=token, ca_file=ca_path)
    else:
        username, password = config.get("username"), None
        password_file = config.get("password_file")
    if username and password is None and password_file:
        password = _read_secret(Path(password_file))
    if username and password is None:
        raise UsageError(
            f"there is no password for {username}: set HOTSWAP_PASSWORD, "
            "HOTSWAP_PASSWORD_FILE or password_file"
        )
    return Connection(address, None, username, password, ca_path)


def _read_config(path: Path) -> dict[str, Any]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path}: {error}") from error
    for name, value in content.items():
        if name not in CONFIG_KEYS:
            known = ", ".join(sorted(CONFIG_KEYS))
            raise UsageError(f"{path}: {name}: unknown key; known are {known}")
        wanted = bool if name == "allow_insecure_http" else str
        if not isinstance(value, wanted):
            raise UsageError(f"{path}: {name}: must be a {wanted.__name__}")
    return content


def _read_secret(path: Path) -> str:
    try:
        secret = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: {error}") from error
    if not secret:
        raise UsageError(f"{path} is empty")
    return secret


def _check_address(address: str, *, allowed: bool) -> None:
    try:
        parts = urlsplit(address)
        host = parts.hostname
    except ValueError as error:
        raise UsageError(f"server: {address!r}: {error}") from error
    if parts.scheme not in {"http", "https"} or not host:
        raise UsageError(f"server: {address!r} is not an http(s) address")
    if parts.scheme == "http" and not allowed and not _is_loopback(host):
        raise UsageError(
            f"server: {address} is not encrypted; use https, or set "
            "HOTSWAP_ALLOW_INSECURE_HTTP=1 if that is meant"
        )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Login:
    """A login kept in a file of its owner: `hotswap login` makes it.

    A refresh token is good for one use, and a second use ends the whole login; so one
    command at a time may renew it.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "login.json"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Let one process at a time read and renew it."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(self._path.with_suffix(".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def read(self, server: str) -> dict[str, Any] | None:
        """Return the login at this server, None if there is none."""
        try:
            content = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        if not isinstance(content, dict) or content.get("server") != server:
            return None
        return content

    def write(self, server: str, tokens: Mapping[str, Any]) -> None:
        """Keep the answer of the token route."""
        content = {
            "server": server,
            "access": tokens["access"],
            "refresh": tokens["refresh"],
            "until": time.time() + float(tokens["expiresIn"]),
        }
        temporary = self._path.with_suffix(".new")
        write_private(temporary, json.dumps(content), replace=True)
        temporary.replace(self._path)

    def remove(self) -> bool:
        """Forget the login; tell whether there was one."""
        try:
            self._path.unlink()
        except FileNotFoundError:
            return False
        return True


def write_private(path: Path, content: str, *, replace: bool = False) -> None:
    """Write a file that only its owner can read; an existing one is not touched.

    Raises:
        UsageError: it is there already, or cannot be written.
    """
    if replace:
        path.unlink(missing_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error


@dataclass(slots=True)
class Api:
    """The API of one server, called as one person.

    Raises (from every request):
        RefusedError, NotAllowedError, UnreachableError.
    """

    connection: Connection
    login: Login
    _http: httpx.Client = field(init=False)
    _token: str | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        verify: Any = True
        if self.connection.ca_file is not None:
            import ssl

            try:
                verify = ssl.create_default_context(cafile=self.connection.ca_file)
            except OSError as error:
                raise UsageError(f"{self.connection.ca_file}: {error}") from error
        self._http = httpx.Client(
            base_url=f"{self.connection.server.rstrip('/')}/api/v1",
            timeout=httpx.Timeout(ANSWER_SECONDS, connect=10),
            transport=httpx.HTTPTransport(retries=3, verify=verify),
        )

    def get(self, path: str, **query: Any) -> Any:
        """Return the document at a path."""
        given = {name: value for name, value in query.items() if value is not None}
        return self.request("GET", path, params=given).json()

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Do something once, even if the answer gets lost on the way."""
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        answer = self.request("POST", path, json=body or {}, headers=headers)
        return answer.json() if answer.content else {}

    def results(
        self, path: str, *, limit: int | None = None, **query: Any
    ) -> Iterator[dict[str, Any]]:
        """Yield the rows of a list, page by page."""
        size = PAGE_SIZE if limit is None else min(PAGE_SIZE, max(limit, 1))
        page = self.get(path, pageSize=size, **query)
        left = limit
        while True:
            for row in page["results"]:
                if left is not None:
                    if left <= 0:
                        return
                    left -= 1
                yield row
            if not page["next"] or left == 0:
                return
            page = self.request("GET", page["next"]).json()

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send a request with the person's token and return a good answer.

        A token that has ended meanwhile is renewed where that can be done.
        """
        headers = options.pop("headers", {})
        is_fresh = self._token is None
        while True:
            headers["Authorization"] = f"Bearer {self._get_token()}"
            try:
                return self._send(method, path, headers=headers, **options)
            except NotAllowedError as error:
                has_ended = (error.document or {}).get("status") == 401
                if is_fresh or not has_ended or self.connection.token is not None:
                    raise
            self._token, is_fresh = None, True

    def copy_to(self, file: IO[bytes], path: str, **options: Any) -> None:
        """Write a document of any size into a file, while it arrives."""
        headers = {"Authorization": f"Bearer {self._get_token()}"}
        try:
            with self._http.stream("GET", path, headers=headers, **options) as answer:
                if not answer.is_success:
                    answer.read()
                    raise _error_of(answer)
                for piece in answer.iter_bytes():
                    file.write(piece)
        except httpx.HTTPError as error:
            raise UnreachableError(
                f"{self.connection.server} does not answer: {error or type(error)}"
            ) from error

    def sign_in(
        self, username: str, password: str, code: str | None = None
    ) -> dict[str, Any]:
        """Exchange name and password, and the code of a second factor, for tokens."""
        body = {"username": username, "password": password}
        if code is not None:
            body["code"] = code
        answer: dict[str, Any] = self._send("POST", "/auth/token", json=body).json()
        return answer

    def sign_out(self, refresh: str) -> None:
        """End the login that a refresh token belongs to."""
        self._send("POST", "/auth/logout", json={"refresh": refresh})

    def _get_token(self) -> str:
        if self._token is None:
            self._token = self._find_token()
        return self._token

    def _find_token(self) -> str:
        connection = self.connection
        if connection.token is not None:
            return connection.token
        if connection.username is not None and connection.password is not None:
            tokens = self.sign_in(connection.username, connection.password)
            return str(tokens["access"])
        with self.login.locked():
            kept = self.login.read(connection.server)
            if kept is None:
                raise NotAllowedError(
                    f"nobody is logged in at {connection.server}: run `hotswap login`, "
                    "or set HOTSWAP_TOKEN, or HOTSWAP_USERNAME and HOTSWAP_PASSWORD"
                )
            if kept["until"] - SPARE_SECONDS > time.time():
                return str(kept["access"])
            answer = self._send(
                "POST", "/auth/refresh", json={"refresh": kept["refresh"]}
            )
            self.login.write(connection.server, answer.json())
            return str(answer.json()["access"])

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, path, **options)
        except httpx.HTTPError as error:
            raise UnreachableError(
                f"{self.connection.server} does not answer: {error or type(error)}"
            ) from error
        if answer.is_success:
            return answer
        raise _error_of(answer)


def _error_of(answer: httpx.Response) -> CliError:
    document: dict[str, Any] = {}
    with contextlib.suppress(ValueError):
        found = answer.json()
        if isinstance(found, dict):
            document = found
    code = document.get("code", answer.reason_phrase)
    detail = document.get("detail", "the server gave no reason")
    lines = [f"{answer.status_code} {code}: {detail}"]
    lines += [
        f"  {error.get('pointer') or '/'}: {error.get('detail')}"
        for error in document.get("errors", [])
    ]
    message = "\n".join(lines)
    if answer.status_code in {401, 403}:
        return NotAllowedError(message, document)
    if answer.status_code == 429 or answer.status_code >= 500:
        return UnreachableError(message, document)
    return RefusedError(message, document)
