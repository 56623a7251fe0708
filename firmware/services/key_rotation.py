"""What people and the server do with the rings of keys.

Rules:
- Each ring has one active key, always. A signing key that is published in advance is
  Next: devices learn it before it signs.
- A rotated signing key stays trusted until its end (`not_after`); then it is retired.
  One that signs no more has its private half erased.
- A revoked key and all that it signed are not to be trusted: an image that has no
  signature of another key is offered to nobody until somebody has it signed again.
- A rotated storage key is retired when no image is wrapped by it any more.
- Every step can be done again, by another process too: what is left to do is read from
  the rows, and the periodic task (`tend`) finishes what a command has begun.
"""

import hashlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone
from django.utils.module_loading import import_string

from firmware import signing, storage
from firmware.choices import SIGNING, SOUND_KEYS, STORAGE, FirmwareStatus, KeyStatus
from firmware.encrypted_format import (
    DamagedImageError,
    key_in_header,
    unwrap_key,
    wrap_key,
    wrapping_key_name,
)
from firmware.exceptions import (
    ImageChangedError,
    ImageUnavailableError,
    KeyInUseError,
    KeyStatusError,
    LastKeyError,
    NextKeyExistsError,
    StoreUnavailableError,
    UnknownKeyError,
)
from firmware.models import (
    Firmware,
    ImageSignature,
    SigningKey,
    StorageKey,
    WrappedKey,
)
from firmware.services.delivery import stored_bytes
from firmware.services.keys import (
    active_storage_key,
    add_signing_key,
    add_storage_key,
    current_signer,
    hold_back,
    hold_keys,
    is_proved,
    lock_keys,
    opened,
)
from hotswap.common import audit
from hotswap.common.models import User
from hotswap.common.pluralize import counted
from hotswap.common.signatures import (
    Meaning,
    Signature,
    check_signature,
    signed_details,
)

logger = logging.getLogger(__name__)
BATCH = 200

Progress = Callable[[int], None]


def _ignore(done: int) -> None:
    """Tell nobody how far it is."""


# --- Signing keys ------------------------------------------------------------------


def _signing_key(key_id: str) -> SigningKey:
    key = SigningKey.objects.filter(key_id=key_id).first()
    if key is None and StorageKey.objects.filter(key_id=key_id).exists():
        raise UnknownKeyError(
            f"{key_id} is a storage key, no signing key: rotate that ring; a storage "
            "key retires when nothing is wrapped by it"
        )
    if key is None:
        raise UnknownKeyError(f"there is no signing key {key_id!r}")
    return key


def _move_signing_key(
    key: SigningKey, status: KeyStatus, now: datetime, *, comment: str = ""
) -> None:
    key.status = status
    key.status_comment = comment
    key.updated_at = now
    if status in (KeyStatus.RETIRED, KeyStatus.REVOKED):
        key.not_after = now if key.not_after is None else min(key.not_after, now)
        key.sealed_private_key = b""
    key.save(
        update_fields=[
            *("status", "status_comment", "not_after", "sealed_private_key"),
            "updated_at",
        ]
    )


def _note(
    actor: User | None, verb: str, key: SigningKey | StorageKey, **details: object
) -> None:
    kind = SIGNING if isinstance(key, SigningKey) else STORAGE
    audit.record(
        actor=actor,
        verb=f"{kind}.{verb}",
        object_kind=kind,
        object_id=key.key_id,
        details=details,
        changed=key,
    )


def create_signing_key(*, actor: User | None) -> SigningKey:
    """Publish the key that will sign after the next rotation.

    Raises:
        NextKeyExistsError: there is one already.
    """
    with transaction.atomic():
        lock_keys()
        known = SigningKey.objects.filter(status=KeyStatus.NEXT).first()
        if known is not None:
            raise NextKeyExistsError(
                f"the signing key {known} is published as the next one already"
            )
        return add_signing_key(actor=actor, status=KeyStatus.NEXT)


