"""Decide whether an order and an image may be trusted.

Rules:
- The manifest is judged first, on the very bytes received, before a byte of the
  image is fetched.
- An image passes by size, then SHA-256, then RSA signature; all three are needed.
- An image that the server never had is gone back to by leave for this very device and
  for what it keeps itself; such leave is no manifest, nor a manifest such leave.
- Trust is pinned at provisioning: a key that is not pinned is refused, whoever sent
  it.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa, utils

from devices.agent.files import is_sha256
from devices.agent.installer import ImageRecord
from devices.agent.protocol import SIGNATURE_ALGORITHM, Action, ErrorCode, Order

MAX_MANIFEST_BYTES = 64 * 1024
MIN_KEY_BITS = 2048
KEY_ID_CHARACTERS = 16


class VerificationError(ValueError):
    """An order or an image is refused; `code` says which check failed."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Manifest:
    """The signed statement about one image."""

    model: str
    version: str
    sequence: int
    security_version: int
    sha256: str
    size_bytes: int
    key_id: str


@dataclass(frozen=True, slots=True)
class Floor:
    """The oldest that this device still accepts.

    `sequence` may come again only for the image it came with.
    """

    sequence: int = 0
    sequence_sha256: str = ""
    security_version: int = 0


@dataclass(frozen=True, slots=True)
class TrustedKeys:
    """The public keys pinned at provisioning, by key id."""

    by_id: Mapping[str, rsa.RSAPublicKey]

    def verify(self, key_id: str, signature: bytes, digest: bytes) -> bool:
        """Check an RSA PKCS#1 v1.5 signature over a SHA-256 digest.

        Raises:
            VerificationError: `unknown_key`, the key is not pinned.
        """
        key = self.by_id.get(key_id)
        if key is None:
            raise VerificationError(
                ErrorCode.UNKNOWN_KEY, f"Key {key_id[:64]!r} is not pinned."
            )
        try:
            key.verify(
                signature,
                digest,
                padding.PKCS1v15(),
                utils.Prehashed(hashes.SHA256()),
            )
        except InvalidSignature:
            return False
        return True


def key_id_of(key: rsa.RSAPublicKey) -> str:
    """Give the first 16 hex characters of SHA-256 over the key's DER form."""
    der = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(der).hexdigest()[:KEY_ID_CHARACTERS]


def load_trusted_keys(paths: Iterable[Path]) -> TrustedKeys:
    """Read PEM files of RSA public keys.

    Raises:
        ValueError: a file cannot be read, holds no RSA public key, or one below 2048
            bits; the message names the file.
    """
    keys: dict[str, rsa.RSAPublicKey] = {}
    for path in paths:
        try:
            key = serialization.load_pem_public_key(path.read_bytes())
        except OSError as error:
            raise ValueError(f"trusted_keys: {error}") from error
        except (ValueError, UnsupportedAlgorithm) as error:
            raise ValueError(
                f"trusted_keys: {path} holds no public key in PEM"
            ) from error
        if not isinstance(key, rsa.RSAPublicKey) or key.key_size < MIN_KEY_BITS:
            raise ValueError(
                f"trusted_keys: {path}: RSA key of {MIN_KEY_BITS} bits or more expected"
            )
        keys[key_id_of(key)] = key
    return TrustedKeys(keys)


def check_manifest(
    order: Order,
    *,
    keys: TrustedKeys,
    model: str,
    floor: Floor,
    max_image_bytes: int,
) -> Manifest:
    """Judge the manifest of an order and give what it states.

    Raises:
        VerificationError: with the code of the first check that failed. The order of
            checks is: form, key, signature, type, model, agreement with the order,
            security version, sequence, size limit.

    Source: docs/agent.md#the-manifest.
    """
    raw, fields = _read(order)
    manifest = Manifest(
        model=_text(fields, "model"),
        version=_text(fields, "version"),
        sequence=_number(fields, "sequence"),
        security_version=_number(fields, "securityVersion"),
        sha256=_text(fields, "sha256"),
        size_bytes=_number(fields, "size"),
        key_id=_text(fields, "keyId"),
    )
    _check_signature(order, raw, manifest.key_id, keys)

    if _text(fields, "type") != "firmware":
        raise _refused("The manifest is not about firmware.")
    if manifest.model != model:
        raise VerificationError(
            ErrorCode.WRONG_MODEL, f"The image is for {manifest.model[:100]!r}."
        )
    offer = order.firmware
    stated = (manifest.model, manifest.version, manifest.sha256, manifest.size_bytes)
    if stated != (offer.model, offer.version, offer.sha256, offer.size_bytes):
        raise _refused("The order and its manifest name different images.")
    if not is_sha256(manifest.sha256):
        raise _refused("The manifest's sha256 is not lower-case hex.")
    if offer.signature_algorithm != SIGNATURE_ALGORITHM:
        raise _refused("The signature algorithm is not known.")
    if offer.key_id not in keys.by_id:
        raise VerificationError(
            ErrorCode.UNKNOWN_KEY, f"Key {offer.key_id[:64]!r} is not pinned."
        )

    _check_floor(manifest, floor)
    if not 0 < manifest.size_bytes <= max_image_bytes:
        raise _refused(f"The image's size is not within 1 to {max_image_bytes} bytes.")
    return manifest


