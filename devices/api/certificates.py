"""The certificate that a device showed to the proxy in the TLS handshake.

Rules (`HOTSWAP_DEVICE_CERTIFICATES`):
- `off`: what the proxy says of it is not looked at.
- `optional`: a request without a token is the device's whose certificate it comes with.
- `required`: a device needs its key and a certificate of its own, also beside a token.
- What the proxy's header says counts only with its secret and the verdict `SUCCESS`.
"""

import re
from urllib.parse import unquote

from django.conf import settings
from django.utils import timezone
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from devices.models import DeviceCertificate
from devices.services.certificates import MAX_PEM_CHARACTERS, read_certificate
from hotswap.common.api.proxy import PROXY_VARIABLE, proxied

VERIFIED = "SUCCESS"
SHA256 = re.compile(r"[0-9a-f]{64}")


def presented_certificate(request: Request) -> DeviceCertificate | None:
    """Return the registered certificate that a request comes with.

    Returns:
        The certificate and its device, or None where none is shown or certificates
        are off.

    Raises:
        AuthenticationFailed: one is shown, but not by the proxy, not verified, not
            registered, out of its time, or that of a revoked device.
    """
    if settings.DEVICE_CERTIFICATES == "off" or PROXY_VARIABLE not in request.META:
        return None
    proxy = proxied(request.META)
    if proxy is None:
        raise _refused("a certificate is taken from the configured proxy alone")
    if not proxy.certificate:
        return None
    if proxy.verdict != VERIFIED:
        raise _refused("the proxy did not verify the certificate")
    found = (
        DeviceCertificate.objects.valid(timezone.now())
        .select_related("device")
        .filter(fingerprint=_fingerprint(proxy.certificate))
        .first()
    )
    if found is None:
        raise _refused(
            "the certificate is not registered, out of its time, or its device is "
            "revoked"
        )
    return found


def _fingerprint(text: str) -> str:
    """Return the SHA-256 of what the header holds, in the configured format."""
    if settings.CERTIFICATE_FORMAT == "sha256":
        digits = text.replace(":", "").strip().lower()
        if SHA256.fullmatch(digits) is None:
            raise _refused("the proxy's header holds no SHA-256")
        return digits
    if len(text) > 3 * MAX_PEM_CHARACTERS:
        raise _refused("the certificate is too long")
    try:
        return read_certificate(unquote(text)).fingerprint
    except ValueError as error:
        raise _refused(f"the proxy's header: {error}") from None


def _refused(why: str) -> AuthenticationFailed:
    return AuthenticationFailed(why, code="certificate_refused")


def required_certificate(request: Request, device_id: str) -> DeviceCertificate | None:
    """Return the certificate of the named device, where certificates are required.

    Raises:
        AuthenticationFailed: it is missing, refused, or another device's.
    """
    if settings.DEVICE_CERTIFICATES != "required":
        return None
    found = presented_certificate(request)
    if found is None or found.device.device_id != device_id:
        raise AuthenticationFailed(
            "a device needs a client certificate of its own here",
            code="certificate_required",
        )
    return found
