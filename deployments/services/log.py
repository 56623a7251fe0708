"""The log of a deployment."""

from datetime import datetime

from deployments.choices import Level
from deployments.models import Deployment, Event
from devices.models import Device


def log(
    deployment: Deployment,
    event: str,
    message: str,
    *,
    now: datetime,
    level: Level = Level.INFO,
    device: Device | None = None,
    stage_number: int | None = None,
) -> None:
    """Append one line, in the transaction of what it tells."""
    Event.objects.create(
        deployment=deployment,
        at=now,
        level=level,
        event=event,
        device=device,
        stage_number=stage_number,
        message=message,
    )