def rotate_signing_key(
    *, actor: User | None, overlap: timedelta | None = None
) -> SigningKey:
    """Let the next key sign, a new one where none was published, and return it.

    The one that signed is Retiring: it stays published until the overlap is over, and
    signs for devices that have pinned it and not its successor. Images are signed again
    under the new key by `sign_missing`.

    Args:
        overlap: how long the former key stays trusted; by default the setting
            `SIGNING_KEY_OVERLAP`. Zero retires it at once.
    """
    overlap = settings.SIGNING_KEY_OVERLAP if overlap is None else overlap
    with transaction.atomic():
        lock_keys()
        now = timezone.now()
        former = SigningKey.objects.get(status=KeyStatus.ACTIVE)
        former.not_after = now + overlap
        _move_signing_key(former, KeyStatus.RETIRING, now)
        new = _activate_next(actor, now)
        _note(
            actor,
            "rotated",
            new,
            former=former.key_id,
            formerNotAfter=former.not_after,
        )
        if overlap <= timedelta():
            _move_signing_key(former, KeyStatus.RETIRED, now)
            _note(actor, "retired", former)
    logger.info(
        "Signing key rotated", extra={"keyId": new.key_id, "former": former.key_id}
    )
    return new


def _activate_next(actor: User | None, now: datetime) -> SigningKey:
    key = SigningKey.objects.filter(status=KeyStatus.NEXT).first()
    if key is None:
        return add_signing_key(actor=actor, status=KeyStatus.ACTIVE)
    _move_signing_key(key, KeyStatus.ACTIVE, now)
    return key


def retire_signing_key(*, actor: User | None, key_id: str) -> SigningKey:
    """End the overlap of a key now, or withdraw one that never signed.

    What it has signed stays true; devices that have pinned it alone get nothing that
    they accept any more.

    Raises:
        UnknownKeyError: there is no such key.
        LastKeyError: it is the active one.
        KeyStatusError: it is retired or revoked.
    """
    with transaction.atomic():
        lock_keys()
        key = _signing_key(key_id)
        if key.status == KeyStatus.ACTIVE:
            raise LastKeyError(f"{key_id} signs: rotate the ring first, then retire it")
        if key.status not in (KeyStatus.NEXT, KeyStatus.RETIRING):
            raise KeyStatusError(f"the signing key {key_id} is {key.status} already")
        _move_signing_key(key, KeyStatus.RETIRED, timezone.now())
        _note(actor, "retired", key)
    return key


@dataclass(frozen=True, slots=True)
class Revocation:
    """A revoked key, the key that signs now, and how many images wait for it."""

    key: SigningKey
    active: SigningKey
    held_back: int


def revoke_signing_key(
    *,
    actor: User | None,
    key_id: str,
    reason: str,
    signature: Signature | None = None,
) -> Revocation:
    """Trust a key no more, nor anything that only it has signed.

    It leaves `GET /signing-keys` at once. Orders under its manifests get a manifest of
    the active key at the next poll. An image that no other key has signed is held back
    until `sign_held_back`. The active key may be revoked where the next one is
    published, which then signs.

    Raises:
        UnknownKeyError: there is no such key.
        LastKeyError: it is the active one and has no successor.
        KeyStatusError: it is revoked.
        SignatureRequiredError: it has to be signed.
    """
    check_signature(actor, Meaning.REVOCATION, signature)
    with transaction.atomic():
        lock_keys()
        now = timezone.now()
        key = _signing_key(key_id)
        if key.status == KeyStatus.REVOKED:
            raise KeyStatusError(f"the signing key {key_id} is Revoked already")
        if key.status == KeyStatus.ACTIVE:
            if not SigningKey.objects.filter(status=KeyStatus.NEXT).exists():
                raise LastKeyError(
                    f"{key_id} signs and has no successor: create the next signing "
                    "key, or rotate the ring, and then revoke it"
                )
            _move_signing_key(key, KeyStatus.REVOKED, now, comment=reason)
            active = _activate_next(actor, now)
        else:
            _move_signing_key(key, KeyStatus.REVOKED, now, comment=reason)
            active = SigningKey.objects.get(status=KeyStatus.ACTIVE)
        sound = SigningKey.objects.filter(status__in=SOUND_KEYS)
        held_back = _without_signature_of(sound).update(
            signature_revoked_at=now, updated_at=now
        )
        _note(
            actor,
            "revoked",
            key,
            reason=reason,
            active=active.key_id,
            imagesHeldBack=held_back,
            **signed_details(
                signature,
                {
                    "keyId": key.key_id,
                    "algorithm": key.algorithm,
                    "publicKey": key.public_key,
                    "reason": reason,
                },
            ),
        )
    logger.warning(
        "Signing key revoked", extra={"keyId": key_id, "imagesHeldBack": held_back}
    )
    return Revocation(key, active, held_back)


