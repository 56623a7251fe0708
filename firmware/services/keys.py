"""The rings of signing keys and storage keys, as others use them.

Rules:
- Private halves lie in the database, sealed with the master key file. Unsealed keys
  are kept by each process: opening one costs more than a hundred signatures. Which of
  them may be used is asked of the database every time, so that a rotation or a
  revocation by another process counts at once.
- Whoever writes something signed or wrapped holds the ring (`hold_keys`) until the
  commit; whoever changes a ring locks it (`lock_keys`). Nothing can thus be written
  under a key that is being taken out of use.
- An image is signed again only on proof: a signature of a key that was not revoked
  fits its checksum. Without one a person has the stored image read and compared.
"""

import logging
import secrets
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from django.core.exceptions import ImproperlyConfigured
from django.db import connection, transaction
from django.utils import timezone

from firmware import signing, storage
from firmware.choices import SIGNING, SOUND_KEYS, STORAGE, KeyStatus
from firmware.encrypted_format import (
    KEY_BYTES,
    DamagedImageError,
    FrameKey,
    key_in_header,
    unwrap_key,
    wrap_key,
    wrapping_key_name,
)
from firmware.models import (
    Firmware,
    ImageSignature,
    SigningKey,
    StorageKey,
    WrappedKey,
)
from hotswap.common import audit, locks
from hotswap.common.keyring import seal, unseal
from hotswap.common.models import User
from hotswap.common.services import ensure_keys as ensure_key_files

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Signer:
    """A signing key that may be used: its row's id, its name, and the key itself."""

    row_id: UUID
    key_id: str
    private: rsa.RSAPrivateKey


def hold_keys() -> None:
    """Keep both rings as they are until the transaction ends."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock_shared(%s)", [locks.KEYS])


def lock_keys() -> None:
    """Wait for all that hold the rings, and let nobody hold them until the commit."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [locks.KEYS])


def ensure_firmware_keys() -> None:
    """Make the first signing key and the first storage key; open those in use.

    Raises:
        ImproperlyConfigured: a key file is missing or is another one.
    """
    ensure_key_files()
    with transaction.atomic():
        lock_keys()
        if not SigningKey.objects.filter(status=KeyStatus.ACTIVE).exists():
            add_signing_key(actor=None, status=KeyStatus.ACTIVE)
        if not StorageKey.objects.filter(status=KeyStatus.ACTIVE).exists():
            add_storage_key(actor=None)
    current_signer()
    current_storage_key()


# --- Signing keys ------------------------------------------------------------------


def add_signing_key(*, actor: User | None, status: KeyStatus) -> SigningKey:
    """Make a signing key, with the ring locked."""
    private = signing.generate_key()
    public = private.public_key()
    der = private.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    key = SigningKey.objects.create(
        key_id=signing.key_id(public),
        public_key=signing.public_pem(public),
        sealed_private_key=seal(der, purpose=SIGNING),
        status=status,
    )
    audit.record(
        actor=actor,
        verb="signing-key.created",
        object_kind=SIGNING,
        object_id=key.key_id,
        details={"status": status.value},
    )
    return key


@lru_cache(maxsize=16)
def _private_key(key_id: str) -> rsa.RSAPrivateKey:
    row = SigningKey.objects.get(key_id=key_id)
    try:
        der = unseal(bytes(row.sealed_private_key), purpose=SIGNING)
    except InvalidTag:
        raise ImproperlyConfigured(
            f"the signing key {key_id} does not open with this master.key: restore "
            "the key file or the database, so that both are of the same backup"
        ) from None
    private = serialization.load_der_private_key(der, password=None)
    assert isinstance(private, rsa.RSAPrivateKey)
    return private


def signing_key_for(trusted: frozenset[str] | None, *, now: datetime) -> SigningKey:
    """Return the key that signs for a device.

    Args:
        trusted: names of the keys that the device says it has pinned; None where it
            says nothing.

    Returns:
        The active key, or a retiring one where the device has pinned that and not the
        active one. Where it has pinned none of them, the active key: the device will
        say `unknown_key`, which is the truth and is seen.

    Raises:
        ImproperlyConfigured: the ring has no active key.
    """
    usable = list(SigningKey.objects.signing(now))
    if not usable:
        raise ImproperlyConfigured("there is no active signing key")
    if trusted is None:
        return usable[0]
    return next((key for key in usable if key.key_id in trusted), usable[0])


def signer_of(key: SigningKey) -> Signer:
    """Return a key that may sign, unsealed."""
    return Signer(key.pk, key.key_id, _private_key(key.key_id))


def current_signer() -> Signer:
    """Return the signing key in use.

    Raises:
        ImproperlyConfigured: the ring has no active key.
    """
    return signer_of(signing_key_for(None, now=timezone.now()))


# --- Signatures of images ----------------------------------------------------------


