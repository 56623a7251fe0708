"""Leases: work that one process at a time does, for minutes, without a lock.

A lock of the session would go with the connection, which a pooler hands on; one of a
transaction would keep that open. A lease is a row: whoever holds it renews it, and a
holder that has not for the length of the lease is taken for dead.
"""

from datetime import UTC, datetime, timedelta
from typing import Final

from django.db.models import Q

from hotswap.common.models import JobRun

NEVER: Final = datetime(1970, 1, 1, tzinfo=UTC)


def take_lease(name: str, *, length: timedelta, now: datetime) -> bool:
    """Take a lease unless somebody holds it; tell whether it was taken.

    One that was taken later than now was taken by a clock that has been set right.
    """
    JobRun.objects.get_or_create(
        name=name, defaults={"last_run_at": NEVER, "restarted_at": now}
    )
    is_free = Q(last_run_at__lt=now - length) | Q(last_run_at__gt=now + length)
    return bool(JobRun.objects.filter(is_free, name=name).update(last_run_at=now))


def renew_lease(name: str, *, now: datetime) -> None:
    """Say that the holder is still at work."""
    JobRun.objects.filter(name=name).update(last_run_at=now)


def end_lease(name: str) -> None:
    """Let the next one take the lease at once."""
    JobRun.objects.filter(name=name).update(last_run_at=NEVER)