def _signed_by(keys: QuerySet[SigningKey]) -> Q:
    """Return the condition that one of the keys has signed the image."""
    # By ids, because an update cannot join.
    ids = keys.values("pk")
    later = ImageSignature.objects.filter(firmware=OuterRef("pk"), key__in=ids)
    return Q(key__in=ids) | Q(Exists(later))


def _without_signature_of(keys: QuerySet[SigningKey]) -> QuerySet[Firmware]:
    return Firmware.objects.filter(signature_revoked_at__isnull=True).exclude(
        _signed_by(keys)
    )


def images_held_back() -> QuerySet[Firmware]:
    """Return the images that wait to be signed again, after a revocation."""
    return Firmware.objects.filter(signature_revoked_at__isnull=False).exclude(
        status=FirmwareStatus.REJECTED
    )


def held_back_if_revoked(*, key_id: str) -> int:
    """Count the images that no other sound key has signed.

    Raises:
        UnknownKeyError: there is no such key.
    """
    key = _signing_key(key_id)
    others = SigningKey.objects.filter(status__in=SOUND_KEYS).exclude(pk=key.pk)
    return _without_signature_of(others).count()


def unsigned_images() -> QuerySet[Firmware]:
    """Return the images that the active key has yet to sign."""
    active = SigningKey.objects.filter(status=KeyStatus.ACTIVE)
    return _without_signature_of(active).exclude(status=FirmwareStatus.REJECTED)


def sign_missing(*, actor: User | None = None, on_progress: Progress = _ignore) -> int:
    """Sign under the active key what another sound key has signed.

    Returns:
        How many images it signed.
    """
    signed = 0
    while True:
        with transaction.atomic():
            hold_keys()
            signer = current_signer()
            batch = list(unsigned_images().select_related("key").order_by("pk")[:BATCH])
            if not batch:
                return signed
            proved = []
            for firmware in batch:
                if is_proved(firmware):
                    proved.append(firmware)
                else:
                    hold_back(firmware, now=timezone.now())
            ImageSignature.objects.bulk_create(
                [
                    ImageSignature(
                        firmware=firmware,
                        key_id=signer.row_id,
                        signature=signing.sign_digest(
                            signer.private, bytes.fromhex(firmware.sha256)
                        ),
                    )
                    for firmware in proved
                ],
                # Another process may be at the same.
                ignore_conflicts=True,
            )
            audit.record(
                actor=actor,
                verb="signing-key.signed_images",
                object_kind=SIGNING,
                object_id=signer.key_id,
                details={"images": len(proved)},
            )
        signed += len(proved)
        on_progress(signed)


@dataclass(frozen=True, slots=True)
class SignedAgain:
    """How many images were signed again, and why others were not."""

    signed: int
    refused: dict[UUID, str]


