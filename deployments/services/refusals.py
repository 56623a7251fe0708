"""What is refused of the devices that a launch names.

Rules:
- A list is refused whole if one device of it is unknown or cannot take part, and all
  its faults are told at once, each with its place.
- Devices that are offline or busy are no fault where the launch leaves them out.
- Of groups, regions and whole fleets only what the launch itself asks to be refused.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from deployments.exceptions import IneligibleDevicesError
from deployments.services.requests import Selection
from deployments.services.targeting import Audience, find_audience
from devices.models import Device, DeviceGroup
from hotswap.common.errors import FieldError
from hotswap.common.pluralize import counted


def check_groups(selection: Selection) -> None:
    """Refuse groups that do not exist.

    Raises:
        IneligibleDevicesError: each unknown group.
    """
    known = set(
        DeviceGroup.objects.filter(pk__in=selection.group_ids).values_list(
            "pk", flat=True
        )
    )
    unknown = [
        FieldError(f"/targetGroups/{index}", "unknown_group", "no such group")
        for index, group_id in enumerate(selection.group_ids)
        if group_id not in known
    ]
    if unknown:
        raise IneligibleDevicesError("a named group does not exist", errors=unknown)


def check_green_group(green_fleet: Mapping[str, Any] | None) -> None:
    """Refuse a group of the green fleet that does not exist.

    Raises:
        IneligibleDevicesError.
    """
    group = (green_fleet or {}).get("group")
    if group and not DeviceGroup.objects.filter(pk=group).exists():
        raise IneligibleDevicesError(
            "the group of the green fleet does not exist",
            errors=[FieldError("/greenFleet/group", "unknown_group", "no such group")],
        )


def unknown_devices(selection: Selection) -> dict[str, FieldError]:
    """Return the fault of each listed device that does not exist."""
    known = set(
        Device.objects.filter(device_id__in=selection.device_ids).values_list(
            "device_id", flat=True
        )
    )
    return {
        name: FieldError(
            f"/targetDevices/{index}", "unknown_device", f"no device {name!r}"
        )
        for index, name in enumerate(selection.device_ids)
        if name not in known
    }


def refuse_faulty_list(
    selection: Selection, audience: Audience, left_out: frozenset[str]
) -> None:
    """Refuse a list of devices whole, naming each that is unknown or does not fit.

    Args:
        audience: of this list, with all its exclusions.
        left_out: codes of exclusions that are no fault.

    Raises:
        IneligibleDevicesError: every fault, in the order of the list.

    Source: FR-FW-003, targets validated (exist, online, compatible).
    """
    faults = unknown_devices(selection)
    place = {name: index for index, name in enumerate(selection.device_ids)}
    for excluded in audience.excluded:
        if excluded.code not in left_out:
            faults[excluded.device_id] = FieldError(
                f"/targetDevices/{place[excluded.device_id]}",
                excluded.code,
                f"{excluded.device_id}: {excluded.detail}",
            )
    if not faults:
        return
    errors = [faults[name] for name in selection.device_ids if name in faults]
    numbers = Counter(error.code for error in errors)
    raise IneligibleDevicesError(
        f"{len(errors):,} of {counted(len(place), 'device')} are not eligible: "
        + ", ".join(f"{number:,} {code}" for code, number in numbers.most_common()),
        errors=errors,
    )


def refuse_rejected(judged: Any, codes: frozenset[str]) -> None:
    """Refuse groups, regions or a fleet with a device of these exclusions.

    Raises:
        IneligibleDevicesError: the first hundred such devices, by name.
    """
    if not codes:
        return
    rejected = find_audience(judged.filter(exclusion__in=codes))
    if rejected.matched:
        raise IneligibleDevicesError(
            f"{counted(rejected.matched, 'device is', 'devices are')} offline or busy,"
            " and the deployment asks to be refused then",
            errors=[
                FieldError("", x.code, f"{x.device_id}: {x.detail}")
                for x in rejected.excluded
            ],
        )
