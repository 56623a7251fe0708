"""The log of a deployment."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from deployments.choices import Level
from deployments.models import Deployment, Event
from deployments.notifications.telling import tell
from deployments.rules.events import EventName
from devices.models import Device

# For statements that log in the same breath.
INTO_LOG = """INSERT INTO deployments_event
            (deployment_id, at, level, event, device_id, stage_number, message)"""


def log(
    deployment: Deployment,
    event: EventName,
    message: str,
    *,
    now: datetime,
    level: Level | None = None,
    device: Device | None = None,
    stage_number: int | None = None,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Append one line, and tell who is to be told, in the transaction of the deed.

    Args:
        level: where it is not the usual one of the event.
        details: what a notification tells beside the message.
    """
    Event.objects.create(
        deployment=deployment,
        at=now,
        level=level or event.level,
        event=event.value,
        device=device,
        stage_number=stage_number,
        message=message,
    )
    tell(
        deployment,
        event,
        message,
        now=now,
        stage_number=stage_number,
        details=details,
    )
