"""What several pages and actions say of a firmware."""

from firmware.models import Firmware
from firmware.selectors import FirmwareUse
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
        f"Deployments under way: {under_way}."
        if under_way
        else "No deployment of it is under way.",
    )
