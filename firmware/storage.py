"""Images at their places: a folder or buckets.

Rules:
- An upload is written to a local file first, already encrypted; it reaches a place
  only when it is whole. What goes wrong before leaves nothing behind.
- A place holds an image as encrypted frames, or, if the settings leave encryption to
  the bucket, as its plain bytes; its name says which. Plain bytes never touch the
  disk of this server.
- Readers of frames get verified bytes or an error, never a silent short answer.
- A place that does not answer is given up after seconds; the next one is asked.
"""

import contextlib
import errno
import hashlib
import io
import logging
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import IO, Any, BinaryIO, Protocol, cast

from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    PartialCredentialsError,
    ResponseStreamingError,
)
from django.conf import settings
from django.core.files.storage import FileSystemStorage, Storage
from storages.backends.s3 import S3Storage

from firmware import storage_locations
from firmware.encrypted_format import (
    HEADER,
    DamagedImageError,
    FrameKey,
    FrameWriter,
    MissingImageError,
    check_header,
    read_frames,
)
from firmware.reachability import reachability
from firmware.storage_locations import Bucket

logger = logging.getLogger(__name__)

# What a store raises when it cannot be reached or refuses.
STORE_ERRORS = (OSError, Boto3Error, BotoCoreError, ClientError)
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
# An error code of S3, as opposed to anything that a server may put in its place.
CODE = re.compile(r"[A-Za-z0-9.]{1,64}", re.ASCII)
# The smallest part that Amazon takes: of an upload, so many lie in memory.
PART_BYTES = 5 * 1024 * 1024
PLAIN_BYTES = 256 * 1024
CONNECT_SECONDS = 3
# Devices wait for what is read, and give a server up after 30 s; a bucket that puts
# the parts of a large image together may take its time.
READ_SECONDS = 10
WRITE_SECONDS = 30
# Whoever asks only whether it is there does not wait for longer.
PROBE_SECONDS = 3
# Below a prefix of its own, where nothing looks for images.
STORE_ID = "hotswap/store-id"
MAX_STORE_ID_BYTES = 64
FRAMES_SUFFIX = ".hsf"
PLAIN_SUFFIX = ".bin"


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


def folder_id() -> str:
    """Return what tells this folder of images from that of another host.

    It is made up at the first need and lies beside the images, so that it goes along
    where the folder is shared, moved or restored.
    """
    path = Path(settings.FIRMWARE_DIR) / "folder-id"
    with contextlib.suppress(FileNotFoundError):
        return path.read_text(encoding="ascii")
    draft = incoming_folder() / f"{secrets.token_hex(16)}.part"
    draft.write_text(secrets.token_hex(16), encoding="ascii")
    # Whoever is first names it; nobody reads half a name.
    with contextlib.suppress(FileExistsError):
        os.link(draft, path)
    draft.unlink()
    return path.read_text(encoding="ascii")


def store_id(place: str, *, make: bool = False) -> str:
    """Return what tells the store behind a place from every other one.

    Args:
        make: give an identity to a bucket that has none.

    Returns:
        "" for a bucket without an identity.

    Raises:
        STORE_ERRORS: the place does not answer.
    """
    if place == storage_locations.FOLDER:
        return folder_id()
    held = _s3(place, PROBE_SECONDS).bucket.Object(STORE_ID)
    try:
        found: bytes = held.get()["Body"].read(MAX_STORE_ID_BYTES)
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") not in ("NoSuchKey", "404"):
            raise
        if not make:
            return ""
        found = secrets.token_hex(16).encode()
        held.put(Body=found)
    return found.decode("ascii", "replace")


def new_name() -> str:
    """Return a name for a new image, which also says how it is stored."""
    suffix = PLAIN_SUFFIX if storage_locations.encrypts_by_store() else FRAMES_SUFFIX
    return f"{secrets.token_hex(16)}{suffix}"


def is_plain(name: str) -> bool:
    """Say whether an image is stored as its plain bytes (and given out by link)."""
    return name.endswith(PLAIN_SUFFIX)


def image_store(place: str = "") -> Storage:
    """Return the store behind a place; of the first place if none is named."""
    place = place or storage_locations.location_names()[0]
    if place == storage_locations.FOLDER:
        return FileSystemStorage(
            location=Path(settings.FIRMWARE_DIR) / "images",
            file_permissions_mode=0o600,
            directory_permissions_mode=0o700,
        )
    return _s3(place)


