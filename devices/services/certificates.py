"""Client certificates of devices (specification, Device Authentication: optional).

Rules:
- A certificate is known by the SHA-256 of its DER, which is computed here; nothing that
  it says of itself makes it belong to a device, only its registration does.
- One certificate belongs to one device. A device has a few, so that one can follow the
  other with an overlap.
- Whether the device holds the private key is proved to the proxy, in the handshake.
"""

from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from django.db import IntegrityError, transaction
from django.utils import timezone

from devices.exceptions import (
    CertificateExistsError,
    CertificateExpiredError,
    CertificateInvalidError,
    CertificateNotFoundError,
    DeviceRevokedError,
    TooManyCertificatesError,
)
from devices.models import DeviceCertificate
from devices.services.registry import locked_device
from hotswap.common import audit
from hotswap.common.models import User

MAX_CERTIFICATES = 10
MAX_SUBJECT = 256
MAX_PEM_CHARACTERS = 16 * 1024


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """What HotSwap keeps of a certificate."""

    fingerprint: str
    subject: str
    not_before: datetime
    not_after: datetime


def read_certificate(pem: str) -> CertificateFacts:
    """Read one certificate in PEM.

    Raises:
        ValueError: it is none, there are several, or a private key is with it.
    """
    if "PRIVATE KEY" in pem:
        raise ValueError("this holds a private key, which belongs to the device alone")
    try:
        found = x509.load_pem_x509_certificates(pem.encode())
        if len(found) == 1:
            return _facts_of(found[0])
    except (ValueError, x509.InvalidVersion):
        raise ValueError("this is not a certificate in PEM") from None
    raise ValueError("give one certificate, without its chain")


def _facts_of(certificate: x509.Certificate) -> CertificateFacts:
    try:
        subject = certificate.subject.rfc4514_string()
    except ValueError:
        subject = ""
    return CertificateFacts(
        fingerprint=certificate.fingerprint(hashes.SHA256()).hex(),
        subject="".join(c for c in subject if c.isprintable())[:MAX_SUBJECT],
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
    )


def add_certificate(
    *, actor: User, device_id: str, certificate: str
) -> DeviceCertificate:
    """Let a device call with a certificate.

    Args:
        certificate: one, in PEM, without chain and private key.

    Raises:
        CertificateInvalidError: it is not such a text (400).
        CertificateExpiredError: its time is over (422).
        CertificateExistsError: it is registered, for this device or another (409).
        TooManyCertificatesError: the device has ten (422).
        DeviceNotFoundError, DeviceRevokedError.
    """
    now = timezone.now()
    try:
        facts = read_certificate(certificate)
    except ValueError as error:
        raise CertificateInvalidError(str(error)) from None
    if facts.not_after <= now:
        raise CertificateExpiredError(
            f"the certificate expired on {facts.not_after:%Y-%m-%d}"
        )
    try:
        with transaction.atomic():
            device = locked_device(device_id)
            if device.revoked_at is not None:
                raise DeviceRevokedError(f"{device_id} is revoked")
            if device.certificates.count() >= MAX_CERTIFICATES:
                raise TooManyCertificatesError(
                    f"a device has {MAX_CERTIFICATES} certificates at most; "
                    "remove one that has expired"
                )
            row = DeviceCertificate.objects.create(
                device=device,
                fingerprint=facts.fingerprint,
                subject=facts.subject,
                not_before=facts.not_before,
                not_after=facts.not_after,
                created_at=now,
            )
            audit.record(
                actor=actor,
                verb="device.certificate-added",
                object_kind="device",
                object_id=device.pk,
                details={"fingerprint": facts.fingerprint},
            )
    except IntegrityError:
        raise CertificateExistsError(
            "this certificate is registered already, for this device or another"
        ) from None
    return row


def get_certificate(*, device_id: str, fingerprint: str) -> DeviceCertificate:
    """Return a certificate of a device.

    Raises:
        CertificateNotFoundError: the device is unknown, or has no such certificate.
    """
    found = DeviceCertificate.objects.filter(
        device__device_id=device_id, fingerprint=fingerprint
    ).first()
    if found is None:
        raise CertificateNotFoundError("the device has no such certificate")
    return found


def remove_certificate(*, actor: User, device_id: str, fingerprint: str) -> None:
    """Shut a certificate out, at once and with the tokens that were given for it.

    Raises:
        DeviceNotFoundError, CertificateNotFoundError.
    """
    with transaction.atomic():
        device = locked_device(device_id)
        removed = device.certificates.filter(fingerprint=fingerprint).first()
        if removed is None:
            raise CertificateNotFoundError("the device has no such certificate")
        ends = removed.not_after
        removed.delete()
        if not device.certificates.filter(not_after__gt=ends).exists():
            # Passed over as this one outlasted them, they are looked at again.
            device.certificates.update(expiry_told_at=None)
        audit.record(
            actor=actor,
            verb="device.certificate-removed",
            object_kind="device",
            object_id=device.pk,
            details={"fingerprint": fingerprint},
        )
