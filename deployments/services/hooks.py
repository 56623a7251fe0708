"""What lower apps ask of this one; named by dotted path in the settings."""

from datetime import datetime

from deployments.choices import DeploymentStatus, Level
from deployments.models import Event, Update
from deployments.services.offers import offerable_targets, planned_targets
from devices.models import Device


def is_update_available(*, device: Device, now: datetime) -> tuple[bool, bool]:
    """Tell whether a poll would bring an order, and whether a deployment is at work.

    The second is what makes a device report every 30 seconds.
    """
    open_claims = list(
        Update.objects.filter(device=device, closed_at__isnull=True).values_list(
            "claimed_at", flat=True
        )
    )
    if open_claims:
        return open_claims[0] is None, True
    if offerable_targets(device, now).exists():
        return True, True
    return False, planned_targets(device).exists()


def note_running_firmware(*, device: Device, now: datetime) -> None:
    """Log a device that leaves the image of a finished deployment by itself.

    Only the log is written here: while the deployment is open, its tick finds the
    same fact and acts on it.
    """
    last = (
        Update.objects.select_related("deployment", "firmware", "target")
        .filter(device=device, closed_at__isnull=False, status="success")
        .order_by("-closed_at")
        .first()
    )
    if last is None or last.deployment.status != DeploymentStatus.COMPLETED:
        return
    if last.firmware.sha256 == device.firmware_checksum:
        return
    if Update.objects.filter(device=device, closed_at__isnull=True).exists():
        return
    Event.objects.create(
        deployment=last.deployment,
        at=now,
        level=Level.ERROR,
        event="device.fell_back",
        device=device,
        stage_number=last.target.stage_number,
        message=f"it runs {device.firmware_version} instead of "
        f"{last.firmware.version}, and nobody ordered that",
    )
