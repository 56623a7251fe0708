"""Which deployments the ticks of this process have moved, and when.

Kept in memory: `hotswap.monitoring.hosts` writes it down with the heartbeat of the
process.
"""

import threading
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

# What is shown of a deployment that was last ticked before is of no use.
REMEMBERED: Final = timedelta(minutes=1)
MOST_REMEMBERED: Final = 500


@dataclass(frozen=True, slots=True)
class Ticked:
    """The ticks of this process since its start.

    Attributes:
        ticks: how many it has begun.
        last_at: when the last one began.
        deployments: when it last ticked each, those of the last minute, newest last.
    """

    ticks: int
    last_at: datetime | None
    deployments: dict[UUID, datetime]


class TickRecord:
    """Counts the ticks of one process; safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ticks = 0
        self._last_at: datetime | None = None
        self._deployments: dict[UUID, datetime] = {}

    def note_tick(self, now: datetime) -> None:
        """Note that a tick begins."""
        with self._lock:
            self._ticks += 1
            self._last_at = now

    def note_deployment(self, deployment_id: UUID, now: datetime) -> None:
        """Note that a deployment was ticked under its lock."""
        with self._lock:
            # Put at the end: the oldest stand first.
            self._deployments.pop(deployment_id, None)
            self._deployments[deployment_id] = now
            if len(self._deployments) > MOST_REMEMBERED:
                del self._deployments[next(iter(self._deployments))]

    def snapshot(self, now: datetime) -> Ticked:
        """Return what was noted, and forget what is older than a minute."""
        with self._lock:
            self._deployments = {
                key: at
                for key, at in self._deployments.items()
                if at > now - REMEMBERED
            }
            return Ticked(self._ticks, self._last_at, dict(self._deployments))


record: Final = TickRecord()
