"""The key files of an installation, read once by each process.

Files, all of mode 0600 below `KEYS_DIR`:
- `master.key` seals what is secret in the database (private keys, replayed answers):
  the key in its first line seals, those in further lines still open what they sealed
  until a rotation has sealed it anew (`hotswap.master_key`);
- `pepper.key` is mixed into the digest of each device's API key;
- `audit.key` is the Ed25519 key that signs anchors of the audit trail and evidence;
- `tokens/*.pem` sign the tokens of people and devices; the last by name signs, all
  of them verify, so that a new file rotates the key without ending a session.
"""

import contextlib
import hashlib
import hmac
import secrets
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from hotswap.common.secret_files import (
    read_or_create_secret,
    replace_secret_file,
    write_secret_file,
)

NONCE_BYTES = 12
# Fingerprints of token keys are named `tokens/<name of the key>`.
TOKENS = "tokens/"


@dataclass(frozen=True, slots=True)
class TokenKey:
    """One signing key of tokens (ES256), parsed once: parsing costs a hundred uses."""

    kid: str
    private: ec.EllipticCurvePrivateKey
    public: ec.EllipticCurvePublicKey


SECRET_BYTES = 32
_master: tuple[tuple[int, int, int] | None, tuple[bytes, ...]] | None = None
# What becomes of an installation that loses the file for good.
LOSSES = {
    "master": "the signing and storage keys, and so every stored image, stay closed",
    "pepper": "no device can log in until each has a new key",
    "audit": "nothing vouches for the audit trail as it was until now",
    "tokens": "every person and device has to log in again",
}


# Where another one can be made, at the price above.
REPLACEMENTS = {
    "audit": "hotswap keys replace-audit",
    "tokens": "hotswap keys replace-tokens",
}


def key_file(name: str) -> Path:
    """Return where the file of a secret lies."""
    return Path(settings.KEYS_DIR) / f"{name}.key"


def _advice(name: str) -> str:
    said = (
        f"restore it from your backup and start again (without it, {LOSSES[name]}; "
        "docs/firmware.md, Key files)"
    )
    if name not in REPLACEMENTS:
        return said
    return f"{said}; where it is lost for good, run `{REPLACEMENTS[name]}`"


def _secret(name: str) -> bytes:
    return _secrets(name)[0]


def _secrets(name: str) -> tuple[bytes, ...]:
    path = key_file(name)
    try:
        found = tuple(map(bytes.fromhex, path.read_text().split()))
    except FileNotFoundError:
        raise ImproperlyConfigured(
            f"the key file {path} is missing: {_advice(name)}"
        ) from None
    except OSError as error:
        raise ImproperlyConfigured(
            f"the key file {path} cannot be read ({error.strerror}): let the user that "
            "runs HotSwap read it"
        ) from None
    except ValueError:
        found = ()
    is_list = name == "master"
    if {len(each) for each in found} != {SECRET_BYTES} or (
        len(found) > 1 and not is_list
    ):
        raise ImproperlyConfigured(
            f"the key file {path} does not hold {2 * SECRET_BYTES} hexadecimal digits: "
            f"{_advice(name)}"
        )
    return found


def wrong_file(name: str) -> str:
    """Say that a key file is another one than the database was made with.

    Args:
        name: of its fingerprint.
    """
    is_token = name.startswith(TOKENS)
    path = Path(settings.KEYS_DIR) / f"{name}.pem" if is_token else key_file(name)
    return (
        f"the key file {path} is not the one this database was made with: "
        f"{_advice('tokens' if is_token else name)}"
    )


def strange_tokens(known: list[str]) -> str:
    """Say that none of the token keys that the database knows is there."""
    files = ", ".join(str(Path(settings.KEYS_DIR) / f"{name}.pem") for name in known)
    return (
        f"the key files of this database are missing ({files}) and others are in their "
        f"place: {_advice('tokens')}"
    )


def master_keys() -> tuple[bytes, ...]:
    """Return the keys of secrets in the database (32 bytes each); the first one seals.

    The file is looked at each time, so that a rotation counts at once in all processes.
    """
    global _master
    try:
        found = key_file("master").stat()
        stamp = (found.st_ino, found.st_mtime_ns, found.st_size)
    except OSError:
        stamp = None
    if _master is None or stamp is None or _master[0] != stamp:
        # Read after it was looked at: what is read is never older than the stamp.
        _master = (stamp, _secrets("master"))
    return _master[1]


@lru_cache(maxsize=1)
def pepper() -> bytes:
    """Return the pepper of device keys (32 bytes)."""
    return _secret("pepper")


@lru_cache(maxsize=1)
def audit_key() -> Ed25519PrivateKey:
    """Return the key that signs anchors of the audit trail, and evidence."""
    return Ed25519PrivateKey.from_private_bytes(_secret("audit"))


