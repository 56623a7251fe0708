"""Who is in a group: reads that cross models.

Membership of a dynamic group is a condition on the device, evaluated when it is asked
for. Nothing is copied, so a device that has changed is in or out at once.
"""

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from django.db.models import Count, Q, Value

from devices.choices import GroupType
from devices.models import Device, DeviceGroup, GroupMembership
from devices.rules import DeviceFacts, Rule
from firmware.models import DeviceModel
from firmware.versions import precedence_key
from hotswap.common.rows import Columns, prepared_cursor

DEVICE = Columns(Device, "d")
ADMITTED = f"""
    SELECT {DEVICE.sql} FROM devices_device d
    WHERE d.id = %s AND d.revoked_at IS NULL AND d.erased_at IS NULL
"""  # noqa: S608


def admitted_device(device_id: UUID) -> Device | None:
    """Return a device if it may call: asked at every request of every device."""
    with prepared_cursor() as cursor:
        cursor.execute(ADMITTED, [device_id])
        row = cursor.fetchone()
    return None if row is None else DEVICE.take(iter(row))


def rule_condition(rule: Rule) -> Q:
    """Write a rule as a condition on devices; the same as `Rule.holds_for`."""
    condition = Q()
    if rule.regions:
        condition &= Q(region__in=rule.regions)
    if rule.models:
        models = DeviceModel.objects.filter(name__in=rule.models)
        condition &= Q(model__in=models.values("pk"))
    for name, values in rule.tags:
        # Containment, one value each, is what the index on tags answers.
        will_do = Q()
        for value in values:
            will_do |= Q(tags__contains={name: value})
        condition &= will_do
    if rule.below:
        condition &= Q(version_key__lt=precedence_key(rule.below))
    if rule.at_least:
        condition &= Q(version_key__gte=precedence_key(rule.at_least))
    if rule.versions:
        # The keys are what the index answers; builds of one key differ as texts.
        keys = [precedence_key(version) for version in rule.versions]
        condition &= Q(version_key__in=keys, firmware_version__in=rule.versions)
    if rule.is_about_versions:
        condition &= Q(version_key__gt="")
    return condition


def rule_of(group: DeviceGroup) -> Rule | None:
    """Return the rule of a dynamic group."""
    return None if group.rule is None else Rule.from_json(group.rule)


def group_condition(groups: Iterable[DeviceGroup]) -> Q:
    """Write membership in at least one of the groups as a condition on devices."""
    listed = []
    # Without any group, nobody is meant.
    condition = Q(pk__in=[])
    for group in groups:
        rule = rule_of(group)
        if rule is None:
            listed.append(group.pk)
        else:
            condition |= rule_condition(rule)
    if listed:
        members = GroupMembership.objects.filter(group__in=listed)
        condition |= Q(pk__in=members.values("device"))
    return condition


def devices_of(*groups: DeviceGroup) -> Any:
    """Return the devices that are in at least one of the groups now."""
    return Device.objects.filter(group_condition(groups))


def count_members(groups: Iterable[DeviceGroup]) -> dict[UUID, int]:
    """Count the devices of each group, exactly, by two statements at most."""
    groups = list(groups)
    counts: dict[UUID, int] = dict.fromkeys((group.pk for group in groups), 0)
    listed = [group.pk for group in groups if group.type == GroupType.STATIC]
    if listed:
        members = GroupMembership.objects.filter(group__in=listed).order_by()
        counts |= dict(members.values_list("group").annotate(Count("pk")))
    parts = [
        devices_of(group)
        .order_by()
        .annotate(number=Value(number))
        .values("number")
        .annotate(size=Count("pk"))
        .values_list("number", "size")
        for number, group in enumerate(groups)
        if group.type == GroupType.DYNAMIC
    ]
    if parts:
        first, *others = parts
        for number, size in first.union(*others, all=True) if others else first:
            counts[groups[number].pk] = size
    return counts


def facts_of(device: Device) -> DeviceFacts:
    """Return what rules look at."""
    return DeviceFacts(
        region=device.region,
        model=device.model.name,
        tags=device.tags,
        firmware_version=device.firmware_version,
    )


def groups_of(device: Device) -> list[DeviceGroup]:
    """Return the groups that a device is in, by name."""
    facts = facts_of(device)
    dynamic = DeviceGroup.objects.filter(type=GroupType.DYNAMIC)
    found = [
        group
        for group in dynamic
        if (rule := rule_of(group)) is not None and rule.holds_for(facts)
    ]
    return sorted([*device.groups.all(), *found], key=lambda group: group.name)
