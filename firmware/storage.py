"""Where images lie: a folder or a bucket, always as encrypted frames.

Rules:
- An upload is written to a local file first, already encrypted; it reaches the store
  only when it is whole. What goes wrong before leaves nothing behind.
- Readers get verified bytes or an error, never a silent short answer.
"""

import contextlib
import hashlib
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import IO, BinaryIO, Protocol, cast

from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from django.conf import settings
from django.core.files import File
from django.core.files.storage import FileSystemStorage, Storage
from storages.backends.s3 import S3Storage

from firmware.frames import (
    HEADER,
    DamagedImageError,
    FrameKey,
    FrameWriter,
    check_header,
    read_frames,
)

# What a store raises when it cannot be reached or refuses.
STORE_ERRORS = (OSError, Boto3Error, BotoCoreError, ClientError)
# The library's own ten transfers at once hold ten parts of 8 MiB in memory.
S3_TRANSFERS = TransferConfig(max_concurrency=2)


class KeyOf(Protocol):
    """Finds the key of a stored file, of which it gets the header."""

    def __call__(self, header: bytes) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Digests:
    """The digests of an image in lower hex; only SHA-256 is ever relied upon."""

    sha256: str
    sha1: str
    md5: str


class Digester:
    """Compute all digests of an image in one pass."""

    def __init__(self) -> None:
        self._hashes = (
            hashlib.sha256(),
            hashlib.sha1(usedforsecurity=False),
            hashlib.md5(usedforsecurity=False),
        )

    def update(self, data: bytes) -> None:
        for each in self._hashes:
            each.update(data)

    def digests(self) -> Digests:
        return Digests(*(each.hexdigest() for each in self._hashes))


@dataclass(frozen=True, slots=True)
class StagedImage:
    """A whole upload, encrypted in a local file, not yet in the store."""

    path: Path
    size: int
    digests: Digests
    key: bytes = field(repr=False)

    @property
    def sha256(self) -> str:
        return self.digests.sha256


class ImageReceiver:
    """Hash and encrypt an upload while it arrives.

    Raises (from `write`):
        OverflowError: more than the given number of bytes; nothing is kept.
    """

    def __init__(self, wrapping: FrameKey, *, max_bytes: int) -> None:
        folder = incoming_folder()
        self.path = folder / f"{secrets.token_hex(16)}.part"
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self._file: BinaryIO = os.fdopen(descriptor, "wb")
        self._writer = FrameWriter(self._file, wrapping)
        self._digester = Digester()
        self._max_bytes = max_bytes
        self.size = 0

    def write(self, data: bytes) -> None:
        """Take the next bytes of the image."""
        self.size += len(data)
        if self.size > self._max_bytes:
            raise OverflowError
        self._digester.update(data)
        self._writer.write(data)

    def finish(self) -> StagedImage:
        """Close the file after its last frame and make it durable."""
        self._writer.finish()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return StagedImage(
            self.path, self.size, self._digester.digests(), self._writer.key
        )

    def discard(self) -> None:
        """Leave nothing behind; harmless after the image went to the store."""
        self._file.close()
        self.path.unlink(missing_ok=True)


def incoming_folder() -> Path:
    """Return the folder of unfinished uploads, made when it is missing."""
    folder = Path(settings.FIRMWARE_DIR) / "incoming"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def image_store() -> Storage:
    """Return the store of the settings: a bucket if one is named, else a folder."""
    if not settings.S3_BUCKET:
        return FileSystemStorage(
            location=Path(settings.FIRMWARE_DIR) / "images",
            file_permissions_mode=0o600,
            directory_permissions_mode=0o700,
        )
    return _bucket(
        settings.S3_BUCKET,
        settings.S3_ENDPOINT,
        settings.S3_REGION,
        settings.S3_ACCESS_KEY,
        settings.S3_SECRET_KEY,
        settings.S3_CHECKSUMS,
    )


