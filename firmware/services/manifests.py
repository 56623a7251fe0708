"""The signed manifests that orders carry, and the permits to boot a kept image."""

from datetime import datetime
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from firmware import signing
from firmware.choices import ABSENT
from firmware.models import Firmware, Manifest, SigningKey
from firmware.services.keys import (
    current_signer,
    hold_keys,
    signer_of,
    signing_key_for,
)
from hotswap.common.rows import Columns, prepared_cursor

MANIFEST = Columns(Manifest, "m")
KEY = Columns(SigningKey, "k", without=("sealed_private_key",))
# There is one active key, and it is preferred to all others.
NEWEST_MANIFEST = f"""
    SELECT {MANIFEST.sql}, {KEY.sql} FROM firmware_manifest m
    JOIN firmware_signingkey k ON k.id = m.key_id
    WHERE m.firmware_id = %s AND m.sequence > %s AND k.status = 'Active'
    ORDER BY m.sequence DESC LIMIT 1
"""  # noqa: S608


def _newest_manifest(
    firmware: Firmware, above: int, trusted: frozenset[str] | None, now: datetime
) -> Manifest | None:
    """Return the newest manifest under the active key, if that may sign for it."""
    with prepared_cursor() as cursor:
        cursor.execute(NEWEST_MANIFEST, [firmware.pk, above])
        row = cursor.fetchone()
    if row is None:
        return None
    values = iter(row)
    manifest = MANIFEST.take(values)
    manifest.key = KEY.take(values)
    is_known = trusted is None or manifest.key.key_id in trusted
    return manifest if is_known and manifest.key.may_sign(now) else None


# Microseconds since 1970 by the database's clock, which all hosts share; a clock that
# was set back counts on from the highest. Two at the same microsecond: the second one
# waits for the first, inserts nothing, and looks again.
INTO_MANIFESTS = """
    INSERT INTO firmware_manifest
        (sequence, firmware_id, body, signature, key_id, issued_at)
    SELECT GREATEST(
            (extract(epoch FROM clock_timestamp()) * 1000000)::bigint,
            max(sequence) + 1
        ), %s::uuid, '', '', %s::uuid, %s::timestamptz
    FROM firmware_manifest
    ON CONFLICT (sequence) DO NOTHING
    RETURNING sequence
"""


def _begin_manifest(firmware: Firmware, key: SigningKey, now: datetime) -> Manifest:
    """Return a manifest without body and signature, of a sequence never used before.

    Devices remember the highest sequence that they have accepted. It holds the time of
    issue, so that it is above all that were ever issued even where the rows of the
    latest are gone, as after the restore of a backup.
    """
    while True:
        with prepared_cursor() as cursor:
            cursor.execute(INTO_MANIFESTS, [firmware.pk, key.pk, now])
            row = cursor.fetchone()
        if row is not None:
            return Manifest(sequence=row[0], firmware=firmware, key=key, issued_at=now)


def manifest_for(
    firmware: Firmware, *, above: int, trusted: frozenset[str] | None = None
) -> Manifest:
    """Return a signed manifest whose sequence is higher than the given one.

    The newest manifest of the firmware serves every device that has not seen a higher
    sequence; a device that has (it went back and comes again) gets a new one.

    Args:
        trusted: names of the signing keys that the device has pinned, where it says;
            see `signing_key_for`.
    """
    assert firmware.status != ABSENT
    now = timezone.now()
    newest = _newest_manifest(firmware, above, trusted, now)
    if newest is not None:
        return newest
    key = signing_key_for(trusted, now=now)
    newest = (
        Manifest.objects.select_related("key")
        .filter(firmware=firmware, key=key, sequence__gt=above)
        .order_by("-sequence")
        .first()
    )
    if newest is not None:
        return newest
    with transaction.atomic():
        hold_keys()
        # Again: the ring may have changed before it was held.
        key = signing_key_for(trusted, now=now)
        signer = signer_of(key)
        manifest = _begin_manifest(firmware, key, now)
        manifest.body = signing.build_manifest(
            model=firmware.model.name,
            version=firmware.version,
            sequence=manifest.sequence,
            security_version=firmware.security_version,
            sha256=firmware.sha256,
            size_bytes=firmware.size,
            signing_key_id=signer.key_id,
            issued_at=now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        )
        manifest.signature = signing.sign_message(signer.private, manifest.body)
        manifest.save(update_fields=["body", "signature"])
    return manifest


def absent_firmware(*, model_id: UUID, sha256: str, version: str) -> UUID:
    """Return the record of an image that devices hold and the server does not.

    It is made at the first need. What devices call the image is part of it, so that
    none of them can put a name on another's.
    """
    known = Firmware.with_absent.filter(
        status=ABSENT, model=model_id, sha256=sha256, version=version
    ).values_list("pk", flat=True)
    found = known.first()
    if found is not None:
        return found
    row = Firmware(
        model_id=model_id,
        version=version,
        precedence="",
        status=ABSENT,
        size=0,
        sha256=sha256,
        signature="",
        # Nothing is signed by it; each row has some key.
        key_id=current_signer().row_id,
    )
    row.storage_name = f"absent-{row.pk}"
    Firmware.with_absent.bulk_create([row], ignore_conflicts=True)
    # Whoever was first.
    return known.get()


def sign_slot_return(
    firmware: Firmware, *, device_id: str, trusted: frozenset[str] | None
) -> Manifest:
    """Return a signed leave for one device to boot an absent image that it has kept.

    Always a new one: it is bound to the device, and newer than all that it has seen.
    An image manifest is never signed for such an image, as the digest is nothing but
    the word of a device, and other devices would take it for the server's.
    """
    assert firmware.status == ABSENT
    now = timezone.now()
    with transaction.atomic():
        hold_keys()
        key = signing_key_for(trusted, now=now)
        signer = signer_of(key)
        manifest = _begin_manifest(firmware, key, now)
        manifest.body = signing.build_slot_return(
            device_id=device_id,
            model=firmware.model.name,
            version=firmware.version,
            sequence=manifest.sequence,
            sha256=firmware.sha256,
            signing_key_id=signer.key_id,
            issued_at=now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        )
        manifest.signature = signing.sign_message(signer.private, manifest.body)
        manifest.save(update_fields=["body", "signature"])
    return manifest