def _s3(place: str, read_seconds: float = WRITE_SECONDS) -> S3Storage:
    bucket = storage_locations.bucket_named(place)
    return _open_bucket(bucket, settings.S3_CHECKSUMS, read_seconds)


@lru_cache(maxsize=32)
def _open_bucket(bucket: Bucket, checksums: str, read_seconds: float) -> S3Storage:
    """Open a bucket once: a new client takes longer than reading most images.

    Each thread has a connection of its own inside.
    """
    return S3Storage(
        bucket_name=bucket.bucket,
        endpoint_url=bucket.endpoint or None,
        region_name=bucket.region or None,
        access_key=bucket.access_key or None,
        secret_key=bucket.secret_key or None,
        file_overwrite=False,
        querystring_auth=True,
        default_acl=None,
        client_config=Config(
            request_checksum_calculation=checksums,
            response_checksum_validation=checksums,
            connect_timeout=CONNECT_SECONDS,
            read_timeout=read_seconds,
            retries={"total_max_attempts": 2},
            s3={"addressing_style": "path"},
        ),
    )


def publish(staged: StagedImage, name: str) -> str:
    """Bring a staged image to the first place that takes it, as a whole.

    Returns:
        The name of that place.

    Raises:
        STORE_ERRORS: no place took it.
        DamagedImageError: the staged file is not what was written.
    """
    refusals: list[Exception] = []
    for place in _by_reachability(storage_locations.location_names()):
        try:
            _put(place, staged, name)
        except STORE_ERRORS as error:
            refusals.append(error)
            _note_failure(place, error)
        else:
            return place
    raise refusals[-1]


def _put(place: str, staged: StagedImage, name: str) -> None:
    if place == storage_locations.FOLDER:
        store = cast(FileSystemStorage, image_store(place))
        target = Path(store.path(name))
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        staged.path.replace(target)
        _sync_folder(target.parent)
        return
    with open(staged.path, "rb") as file:
        if is_plain(name):
            header = file.read(HEADER.size)
            pieces = read_frames(
                file,
                header,
                staged.key,
                size=staged.size,
                start=0,
                end=staged.size,
            )
            _upload(place, name, _Stream(checked(pieces, staged.sha256)))
        else:
            _upload(place, name, file)
    staged.path.unlink(missing_ok=True)


def _upload(place: str, name: str, file: Any) -> None:
    """Send a file to a bucket, in parts if it is large; a broken one is aborted."""
    extra = {"ContentType": "application/octet-stream"}
    if is_plain(name):
        extra["ServerSideEncryption"] = (
            settings.S3_ENCRYPTION
            if storage_locations.encrypts_by_store()
            else "AES256"
        )
        if settings.S3_KMS_KEY and extra["ServerSideEncryption"] == "aws:kms":
            extra["SSEKMSKeyId"] = settings.S3_KMS_KEY
    _object(place, name).upload_fileobj(file, ExtraArgs=extra, Config=_transfers())
    reachability.note_success(_address(place))


def _transfers() -> TransferConfig:
    """Keep memory flat: the library's own ten transfers would hold ten parts."""
    config = TransferConfig(max_concurrency=2, multipart_chunksize=PART_BYTES)
    # Of a stream, which cannot be read again, parts wait in memory.
    config.max_in_memory_upload_chunks = 2
    return config


def _object(place: str, name: str) -> Any:
    store = _s3(place)
    return store.bucket.Object(store._normalize_name(name))


def checked(pieces: Iterable[bytes], sha256: str) -> Iterator[bytes]:
    """Pass the bytes of an image on, and fail at the end if they are others.

    Raises:
        DamagedImageError: the digest differs.
    """
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
        yield piece
    if digest.hexdigest() != sha256:
        raise DamagedImageError("the bytes are not those of the checksum")


class _Pieces(io.RawIOBase):
    """An iterator of bytes as a file that is read once."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = piece
        taken = min(len(buffer), len(self._rest))
        buffer[:taken] = self._rest[:taken]
        self._rest = self._rest[taken:]
        return taken


class _Stream(io.BufferedReader):
    """Pieces as a file whose reads are never short: a part must have its full size."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        super().__init__(_Pieces(pieces), buffer_size=256 * 1024)


