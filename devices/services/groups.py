"""Static and dynamic groups (FR-FW-008)."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from devices.choices import GroupType
from devices.exceptions import (
    GroupExistsError,
    GroupHasMembersError,
    GroupIsDynamicError,
    GroupNotFoundError,
    UnknownDevicesError,
)
from devices.models import Device, DeviceGroup, GroupMembership
from devices.rules import Rule
from devices.selectors import rule_condition, rule_of
from firmware.exceptions import UnknownModelError
from firmware.models import DeviceModel
from hotswap.common import audit
from hotswap.common.api.etags import check_match
from hotswap.common.errors import FieldError, InvalidInputError
from hotswap.common.models import User

SAMPLE_SIZE = 10


@dataclass(frozen=True, slots=True)
class RulePreview:
    """Whom a rule means at this moment; `sample` holds the first ten by name."""

    rule: Rule
    count: int
    sample: tuple[Device, ...]


def _check_rule(type: str, rule: Rule | None) -> None:  # noqa: A002
    """Check that the rule fits the type and names known models only.

    Raises:
        InvalidInputError: a dynamic group without a rule, a static one with a rule, or
            a rule that means the whole fleet (400).
        UnknownModelError: a model is not in the catalogue (422).
    """
    if type == GroupType.STATIC:
        if rule is not None:
            raise _wrong_rule("foreign", "a Static group has members and no rule")
        return
    if rule is None:
        raise _wrong_rule("required", "a Dynamic group needs a rule")
    if rule.is_empty:
        raise _wrong_rule(
            "empty_rule",
            "an empty rule would mean the whole fleet: give at least one of region, "
            "model, tags, firmwareVersion",
        )
    known = set(
        DeviceModel.objects.filter(name__in=rule.models).values_list("name", flat=True)
    )
    unknown = [
        FieldError(
            f"/rule/model/{index}", "unknown_model", f"there is no model {name!r}"
        )
        for index, name in enumerate(rule.models)
        if name not in known
    ]
    if unknown:
        raise UnknownModelError(unknown[0].detail, errors=unknown)


def _wrong_rule(code: str, detail: str) -> InvalidInputError:
    return InvalidInputError(
        f"rule: {detail}", errors=[FieldError("/rule", code, detail)]
    )


def create_group(
    *,
    actor: User,
    name: str,
    description: str = "",
    type: str = GroupType.STATIC,  # noqa: A002
    rule: Rule | None = None,
) -> DeviceGroup:
    """Make a group: an empty static one, or a dynamic one by its rule.

    Raises:
        GroupExistsError: the name is taken.
        InvalidInputError, UnknownModelError: the rule does not fit.
    """
    _check_rule(type, rule)
    try:
        with transaction.atomic():
            group = DeviceGroup.objects.create(
                name=name,
                description=description,
                type=type,
                rule=None if rule is None else rule.to_json(),
            )
            _record(actor, group, "created", {"name": name, "rule": group.rule})
    except IntegrityError:
        raise GroupExistsError(f"there is a group {name!r} already") from None
    return group


def preview_rule(*, rule: Rule) -> RulePreview:
    """Say whom a rule means now; nothing is written.

    Raises:
        InvalidInputError, UnknownModelError: as for a group of this rule.
    """
    _check_rule(GroupType.DYNAMIC, rule)
    meant = Device.objects.filter(rule_condition(rule))
    sample = meant.select_related("model", "state").order_by("device_id")
    return RulePreview(rule, meant.count(), tuple(sample[:SAMPLE_SIZE]))


def _record(
    actor: User, group: DeviceGroup, verb: str, details: dict[str, Any]
) -> None:
    audit.record(
        actor=actor,
        verb=f"device-group.{verb}",
        object_kind="device-group",
        object_id=group.pk,
        details=details,
    )


def _locked(group_id: UUID) -> DeviceGroup:
    group = (
        DeviceGroup.objects.select_for_update(no_key=True).filter(pk=group_id).first()
    )
    if group is None:
        raise GroupNotFoundError("there is no such group")
    return group


def change_group(
    *,
    actor: User,
    group_id: UUID,
    name: str,
    description: str,
    type: str | None = None,  # noqa: A002
    rule: Rule | None = None,
    expected: frozenset[str] | None = None,
) -> DeviceGroup:
    """Rename, describe or redefine a group.

    Without a `type` it keeps its own. A dynamic group that becomes static keeps the
    devices that it has at that moment as its members; a static one becomes dynamic
    only when it is empty, so that no list is lost by the way.

    Raises:
        GroupNotFoundError, GroupExistsError, PreconditionFailedError.
        GroupHasMembersError: it is static, has members and is to become dynamic.
        InvalidInputError, UnknownModelError: the rule does not fit.
    """
    try:
        with transaction.atomic():
            group = _locked(group_id)
            check_match(group, expected)
            new_type = type or group.type
            _check_rule(new_type, rule)
            _change_type(group, new_type)
            group.name = name
            group.description = description
            group.type = new_type
            group.rule = None if rule is None else rule.to_json()
            group.updated_at = timezone.now()
            group.save()
            _record(actor, group, "changed", {"name": name, "rule": group.rule})
    except IntegrityError:
        raise GroupExistsError(f"there is a group {name!r} already") from None
    return group


def _change_type(group: DeviceGroup, new_type: str) -> None:
    """Write members down, or see that there are none."""
    if new_type == group.type:
        return
    rule = rule_of(group)
    if rule is None:
        if GroupMembership.objects.filter(group=group).exists():
            raise GroupHasMembersError(
                f"{group} has members: remove them before it becomes Dynamic"
            )
        return
    meant = Device.objects.filter(rule_condition(rule)).order_by().values("id")
    query, parameters = meant.query.sql_with_params()
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO devices_groupmembership (group_id, device_id) "
            f"SELECT %s, id FROM ({query}) AS meant",
            [group.pk, *parameters],
        )


def delete_group(*, actor: User, group_id: UUID) -> None:
    """Remove a group; its devices stay."""
    with transaction.atomic():
        group = _locked(group_id)
        _record(actor, group, "deleted", {"name": group.name})
        group.delete()


def _known(device_ids: list[str]) -> list[Device]:
    devices = list(Device.objects.filter(device_id__in=device_ids))
    known = {device.device_id for device in devices}
    missing = [
        FieldError(f"/deviceIds/{index}", "unknown_device", f"no device {name!r}")
        for index, name in enumerate(device_ids)
        if name not in known
    ]
    if missing:
        raise UnknownDevicesError(
            f"{len(missing)} of {len(device_ids)} devices are unknown", errors=missing
        )
    return devices


def _locked_static(group_id: UUID) -> DeviceGroup:
    group = _locked(group_id)
    if group.type != GroupType.STATIC:
        raise GroupIsDynamicError(
            f"{group} is Dynamic: its rule says who is in it, not a list"
        )
    return group


def add_members(*, actor: User, group_id: UUID, device_ids: list[str]) -> DeviceGroup:
    """Put devices into a static group, all or none; those already in it stay.

    Raises:
        GroupNotFoundError, GroupIsDynamicError, UnknownDevicesError.
    """
    with transaction.atomic():
        group = _locked_static(group_id)
        GroupMembership.objects.bulk_create(
            [GroupMembership(group=group, device=d) for d in _known(device_ids)],
            ignore_conflicts=True,
        )
        _record(actor, group, "members-added", {"count": len(device_ids)})
    return group


def remove_members(
    *, actor: User, group_id: UUID, device_ids: list[str]
) -> DeviceGroup:
    """Take devices out of a static group, all or none.

    Raises:
        GroupNotFoundError, GroupIsDynamicError, UnknownDevicesError.
    """
    with transaction.atomic():
        group = _locked_static(group_id)
        GroupMembership.objects.filter(
            group=group, device__in=_known(device_ids)
        ).delete()
        _record(actor, group, "members-removed", {"count": len(device_ids)})
    return group
