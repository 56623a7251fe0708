"""Limits counted in Redis; when Redis is away, requests are let through.

A fixed window of ten seconds allows any burst that the design promises. Each process
counts by itself and tells Redis of ten requests at once, so that a device that keeps to
its interval costs no round trip; one that does not is found ten requests later.
"""

import hashlib
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from django.conf import settings
from django.core.cache import cache
from django.http import HttpRequest
from redis.exceptions import RedisError
from rest_framework.exceptions import Throttled
from rest_framework.request import Request

from hotswap.common.api.proxy import client_address

Result = TypeVar("Result")
WINDOW_SECONDS = 10
LOT = 10
LOGIN_WINDOW_SECONDS = 60


def _count(key: str, window_seconds: int, *, by: int = 1) -> int:
    """Add to a counter that lives for its window; 0 when Redis is away."""
    try:
        cache.add(key, 0, timeout=window_seconds * 2)
        return int(cache.incr(key, by))
    except (RedisError, ValueError, OSError):
        return 0


def _read(key: str) -> int:
    try:
        return int(cache.get(key) or 0)
    except (RedisError, ValueError, OSError):
        return 0


def _window(window_seconds: int) -> tuple[int, float]:
    now = time.time()
    number = int(now // window_seconds)
    return number, (number + 1) * window_seconds - now


class _Untold:
    """Requests of this window that Redis does not know of yet, by counter.

    Who is over the limit stays so until the window ends, and is not counted further.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._window = 0
        self._counts: dict[str, int] = {}
        self._over: set[str] = set()

    def is_over(self, key: str) -> bool:
        return key in self._over

    def note_over(self, key: str) -> None:
        self._over.add(key)

    def add(self, key: str, window: int, lot: int) -> bool:
        """Count one more; tell whether a lot is full, which starts the next."""
        with self._lock:
            if window != self._window:
                self._window, self._counts, self._over = window, {}, set()
            count = self._counts.get(key, 0) + 1
            self._counts[key] = count % lot
            return count >= lot


_untold = _Untold()


def mark_counted(request: HttpRequest) -> None:
    """Note that a request was counted, so that nobody counts it again."""
    request.hotswap_is_counted = True  # type: ignore[attr-defined]


def is_counted(request: HttpRequest) -> bool:
    """Tell whether the request was counted before."""
    return getattr(request, "hotswap_is_counted", False)


def check_device_rate(scope: str, device_id: object) -> None:
    """Count a request of a device.

    Raises:
        Throttled: more than its share in the current ten seconds.
    """
    number, remaining = _window(WINDOW_SECONDS)
    limit = max(
        settings.DEVICE_REQUESTS_PER_SECOND * WINDOW_SECONDS,
        settings.DEVICE_REQUESTS_BURST,
    )
    # Twice the sustained rate: a burst may straddle the start of a window.
    lot = min(LOT, max(1, limit // LOT))
    key = f"rate:{scope}:{device_id}:{number}"
    if _untold.is_over(key):
        raise Throttled(wait=remaining)
    if (
        _untold.add(key, number, lot)
        and _count(key, WINDOW_SECONDS, by=lot) > 2 * limit
    ):
        _untold.note_over(key)
        raise Throttled(wait=remaining)


def guard_login(
    request: Request, account: str, attempt: Callable[[], Result | None]
) -> Result | None:
    """Run a login attempt unless this account failed too often from this address.

    Only failures count: a fleet shares one address.

    Raises:
        Throttled: too many failures in the current minute.
    """
    number, remaining = _window(LOGIN_WINDOW_SECONDS)
    address = client_address(request)
    key = f"login:{hash_key(account)}:{address}:{number}"
    if _read(key) >= settings.LOGIN_FAILURES_PER_MINUTE:
        raise Throttled(wait=remaining)
    result = attempt()
    if result is None:
        _count(key, LOGIN_WINDOW_SECONDS)
    return result


def hash_key(text: str) -> str:
    """Return a short cache key for a text of any length."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]
