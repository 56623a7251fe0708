"""How a deployment went over time: devices offered, proved and failed."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from django.db import connection

from deployments.choices import TargetStatus
from deployments.models import Deployment

POINTS: Final = 60
T = TargetStatus
STATEMENT: Final = """
    WITH moments AS (
        SELECT exposed_at AS at, 'offered' AS what FROM deployments_target
        WHERE deployment_id = %(deployment)s AND exposed_at IS NOT NULL
        UNION ALL
        SELECT settled_at, CASE WHEN status = %(proved)s THEN 'proved' ELSE 'failed' END
        FROM deployments_target
        WHERE deployment_id = %(deployment)s AND settled_at IS NOT NULL
          AND exposed_at IS NOT NULL AND status = ANY(%(judged)s)
    )
    SELECT what,
           greatest(0, least(%(points)s, width_bucket(
               extract(epoch FROM at)::float8, %(since)s, %(until)s, %(points)s))),
           count(*)
    FROM moments GROUP BY 1, 2
"""
JUDGED: Final = (T.SUCCESS, T.FAILED, T.ROLLING_BACK, T.ROLLED_BACK)


@dataclass(frozen=True, slots=True)
class Moment:
    """Devices so far, by what became of them as far as is known today.

    Attributes:
        success_rate: proved of those whose outcome is known, in percent.
    """

    at: datetime
    offered: int
    proved: int
    failed: int

    @property
    def success_rate(self) -> float | None:
        ended = self.proved + self.failed
        return 100 * self.proved / ended if ended else None


def progress_history(deployment: Deployment, now: datetime) -> tuple[Moment, ...]:
    """Return how many devices had come how far, at times in equal distances.

    From the start to the end, or to now. A device that was tried again counts where it
    settled at last. Nothing before the start.
    """
    start = deployment.started_at
    end = deployment.finished_at or now
    if start is None or end <= start:
        return ()
    with connection.cursor() as cursor:
        cursor.execute(
            STATEMENT,
            {
                "deployment": deployment.pk,
                "proved": T.SUCCESS,
                "judged": [str(each) for each in JUDGED],
                "since": start.timestamp(),
                "until": end.timestamp(),
                "points": POINTS,
            },
        )
        found = {(what, bucket): number for what, bucket, number in cursor.fetchall()}
    totals = {"offered": 0, "proved": 0, "failed": 0}
    step = (end - start) / POINTS
    moments = []
    for number in range(POINTS + 1):
        for what in totals:
            totals[what] += found.get((what, number), 0)
        moments.append(Moment(start + number * step, **totals))
    return tuple(moments)