@lru_cache(maxsize=4)
def _bucket(
    name: str,
    endpoint: str,
    region: str,
    access_key: str,
    secret_key: str,
    checksums: str,
) -> S3Storage:
    """Open a bucket once: a new client takes longer than reading most images.

    Each thread has a connection of its own inside.
    """
    return S3Storage(
        bucket_name=name,
        endpoint_url=endpoint or None,
        region_name=region or None,
        access_key=access_key or None,
        secret_key=secret_key or None,
        file_overwrite=False,
        querystring_auth=True,
        default_acl=None,
        transfer_config=S3_TRANSFERS,
        client_config=Config(
            request_checksum_calculation=checksums,
            response_checksum_validation=checksums,
            connect_timeout=5,
            read_timeout=30,
            retries={"max_attempts": 3},
            s3={"addressing_style": "path"},
        ),
    )


def publish(staged: StagedImage, name: str) -> None:
    """Move a staged image into the store under its name, as a whole.

    Raises:
        STORE_ERRORS: the store did not take it.
    """
    store = image_store()
    if isinstance(store, FileSystemStorage):
        target = Path(store.path(name))
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        staged.path.replace(target)
        _sync_folder(target.parent)
        return
    with open(staged.path, "rb") as file:
        saved = store.save(name, File(file))
    if saved != name:
        store.delete(saved)
        raise FileExistsError(name)
    staged.path.unlink(missing_ok=True)


def withdraw(name: str) -> None:
    """Remove an image that no row speaks of."""
    image_store().delete(name)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class _RangedObject:
    """A stored S3 object as a seekable file: one ranged request at a time."""

    PIECE_BYTES = 4 * 1024 * 1024

    def __init__(self, store: S3Storage, name: str) -> None:
        self._object = store.bucket.Object(store._normalize_name(name))
        self._position = 0
        self._buffer = BytesIO()
        self._left = 0

    def seek(self, position: int) -> None:
        self._position = position
        self._left = 0

    def read(self, size: int) -> bytes:
        while self._left < size:
            rest = self._buffer.read() if self._left else b""
            piece = self._fetch(
                self._position, max(size - self._left, self.PIECE_BYTES)
            )
            self._position += len(piece)
            self._buffer = BytesIO(rest + piece)
            self._left = len(rest) + len(piece)
            if not piece:
                break
        data = self._buffer.read(size)
        self._left -= len(data)
        return data

    def _fetch(self, start: int, size: int) -> bytes:
        try:
            answer = self._object.get(Range=f"bytes={start}-{start + size - 1}")
        except ClientError as error:
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            if status == 416:
                return b""
            if status == 404:
                raise FileNotFoundError(self._object.key) from None
            raise
        body: bytes = answer["Body"].read()
        return body

    def close(self) -> None:
        self._buffer.close()


def _open(name: str) -> IO[bytes]:
    store = image_store()
    if isinstance(store, S3Storage):
        return cast(IO[bytes], _RangedObject(store, name))
    return open(store.path(name), "rb")


def read_header(name: str) -> bytes:
    """Return the header of a stored file.

    Raises:
        DamagedImageError: the file is gone, or has no such header.
        STORE_ERRORS: the store does not answer.
    """
    try:
        with contextlib.closing(_open(name)) as file:
            header = file.read(HEADER.size)
    except FileNotFoundError:
        raise DamagedImageError("the stored file is gone") from None
    check_header(header)
    return header


def read_image(
    name: str, key_of: KeyOf, *, size: int, start: int, end: int
) -> Iterator[bytes]:
    """Yield the bytes [start, end) of a stored image, verified frame by frame.

    Raises:
        DamagedImageError: the file is gone or is not what was written.
        STORE_ERRORS: the store does not answer.
    """
    try:
        with contextlib.closing(_open(name)) as file:
            header = file.read(HEADER.size)
            check_header(header)
            key = key_of(header)
            yield from read_frames(
                cast(BinaryIO, file), header, key, size=size, start=start, end=end
            )
    except FileNotFoundError:
        raise DamagedImageError("the stored file is gone") from None
