"""Whether a deployment has changed since somebody looked, by one cheap statement."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db import connection

STATEMENT = """
    SELECT p.xmin::text,
           (SELECT string_agg(s.xmin::text, ',' ORDER BY s.number)
            FROM deployments_stage s WHERE s.deployment_id = p.id),
           (SELECT max(e.id) FROM deployments_event e WHERE e.deployment_id = p.id),
           (SELECT extract(epoch FROM max(t.updated_at))
            FROM deployments_target t WHERE t.deployment_id = p.id),
           (SELECT count(*) FROM deployments_hold h
            WHERE h.deployment_id = p.id AND h.ended_at IS NOT NULL)
    FROM deployments_deployment p WHERE p.id = %s
"""
# What depends on the clock, or on the health of devices, is looked at this often.
STEP_SECONDS = 15


@dataclass(frozen=True, slots=True)
class Version:
    """What a deployment looks like: equal versions look the same.

    Attributes:
        whole: of everything.
        devices: of its devices.
        log: the number of its newest event.
    """

    whole: str
    devices: str
    log: str


def current_version(deployment_id: UUID, now: datetime) -> Version | None:
    """Return the present version of a deployment; None where there is none.

    Every quarter of a minute it is another, whatever has happened: why a device waits
    depends on its heartbeats, too.
    """
    with connection.cursor() as cursor:
        cursor.execute(STATEMENT, [deployment_id])
        row = cursor.fetchone()
    if row is None:
        return None
    own, stages, event, changed, holds = row
    step = int(now.timestamp()) // STEP_SECONDS
    devices = f"{changed or 0}-{step}"
    return Version(
        whole=f"{own}-{stages}-{event}-{holds}-{devices}",
        devices=devices,
        log=str(event or 0),
    )
