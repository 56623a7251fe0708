"""What is there before the story begins: models, firmware, devices, groups.

Everything goes through the API, as people would do it: `release` uploads, `admin`
approves, `operator` registers. Seeding twice adds nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hotswap.demo.client import Client
from hotswap.demo.fleet import (
    FACTORY_VERSION,
    GATEWAY,
    MODELS,
    SENSOR,
    TRACKER,
    DemoDevice,
    DemoFiles,
    Kind,
)

GOOD_VERSION = "2.5.0"
BAD_VERSION = "2.6.0"
DRAFT_VERSION = "2.7.0"
LAB_SIMULATED = 12
LAB_GROUP = "lab-fleet"
GATEWAY_GROUP = "all-gateways"


@dataclass(frozen=True, slots=True)
class SeededFirmware:
    """One upload; drafts are left for a person to judge."""

    model: str
    version: str
    notes: str
    is_approved: bool


FIRMWARE = (
    SeededFirmware(
        SENSOR, FACTORY_VERSION, "As delivered: the mean of each frame.", True
    ),
    SeededFirmware(GATEWAY, FACTORY_VERSION, "As delivered.", True),
    SeededFirmware(TRACKER, FACTORY_VERSION, "Survives long silences.", True),
    SeededFirmware(
        SENSOR,
        GOOD_VERSION,
        "Medians instead of means, outliers refused, the rate of change reported.",
        True,
    ),
    SeededFirmware(
        SENSOR,
        BAD_VERSION,
        "Trends over any span, with a cache of past analyses.",
        True,
    ),
    SeededFirmware(
        GATEWAY,
        GOOD_VERSION,
        "Medians instead of means. Proved on the sensors; waits for an approval.",
        False,
    ),
    SeededFirmware(
        TRACKER, GOOD_VERSION, "Medians instead of means; waits for its network.", True
    ),
    SeededFirmware(
        SENSOR, DRAFT_VERSION, "Plausible limits come from the site's settings.", False
    ),
)


def seed_catalogue(client: Client) -> None:
    """Add the models."""
    known = {model["name"] for model in client.every("device-models")}
    for name, description in MODELS.items():
        if name not in known:
            client.post("device-models", {"name": name, "description": description})


def seed_devices(
    client: Client, files: DemoFiles, roster: Sequence[DemoDevice]
) -> None:
    """Register the devices and keep their API keys.

    A key is shown once; a device whose key was lost gets a new one.
    """
    known = {device["deviceId"] for device in client.every("devices")}
    keys = files.read_api_keys()
    try:
        for device in roster:
            if device.device_id not in known:
                answer = client.post(
                    "devices",
                    {
                        "deviceId": device.device_id,
                        "model": device.model,
                        "region": device.region,
                        "tags": {"site": device.site},
                        "metadata": {"existsAs": device.kind.value},
                    },
                )
                keys[device.device_id] = answer["apiKey"]
                if device.kind is Kind.SPARE:
                    # Nothing runs it: a rollout to everyone must not wait for it.
                    client.post(f"devices/{device.device_id}/disable")
            elif device.device_id not in keys:
                answer = client.post(f"devices/{device.device_id}/api-key")
                keys[device.device_id] = answer["apiKey"]
    finally:
        files.write_api_keys(keys)


def group_members(roster: Sequence[DemoDevice]) -> dict[str, list[DemoDevice]]:
    """Return who is in each group: a bit of everything, and all gateways."""
    simulated = [d for d in roster if d.kind is Kind.SIMULATED and d.model == SENSOR]
    gateways = [d for d in roster if d.model == GATEWAY]
    return {
        LAB_GROUP: [
            *(d for d in roster if d.kind in (Kind.AGENT, Kind.SPARE)),
            *simulated[:LAB_SIMULATED],
            gateways[0],
        ],
        GATEWAY_GROUP: gateways,
    }


def seed_groups(client: Client, roster: Sequence[DemoDevice]) -> None:
    """Make the groups: a laboratory with a bit of everything, and the gateways."""
    known = {group["name"] for group in client.every("device-groups")}
    for name, devices in group_members(roster).items():
        if name not in known:
            group = client.post("device-groups", {"name": name, "type": "Static"})
            client.post(
                f"device-groups/{group['id']}/devices",
                {"deviceIds": [device.device_id for device in devices]},
            )


def seed_firmware(
    uploader: Client, approver: Client, files: DemoFiles
) -> dict[str, Any]:
    """Upload all images and approve those that are not left to a person.

    Returns:
        The firmware by `model version`.
    """
    seeded = {}
    for each in FIRMWARE:
        firmware = uploader.upload(
            "firmware",
            files.image(each.model, each.version),
            {
                "version": each.version,
                "model": each.model,
                "releaseNotes": each.notes,
            },
        )
        if each.is_approved and firmware["status"] == "Draft":
            firmware = approver.post(
                f"firmware/{firmware['id']}/approve",
                {"comment": "Tried on the bench for the demo."},
            )
        seeded[f"{each.model} {each.version}"] = firmware
    return seeded
