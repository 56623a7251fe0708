"""Who is let in: a device that exists, is neither revoked nor erased, and is so named.

Asked once by every request of a device, in the statement that answers it. Being
disabled is about updates alone. In SQL `d` is the device.
"""

from typing import TYPE_CHECKING, Final

from django.db.models import Q

if TYPE_CHECKING:
    from devices.models import Device

IS_ADMITTED: Final = "(d.revoked_at IS NULL AND d.erased_at IS NULL)"
# Parameters: `device` (key, of the token) and `name` (of the address).
IS_CALLER: Final = f"(d.id = %(device)s AND d.device_id = %(name)s AND {IS_ADMITTED})"


def is_admitted(device: "Device") -> bool:
    """Tell whether a device may call."""
    return device.revoked_at is None and device.erased_at is None


def admitted(prefix: str = "") -> Q:
    """Return the condition on devices that they may call.

    Args:
        prefix: the way to the device, as in `device__`.
    """
    return Q(
        **{f"{prefix}revoked_at__isnull": True, f"{prefix}erased_at__isnull": True}
    )
