"""Wait for what other processes and threads bring about."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(condition: Callable[[], T], *, seconds: float = 60, what: str = "") -> T:
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
