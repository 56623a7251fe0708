"""Static and dynamic groups (FR-FW-008)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db import IntegrityError, connection, transaction
from django.db.models import Q
from django.utils import timezone

from devices.choices import GroupType
from devices.exceptions import (
    GroupExistsError,
    GroupHasMembersError,
    GroupInUseError,
    GroupIsDynamicError,
    GroupNotFoundError,
    UnknownDevicesError,
)
from devices.models import Device, DeviceGroup, GroupMembership
from devices.rules import Rule
from devices.selectors import group_condition, rule_condition, rule_of
from devices.services.audiences import (
    AudienceChange,
    changed_by_group,
    naming_group,
    require_acknowledgement,
)
from firmware.exceptions import UnknownModelError
from firmware.models import DeviceModel
from hotswap.common import audit
from hotswap.common.errors import FieldError, InvalidInputError
from hotswap.common.etags import check_match
from hotswap.common.models import User
from hotswap.common.pluralize import counted

SAMPLE_SIZE = 10


@dataclass(frozen=True, slots=True)
class RulePreview:
    """Whom a rule means at this moment; `sample` holds the first ten by name."""

    rule: Rule
    count: int
    sample: tuple[Device, ...]
    difference: "Difference | None" = None


@dataclass(frozen=True, slots=True)
class Difference:
    """How a rule differs from what a group means now, in devices."""

    added: int
    removed: int
    affected: tuple[AudienceChange, ...]


@dataclass(frozen=True, slots=True)
class GroupChange:
    """A changed group, and the deployments to come that reach other devices by that."""

    group: DeviceGroup
    affected: tuple[AudienceChange, ...] = ()


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
    return _wrong("/rule", code, detail)


def _wrong(pointer: str, code: str, detail: str) -> InvalidInputError:
    return InvalidInputError(detail, errors=[FieldError(pointer, code, detail)])


def create_group(
    *,
    actor: User,
    name: str,
    description: str = "",
    type: str = GroupType.STATIC,  # noqa: A002
    rule: Rule | None = None,
    device_ids: Sequence[str] = (),
) -> DeviceGroup:
    """Make a group: a static one of its devices, or a dynamic one by its rule.

    Args:
        device_ids: the members of a static group by their own names.

    Raises:
        GroupExistsError: the name is taken.
        InvalidInputError, UnknownModelError: the rule does not fit, or a dynamic group
            is given members.
        UnknownDevicesError: some of the devices are unknown; nothing is made (422).

    Source: FR-FW-008.
    """
    _check_rule(type, rule)
    if device_ids and type != GroupType.STATIC:
        raise _wrong("/deviceIds", "foreign", "a Dynamic group has a rule, no members")
    try:
        with transaction.atomic():
            devices = _known(device_ids) if device_ids else []
            group = DeviceGroup.objects.create(
                name=name,
                description=description,
                type=type,
                rule=None if rule is None else rule.to_json(),
            )
            GroupMembership.objects.bulk_create(
                GroupMembership(group=group, device=device) for device in devices
            )
            details = {"name": name, "rule": group.rule, "devices": len(devices)}
            _record(actor, group, "created", details)
    except IntegrityError:
        raise GroupExistsError(f"there is a group {name!r} already") from None
    return group


def preview_rule(*, rule: Rule, group_id: UUID | None = None) -> RulePreview:
    """Say whom a rule means now; nothing is written.

    Args:
        group_id: the group that would get the rule; what would change is said too.

    Raises:
        InvalidInputError, UnknownModelError: as for a group of this rule.
        GroupNotFoundError: there is no group of that id.
    """
    _check_rule(GroupType.DYNAMIC, rule)
    after = rule_condition(rule)
    difference = None
    if group_id is not None:
        group = DeviceGroup.objects.filter(pk=group_id).first()
        if group is None:
            raise GroupNotFoundError("there is no such group")
        before = group_condition([group])
        difference = Difference(
            added=Device.objects.filter(after & ~before).count(),
            removed=Device.objects.filter(before & ~after).count(),
            affected=changed_by_group(group, before, after),
        )
    meant = Device.objects.filter(after)
    sample = (
        meant.select_related("model", "state").with_key_expiry().order_by("device_id")
    )
    return RulePreview(rule, meant.count(), tuple(sample[:SAMPLE_SIZE]), difference)


def _record(
    actor: User, group: DeviceGroup, verb: str, details: dict[str, Any]
) -> None:
    audit.record(
        actor=actor,
        verb=f"device-group.{verb}",
        object_kind="device-group",
        object_id=group.pk,
        details=details,
        changed=group,
    )


def hold_groups(group_ids: Iterable[UUID]) -> None:
    """Keep groups as they are until the end of the transaction.

    Whoever reads a group in order to start a deployment waits for a change that is
    under way, and the change finds the deployment: neither passes the other unseen.
    """
    # In one order, so that two of these never wait for each other.
    held = DeviceGroup.objects.select_for_update(no_key=True).order_by("pk")
    list(held.filter(pk__in=group_ids))


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
    acknowledged: bool = False,
) -> GroupChange:
    """Rename, describe or redefine a group.

    Without a `type` it keeps its own. A dynamic group that becomes static keeps the
    devices that it has at that moment as its members; a static one becomes dynamic
    only when it is empty, so that no list is lost by the way.

    Raises:
        GroupNotFoundError, GroupExistsError, PreconditionFailedError.
        GroupHasMembersError: it is static, has members and is to become dynamic.
        InvalidInputError, UnknownModelError: the rule does not fit.
        AudienceChangesError: deployments to come would reach other devices, and the
            caller has not `acknowledged` that.
    """
    affected: tuple[AudienceChange, ...] = ()
    try:
        with transaction.atomic():
            group = _locked(group_id)
            check_match(group, expected)
            new_type = type or group.type
            _check_rule(new_type, rule)
            # A dynamic group that becomes static means the same devices.
            if rule is not None and rule != rule_of(group):
                affected = changed_by_group(
                    group, group_condition([group]), rule_condition(rule)
                )
                require_acknowledgement(affected, acknowledged=acknowledged)
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
    return GroupChange(group, affected)


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
    """Remove a group; its devices stay.

    Raises:
        GroupNotFoundError: there is no such group.
        GroupInUseError: deployments that have yet to start name it.
    """
    with transaction.atomic():
        group = _locked(group_id)
        users = naming_group(group, group_condition([group]), group_condition([]))
        if users:
            raise GroupInUseError(
                f"deployments that have yet to start name {group}: cancel them first",
                errors=[
                    FieldError(
                        "", "group_in_use", f"deployment {user.name} (id {user.id})"
                    )
                    for user in users
                ],
            )
        _record(actor, group, "deleted", {"name": group.name})
        group.delete()


def _known(device_ids: Sequence[str]) -> list[Device]:
    devices = list(Device.objects.only("device_id").filter(device_id__in=device_ids))
    known = {device.device_id for device in devices}
    missing = [
        FieldError(f"/deviceIds/{index}", "unknown_device", f"no device {name!r}")
        for index, name in enumerate(device_ids)
        if name not in known
    ]
    if missing:
        raise UnknownDevicesError(
            f"{len(missing)} of "
            f"{counted(len(device_ids), 'device is', 'devices are')} unknown",
            errors=missing,
        )
    return devices


def _locked_static(group_id: UUID) -> DeviceGroup:
    group = _locked(group_id)
    if group.type != GroupType.STATIC:
        raise GroupIsDynamicError(
            f"{group} is Dynamic: its rule says who is in it, not a list"
        )
    return group


def add_members(
    *,
    actor: User,
    group_id: UUID,
    device_ids: list[str],
    acknowledged: bool = False,
) -> GroupChange:
    """Put devices into a static group, all or none; those already in it stay.

    Raises:
        GroupNotFoundError, GroupIsDynamicError, UnknownDevicesError.
        AudienceChangesError: deployments to come would reach other devices, and the
            caller has not `acknowledged` that.
    """
    with transaction.atomic():
        group = _locked_static(group_id)
        devices = _known(device_ids)
        before = group_condition([group])
        after = before | Q(pk__in=[device.pk for device in devices])
        affected = changed_by_group(group, before, after)
        require_acknowledgement(affected, acknowledged=acknowledged)
        GroupMembership.objects.bulk_create(
            [GroupMembership(group=group, device=device) for device in devices],
            ignore_conflicts=True,
        )
        _record(actor, group, "members-added", {"count": len(device_ids)})
    return GroupChange(group, affected)


def remove_members(
    *,
    actor: User,
    group_id: UUID,
    device_ids: list[str],
    acknowledged: bool = False,
) -> GroupChange:
    """Take devices out of a static group, all or none.

    Raises:
        GroupNotFoundError, GroupIsDynamicError, UnknownDevicesError.
        AudienceChangesError: deployments to come would reach other devices, and the
            caller has not `acknowledged` that.
    """
    with transaction.atomic():
        group = _locked_static(group_id)
        devices = _known(device_ids)
        before = group_condition([group])
        after = before & ~Q(pk__in=[device.pk for device in devices])
        affected = changed_by_group(group, before, after)
        require_acknowledgement(affected, acknowledged=acknowledged)
        GroupMembership.objects.filter(group=group, device__in=devices).delete()
        _record(actor, group, "members-removed", {"count": len(device_ids)})
    return GroupChange(group, affected)
