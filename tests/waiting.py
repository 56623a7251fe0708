"""Wait for what other processes and threads bring about."""

import time
from collections.abc import Callable
from typing import TypeVar

from django.db import connection

T = TypeVar("T")


def wait_until(
    condition: Callable[[], T], *, seconds: float = 180, what: str = ""
) -> T:
    """Call the condition until it is truthy, and return what it gave.

    Raises:
        AssertionError: it never was in that time; the text names `what`.
    """
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what or condition}")
        time.sleep(0.05)


def wait_until_holds(check: Callable[[], None], *, seconds: float = 180) -> None:
    """Call a check until it raises no AssertionError: what comes, comes in any order.

    Raises:
        AssertionError: that of the last call, if it never held in that time.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            check()
        except AssertionError:
            if time.monotonic() > deadline:
                raise
        else:
            return
        time.sleep(0.05)


def is_waited_for() -> bool:
    """Tell whether another connection waits for a lock that this one holds."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted "
            "AND pg_backend_pid() = ANY (pg_blocking_pids(pid)))"
        )
        return bool(cursor.fetchone()[0])
