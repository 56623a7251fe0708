"""Find devices that are heard and not understood: of them no proof can come."""

from dataclasses import dataclass
from datetime import datetime

from deployments.models import Deployment
from deployments.rules.evidence import IS_UNREADABLE, WHY_UNREADABLE
from deployments.services.sweeps.statements import row


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Devices of which no proof can come: how many, and why one of them."""

    devices: int
    reason: str


def find_unreadable(
    deployment: Deployment, now: datetime, awake_since: datetime
) -> Unreadable | None:
    """Find the installs that might have been proved by now, were they understood.

    Whoever resumes the deployment gives them their time once more.
    """
    found = row(
        f"""
        SELECT count(*), min({WHY_UNREADABLE})
        FROM deployments_update u
        JOIN firmware_firmware f ON f.id = u.firmware_id
        JOIN health_devicestate s ON s.device_id = u.device_id
        WHERE u.deployment_id = %(deployment)s AND u.closed_at IS NULL
          AND u.kind = 'install' AND u.claimed_at IS NOT NULL
          AND GREATEST(u.claimed_at, %(since)s) + %(proof_timeout)s < %(now)s
          AND {IS_UNREADABLE}
        """,
        {
            "deployment": deployment.pk,
            "now": now,
            "since": max(awake_since, deployment.resumed_at or awake_since),
            "proof_timeout": deployment.proof_timeout,
        },
    )
    return Unreadable(*found) if found[0] else None
