"""Limits of requests, counted in Redis, and of guesses at passwords, in the database.

While Redis is away, devices are let through, and the requests of people are counted in
each process. Logins of people are counted in the database alone: there is one truth,
and a limit on guesses is never open, nor begun anew when Redis comes back.

A fixed window of ten seconds allows any burst that docs/api.md promises. Each process
counts by itself and tells Redis of ten requests at once, so that a device that keeps to
its interval costs no round trip; one that does not is found ten requests later.
"""

import hashlib
import ipaddress
import threading
import time
from collections.abc import Callable, Iterable
from typing import TypeVar

from django.conf import settings
from django.core.cache import cache
from django.db import connection
from django.http import HttpRequest
from redis.exceptions import RedisError
from rest_framework.exceptions import Throttled
from rest_framework.request import Request

from hotswap.common.api.proxy import client_address
from hotswap.common.known_devices import known_device
from hotswap.common.models import LoginCount

Result = TypeVar("Result")
WINDOW_SECONDS = 10
LOT = 10
LOGIN_WINDOW_SECONDS = 60
PERSON_WINDOW_SECONDS = 60
# Of the addresses that one owner has (RFC 6177).
IPV6_PREFIX = 64
# In each process: hashes at a time, so that all together have one core each at most,
# and logins under way with those that wait for them.
HASHES_AT_ONCE = 1
LOGINS_AT_ONCE = 6


def _count(key: str, window_seconds: int, *, by: int = 1) -> int | None:
    """Add to a counter that lives for its window; None when Redis is away."""
    try:
        cache.add(key, 0, timeout=window_seconds * 2)
        return int(cache.incr(key, by))
    except (RedisError, ValueError, OSError):
        return None


def _read(key: str) -> int:
    try:
        return int(cache.get(key) or 0)
    except (RedisError, ValueError, OSError):
        return 0