def copy_image(name: str, source: str, target: str) -> None:
    """Copy a stored image from one place to another, as it is.

    Raises:
        STORE_ERRORS: one of the two does not answer, or the source has no such image.
    """
    reader = _RangedObject(_s3(source, READ_SECONDS), name)
    _upload(target, name, _Stream(iter(lambda: reader.read(1024 * 1024), b"")))


def check_copy(name: str, place: str, key_of: KeyOf, *, size: int, sha256: str) -> None:
    """Read the image at one place and compare it with its checksum.

    Raises:
        DamagedImageError: it is gone, or is not what was uploaded.
        STORE_ERRORS: the place does not answer.
    """
    pieces = _read_at(place, name, key_of, size=size, start=0, end=size)
    for _ in checked(pieces, sha256):
        pass


def withdraw(name: str, place: str) -> None:
    """Remove an image that no row speaks of from one place."""
    image_store(place).delete(name)


def abort_unfinished(place: str, *, before: datetime) -> int:
    """Drop the parts of uploads that were begun before and never ended.

    Returns:
        How many uploads were dropped.

    Raises:
        STORE_ERRORS: the bucket does not answer, or cannot list them.
    """
    if place == storage_locations.FOLDER:
        return 0
    store = _s3(place)
    client = store.connection.meta.client
    pages = client.get_paginator("list_multipart_uploads").paginate(
        Bucket=store.bucket_name
    )
    try:
        begun = [upload for page in pages for upload in page.get("Uploads", [])]
    except ClientError as error:
        # What some servers say instead of an empty list.
        if error.response.get("Error", {}).get("Code") == "NoSuchUpload":
            return 0
        raise
    old = [upload for upload in begun if upload["Initiated"] < before]
    for upload in old:
        client.abort_multipart_upload(
            Bucket=store.bucket_name, Key=upload["Key"], UploadId=upload["UploadId"]
        )
    return len(old)


def documents(bucket: str, folder: str) -> list[str]:
    """Return the names of the files directly in a folder of a bucket.

    Raises:
        STORE_ERRORS: the bucket does not answer, or cannot list them.
    """
    _, names = _s3(bucket, READ_SECONDS).listdir(folder)
    return [name for name in names if name]


def read_document(bucket: str, name: str, *, max_bytes: int) -> bytes:
    """Return the beginning of a small file that is no image.

    Raises:
        STORE_ERRORS: the bucket does not answer, or has no such file.
    """
    return _RangedObject(_s3(bucket, READ_SECONDS), name).read(max_bytes)


def write_document(bucket: str, name: str, content: bytes) -> None:
    """Put a small file that is no image into a bucket.

    Raises:
        STORE_ERRORS: the bucket does not answer or refuses it.
    """
    _object(bucket, name).put(Body=content, ContentType="application/json")


def answers(place: str) -> bool:
    """Ask a place whether it is there; a folder must be writable, a bucket answer."""
    if place == storage_locations.FOLDER:
        folder = Path(settings.FIRMWARE_DIR)
        there = folder if folder.exists() else folder.parent
        return os.access(there, os.R_OK | os.W_OK | os.X_OK)
    store = _s3(place, PROBE_SECONDS)
    try:
        store.connection.meta.client.head_bucket(Bucket=store.bucket_name)
    except STORE_ERRORS:
        return False
    return True


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _address(place: str) -> str:
    if place == storage_locations.FOLDER:
        return place
    return storage_locations.bucket_named(place).address


def _by_reachability(names: Iterable[str]) -> list[str]:
    return sorted(names, key=lambda name: reachability.has_failed(_address(name)))


