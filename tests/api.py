"""Callers of the API: people of each role, devices, and nobody.

Each JSON answer is held to the description of the API.
"""

import json
from dataclasses import dataclass, field
from typing import Any

from django.http import HttpResponse
from django.test import Client

from tests.description import check_answer

API = "/api/v1"
PROBLEM = "application/problem+json"
PROBLEM_KEYS = {"type", "title", "status", "detail", "code", "traceId", "errors"}


@dataclass(slots=True)
class Caller:
    """Sends requests with one token; errors of the server are answers, not raised."""

    token: str | None = None
    client: Client = field(
        default_factory=lambda: Client(raise_request_exception=False)
    )

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        raw: bytes | None = None,
        content_type: str = "application/json",
        headers: dict[str, str] | None = None,
    ) -> Any:
        """Send a request; `body` becomes JSON, `raw` is sent as it is."""
        if raw is None:
            raw = b"" if body is None else json.dumps(body).encode()
        given = dict(headers or {})
        if self.token is not None:
            given.setdefault("Authorization", f"Bearer {self.token}")
        address = (
            path if path.startswith(("/api", "/health", "/metrics")) else API + path
        )
        response = self.client.generic(
            method, address, raw, content_type=content_type, headers=given
        )
        check_answer(method, address, response)
        return response

    def get(self, path: str, **options: Any) -> Any:
        return self.request("GET", path, **options)

    def post(self, path: str, body: Any = None, **options: Any) -> Any:
        return self.request("POST", path, body, **options)

    def put(self, path: str, body: Any = None, **options: Any) -> Any:
        return self.request("PUT", path, body, **options)

    def patch(self, path: str, body: Any = None, **options: Any) -> Any:
        return self.request("PATCH", path, body, **options)

    def delete(self, path: str, body: Any = None, **options: Any) -> Any:
        return self.request("DELETE", path, body, **options)


def problem_of(response: HttpResponse, status: int, code: str | None = None) -> Any:
    """Check that an answer is a problem document of this status; return it."""
    assert response.status_code == status, response.content[:2000]
    assert response["Content-Type"].startswith(PROBLEM)
    document = json.loads(response.content)
    assert set(document) == PROBLEM_KEYS
    assert document["status"] == status
    assert document["type"] == f"urn:hotswap:problem:{document['code']}"
    assert len(document["traceId"]) == 32
    assert document["detail"]
    for error in document["errors"]:
        assert set(error) == {"pointer", "code", "detail"}
        assert error["pointer"] == "" or error["pointer"].startswith("/")
    if code is not None:
        assert document["code"] == code, document
    return document


def pointers(document: dict[str, Any]) -> dict[str, str]:
    """Return the code of each error by its pointer."""
    return {error["pointer"]: error["code"] for error in document["errors"]}
