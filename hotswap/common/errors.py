"""The few kinds of error that HotSwap knows; apps subclass them.

Each carries a stable `code` for machines and a `detail` for people. One handler
turns them into RFC 9457 problem documents.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class FieldError:
    """One refused part of a request: JSON pointer, stable code, sentence."""

    pointer: str
    code: str
    detail: str


class HotSwapError(Exception):
    """A request that cannot be fulfilled, and why."""

    status: ClassVar[int] = 500
    title: ClassVar[str] = "Error"
    code: str = "error"
    # JSON pointer of the field that is always the one at fault, if there is one.
    pointer: ClassVar[str] = ""
    # Whether what was found out before the refusal is to stay written down.
    keeps_findings: ClassVar[bool] = False

    def __init__(
        self,
        detail: str,
        *,
        code: str | None = None,
        errors: Sequence[FieldError] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        if code is not None:
            self.code = code
        if errors is None and self.pointer:
            errors = (FieldError(self.pointer, self.code, detail),)
        self.errors = tuple(errors or ())


class InvalidInputError(HotSwapError):
    """The request is not well formed (400)."""

    status = 400
    title = "Invalid request"
    code = "invalid"


class ForbiddenError(HotSwapError):
    """The token is valid, its owner may not do this (403)."""

    status = 403
    title = "Forbidden"
    code = "forbidden"


class NotFoundError(HotSwapError):
    """There is no such thing, or not for this caller (404)."""

    status = 404
    title = "Not found"
    code = "not_found"


class ConflictError(HotSwapError):
    """The thing is in a state that does not allow this, or someone was first (409)."""

    status = 409
    title = "Conflict"
    code = "conflict"


class GoneError(HotSwapError):
    """It was there, and will not be again (410)."""

    status = 410
    title = "Gone"
    code = "gone"


class LengthRequiredError(HotSwapError):
    """The body comes in chunks without saying how long it is (411)."""

    status = 411
    title = "Length required"
    code = "length_required"


class PreconditionFailedError(HotSwapError):
    """The thing has changed since the caller read it (412)."""

    status = 412
    title = "Precondition failed"
    code = "stale"


class TooLargeError(HotSwapError):
    """The body exceeds its limit (413)."""

    status = 413
    title = "Content too large"
    code = "too_large"


class ImpossibleError(HotSwapError):
    """Understood, but it cannot be done (422)."""

    status = 422
    title = "Cannot be done"
    code = "impossible"
