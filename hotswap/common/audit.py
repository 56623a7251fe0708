"""The one way to write to the audit trail."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any
from uuid import UUID

from django.utils import timezone

from hotswap.common.changes import Tracked, take_changes
from hotswap.common.copying import copy_rows
from hotswap.common.models import AuditEvent, User

# Where the details of a row have what was changed.
CHANGES = "changes"


def record(
    *,
    actor: User | None,
    verb: str,
    object_kind: str,
    object_id: object,
    details: dict[str, Any] | None = None,
    changed: Tracked | None = None,
) -> None:
    """Append one row; call it inside the transaction of the deed itself.

    Args:
        actor: the person, or None for what the server decided.
        verb: `<kind>.<past tense>`, for example `firmware.approved`.
        details: plain JSON without names of people.
        changed: the row that the deed has changed, as it is now: the trail gets the
            values before and after.
    """
    changes = {} if changed is None else take_changes([changed])[0]
    AuditEvent.objects.create(
        at=timezone.now(),
        actor_kind=(
            AuditEvent.ActorKind.SERVER
            if actor is None
            else AuditEvent.ActorKind.PERSON
        ),
        actor=None if actor is None else actor.pseudonym,
        verb=verb,
        object_kind=object_kind,
        object_id=str(object_id),
        details=_with_changes(details or {}, changes),
    )


def record_each(
    *,
    actor: User | None,
    verb: str,
    object_kind: str,
    details: Mapping[UUID, dict[str, Any]],
    changed: Mapping[UUID, Tracked] = MappingProxyType({}),
) -> None:
    """Append one row for each of many objects, as `record` does for one.

    Args:
        details: by the id of each object.
        changed: by these ids, the rows that the deed has changed.
    """
    changes = dict(zip(changed, take_changes(list(changed.values())), strict=True))
    kinds = AuditEvent.ActorKind
    kind = kinds.SERVER if actor is None else kinds.PERSON
    now = timezone.now()
    by = None if actor is None else actor.pseudonym
    copy_rows(
        AuditEvent,
        ("at", "actor_kind", "actor", "verb", "object_kind", "object_id", "details"),
        (
            (
                *(now, kind, by, verb, object_kind, str(object_id)),
                _with_changes(each, changes.get(object_id, {})),
            )
            for object_id, each in details.items()
        ),
    )


def _with_changes(details: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return {**details, CHANGES: changes} if changes else details


def record_device_action(
    *, device_id: UUID, verb: str, details: dict[str, Any]
) -> None:
    """Append what a device did to its own credentials, under its pseudonym."""
    AuditEvent.objects.create(
        actor_kind=AuditEvent.ActorKind.DEVICE,
        actor=device_id,
        verb=verb,
        object_kind="device",
        object_id=str(device_id),
        details=details,
    )
