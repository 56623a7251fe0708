"""What several pages and actions say of a firmware."""

from firmware.models import Firmware
from firmware.selectors import CommonImage, FirmwareUse
from hotswap.common.console.text import in_bytes
from hotswap.common.pluralize import counted


def fleet_of_model(firmware: Firmware, use: FirmwareUse) -> str:
    """Say how many devices of its model there are, and how many run a firmware."""
    return (
        f"{counted(use.model_device_count, 'device is', 'devices are')}"
        f" of the model {firmware.model.name}; "
        f"{use.device_count:,} of them run this image now."
    )


def use_in_words(use: FirmwareUse) -> tuple[str, ...]:
    """Say how many devices run a firmware, and what is under way with it."""
    under_way = ", ".join(f"{each.name} ({each.status})" for each in use.deployments)
    return (
        f"Devices that run it now: {use.device_count:,}.",
        f"Deployments in progress: {under_way}."
        if under_way
        else "No deployment of it is in progress.",
    )


def difference(firmware: Firmware, other: Firmware | None) -> list[str]:
    """Say in what a firmware differs from another of its model."""
    if other is None:
        return [
            (
                f"first of its model, {in_bytes(firmware.size)}, "
                f"security version {firmware.security_version}"
            )
        ]
    more = firmware.size - other.size
    parts = [
        f"{other.version} → {firmware.version}"
        + (" (not newer)" if firmware.precedence <= other.precedence else ""),
        f"{'+' if more >= 0 else '−'}{in_bytes(abs(more))}",
    ]
    if firmware.security_version != other.security_version:
        parts.append(
            f"security version {other.security_version} → {firmware.security_version}"
        )
    if firmware.release_notes != other.release_notes:
        parts.append("other release notes" if firmware.release_notes else "no notes")
    return parts


def compared_with_fleet(
    firmware: Firmware, common: CommonImage | None, newest: Firmware | None
) -> list[str]:
    """Say in what a firmware differs from what most devices of its model run.

    Args:
        newest: the newest approved one, which it is compared with where no device has
            reported what it runs.
    """
    if common is None:
        return difference(firmware, newest)
    runs = (
        f"{common.device_count:,} of {counted(common.model_device_count, 'device')} "
        f"{'runs' if common.device_count == 1 else 'run'} {common.version}"
    )
    if common.firmware is None:
        return [runs, "that image was never uploaded here"]
    if common.firmware.pk == firmware.pk:
        return [runs]
    return [*difference(firmware, common.firmware), runs]