def check_slot_return(
    order: Order,
    *,
    keys: TrustedKeys,
    device_id: str,
    model: str,
    floor: Floor,
    kept: Iterable[ImageRecord],
) -> Manifest:
    """Judge the leave to boot an image that the device has kept; give what is known.

    Args:
        order, keys, model, floor: as in `check_manifest`.
        device_id: the device that the leave has to name.
        kept: the images that the device may go back to: it has confirmed each of them,
            or was delivered with it. Their bytes are checked later, before they boot.

    Raises:
        VerificationError: as in `check_manifest`, or `image_not_kept`.
    """
    raw, fields = _read(order)
    key_id, sha256 = _text(fields, "keyId"), _text(fields, "sha256")
    _check_signature(order, raw, key_id, keys)
    if _text(fields, "type") != "slot-return" or order.action is not Action.ROLLBACK:
        raise _refused("The order is no leave to go back to a slot.")
    if _text(fields, "deviceId") != device_id:
        raise _refused("The order is for another device.")
    offer = order.firmware
    if _text(fields, "model") != model:
        raise VerificationError(
            ErrorCode.WRONG_MODEL, f"The image is for {_text(fields, 'model')[:100]!r}."
        )
    if (_text(fields, "version"), sha256) != (offer.version, offer.sha256):
        raise _refused("The order and its leave name different images.")
    record = next((each for each in kept if each.sha256 == sha256), None)
    if record is None:
        raise VerificationError(
            ErrorCode.IMAGE_NOT_KEPT, f"No slot keeps {sha256[:16]} as a way back."
        )
    manifest = Manifest(
        model=model,
        version=record.version,
        sequence=_number(fields, "sequence"),
        security_version=record.security_version,
        sha256=sha256,
        size_bytes=record.size_bytes,
        key_id=key_id,
    )
    _check_floor(manifest, floor)
    return manifest


def check_image(blocks: Iterable[bytes], order: Order, keys: TrustedKeys) -> None:
    """Check size, SHA-256 and RSA signature of an image.

    The order's manifest must have passed `check_manifest`.

    Raises:
        VerificationError: `size_mismatch`, `checksum_mismatch`, `signature_invalid`
            or `unknown_key`.
    """
    digest = hashlib.sha256()
    size_bytes = 0
    for block in blocks:
        digest.update(block)
        size_bytes += len(block)
    offer = order.firmware
    if size_bytes != offer.size_bytes:
        raise VerificationError(
            ErrorCode.SIZE_MISMATCH,
            f"The image has {size_bytes} bytes instead of {offer.size_bytes}.",
        )
    if digest.hexdigest() != offer.sha256:
        raise VerificationError(
            ErrorCode.CHECKSUM_MISMATCH,
            f"The image's SHA-256 is {digest.hexdigest()} instead of {offer.sha256}.",
        )
    try:
        signature = base64.b64decode(offer.signature, validate=True)
    except (binascii.Error, ValueError):
        signature = b""
    if not keys.verify(offer.key_id, signature, digest.digest()):
        raise VerificationError(
            ErrorCode.SIGNATURE_INVALID, "The image's signature does not fit it."
        )


def _read(order: Order) -> tuple[bytes, dict[str, Any]]:
    raw = _decode(order.manifest, "manifest")
    if len(raw) > MAX_MANIFEST_BYTES:
        raise _refused("The manifest is too large.")
    return raw, _parse(raw)


def _check_signature(order: Order, raw: bytes, key_id: str, keys: TrustedKeys) -> None:
    signature = _decode(order.manifest_signature, "manifestSignature")
    if not keys.verify(key_id, signature, hashlib.sha256(raw).digest()):
        raise _refused("The manifest's signature does not fit its bytes.")


def _check_floor(manifest: Manifest, floor: Floor) -> None:
    """Refuse what is older than what the device has accepted or confirmed."""
    if manifest.security_version < floor.security_version:
        raise VerificationError(
            ErrorCode.SECURITY_VERSION_TOO_LOW,
            f"Security version {manifest.security_version} is below "
            f"{floor.security_version}.",
        )
    is_replaced = manifest.sequence < floor.sequence or (
        manifest.sequence == floor.sequence
        and floor.sequence_sha256 not in ("", manifest.sha256)
    )
    if is_replaced:
        raise VerificationError(
            ErrorCode.SEQUENCE_REPLACED,
            f"Sequence {manifest.sequence} was replaced by {floor.sequence}.",
        )


def _refused(message: str) -> VerificationError:
    return VerificationError(ErrorCode.MANIFEST_REFUSED, message)


def _decode(text: str, name: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _refused(f"{name} is not base64.") from error


def _parse(raw: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(raw, object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise _refused("The manifest is not a JSON object.") from error
    if not isinstance(fields, dict):
        raise _refused("The manifest is not a JSON object.")
    return fields


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Two readers may pick different ones of two equal keys: nobody may be fooled.
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("duplicate key")
    return fields


def _text(fields: Mapping[str, Any], key: str) -> str:
    value = fields.get(key)
    if not isinstance(value, str):
        raise _refused(f"The manifest lacks {key}.")
    return value


def _number(fields: Mapping[str, Any], key: str) -> int:
    value = fields.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise _refused(f"The manifest lacks {key}.")
    return value
