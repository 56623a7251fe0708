"""The log of a deployment."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import Any

from deployments.choices import Level
from deployments.models import Deployment, Event
from deployments.notifications.enqueue import enqueue
from deployments.rules.events import EventName
from devices.models import Device

# For statements that log in the same breath.
INTO_LOG = """INSERT INTO deployments_event
            (deployment_id, at, level, event, device_id, stage_number, message)"""


def context_of(deployment: Deployment) -> dict[str, str]:
    """Return what the lines of the server's own log say of a deployment."""
    return {
        "deployment_id": str(deployment.pk),
        "firmware_version": deployment.firmware.version,
        "strategy": deployment.strategy,
    }


_noted: ContextVar[list[str] | None] = ContextVar("noted_events", default=None)


@contextmanager
def noted_events() -> Iterator[list[str]]:
    """Note the names of what is logged of deployments within."""
    names: list[str] = []
    token = _noted.set(names)
    try:
        yield names
    finally:
        _noted.reset(token)


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
    noted = _noted.get()
    if noted is not None:
        noted.append(event.value)
    Event.objects.create(
        deployment=deployment,
        at=now,
        level=level or event.level,
        event=event.value,
        device=device,
        stage_number=stage_number,
        message=message,
    )
    enqueue(
        deployment,
        event,
        message,
        now=now,
        stage_number=stage_number,
        details=details,
    )
