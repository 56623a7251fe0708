"""What several pages and actions say of a firmware."""

from firmware.models import Firmware
from firmware.selectors import FirmwareUse
from hotswap.common.words import counted


def fleet_of_model(firmware: Firmware) -> str:
    count = firmware.model.device_set.count()
    running = firmware.model.device_set.filter(
        firmware_checksum=firmware.sha256
    ).count()
    return (
        f"{counted(count, 'device is', 'devices are')}"
        f" of the model {firmware.model.name}; "
        f"{running:,} of them run this image now."
    )


def use_in_words(use: FirmwareUse) -> tuple[str, ...]:
    """Say how many devices run a firmware, and what is under way with it."""
    under_way = ", ".join(f"{each.name} ({each.status})" for each in use.deployments)
    return (
        f"Devices that run it now: {use.device_count:,}.",
        f"Deployments under way: {under_way}."
        if under_way
        else "No deployment of it is under way.",
    )