def sign_held_back(
    *,
    actor: User | None,
    within: timedelta | None = None,
    on_progress: Progress = _ignore,
) -> SignedAgain:
    """Sign again what was signed by revoked keys alone, after reading each image.

    The signature proves nothing any more, so that the stored image itself is compared
    with the checksum of its upload, which approval has bound.

    Args:
        within: begin no further image after this time; None does all.

    Raises:
        StoreUnavailableError: the store does not answer; what was signed stays signed.
    """
    signed = 0
    refused: dict[UUID, str] = {}
    begun = time.monotonic()
    for firmware in images_held_back().order_by("created_at"):
        if within is not None and time.monotonic() - begun > within.total_seconds():
            break
        digest = hashlib.sha256()
        try:
            for piece in stored_bytes(firmware, 0, firmware.size):
                digest.update(piece)
            if digest.hexdigest() != firmware.sha256:
                raise ImageChangedError(
                    f"the stored image of {firmware} is not the one that was uploaded"
                )
        except (ImageChangedError, ImageUnavailableError) as error:
            refused[firmware.pk] = str(error)
            continue
        with transaction.atomic():
            hold_keys()
            signer = current_signer()
            ImageSignature.objects.get_or_create(
                firmware=firmware,
                key_id=signer.row_id,
                defaults={
                    "signature": signing.sign_digest(signer.private, digest.digest())
                },
            )
            freed = Firmware.objects.filter(
                pk=firmware.pk, signature_revoked_at__isnull=False
            ).update(signature_revoked_at=None, updated_at=timezone.now())
            if freed:
                audit.record(
                    actor=actor,
                    verb="firmware.signed_again",
                    object_kind="firmware",
                    object_id=firmware.pk,
                    details={"keyId": signer.key_id, "sha256": firmware.sha256},
                )
        signed += freed
        on_progress(signed)
    return SignedAgain(signed, refused)


def retire_ended(*, now: datetime) -> int:
    """Retire the signing keys whose overlap is over; return how many."""
    with transaction.atomic():
        ended = SigningKey.objects.filter(status=KeyStatus.RETIRING, not_after__lte=now)
        if not ended.exists():
            return 0
        lock_keys()
        keys = list(ended)
        for key in keys:
            _move_signing_key(key, KeyStatus.RETIRED, now)
            _note(None, "retired", key)
    return len(keys)


def announce_ending(*, now: datetime) -> int:
    """Tell which retiring signing keys end soon, each once; return how many.

    A device that has pinned none of their successors takes no image afterwards.
    """
    with transaction.atomic():
        ending = SigningKey.objects.filter(
            status=KeyStatus.RETIRING,
            not_after__lte=now + settings.DEVICE_KEY_WARNING,
            expiry_told_at__isnull=True,
        )
        if not ending.exists():
            return 0
        lock_keys()
        keys = list(ending.order_by("not_after", "key_id"))
        for key in keys:
            key.expiry_told_at = now
            key.save(update_fields=["expiry_told_at"])
            _note(None, "expiring", key, notAfter=key.not_after)
            import_string(settings.SIGNING_KEY_EVENT_HOOK)(key=key, now=now)
    return len(keys)


# --- Storage keys ------------------------------------------------------------------


def rotate_storage_key(*, actor: User | None) -> StorageKey:
    """Make a new storage key; `rewrap_images` then wraps what is stored under it."""
    with transaction.atomic():
        lock_keys()
        now = timezone.now()
        former = active_storage_key()
        StorageKey.objects.filter(pk=former.pk).update(
            status=KeyStatus.RETIRING, updated_at=now
        )
        new = add_storage_key(actor=actor)
        _note(actor, "rotated", new, former=former.key_id)
    logger.info(
        "Storage key rotated", extra={"keyId": new.key_id, "former": former.key_id}
    )
    return new


@dataclass(frozen=True, slots=True)
class Rewrapping:
    """How many keys were wrapped again, what would not open, and what was retired."""

    wrapped: int
    unreadable: tuple[str, ...]
    retired: tuple[str, ...]


