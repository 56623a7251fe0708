"""The key files of an installation, read once by each process.

Files, all of mode 0600 below `KEYS_DIR`:
- `master.key` seals what is secret in the database (private keys, replayed answers);
- `pepper.key` is mixed into the digest of each device's API key;
- `tokens/*.pem` sign the tokens of people and devices; the last by name signs, all
  of them verify, so that a new file rotates the key without ending a session.
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from hotswap.common.secret_files import read_or_create_secret, write_secret_file

NONCE_BYTES = 12


@dataclass(frozen=True, slots=True)
class TokenKey:
    """One signing key of tokens (ES256), parsed once: parsing costs a hundred uses."""

    kid: str
    private: ec.EllipticCurvePrivateKey
    public: ec.EllipticCurvePublicKey


def _secret(name: str) -> bytes:
    path = Path(settings.KEYS_DIR) / f"{name}.key"
    try:
        return bytes.fromhex(path.read_text().strip())
    except FileNotFoundError:
        raise ImproperlyConfigured(
            f"the key file {path} is missing: restore it from your backup"
        ) from None
    except ValueError:
        raise ImproperlyConfigured(
            f"the key file {path} does not hold hexadecimal digits"
        ) from None


@lru_cache(maxsize=1)
def master_key() -> bytes:
    """Return the key that seals secrets in the database (32 bytes)."""
    return _secret("master")


@lru_cache(maxsize=1)
def pepper() -> bytes:
    """Return the pepper of device keys (32 bytes)."""
    return _secret("pepper")


@lru_cache(maxsize=1)
def token_keys() -> tuple[TokenKey, ...]:
    """Return the token keys, the signing one last."""
    folder = Path(settings.KEYS_DIR) / "tokens"
    keys = []
    for path in sorted(folder.glob("*.pem")):
        private = serialization.load_pem_private_key(path.read_bytes(), password=None)
        if not isinstance(private, ec.EllipticCurvePrivateKey):
            raise ImproperlyConfigured(f"{path} is not an elliptic curve key")
        keys.append(TokenKey(path.stem, private, private.public_key()))
    if not keys:
        raise ImproperlyConfigured(f"there is no token key in {folder}")
    return tuple(keys)


def forget_keys() -> None:
    """Read the files anew at the next use (after they were made)."""
    for reader in (master_key, pepper, token_keys):
        reader.cache_clear()


def create_key_files() -> None:
    """Make every key file that is missing. Two processes may do this at once."""
    folder = Path(settings.KEYS_DIR)
    for name in ("master", "pepper"):
        read_or_create_secret(folder / f"{name}.key")
    tokens = folder / "tokens"
    if not list(tokens.glob("*.pem")):
        private = ec.generate_private_key(ec.SECP256R1())
        pem = private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        write_secret_file(tokens / f"token-{secrets.token_hex(4)}.pem", pem)
    forget_keys()


def fingerprints() -> dict[str, str]:
    """Return a check value of each secret that reveals nothing of it."""
    return {
        name: hmac.new(key, b"hotswap fingerprint", hashlib.sha256).hexdigest()
        for name, key in (("master", master_key()), ("pepper", pepper()))
    }


def seal(plain: bytes, *, purpose: str) -> bytes:
    """Encrypt with the master key (AES-256-GCM), bound to its purpose."""
    nonce = secrets.token_bytes(NONCE_BYTES)
    return nonce + AESGCM(master_key()).encrypt(nonce, plain, purpose.encode())


def unseal(sealed: bytes, *, purpose: str) -> bytes:
    """Decrypt what `seal` gave for the same purpose.

    Raises:
        cryptography.exceptions.InvalidTag: other key, other purpose, or altered.
    """
    nonce, body = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
    return AESGCM(master_key()).decrypt(nonce, body, purpose.encode())


def peppered_digest(secret: str) -> str:
    """Return the HMAC-SHA-256 of a device key, as stored (64 hex digits).

    A fast digest is enough: the key is 256 random bits, not a person's password.
    """
    return hmac.new(pepper(), secret.encode(), hashlib.sha256).hexdigest()
