"""Tokens and certificates of devices; the device is looked up on every request."""

import uuid
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from django.conf import settings
from django.utils import timezone
from rest_framework.authentication import get_authorization_header
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from devices.api.certificates import presented_certificate, required_certificate
from devices.models import Device, DeviceCertificate
from devices.selectors import admitted_device, is_admitted_device
from hotswap.common.api.authentication import (
    BearerAuthentication,
    DeclaredAuthentication,
)
from hotswap.common.log_context import bind
from hotswap.common.roles import Role
from hotswap.common.tokens import DeviceToken, KeyringToken, verified_subject


@dataclass(frozen=True, slots=True)
class DevicePrincipal:
    """The caller of a device route.

    Attributes:
        certificates: fingerprints of those that it owes its admission to.
    """

    device: Device
    certificates: tuple[str, ...] = ()
    role: Role = Role.DEVICE
    is_authenticated: bool = True

    @property
    def pseudonym(self) -> uuid.UUID:
        return self.device.pk

    @property
    def pk(self) -> uuid.UUID:
        return self.device.pk

    def is_admitted(self) -> bool:
        """Look up whether the device and its certificates are still let in."""
        wanted = set(self.certificates)
        if not wanted:
            return is_admitted_device(self.device.pk)
        valid = DeviceCertificate.objects.valid(timezone.now()).filter(
            device=self.device, fingerprint__in=wanted
        )
        return valid.count() == len(wanted)


class DeviceAuthentication(BearerAuthentication):
    """Accept the token of a device that exists and is not revoked."""

    scheme_name = "deviceToken"
    token_class = DeviceToken

    def authenticate(self, request: Request) -> tuple[Any, Any] | None:
        found = self._known(request) or super().authenticate(request)
        if found is None:
            return None
        principal, claims = found
        beside = required_certificate(request, principal.device.device_id)
        if beside is not None:
            principal = DevicePrincipal(
                principal.device, (*principal.certificates, beside.fingerprint)
            )
        return principal, claims

    def _known(self, request: Request) -> tuple[Any, Any] | None:
        """Answer for a token that needs no closer look: it was verified before."""
        kind, _, text = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
        subject = verified_subject(text, DeviceToken) if kind == "Bearer" else None
        if subject is None:
            return None
        claims = {"sub": subject}
        return self.principal(claims), claims

    def principal(self, claims: KeyringToken | dict[str, Any]) -> DevicePrincipal:
        fingerprint = claims.get("certificate")
        try:
            device = admitted_device(uuid.UUID(claims["sub"]))
        except ValueError:
            device = None
        if device is not None:
            found = DevicePrincipal(device, (fingerprint,) if fingerprint else ())
            bind(device_id=device.device_id)
            if not fingerprint or found.is_admitted():
                return found
        raise AuthenticationFailed(
            "the device is revoked or gone", code="token_revoked"
        )


class CertificateAuthentication(DeclaredAuthentication):
    """Accept a certificate instead of a token, where certificates are optional."""

    scheme_name = "deviceCertificate"
    scheme = MappingProxyType(
        {
            "type": "mutualTLS",
            "description": "Where certificates are optional; checked by the proxy.",
        }
    )

    def authenticate(self, request: Request) -> tuple[Any, Any] | None:
        if settings.DEVICE_CERTIFICATES != "optional":
            return None
        if get_authorization_header(request):
            return None
        found = presented_certificate(request)
        if found is None:
            return None
        bind(device_id=found.device.device_id)
        return DevicePrincipal(found.device, (found.fingerprint,)), found
