"""Who is in a group: reads that cross models.

Membership of a dynamic group is a condition on the device, evaluated when it is asked
for. Nothing is copied, so a device that has changed is in or out at once.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any
from uuid import UUID

from django.db.models import Count, Exists, OuterRef, Q, QuerySet, Value

from devices.admission import IS_ADMITTED
from devices.choices import GroupType
from devices.models import Device, DeviceGroup, GroupMembership
from devices.rules import DeviceFacts, Rule
from firmware.models import DeviceModel, Firmware
from firmware.versions import TEXT_ORDERED, VersionScheme, version_key
from hotswap.common.models import AuditEvent
from hotswap.common.rows import Columns, prepared_cursor

DEVICE = Columns(Device, "d")
ADMITTED = f"""
    SELECT {DEVICE.sql} FROM devices_device d WHERE d.id = %s AND {IS_ADMITTED}
"""  # noqa: S608


def admitted_device(device_id: UUID) -> Device | None:
    """Return a device if it may call: asked at every request of every device."""
    with prepared_cursor() as cursor:
        cursor.execute(ADMITTED, [device_id])
        row = cursor.fetchone()
    return None if row is None else DEVICE.take(iter(row))


def is_admitted_device(device_id: UUID) -> bool:
    """Tell whether a device may call; asked again and again while it downloads."""
    return Device.objects.admitted().filter(pk=device_id).exists()


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
    if rule.versions:
        condition &= Q(firmware_version__in=rule.versions)
    if rule.compares_versions:
        condition &= _between_versions(rule.at_least, rule.below)
    return condition


def _between_versions(lowest: str, limit: str) -> Q:
    """Write what a rule says of the order of versions, for each scheme of models.

    Keys begin with the letter of their scheme, so that each part is a range of the
    index, and empty where no model has the scheme.
    """
    first, end = VersionScheme.OPAQUE.key_range
    condition = Q(version_key__gte=first, version_key__lt=end)
    uploads = Firmware.objects.filter(model=OuterRef("model"))
    key = OuterRef("version_key")
    if lowest:
        condition &= Q(Exists(uploads.filter(version=lowest, precedence__lte=key)))
    if limit:
        condition &= Q(Exists(uploads.filter(version=limit, precedence__gt=key)))
    for scheme in TEXT_ORDERED:
        first, end = scheme.key_range
        try:
            if lowest:
                first = version_key(lowest, scheme)
            if limit:
                end = version_key(limit, scheme)
        except ValueError:
            continue
        condition |= Q(version_key__gte=first, version_key__lt=end)
    return condition


def wrong_bounds(*, models: Sequence[str], at_least: str, below: str) -> dict[str, str]:
    """Say what is wrong with the bounds of a rule, under `atLeast` and `below`.

    A bound must be a version by the scheme of one of the models at least; by that of
    an opaque one it is, if it was uploaded. Where both are, `below` must be higher.

    Args:
        models: names; none stands for all of the catalogue.
        at_least, below: empty, if they are not given.
    """
    bounds = {"atLeast": at_least, "below": below}
    bounds = {name: bound for name, bound in bounds.items() if bound}
    if not bounds:
        return {}
    known = DeviceModel.objects.order_by()
    if models:
        known = known.filter(name__in=models)
    found = set(known.values_list("version_scheme", flat=True).distinct())
    schemes = [each for each in VersionScheme if each in found]
    schemes = schemes or [VersionScheme.SEMVER]
    keys = {name: _keys_of(bound, schemes, known) for name, bound in bounds.items()}
    expected = ", or ".join(
        "a version that was uploaded"
        if scheme is VersionScheme.OPAQUE
        else scheme.expected
        for scheme in schemes
    )
    wrong = {name: f"must be {expected}" for name in bounds if not keys[name]}
    if wrong or len(bounds) == 1:
        return wrong
    lowest, limits = keys["atLeast"], keys["below"]
    if any(lowest[each] < limits[each] for each in lowest.keys() & limits.keys()):
        return {}
    return {"below": "must be higher than atLeast"}


def _keys_of(
    version: str, schemes: Sequence[VersionScheme], models: QuerySet[DeviceModel]
) -> dict[str, str]:
    """Return the keys of a version by scheme, and for opaque ones by model."""
    keys: dict[str, str] = {}
    for scheme in schemes:
        if scheme is VersionScheme.OPAQUE:
            uploads = Firmware.objects.filter(
                model__in=models.filter(version_scheme=scheme).values("pk"),
                version=version,
            )
            keys |= {
                str(model): key
                for model, key in uploads.values_list("model", "precedence")
            }
        else:
            with suppress(ValueError):
                keys[scheme.value] = version_key(version, scheme)
    return keys


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


def facts_of(
    device: Device, orders: dict[UUID, dict[str, str]] | None = None
) -> DeviceFacts:
    """Return what rules look at; the device as it was read.

    Args:
        orders: the order of the uploads of models with opaque versions, by model, as
            far as it was read before; what is read here is added.
    """
    scheme = VersionScheme(device.model.version_scheme)
    uploads: dict[str, str] = {}
    if scheme is VersionScheme.OPAQUE:
        orders = {} if orders is None else orders
        if device.model_id not in orders:
            found = Firmware.objects.filter(model=device.model_id)
            orders[device.model_id] = dict(found.values_list("version", "precedence"))
        uploads = orders[device.model_id]
    return DeviceFacts(
        region=device.region,
        model=device.model.name,
        tags=device.tags,
        firmware_version=device.firmware_version,
        version_key=device.version_key,
        scheme=scheme,
        uploads=uploads,
    )


def groups_of(device: Device) -> list[DeviceGroup]:
    """Return the groups that a device is in, by name."""
    return groups_of_each([device])[device.pk]


def groups_of_each(devices: Sequence[Device]) -> dict[UUID, list[DeviceGroup]]:
    """Return the groups of each device of a page, by name.

    By two statements, and one for each model whose versions are opaque.
    """
    found: dict[UUID, list[DeviceGroup]] = {device.pk: [] for device in devices}
    members = GroupMembership.objects.filter(device__in=list(found))
    for member in members.select_related("group"):
        found[member.device_id].append(member.group)
    rules = [
        (group, rule)
        for group in DeviceGroup.objects.filter(type=GroupType.DYNAMIC)
        if (rule := rule_of(group)) is not None
    ]
    orders: dict[UUID, dict[str, str]] = {}
    for device in devices:
        facts = facts_of(device, orders)
        own = found[device.pk]
        own += [group for group, rule in rules if rule.holds_for(facts)]
        own.sort(key=lambda group: group.name)
    return found


def revocation_reason(device: Device) -> str:
    """Return why a device was shut out, as the audit trail keeps it."""
    revoked = AuditEvent.objects.filter(
        object_kind="device", object_id=str(device.pk), verb="device.revoked"
    ).first()
    return "" if revoked is None else str(revoked.details.get("reason", ""))
