"""A device may only speak of itself."""

from collections.abc import Callable
from typing import cast

from rest_framework.request import Request

from devices.api.authentication import DevicePrincipal
from devices.models import Device
from hotswap.common.api.throttling import check_device_rate, is_counted
from hotswap.common.errors import ForbiddenError


def calling_device(request: Request, device_id: str | None = None) -> Device:
    """Return the device that calls, after counting the request.

    Raises:
        ForbiddenError: the address names another device.
        Throttled: it calls too often.
    """
    device = cast(DevicePrincipal, request.user).device
    if device_id is not None and device.device_id != device_id:
        raise ForbiddenError("a device may only speak of itself", code="foreign_device")
    if not is_counted(request._request):
        check_device_rate("device", device.pk)
    return device


def still_admitted(request: Request) -> Callable[[], bool]:
    """Return what tells, later on, whether the calling device is still let in."""
    principal = cast(DevicePrincipal, request.user)
    return principal.is_admitted
