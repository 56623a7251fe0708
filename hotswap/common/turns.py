"""Turns: work that one process at a time does, for minutes, without a lock.

A lock of the session would go with the connection, which a pooler hands on; one of a
transaction would keep that open. A turn is a row: whoever takes it says now and then
that it is still there, and one that has not for the length of the turn is taken for
dead.
"""

from datetime import UTC, datetime, timedelta
from typing import Final

from django.db.models import Q

from hotswap.common.models import Clock

NOBODYS: Final = datetime(1970, 1, 1, tzinfo=UTC)


def take_turn(name: str, *, length: timedelta, now: datetime) -> bool:
    """Take a turn unless somebody has it; tell whether it was taken.

    One that was taken later than now was taken by a clock that has been set right.
    """
    Clock.objects.get_or_create(
        name=name, defaults={"last_run_at": NOBODYS, "restarted_at": now}
    )
    is_free = Q(last_run_at__lt=now - length) | Q(last_run_at__gt=now + length)
    return bool(Clock.objects.filter(is_free, name=name).update(last_run_at=now))


def keep_turn(name: str, *, now: datetime) -> None:
    """Say that whoever has the turn is still at work."""
    Clock.objects.filter(name=name).update(last_run_at=now)


def end_turn(name: str) -> None:
    Clock.objects.filter(name=name).update(last_run_at=NOBODYS)
