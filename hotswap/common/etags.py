"""Strong ETags of rows, and whether one is still the one that its reader knows."""

from datetime import datetime
from typing import Protocol

from hotswap.common.errors import PreconditionFailedError


class Stamped(Protocol):
    """A row that knows when its owner last changed it."""

    @property
    def pk(self) -> object: ...
    @property
    def updated_at(self) -> datetime: ...


def etag_of(row: Stamped) -> str:
    """Return the ETag of a row; it changes whenever an owner changes the row."""
    return f'"{round(row.updated_at.timestamp() * 1_000_000):x}"'


def check_match(row: Stamped, expected: frozenset[str] | None) -> None:
    """Compare under the lock of the row.

    Raises:
        PreconditionFailedError: the row changed since the caller read it (412).
    """
    if expected is not None and etag_of(row) not in expected:
        raise PreconditionFailedError("this has changed since you read it")
