"""What this app holds about one device: given out, and taken away."""

from datetime import datetime

from django.forms.models import model_to_dict

from devices.models import Device
from devices.services.erasure import Sections
from health.models import DeviceEvent, DeviceState, Reading
from health.triggers import TRIGGERS
from hotswap.common.wire import camelize

READING_FIELDS = (
    "at",
    *(each.column for each in TRIGGERS),
    "uptime_seconds",
    "firmware_version",
    "is_first_of_boot",
    "application_metrics",
)


def erase_health_data(*, device: Device, now: datetime) -> None:
    """Forget the state, the events and the history of a device.

    A heartbeat or sweep that holds the state goes first, and so does what it writes.
    """
    DeviceState.objects.filter(device=device).delete()
    DeviceEvent.objects.filter(device=device).delete()
    Reading.objects.filter(device_id=device.pk).delete()


def export_health_data(*, device: Device) -> Sections:
    """Give out the latest state of a device, and each heartbeat that is kept."""
    states = DeviceState.objects.filter(device=device)
    yield (
        "health",
        (
            {
                camelize(name): value
                for name, value in model_to_dict(state, exclude=["device"]).items()
            }
            for state in states.iterator()
        ),
    )
    yield (
        "healthEvents",
        DeviceEvent.objects.filter(device=device)
        .order_by("id")
        .values("at", "level", "event", "message")
        .iterator(),
    )
    yield (
        "healthHistory",
        (
            {camelize(name): value for name, value in row.items()}
            for row in Reading.objects.filter(device_id=device.pk)
            .order_by("at")
            .values(*READING_FIELDS)
            .iterator()
        ),
    )
