"""Tokens of devices; the device is looked up on every request."""

import uuid
from dataclasses import dataclass

from django.core.exceptions import ValidationError
from rest_framework.exceptions import AuthenticationFailed

from devices.models import Device
from hotswap.common.api.authentication import BearerAuthentication
from hotswap.common.roles import Role
from hotswap.common.tokens import DeviceToken, RingToken


@dataclass(frozen=True, slots=True)
class DevicePrincipal:
    """The caller of a device route."""

    device: Device
    role: Role = Role.DEVICE
    is_authenticated: bool = True

    @property
    def pseudonym(self) -> uuid.UUID:
        return self.device.pk

    @property
    def pk(self) -> uuid.UUID:
        return self.device.pk

    def is_admitted(self) -> bool:
        """Look up whether the device is still there and not revoked."""
        return Device.objects.admitted().filter(pk=self.device.pk).exists()


class DeviceAuthentication(BearerAuthentication):
    """Accept the token of a device that exists and is not revoked."""

    token_class = DeviceToken

    def principal(self, claims: RingToken) -> DevicePrincipal:
        try:
            device = Device.objects.admitted().filter(pk=claims["sub"]).first()
        except (ValidationError, ValueError):
            device = None
        if device is None:
            raise AuthenticationFailed(
                "the device is revoked or gone", code="token_revoked"
            )
        return DevicePrincipal(device)