def rewrap_images(
    *, actor: User | None = None, on_progress: Progress = _ignore
) -> Rewrapping:
    """Wrap the keys of stored images under the active storage key, file by file.

    No file is touched: wrapped keys lie in the database. It may be cut off anywhere and
    run again, also by two processes at once, while images are read and written.

    Raises:
        StoreUnavailableError: the header of an image without a row cannot be read now.
    """
    if not StorageKey.objects.filter(status=KeyStatus.RETIRING).exists():
        return Rewrapping(0, (), ())
    unreadable = _take_over_from_headers()
    wrapped = 0
    while True:
        with transaction.atomic():
            hold_keys()
            current = active_storage_key()
            batch = list(
                WrappedKey.objects.select_for_update(of=("self",), no_key=True)
                .select_related("storage_key")
                .exclude(storage_key=current)
                .exclude(pk__in=unreadable)
                .order_by("pk")[:BATCH]
            )
            changed = []
            for row in batch:
                try:
                    key = unwrap_key(bytes(row.wrapped), opened(row.storage_key))
                except DamagedImageError:
                    unreadable.append(row.pk)
                    continue
                row.wrapped = wrap_key(key, opened(current))
                row.storage_key = current
                changed.append(row)
            WrappedKey.objects.bulk_update(changed, ["wrapped", "storage_key"])
        wrapped += len(changed)
        on_progress(wrapped)
        if not batch:
            break
    retired = _retire_unused(actor)
    if unreadable:
        logger.error(
            "Keys of stored images do not open",
            extra={"storageNames": unreadable},
        )
    return Rewrapping(wrapped, tuple(unreadable), tuple(retired))


def _take_over_from_headers() -> list[str]:
    """Write a row for each stored file whose key lies in itself alone.

    Returns:
        The names of those that are gone or tell no key.
    """
    unreadable = []
    known = WrappedKey.objects.filter(pk=OuterRef("storage_name"))
    names = (
        Firmware.objects.exclude(Exists(known))
        .exclude(storage_name__endswith=storage.PLAIN_SUFFIX)
        .values_list("storage_name", flat=True)
    )
    for name in list(names):
        try:
            header = storage.read_header(name)
            named = StorageKey.objects.filter(key_id=wrapping_key_name(header)).first()
            if named is None:
                raise DamagedImageError("the stored file names an unknown storage key")
            key = key_in_header(header, opened(named))
        except DamagedImageError:
            unreadable.append(name)
            continue
        except storage.STORE_ERRORS as error:
            logger.exception("Store does not give an image")
            raise StoreUnavailableError(storage.failure_of(error)) from error
        with transaction.atomic():
            hold_keys()
            current = active_storage_key()
            WrappedKey.objects.get_or_create(
                storage_name=name,
                defaults={
                    "storage_key": current,
                    "wrapped": wrap_key(key, opened(current)),
                },
            )
    return unreadable


def _retire_unused(actor: User | None) -> list[str]:
    with transaction.atomic():
        lock_keys()
        unused = [
            key
            for key in StorageKey.objects.filter(status=KeyStatus.RETIRING)
            if not key.wrappedkey_set.exists()
        ]
        for key in unused:
            key.status = KeyStatus.RETIRED
            key.updated_at = timezone.now()
            key.save(update_fields=["status", "updated_at"])
            _note(actor, "retired", key)
    return [key.key_id for key in unused]


def delete_storage_key(*, actor: User | None, key_id: str) -> None:
    """Delete a storage key that wraps nothing any more.

    Raises:
        UnknownKeyError: there is no such key.
        KeyInUseError: it wraps new images, or some that are stored.
    """
    with transaction.atomic():
        lock_keys()
        key = StorageKey.objects.filter(key_id=key_id).first()
        if key is None:
            raise UnknownKeyError(f"there is no storage key {key_id!r}")
        count = key.wrappedkey_set.count()
        if key.status != KeyStatus.RETIRED or count:
            raise KeyInUseError(
                f"the storage key {key_id} is {key.status} and wraps "
                f"{counted(count, 'image')}: "
                "only one that is Retired can be deleted"
            )
        _note(actor, "deleted", key)
        key.delete()


# --- Periodic work -----------------------------------------------------------------


def tend(*, now: datetime) -> None:
    """Finish what rotations have begun; safe to run at any time."""
    retire_ended(now=now)
    announce_ending(now=now)
    sign_missing()
    rewrap_images()