@lru_cache(maxsize=1)
def token_keys() -> tuple[TokenKey, ...]:
    """Return the token keys, the signing one last."""
    folder = tokens_folder()
    keys = []
    for path in sorted(folder.glob("*.pem")):
        try:
            private = serialization.load_pem_private_key(
                path.read_bytes(), password=None
            )
        except OSError as error:
            raise ImproperlyConfigured(
                f"the key file {path} cannot be read ({error.strerror}): let the user "
                "that runs HotSwap read it"
            ) from None
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise ImproperlyConfigured(
                f"the key file {path} does not hold a private key in PEM form: "
                f"{_advice('tokens')}"
            ) from None
        if not isinstance(private, ec.EllipticCurvePrivateKey):
            raise ImproperlyConfigured(f"{path} is not an elliptic curve key")
        keys.append(TokenKey(path.stem, private, private.public_key()))
    if not keys:
        raise ImproperlyConfigured(
            f"there is no token key in {folder} (*.pem): {_advice('tokens')}"
        )
    return tuple(keys)


def tokens_folder() -> Path:
    """Return the folder of the files that sign tokens."""
    return Path(settings.KEYS_DIR) / "tokens"


def forget_keys() -> None:
    """Read the files anew at the next use (after they were made)."""
    global _master
    _master = None
    for reader in (pepper, audit_key, token_keys):
        reader.cache_clear()


def create_key_files() -> None:
    """Make every key file that is missing. Two processes may do this at once."""
    for name in ("master", "pepper", "audit"):
        read_or_create_secret(key_file(name))
    if not list(tokens_folder().glob("*.pem")):
        create_token_key()
    forget_keys()


def create_audit_key() -> None:
    """Make the file of the key that signs anchors, unless it is there."""
    read_or_create_secret(key_file("audit"))


def create_token_key() -> str:
    """Make a file that signs tokens from the next start on; return its key's name."""
    # Names rise with time: the last one signs.
    name = f"token-{time.time_ns() // 1_000_000:013}-{secrets.token_hex(2)}"
    private = ec.generate_private_key(ec.SECP256R1())
    pem = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    write_secret_file(tokens_folder() / f"{name}.pem", pem)
    return name


def fingerprints() -> dict[str, str]:
    """Return a check value of each secret that reveals nothing of it.

    Raises:
        ImproperlyConfigured: a file is missing or holds no key.
    """
    found = {
        name: fingerprint_of(key)
        for name, key in (
            ("master", master_keys()[0]),
            ("pepper", pepper()),
            ("audit", audit_key().private_bytes_raw()),
        )
    }
    for key in token_keys():
        public = key.public.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        found[f"{TOKENS}{key.kid}"] = hashlib.sha256(public).hexdigest()
    return found


def fingerprint_of(key: bytes) -> str:
    """Return a check value of a secret that reveals nothing of it."""
    return hmac.new(key, b"hotswap fingerprint", hashlib.sha256).hexdigest()


def master_fingerprints() -> list[str]:
    """Return the fingerprints of all master keys, that of the sealing one first."""
    return [fingerprint_of(key) for key in master_keys()]


def seal(plain: bytes, *, purpose: str) -> bytes:
    """Encrypt with the first master key (AES-256-GCM), bound to its purpose."""
    nonce = secrets.token_bytes(NONCE_BYTES)
    return nonce + AESGCM(master_keys()[0]).encrypt(nonce, plain, purpose.encode())


def unseal(sealed: bytes, *, purpose: str) -> bytes:
    """Decrypt what `seal` gave for the same purpose, under any of the master keys.

    Raises:
        cryptography.exceptions.InvalidTag: other key, other purpose, or altered.
    """
    *former, last = master_keys()
    for key in former:
        with contextlib.suppress(InvalidTag):
            return _opened(key, sealed, purpose)
    return _opened(last, sealed, purpose)


def is_sealed_by_first(sealed: bytes, *, purpose: str) -> bool:
    """Tell whether the first master key opens what `seal` gave."""
    try:
        _opened(master_keys()[0], sealed, purpose)
    except InvalidTag:
        return False
    return True


def _opened(key: bytes, sealed: bytes, purpose: str) -> bytes:
    nonce, body = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
    return AESGCM(key).decrypt(nonce, body, purpose.encode())


def add_master_key() -> None:
    """Put a new key before the master keys that are there; from now on it seals."""
    _write_master_keys((secrets.token_bytes(SECRET_BYTES), *master_keys()))


def drop_former_master_keys() -> None:
    """Leave the first master key alone in the file: what others sealed stays shut."""
    _write_master_keys(master_keys()[:1])


def _write_master_keys(keys: tuple[bytes, ...]) -> None:
    text = "\n".join(key.hex() for key in keys)
    replace_secret_file(key_file("master"), text.encode())


def peppered_digest(secret: str) -> str:
    """Return the HMAC-SHA-256 of a device key, as stored (64 hex digits).

    A fast digest is enough: the key is 256 random bits, not a person's password.
    """
    return hmac.new(pepper(), secret.encode(), hashlib.sha256).hexdigest()
