"""Signatures over images and manifests: RSA-2048, PKCS#1 v1.5, SHA-256.

Rules:
- The signature of an image covers its bytes alone (specification, Cryptographic
  Signature Verification); the manifest binds them to a model, a version and a
  sequence, and is signed the same way.
- A manifest is canonical JSON: sorted keys, no spaces, integers and strings only.

Standard library and `cryptography` only.
"""

import hashlib
import json
from base64 import b64decode, b64encode

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

ALGORITHM = "RSA-PKCS1v15-SHA256"
KEY_BITS = 2048
MANIFEST_TYPE = "firmware"
SLOT_RETURN_TYPE = "slot-return"


def generate_key() -> rsa.RSAPrivateKey:
    """Make a signing key (RSA-2048)."""
    return rsa.generate_private_key(public_exponent=65537, key_size=KEY_BITS)


def key_id(public: rsa.RSAPublicKey) -> str:
    """Name a key by its own bytes: 16 hex digits of the SHA-256 of its DER form."""
    der = public.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(der).hexdigest()[:16]


def public_pem(public: rsa.RSAPublicKey) -> str:
    """Write a public key as PEM, as `openssl` reads it."""
    return public.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    ).decode()


def sign_digest(private: rsa.RSAPrivateKey, sha256_digest: bytes) -> str:
    """Sign a SHA-256 digest of 32 bytes; return base64."""
    signature = private.sign(
        sha256_digest, padding.PKCS1v15(), Prehashed(hashes.SHA256())
    )
    return b64encode(signature).decode()


def is_signed(public_key_pem: str, sha256_digest: bytes, signature: str) -> bool:
    """Tell whether a key has signed a SHA-256 digest of 32 bytes."""
    public = serialization.load_pem_public_key(public_key_pem.encode())
    assert isinstance(public, rsa.RSAPublicKey)
    try:
        public.verify(
            b64decode(signature),
            sha256_digest,
            padding.PKCS1v15(),
            Prehashed(hashes.SHA256()),
        )
    except (InvalidSignature, ValueError):
        return False
    return True


def sign_message(private: rsa.RSAPrivateKey, message: bytes) -> str:
    """Sign a short message; return base64."""
    return sign_digest(private, hashlib.sha256(message).digest())


def canonical_json(value: dict[str, str | int]) -> bytes:
    """Write the one form of a manifest that is signed and compared.

    Raises:
        ValueError: a value is neither an integer nor a string.
    """
    for key, item in value.items():
        if isinstance(item, bool) or not isinstance(item, str | int):
            raise ValueError(f"{key}: a manifest holds integers and strings only")
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False
    ).encode()


def build_manifest(
    *,
    model: str,
    version: str,
    sequence: int,
    security_version: int,
    sha256: str,
    size_bytes: int,
    signing_key_id: str,
    issued_at: str,
) -> bytes:
    """Return the canonical bytes of the manifest that goes with an order."""
    return canonical_json(
        {
            "type": MANIFEST_TYPE,
            "model": model,
            "version": version,
            "sequence": sequence,
            "securityVersion": security_version,
            "sha256": sha256,
            "size": size_bytes,
            "keyId": signing_key_id,
            "issuedAt": issued_at,
        }
    )


def build_slot_return(
    *,
    device_id: str,
    model: str,
    version: str,
    sequence: int,
    sha256: str,
    signing_key_id: str,
    issued_at: str,
) -> bytes:
    """Return the canonical bytes of the leave to boot what a device has kept.

    It is no manifest: it says nothing of an image that the server has not seen but that
    one device may go back to it, if it holds it already.
    """
    return canonical_json(
        {
            "type": SLOT_RETURN_TYPE,
            "deviceId": device_id,
            "model": model,
            "version": version,
            "sequence": sequence,
            "sha256": sha256,
            "keyId": signing_key_id,
            "issuedAt": issued_at,
        }
    )
