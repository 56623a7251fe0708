"""What this app holds about one device: given out, and taken away."""

from datetime import datetime

from django.forms.models import model_to_dict

from devices.models import Device
from devices.services.erasure import Sections
from health.models import DeviceState
from hotswap.common.api.serializers import camelize


def erase_health_data(*, device: Device, now: datetime) -> None:
    """Forget the state of a device; a heartbeat that holds it goes first."""
    DeviceState.objects.filter(device=device).delete()


def export_health_data(*, device: Device) -> Sections:
    """Give out the latest state of a device, with all that is counted on it."""
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