def _window(window_seconds: int) -> tuple[int, float]:
    now = time.time()
    number = int(now // window_seconds)
    return number, (number + 1) * window_seconds - now


class _Unreported:
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


_unreported = _Unreported()
_unreported_of_people = _Unreported()


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
    key = f"rate:{scope}:{device_id}:{number}"
    # Twice the sustained rate: a burst may straddle the start of a window.
    if _is_over(
        _unreported,
        key,
        number,
        lot=min(LOT, max(1, limit // LOT)),
        limit=2 * limit,
        count=lambda lot: _count(key, WINDOW_SECONDS, by=lot),
    ):
        raise Throttled(wait=remaining)


def check_person_rate(person: object, rate: str) -> None:
    """Count a request of a person.

    Args:
        rate: name of the setting that says how many a minute there may be.

    Raises:
        Throttled: more than that in the current minute.
    """
    number, remaining = _window(PERSON_WINDOW_SECONDS)
    limit = getattr(settings, rate)
    key = f"rate:{rate}:{person}"
    if _is_over(
        _unreported_of_people,
        f"{key}:{number}",
        number,
        lot=min(LOT, max(1, limit // LOT)),
        limit=limit,
        count=lambda lot: (
            _count(f"{key}:{number}", PERSON_WINDOW_SECONDS, by=lot)
            or _own_counts.add(key, number, lot)
        ),
    ):
        raise Throttled(wait=remaining)


def _is_over(
    unreported: _Unreported,
    key: str,
    window: int,
    *,
    lot: int,
    limit: int,
    count: Callable[[int], int | None],
) -> bool:
    """Count one request; tell whether its counter is over the limit of the window.

    Args:
        lot: number of requests of which Redis is told at once.
        count: adds so many requests to the counter, and returns its sum, None where
            nothing counts.
    """
    if unreported.is_over(key):
        return True
    if unreported.add(key, window, lot) and (count(lot) or 0) > limit:
        unreported.note_over(key)
        return True
    return False


def guard_login(
    request: Request, account: str, attempt: Callable[[], Result | None]
) -> Result | None:
    """Run a device's attempt unless it failed too often from this address.

    Only failures count, each by its device: a fleet shares one address.

    Raises:
        Throttled: too many failures in the current minute.
    """
    number, remaining = _window(LOGIN_WINDOW_SECONDS)
    key = f"login:{hash_key(account)}:{_origin(request)}:{number}"
    if _read(key) >= settings.LOGIN_FAILURES_PER_MINUTE:
        raise Throttled(wait=remaining)
    result = attempt()
    if result is None:
        _count(key, LOGIN_WINDOW_SECONDS)
    return result


class _OwnCounts:
    """Counters of this process for the current window, while Redis has none."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._window = 0
        self._counts: dict[str, int] = {}

    def add(self, key: str, window: int, by: int) -> int:
        with self._lock:
            if window != self._window:
                self._window, self._counts = window, {}
            count = max(0, self._counts.get(key, 0) + by)
            self._counts[key] = count
            return count


_own_counts = _OwnCounts()
_logins = threading.BoundedSemaphore(LOGINS_AT_ONCE)
_hashes = threading.BoundedSemaphore(HASHES_AT_ONCE)


def guard_password(
    request: HttpRequest | Request,
    account: str,
    attempt: Callable[[], Result | None],
    *,
    per_account: int | None = None,
    is_within_deed: bool = False,
) -> Result | None:
    """Run a person's attempt to log in, if there is a place for it.

    A place is taken before the password is looked at, so that attempts at the same
    time count, and is given back on success. There are limits for an account from one
    address, for an address, and for an account from everywhere; a browser that has
    logged in under the name before has a limit of its own instead. A few attempts at a
    time are worked on in each process.

    Args:
        per_account: failures of the account from everywhere in a minute, if it is not
            what the settings say.
        is_within_deed: the person is logged in and signs what a transaction does. That
            would hold the counters until its end, and with them the logins of others:
            failures are counted afterwards instead.

    Raises:
        Throttled: no place is left in the current minute, or others are under way.
    """
    if not _logins.acquire(blocking=False):
        raise Throttled(wait=1)
    try:
        number, remaining = _window(LOGIN_WINDOW_SECONDS)
        name, origin = hash_key(account), _origin(request)
        if device := known_device(request, account):
            key = f"login-device:{name}:{hash_key(device)}:{number}"
            places = {key: settings.LOGIN_FAILURES_PER_MINUTE}
        else:
            places = {
                f"login:{name}:{origin}:{number}": settings.LOGIN_FAILURES_PER_MINUTE,
                f"login-address:{origin}:{number}": settings.LOGIN_FAILURES_PER_ADDRESS,
                f"login-account:{name}:{number}": (
                    settings.LOGIN_FAILURES_PER_ACCOUNT
                    if per_account is None
                    else per_account
                ),
            }
        has_place = _has_places if is_within_deed else _take_places
        if not has_place(places):
            raise Throttled(wait=remaining)
        with _hashes:
            result = attempt()
        if is_within_deed and result is None:
            _take_places(places)
        elif not is_within_deed and result is not None:
            _give_back(places)
        return result
    finally:
        _logins.release()


def _has_places(places: dict[str, int]) -> bool:
    """Tell whether each counter has a place left, and lock none."""
    counts = dict(LoginCount.objects.filter(key__in=places).values_list("key", "count"))
    return all(counts.get(key, 0) < most for key, most in places.items())


def _take_places(places: dict[str, int]) -> bool:
    """Take a place of each counter, or of none where one of them has none left.

    Refusing writes nothing, so that it costs little to be attacked.

    Args:
        places: counters, and how far each may go.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH wanted AS (
                SELECT * FROM unnest(%(keys)s::text[], %(most)s::int[])
                AS given (key, most)
            )
            INSERT INTO common_logincount AS counted (key, count, counted_at)
            SELECT key, 1, now() FROM wanted
            WHERE NOT EXISTS (
                SELECT FROM common_logincount AS present JOIN wanted USING (key)
                WHERE present.count >= wanted.most
            )
            ORDER BY key
            ON CONFLICT (key) DO UPDATE SET count = counted.count + 1
            RETURNING key, count
            """,
            {"keys": list(places), "most": list(places.values())},
        )
        counts: dict[str, int] = dict(cursor.fetchall())
    if counts and all(counts[key] <= most for key, most in places.items()):
        return True
    # Somebody else has taken the last one at the same time.
    if counts:
        _give_back(places)
    return False


def _give_back(keys: Iterable[str]) -> None:
    """Give back a place of each counter."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE common_logincount SET count = count - 1
            WHERE key IN (
                SELECT key FROM common_logincount
                WHERE key = ANY(%s) ORDER BY key FOR NO KEY UPDATE
            )
            """,
            [list(keys)],
        )


def _origin(request: HttpRequest | Request) -> str:
    """Return whence a request comes: its address, or of IPv6 the network."""
    address = client_address(request)
    if address is None:
        return ""
    network = ipaddress.ip_network(address)
    if network.version == 6:
        network = network.supernet(new_prefix=IPV6_PREFIX)
    return str(network.network_address)


def hash_key(text: str) -> str:
    """Return a short cache key for a text of any length."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]
