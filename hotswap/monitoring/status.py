"""How the parts of the server fare: each with its state, age and figure.

Rules:
- A part that does not answer in time is down; none keeps the others from being looked
  at, and nothing is looked at for longer than a few seconds.
- The fleet is being served as long as database, keys and store answer and ticks and
  sweeps run. What waits or fills up is a warning.
"""

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import redis
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connection
from django.utils import timezone

from deployments.choices import DeliveryStatus
from deployments.models import Delivery
from deployments.services.tick import TICK_JOB
from firmware.models import ImageCopy
from firmware.storage import answers
from firmware.storage_locations import location_names
from health.services.watching import SWEEP_JOB
from hotswap.common.keyring import token_keys
from hotswap.common.services import run_age
from hotswap.monitoring.caching import cached
from hotswap.monitoring.certificate import certificate_end
from hotswap.monitoring.tasks import SENT_AT


def _version() -> str:
    try:
        return version("hotswap")
    except PackageNotFoundError:
        return "unknown"


VERSION: Final = _version()
# After this long without a tick or a sweep, deployments stand still.
LATE: Final = timedelta(seconds=30)
# Specification, Resource Limits: disk below 70 % of what is allocated.
DISK_WARNING_PERCENT: Final = 70.0
DISK_FULL_PERCENT: Final = 97.0
QUEUE_WARNING: Final = timedelta(seconds=30)
OUTBOX_WARNING: Final = timedelta(minutes=5)
COPY_WARNING: Final = timedelta(minutes=10)
CERTIFICATE_WARNING: Final = timedelta(days=14)
CERTIFICATE_CACHED_SECONDS: Final = 600.0
REDIS_SECONDS: Final = 1.0
# Parts whose age is that of the oldest in them, and none while they are empty.
QUEUES: Final = frozenset({"queue", "outbox"})
QUEUE: Final = "celery"


