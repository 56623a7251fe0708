"""A person's client of the API: all that the demo does, it does through this.

Rules:
- A request that the server could not serve is repeated for a while, since its parts
  are back within seconds if they die. Posts carry a key, so that none counts twice.
- Tokens are renewed by logging in again.
"""

import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx

TIMEOUT_SECONDS = 20.0
RETRY_SECONDS = 0.3
PAGE_SIZE = 200


class ApiError(Exception):
    """The server refused a request; the text holds what it said."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Client:
    """One person, logged in when needed.

    Args:
        pause: waits so many seconds; may raise to end it.
    """

    def __init__(
        self,
        url: str,
        username: str,
        password: str,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._pause = pause
        self._http = httpx.Client(
            base_url=f"{url}/api/v1/", timeout=30.0, trust_env=False
        )
        self._credentials = {"username": username, "password": password}
        self._token = ""

    def close(self) -> None:
        self._http.close()

    def get(self, path: str, **parameters: Any) -> Any:
        """Return the JSON of one resource."""
        return self._request("GET", path, params=parameters).json()

    def find(self, path: str) -> Any | None:
        """Return the JSON of one resource, None if there is none."""
        try:
            return self.get(path)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def every(self, path: str, **parameters: Any) -> Iterator[Any]:
        """Go through a list, page by page."""
        page = self.get(path, pageSize=PAGE_SIZE, **parameters)
        while True:
            yield from page["results"]
            if page["next"] is None:
                return
            page = self._request("GET", page["next"]).json()

    def post(self, path: str, body: Any | None = None) -> Any:
        """Create or act; return the JSON of the answer."""
        return self._request(
            "POST",
            path,
            json=body,
            headers={"Idempotency-Key": str(uuid.uuid4())},
        ).json()

    def upload(self, path: str, file: Path, fields: dict[str, str]) -> Any:
        """Send a file with its form; the same bytes again are the same firmware."""
        content = file.read_bytes()
        return self._request(
            "POST", path, data=fields, files={"file": (file.name, content)}
        ).json()

    def _request(self, method: str, path: str, **options: Any) -> httpx.Response:
        if not self._token:
            self._log_in()
        response = self._send(method, path, **options)
        if response.status_code == 401:
            self._log_in()
            response = self._send(method, path, **options)
        if response.is_error:
            raise ApiError(response.status_code, _describe(response))
        return response

    def _log_in(self) -> None:
        self._token = ""
        response = self._send("POST", "auth/token", json=self._credentials)
        if response.is_error:
            raise ApiError(response.status_code, _describe(response))
        self._token = response.json()["access"]

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        headers = dict(options.pop("headers", {}))
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while True:
            try:
                response = self._http.request(method, path, headers=headers, **options)
                if not response.is_server_error or time.monotonic() > deadline:
                    return response
            except httpx.TransportError:
                if time.monotonic() > deadline:
                    raise
            self._pause(RETRY_SECONDS)


def _describe(response: httpx.Response) -> str:
    request = response.request
    return (
        f"{request.method} {request.url.path} answered {response.status_code}: "
        f"{response.text[:500]}"
    )
