"""Requests, as they come to a web server."""

import json
from dataclasses import dataclass, field, replace

from tests.fuzz.names import Names

SHOWN = 300


@dataclass(frozen=True, slots=True)
class Request:
    """A method, an address still quoted, headers and a body."""

    method: str
    target: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    def by(self, token: str | None) -> "Request":
        """Return it with the token of a caller, whatever token it had."""
        headers = {
            name: value
            for name, value in self.headers.items()
            if name.lower() != "authorization"
        }
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        return replace(self, headers=headers)

    def __str__(self) -> str:
        shown = {
            name: value[:SHOWN]
            for name, value in self.headers.items()
            if name.lower() not in ("authorization", "content-length")
        }
        return (
            f"{self.method} {self.target[:SHOWN]} {json.dumps(shown)} "
            f"{self.body[:SHOWN]!r}"
        )


@dataclass(frozen=True, slots=True)
class Drawn:
    """A request, and what the description says of it.

    Attributes:
        path: of the description, with its parameters in braces.
        callers: who is to send it, first the one who comes furthest with it.
        is_valid: whether it was drawn as one that the description allows.
    """

    request: Request
    path: str
    callers: tuple[str, ...]
    is_valid: bool


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be drawn.

    Attributes:
        requests: how many to send in all; a case counts once for each of its callers.
    """

    names: Names
    requests: int
    seed: int
