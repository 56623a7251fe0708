"""Images at rest: AES-256-GCM in frames of 64 KiB, any of which opens on its own.

Layout: a header of 93 bytes, then frames of 64 KiB + 16 bytes of tag, the last one
shorter. The key of each file is its own, wrapped by a storage key that the header
names; a later wrapping is kept outside of the file. Every frame authenticates the
header, its own number and whether it is the last, so that a byte changed, frames
swapped or a file cut short is noticed, and no byte leaves before its tag is verified.

Standard library and `cryptography` only.
"""

import secrets
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

FRAME_BYTES = 64 * 1024
TAG_BYTES = 16
KEY_BYTES = 32
NONCE_BYTES = 12
MAGIC = b"HSF1"
# magic, frame size, name of the wrapping key, wrapped key, nonce prefix
HEADER = struct.Struct(">4sI16s60s8s")


class DamagedImageError(ValueError):
    """The stored file is not what was written."""


class MissingImageError(DamagedImageError):
    """There is no such file at a place."""


@dataclass(frozen=True, slots=True)
class FrameKey:
    """The wrapping key that opens a file: its name (16 hex digits) and 32 bytes."""

    name: str
    secret: bytes


def _bound(header: bytes, number: int, is_last: bool) -> bytes:
    return header + struct.pack(">I?", number, is_last)


def wrap_key(key: bytes, wrapping: FrameKey) -> bytes:
    """Wrap the key of a file: a nonce of 12 bytes, then 48 bytes."""
    nonce = secrets.token_bytes(NONCE_BYTES)
    bound = MAGIC + wrapping.name.encode()
    return nonce + AESGCM(wrapping.secret).encrypt(nonce, key, bound)


def unwrap_key(wrapped: bytes, wrapping: FrameKey) -> bytes:
    """Return the key of a file that `wrap_key` wrapped.

    Raises:
        DamagedImageError: another wrapping key, or altered.
    """
    nonce, sealed = wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:]
    bound = MAGIC + wrapping.name.encode()
    try:
        return AESGCM(wrapping.secret).decrypt(nonce, sealed, bound)
    except InvalidTag:
        raise DamagedImageError("the key of the stored file does not open") from None


class FrameWriter:
    """Encrypt a stream as it arrives into a file opened for binary writing."""

    def __init__(self, file: BinaryIO, wrapping: FrameKey) -> None:
        self.key = secrets.token_bytes(KEY_BYTES)
        self._prefix = secrets.token_bytes(8)
        wrapped = wrap_key(self.key, wrapping)
        self._header = HEADER.pack(
            MAGIC, FRAME_BYTES, wrapping.name.encode(), wrapped, self._prefix
        )
        self._cipher = AESGCM(self.key)
        self._file = file
        self._waiting = bytearray()
        self._number = 0
        file.write(self._header)

    def write(self, data: bytes) -> None:
        """Take more of the image."""
        self._waiting += data
        # One frame is always held back: only `finish` knows which is the last.
        while len(self._waiting) > FRAME_BYTES:
            self._emit(bytes(self._waiting[:FRAME_BYTES]), is_last=False)
            del self._waiting[:FRAME_BYTES]

    def finish(self) -> None:
        """Write the last frame."""
        self._emit(bytes(self._waiting), is_last=True)

    def _emit(self, plain: bytes, *, is_last: bool) -> None:
        nonce = self._prefix + struct.pack(">I", self._number)
        self._file.write(
            self._cipher.encrypt(
                nonce, plain, _bound(self._header, self._number, is_last)
            )
        )
        self._number += 1


def check_header(header: bytes) -> None:
    """Refuse what is not the header of such a file.

    Raises:
        DamagedImageError
    """
    if len(header) != HEADER.size or not header.startswith(MAGIC):
        raise DamagedImageError("the stored file has no valid header")


def wrapping_key_name(header: bytes) -> str:
    """Return the name of the storage key that a file's header names.

    Raises:
        DamagedImageError: not the header of such a file.
    """
    check_header(header)
    name: bytes = HEADER.unpack(header)[2]
    return name.decode("ascii", "replace")


def key_in_header(header: bytes, wrapping: FrameKey) -> bytes:
    """Return the key of a file as its header holds it.

    Raises:
        DamagedImageError: another wrapping key, or altered.
    """
    return unwrap_key(HEADER.unpack(header)[3], wrapping)


def read_frames(
    file: BinaryIO,
    header: bytes,
    key: bytes,
    *,
    size: int,
    start: int,
    end: int,
) -> Iterator[bytes]:
    """Yield the bytes [start, end) of the image, each frame verified before.

    Args:
        file: the stored file, seekable.
        key: the file's own, unwrapped.
        size: bytes of the whole image, from the registry and not from the file.

    Raises:
        DamagedImageError: a tag does not verify, or the file is too short.
    """
    _, frame_bytes, _, _, prefix = HEADER.unpack(header)
    if frame_bytes != FRAME_BYTES:
        raise DamagedImageError("the stored file has no valid header")
    cipher = AESGCM(key)
    last = max(0, (size - 1) // frame_bytes)
    file.seek(HEADER.size + (start // frame_bytes) * (frame_bytes + TAG_BYTES))
    position = start
    while position < end:
        number = position // frame_bytes
        sealed = file.read(min(frame_bytes, size - number * frame_bytes) + TAG_BYTES)
        try:
            plain = cipher.decrypt(
                prefix + struct.pack(">I", number),
                sealed,
                _bound(header, number, number == last),
            )
        except (InvalidTag, ValueError):
            raise DamagedImageError(
                f"frame {number} of the stored file does not verify"
            ) from None
        offset = position - number * frame_bytes
        piece = plain[offset : offset + end - position]
        yield piece
        position += len(piece)
