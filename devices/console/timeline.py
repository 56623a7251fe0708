"""What the audit trail says of a device, as lines of its timeline."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from devices.models import Device
from hotswap.common.console.text import details_in_words
from hotswap.common.models import AuditEvent

ACTORS = {
    AuditEvent.ActorKind.SERVER: "by the server",
    AuditEvent.ActorKind.DEVICE: "by the device itself",
    AuditEvent.ActorKind.PERSON: "",
}


@dataclass(frozen=True, slots=True)
class AuditedLine:
    """One row of the audit trail; `actor` is the pseudonym of a person, or None."""

    at: datetime
    level: str
    event: str
    message: str
    actor: UUID | None


def audited(
    device: Device, limit: int, until: datetime | None
) -> Iterator[AuditedLine]:
    """Return the newest rows of the audit trail about a device."""
    rows = AuditEvent.objects.filter(object_kind="device", object_id=str(device.pk))
    if until is not None:
        rows = rows.filter(at__lte=until)
    for row in rows.order_by("-at", "-id")[:limit]:
        kind = AuditEvent.ActorKind(row.actor_kind)
        words = (details_in_words(row.details), ACTORS[kind])
        yield AuditedLine(
            at=row.at,
            level="INFO",
            event=row.verb,
            message=", ".join(filter(None, words)),
            actor=row.actor if kind is AuditEvent.ActorKind.PERSON else None,
        )