def failure_of(error: BaseException) -> str:
    """Say why a store did not serve, without any secret: what a caller is told."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ClientError):
            return _refusal_of(cause)
        if isinstance(cause, NoCredentialsError | PartialCredentialsError):
            return "there are no credentials for the store of images"
        if isinstance(cause, OSError) and cause.errno in NO_SPACE:
            return "the store of images has no space left"
        if isinstance(cause, PermissionError):
            return "the store of images does not let this server write or read"
        cause = cause.__cause__ or cause.__context__
    return "the store of images does not answer"


def _refusal_of(error: ClientError) -> str:
    """Say what an S3 server objects to; its own sentence may hold names of keys."""
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    code = error.response.get("Error", {}).get("Code", "")
    code = code if CODE.fullmatch(code) else str(status)
    if status in (401, 403):
        return (
            "the store of images refuses our credentials, or they lack a right "
            f"({code})"
        )
    if code == "NoSuchBucket":
        return "the store of images has no such bucket (NoSuchBucket)"
    return f"the store of images refuses the request ({code})"


def _note_failure(place: str, error: Exception) -> None:
    reachability.note_failure(_address(place))
    logger.warning(
        "Place of images does not answer",
        extra={"place": place, "reason": f"{type(error).__name__}: {error}"},
    )


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
        """Return these bytes; fewer at the end.

        A body that breaks off is asked for once more: botocore repeats a request that
        got no answer, but not one whose answer broke off.
        """
        try:
            return self._fetch_once(start, size)
        except ResponseStreamingError:
            return self._fetch_once(start, size)

    def _fetch_once(self, start: int, size: int) -> bytes:
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


def _open(place: str, name: str) -> IO[bytes]:
    if place == storage_locations.FOLDER:
        return open(cast(FileSystemStorage, image_store(place)).path(name), "rb")
    return cast(IO[bytes], _RangedObject(_s3(place, READ_SECONDS), name))


def read_header(name: str) -> bytes:
    """Return the header of a stored file, from the first place that has it.

    Raises:
        DamagedImageError: the file is gone everywhere, or has no such header.
        STORE_ERRORS: a place that may have it does not answer.
    """
    failure: Exception | None = None
    for place in _by_reachability(storage_locations.location_names()):
        try:
            with contextlib.closing(_open(place, name)) as file:
                header = file.read(HEADER.size)
            check_header(header)
        except FileNotFoundError:
            failure = failure or MissingImageError("the stored file is gone")
        except DamagedImageError as error:
            failure = failure or error
        except STORE_ERRORS as error:
            _note_failure(place, error)
            failure = error
        else:
            return header
    assert failure is not None
    raise failure


def read_image(
    name: str,
    key_of: KeyOf,
    *,
    size: int,
    start: int,
    end: int,
    at: Sequence[str],
    on_damage: Callable[[str, str], None],
) -> Iterator[bytes]:
    """Yield the bytes [start, end) of a stored image.

    Frames are verified one by one; of plain bytes only their number is certain. Where
    one place stops in the middle, the next goes on at that byte. A place that gives
    wrong bytes is read once more from there: a read may go wrong, and the file be
    whole.

    Args:
        at: the places to ask, in order, one or more.
        on_damage: told the place and the damage of each damaged copy.

    Raises:
        DamagedImageError: no place has it as it was written.
        STORE_ERRORS: a place that may have it does not answer.
    """
    position = start
    failure: Exception | None = None
    for place in _by_reachability(at):
        for is_second in (False, True):
            try:
                for piece in _read_at(
                    place, name, key_of, size=size, start=position, end=end
                ):
                    position += len(piece)
                    yield piece
            except DamagedImageError as error:
                if not is_second:
                    logger.warning(
                        "Stored image is read again",
                        extra={"image": name, "place": place, "damage": str(error)},
                    )
                    continue
                on_damage(place, str(error))
                # What does not answer may yet have it: damage is the weaker news.
                failure = failure or error
            except STORE_ERRORS as error:
                _note_failure(place, error)
                failure = error
            else:
                return
            break
    assert failure is not None
    raise failure


def _read_at(
    place: str, name: str, key_of: KeyOf, *, size: int, start: int, end: int
) -> Iterator[bytes]:
    """Yield the bytes [start, end) from one place.

    Raises:
        DamagedImageError: the file is gone or is not what was written.
        STORE_ERRORS: the place does not answer.
    """
    try:
        with contextlib.closing(_open(place, name)) as file:
            if is_plain(name):
                yield from _read_plain(file, start, end)
                return
            header = file.read(HEADER.size)
            check_header(header)
            key = key_of(header)
            yield from read_frames(
                cast(BinaryIO, file), header, key, size=size, start=start, end=end
            )
    except FileNotFoundError:
        raise MissingImageError("the stored file is gone") from None


def _read_plain(file: IO[bytes], start: int, end: int) -> Iterator[bytes]:
    file.seek(start)
    position = start
    while position < end:
        piece = file.read(min(PLAIN_BYTES, end - position))
        if not piece:
            raise DamagedImageError("the stored file is too short")
        yield piece
        position += len(piece)