def is_proved(firmware: Firmware) -> bool:
    """Tell whether a key that was not revoked has signed the checksum of an image."""
    digest = bytes.fromhex(firmware.sha256)
    signatures = [(firmware.key, firmware.signature)]
    signatures += [
        (later.key, later.signature) for later in firmware.later_signatures.all()
    ]
    return any(
        key.status in SOUND_KEYS and signing.is_signed(key.public_key, digest, text)
        for key, text in signatures
    )


def hold_back(firmware: Firmware, *, now: datetime) -> None:
    """Offer an image to nobody until it is signed again."""
    held = Firmware.objects.filter(
        pk=firmware.pk, signature_revoked_at__isnull=True
    ).update(signature_revoked_at=now, updated_at=now)
    if held:
        audit.record(
            actor=None,
            verb="firmware.held_back",
            object_kind="firmware",
            object_id=firmware.pk,
            details={"reason": "no signature of it can be trusted"},
        )
        logger.error(
            "Image has no sound signature", extra={"firmwareId": str(firmware.pk)}
        )


def image_signature(firmware: Firmware, key: SigningKey) -> str | None:
    """Return the signature of an image under a key, made at the first call.

    Args:
        key: one that may sign.

    Returns:
        base64; None where nothing proves the image: it is held back then.
    """
    if firmware.key_id == key.pk:
        return firmware.signature
    found = firmware.later_signatures.filter(key=key).first()
    if found is not None:
        return found.signature
    with transaction.atomic():
        hold_keys()
        now = timezone.now()
        if not SigningKey.objects.signing(now).filter(pk=key.pk).exists():
            # Taken out of use a moment ago: the device asks again and gets another.
            return None
        if not is_proved(firmware):
            hold_back(firmware, now=now)
            return None
        signature = signing.sign_digest(
            signer_of(key).private, bytes.fromhex(firmware.sha256)
        )
        row, is_new = ImageSignature.objects.get_or_create(
            firmware=firmware, key=key, defaults={"signature": signature}
        )
        if is_new:
            audit.record(
                actor=None,
                verb="firmware.signed_again",
                object_kind="firmware",
                object_id=firmware.pk,
                details={"keyId": key.key_id},
            )
    return row.signature


# --- Storage keys ------------------------------------------------------------------


def add_storage_key(*, actor: User | None) -> StorageKey:
    """Make the storage key that wraps what is new, with the ring locked."""
    key = StorageKey.objects.create(
        key_id=secrets.token_hex(8),
        sealed_key=seal(secrets.token_bytes(KEY_BYTES), purpose=STORAGE),
    )
    audit.record(
        actor=actor,
        verb="storage-key.created",
        object_kind=STORAGE,
        object_id=key.key_id,
    )
    return key


@lru_cache(maxsize=64)
def _opened(name: str, sealed: bytes) -> FrameKey:
    try:
        return FrameKey(name, unseal(sealed, purpose=STORAGE))
    except InvalidTag:
        raise ImproperlyConfigured(
            f"the storage key {name} does not open with this master.key: restore the "
            "key file or the database, so that both are of the same backup"
        ) from None


def opened(key: StorageKey) -> FrameKey:
    """Return a storage key, unsealed."""
    return _opened(key.key_id, bytes(key.sealed_key))


def active_storage_key() -> StorageKey:
    """Return the row of the storage key that wraps new files.

    Raises:
        ImproperlyConfigured: the ring has none.
    """
    key = StorageKey.objects.filter(status=KeyStatus.ACTIVE).first()
    if key is None:
        raise ImproperlyConfigured("there is no active storage key")
    return key


def current_storage_key() -> FrameKey:
    """Return the storage key that wraps new files."""
    return opened(active_storage_key())


def keep_file_key(storage_name: str, file_key: bytes) -> None:
    """Write down the key of a stored file, wrapped; call it holding the rings.

    What a bucket encrypts by itself has no key here.
    """
    if storage.is_plain(storage_name):
        return
    current = active_storage_key()
    WrappedKey.objects.create(
        storage_name=storage_name,
        storage_key=current,
        wrapped=wrap_key(file_key, opened(current)),
    )


@lru_cache(maxsize=1024)
def file_key(storage_name: str, header: bytes) -> bytes:
    """Return the key of a stored file, unwrapped.

    It never changes, whatever wraps it, so that it is kept.

    Raises:
        DamagedImageError: no storage key opens it.
    """
    # Twice: a re-wrapping may finish between the two looks.
    for _ in range(2):
        # The wrapping and its storage key must be of one moment: one statement.
        row = (
            WrappedKey.objects.select_related("storage_key")
            .filter(pk=storage_name)
            .first()
        )
        if row is not None:
            return unwrap_key(bytes(row.wrapped), opened(row.storage_key))
        named = StorageKey.objects.filter(key_id=wrapping_key_name(header)).first()
        if named is not None:
            return key_in_header(header, opened(named))
    raise DamagedImageError("the stored file names an unknown storage key")
