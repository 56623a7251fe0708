"""Whom deployments that have yet to start would reach, before and after a change.

Hooks of the devices app. A deployment that runs has its targets written down, and no
change of groups or devices alters them; one that waits for its time has not.
"""

from collections.abc import Callable, Collection
from typing import Any
from uuid import UUID

from django.db.models import Count, Q

from deployments.models import Deployment
from deployments.services.requests import Selection
from deployments.services.targeting import matched_devices
from devices.models import Device, DeviceGroup
from devices.selectors import group_condition
from devices.services.audiences import AudienceChange


def _fitting(devices: Any, deployment: Deployment) -> Any:
    """Leave those that the deployment can ever reach; the rest is judged at launch."""
    return devices.filter(
        model_id=deployment.firmware.model_id, revoked_at__isnull=True
    )


def _audience_of(deployment: Deployment) -> Any:
    selection = Selection.from_json(deployment.selection)
    return _fitting(matched_devices(selection), deployment)


def changed_by_group(*, group_id: UUID, before: Q, after: Q) -> list[AudienceChange]:
    """Compare the audiences of the waiting deployments that name a group.

    Args:
        before: who is in the group, as a condition on devices.
        after: who would be in it.
    """
    found = []
    for deployment in Deployment.objects.waiting().filter(
        selection__group_ids__contains=[str(group_id)]
    ):
        selection = Selection.from_json(deployment.selection)
        others = DeviceGroup.objects.filter(pk__in=selection.group_ids)
        rest = group_condition(others.exclude(pk=group_id))
        old, new = rest | before, rest | after
        counts = _fitting(Device.objects.filter(old | new), deployment).aggregate(
            before=Count("pk", filter=old),
            after=Count("pk", filter=new),
            added=Count("pk", filter=new & ~old),
            removed=Count("pk", filter=old & ~new),
        )
        found.append(_change(deployment, **counts))
    return found


def changed_by_devices(
    *, devices: Collection[UUID], apply: Callable[[], None]
) -> list[AudienceChange]:
    """Apply a change to devices; return the deployments that any joins or leaves."""
    waiting = list(Deployment.objects.waiting())

    def reached() -> list[set[UUID]]:
        return [
            set(
                _audience_of(deployment)
                .filter(pk__in=devices)
                .order_by()
                .values_list("pk", flat=True)
            )
            for deployment in waiting
        ]

    earlier = reached()
    apply()
    later = reached()
    found = []
    for deployment, old, new in zip(waiting, earlier, later, strict=True):
        if old != new:
            joined, left = len(new - old), len(old - new)
            count = _audience_of(deployment).count()
            found.append(
                _change(
                    deployment,
                    frozenset(old ^ new),
                    before=count - joined + left,
                    after=count,
                    added=joined,
                    removed=left,
                )
            )
    return found


def _change(
    deployment: Deployment, moved: frozenset[UUID] = frozenset(), **counts: int
) -> AudienceChange:
    return AudienceChange(
        id=deployment.pk,
        name=deployment.name,
        scheduled_at=deployment.scheduled_at,
        moved=moved,
        **counts,
    )