class State(StrEnum):
    """How a part fares."""

    OK = "ok"
    WARNING = "warning"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the server.

    Attributes:
        detail: one sentence for people.
        age: how long ago it last ran, or how long the oldest in it has waited.
        figure: a number, in `unit`.
        is_vital: without it the fleet is not being served.
    """

    name: str
    state: State
    detail: str
    age: timedelta | None = None
    figure: float | None = None
    unit: str = ""
    is_vital: bool = False


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """All parts, and what they come to."""

    checked_at: datetime
    parts: tuple[Part, ...]

    @property
    def is_serving(self) -> bool:
        return all(part.state != State.DOWN for part in self.parts if part.is_vital)

    @property
    def word(self) -> str:
        if not self.is_serving:
            return "down"
        if any(part.state != State.OK for part in self.parts):
            return "degraded"
        return "ok"


def server_status() -> ServerStatus:
    """Look at every part once, one after the other."""
    database = _database()
    parts = [database, _keys(), _redis(), _store(), _disk()]
    if database.state == State.DOWN:
        unknown = "the database does not answer"
        parts += [
            Part(name, State.DOWN, unknown, is_vital=name in ("tick", "sweep"))
            for name in ("tick", "sweep", "outbox", "copies")
        ]
    else:
        parts += [
            _clock("tick", TICK_JOB, "Deployments"),
            _clock("sweep", SWEEP_JOB, "The health of devices"),
            _outbox(),
            _copies(),
        ]
    parts.insert(7, _queue())
    if settings.PUBLIC_URL.startswith("https:"):
        parts.append(_certificate())
    return ServerStatus(timezone.now(), tuple(parts))


def cached_status() -> ServerStatus:
    """Return the status of the last five seconds."""
    return cached.get("status", server_status)


def _database() -> Part:
    started = time.perf_counter()
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT current_setting('server_version')")
            number = cursor.fetchone()[0].split()[0]
    except DatabaseError:
        return Part("database", State.DOWN, "It does not answer.", is_vital=True)
    return Part(
        "database",
        State.OK,
        f"PostgreSQL {number} answers.",
        figure=_milliseconds_since(started),
        unit="ms",
        is_vital=True,
    )


def _keys() -> Part:
    try:
        token_keys()
    except ImproperlyConfigured:
        return Part("keys", State.DOWN, "The key files are unusable.", is_vital=True)
    return Part("keys", State.OK, "The key files are there.", is_vital=True)


def _client() -> "redis.Redis":
    return redis.Redis.from_url(
        settings.REDIS_URL,
        socket_connect_timeout=REDIS_SECONDS,
        socket_timeout=REDIS_SECONDS,
    )


def _redis() -> Part:
    started = time.perf_counter()
    try:
        with _client() as client:
            number = dict(client.info("server")).get("redis_version", "?")
    except (redis.RedisError, OSError):
        return Part("redis", State.DOWN, "It does not answer: ticks come late.")
    return Part(
        "redis",
        State.OK,
        f"Redis {number} answers.",
        figure=_milliseconds_since(started),
        unit="ms",
    )


def _queue() -> Part:
    try:
        with _client() as client:
            waiting = int(client.llen(QUEUE))
            oldest = client.lindex(QUEUE, -1)
    except (redis.RedisError, OSError):
        return Part("queue", State.DOWN, "Redis does not answer.")
    age = _age_of_message(oldest)
    is_late = age is not None and age > QUEUE_WARNING
    return Part(
        "queue",
        State.WARNING if is_late else State.OK,
        "Nobody takes work from it." if is_late else "Workers take work from it.",
        age=age,
        figure=waiting,
        unit="tasks",
    )


def _age_of_message(message: Any) -> timedelta | None:
    if message is None:
        return None
    try:
        sent_at = float(json.loads(message)["headers"][SENT_AT])
    except (ValueError, TypeError, KeyError):
        return None
    return timedelta(seconds=max(0.0, time.time() - sent_at))


def _store() -> Part:
    started = time.perf_counter()
    names = location_names()
    lost = [name for name in names if not answers(name)]
    if len(lost) == len(names):
        return Part("store", State.DOWN, "No place of it answers.", is_vital=True)
    return Part(
        "store",
        State.WARNING if lost else State.OK,
        f"No answer from {', '.join(lost)}." if lost else "Every place of it answers.",
        figure=_milliseconds_since(started),
        unit="ms",
        is_vital=True,
    )


def disk_bytes(folder: Path) -> Iterator[tuple[str, int]]:
    """Yield the `total` and the `free` bytes of the disk that a folder lies on."""
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return
    yield "total", usage.total
    yield "free", usage.free


def _disk() -> Part:
    sizes = dict(disk_bytes(settings.DATA_DIR))
    if not sizes.get("total"):
        return Part("disk", State.WARNING, "Its size cannot be read.")
    used = 100 * (1 - sizes["free"] / sizes["total"])
    state = State.OK
    if used >= DISK_WARNING_PERCENT:
        state = State.DOWN if used >= DISK_FULL_PERCENT else State.WARNING
    return Part(
        "disk",
        state,
        f"{sizes['free'] / 1024**3:,.1f} GiB are free where the data folder lies, and "
        f"{used:.0f} % of the disk is used (a warning from {DISK_WARNING_PERCENT:.0f} %"
        " on).",
        figure=round(used, 1),
        unit="percent used",
    )


def _clock(name: str, clock: str, what: str) -> Part:
    age = run_age(name=clock)
    is_late = age is None or age > LATE
    return Part(
        name,
        State.DOWN if is_late else State.OK,
        f"{what} stand still: worker or beat do not work."
        if is_late
        else "It runs as it should.",
        age=age,
        is_vital=True,
    )


def _outbox() -> Part:
    now = timezone.now()
    waiting = Delivery.objects.filter(status=DeliveryStatus.PENDING)
    due = waiting.filter(next_attempt_at__lte=now).order_by("next_attempt_at")
    oldest = due.values_list("next_attempt_at", flat=True).first()
    age = None if oldest is None else now - oldest
    is_late = age is not None and age > OUTBOX_WARNING
    return Part(
        "outbox",
        State.WARNING if is_late else State.OK,
        "Notifications are due and nobody sends them."
        if is_late
        else "Notifications are sent when they are due.",
        age=age,
        figure=waiting.count(),
        unit="notifications",
    )


def _copies() -> Part:
    now = timezone.now()
    missing = ImageCopy.objects.filter(stored_at__isnull=True)
    late = missing.filter(due_at__lt=now - COPY_WARNING).exists()
    failed = missing.exclude(failure="").exists()
    return Part(
        "copies",
        State.WARNING if late or failed else State.OK,
        "Copies of images cannot be made."
        if late or failed
        else "Every image is where it should be, or on its way there.",
        figure=missing.count(),
        unit="missing",
    )


def _certificate() -> Part:
    end = cached.get(
        "certificate",
        lambda: certificate_end(settings.PUBLIC_URL),
        CERTIFICATE_CACHED_SECONDS,
    )
    if end is None:
        return Part(
            "certificate", State.WARNING, "The public address shows none to this host."
        )
    left = end - timezone.now()
    return Part(
        "certificate",
        State.WARNING if left < CERTIFICATE_WARNING else State.OK,
        f"The one of the public address ends on {end:%Y-%m-%d}.",
        figure=round(left / timedelta(days=1), 1),
        unit="days left",
    )


def _milliseconds_since(started: float) -> float:
    return round(1000 * (time.perf_counter() - started), 1)
