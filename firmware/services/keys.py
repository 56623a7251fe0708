"""The rings of signing keys and storage keys.

Private halves lie in the database, sealed with the master key file. Unsealed keys are
kept by each process: opening one costs more than a hundred signatures.
"""

import secrets
from dataclasses import dataclass
from functools import lru_cache
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from django.core.exceptions import ImproperlyConfigured
from django.db import transaction

from firmware import signing
from firmware.choices import KeyStatus
from firmware.frames import KEY_BYTES, DamagedImageError, FrameKey
from firmware.models import SigningKey, StorageKey
from hotswap.common import audit
from hotswap.common.keyring import seal, unseal
from hotswap.common.services import ensure_keys as ensure_key_files

SIGNING = "signing-key"
STORAGE = "storage-key"


@dataclass(frozen=True, slots=True)
class Signer:
    """The signing key in use: its row's id, its name, and the key itself."""

    row_id: UUID
    key_id: str
    private: rsa.RSAPrivateKey


def ensure_firmware_keys() -> None:
    """Make the first signing key and the first storage key."""
    ensure_key_files()
    with transaction.atomic():
        if not SigningKey.objects.filter(status=KeyStatus.ACTIVE).exists():
            create_signing_key()
        if not StorageKey.objects.filter(status=KeyStatus.ACTIVE).exists():
            create_storage_key()
    current_signer()
    current_storage_key()


def create_signing_key() -> SigningKey:
    """Add a signing key to the ring; the newest active one signs."""
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
    )
    audit.record(
        actor=None,
        verb="signing-key.created",
        object_kind="signing-key",
        object_id=key.key_id,
    )
    return key


def create_storage_key() -> StorageKey:
    """Add a storage key to the ring; the newest active one wraps new files."""
    key = StorageKey.objects.create(
        key_id=secrets.token_hex(8),
        sealed_key=seal(secrets.token_bytes(KEY_BYTES), purpose=STORAGE),
    )
    audit.record(
        actor=None,
        verb="storage-key.created",
        object_kind="storage-key",
        object_id=key.key_id,
    )
    return key


@lru_cache(maxsize=16)
def _private_key(key_id: str) -> rsa.RSAPrivateKey:
    row = SigningKey.objects.get(key_id=key_id)
    try:
        der = unseal(bytes(row.sealed_private_key), purpose=SIGNING)
    except InvalidTag:
        raise ImproperlyConfigured(
            f"the signing key {key_id} does not open with this master.key"
        ) from None
    private = serialization.load_der_private_key(der, password=None)
    assert isinstance(private, rsa.RSAPrivateKey)
    return private


@lru_cache(maxsize=64)
def storage_key(name: str) -> FrameKey:
    """Return a storage key by name, unsealed.

    Raises:
        DamagedImageError: no such key, so the file's header was altered.
    """
    row = StorageKey.objects.filter(key_id=name).first()
    if row is None:
        raise DamagedImageError("the stored file names an unknown storage key")
    return FrameKey(name, unseal(bytes(row.sealed_key), purpose=STORAGE))


def current_storage_key() -> FrameKey:
    """Return the storage key that wraps new files."""
    row = StorageKey.objects.filter(status=KeyStatus.ACTIVE).latest("created_at")
    return storage_key(row.key_id)


def current_signer() -> Signer:
    """Return the signing key in use.

    Raises:
        ImproperlyConfigured: the ring has no active key.
    """
    row = (
        SigningKey.objects.filter(status=KeyStatus.ACTIVE)
        .order_by("-created_at")
        .first()
    )
    if row is None:
        raise ImproperlyConfigured("there is no active signing key")
    return Signer(row.pk, row.key_id, _private_key(row.key_id))
