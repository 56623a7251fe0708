"""Fetch an image in ranged chunks, resuming where the last attempt ended.

Rules:
- What is on the medium counts: after a cut or a crash the next range begins there.
- Resuming carries `If-Range`, so a changed image starts over instead of mixing; on
  another host, to which the server led, the digest of the whole alone decides.
- Each range is asked of the server, so that a link that has expired is a new link at
  the next try.
- More bytes than the manifest states are never written.
- A server that is away is waited for; only refusals and an end of patience fail. One
  that answers for the rest while the images do not come is not away: that ends sooner.
- What fails on the way is told apart from what is wrong with the image: a page of a
  proxy or portal, a compressed answer or another host's refusal says nothing about it.
- Bytes are taken no faster than allowed; a connection that brings them too slowly is
  dropped, and the next one goes on from there.
"""

import contextlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from devices.agent.backoff import Backoff
from devices.agent.crashpoints import reach
from devices.agent.files import (
    is_no_space,
    read_blocks,
    sync_directory,
    write_atomically,
)
from devices.agent.protocol import ErrorCode, Order
from devices.agent.transport import (
    Body,
    InsecureAddressError,
    RefusedError,
    Transport,
    TransportError,
    UnavailableError,
    looks_like_page,
)

logger = logging.getLogger(__name__)

MAX_REFUSALS = 5
PAGE_TYPES = frozenset({"text/html", "application/xhtml+xml"})
PAGE_MESSAGE = "A web page came instead of the image: of a proxy or portal on the way."


class DownloadError(Exception):
    """The image cannot be had; `code` says why."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class NotFirmwareError(TransportError):
    """Something else came than the image, from something on the way."""


class StagedImage(Protocol):
    """Bytes fetched so far, not yet trusted."""

    def length_bytes(self) -> int:
        """Say how many bytes are held."""

    def etag(self) -> str:
        """Give the validator these bytes came with, "" if none."""

    def free_bytes(self) -> int:
        """Say how many more bytes there is room for."""

    def begin(self, etag: str) -> None:
        """Drop all bytes and note the validator of those to come."""

    def append(self, block: bytes) -> None:
        """Add bytes at the end."""

    def sync(self) -> None:
        """Make the bytes survive a power cut."""

    def blocks(self) -> Iterable[bytes]:
        """Give all bytes from the start."""


class Staging(Protocol):
    """Where images wait until they are verified."""

    def open(self, sha256: str) -> StagedImage:
        """Give the place for the image with this digest."""

    def clear(self, *, keep_sha256: str = "") -> None:
        """Drop every staged image but one."""


@dataclass(frozen=True, slots=True)
class StagedFile:
    """A `.part` file with its validator beside it."""

    path: Path

    def length_bytes(self) -> int:
        """See `StagedImage`."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def etag(self) -> str:
        """See `StagedImage`."""
        try:
            return self._etag_path.read_text(encoding="utf-8")
        except (FileNotFoundError, UnicodeDecodeError):
            return ""

    def free_bytes(self) -> int:
        """See `StagedImage`."""
        return shutil.disk_usage(self.path.parent).free

    def begin(self, etag: str) -> None:
        """See `StagedImage`."""
        # Bytes go first, so that old bytes never meet a new validator.
        with self.path.open("wb") as file:
            reach("download.emptied")
            os.fsync(file.fileno())
        reach("download.emptied_synced")
        sync_directory(self.path.parent)
        reach("download.folder_synced")
        write_atomically(self._etag_path, etag.encode(), crash_prefix="download.etag")
        reach("download.started")

    def append(self, block: bytes) -> None:
        """See `StagedImage`."""
        with self.path.open("ab") as file:
            file.write(block)
        reach("download.block_written")

    def sync(self) -> None:
        """See `StagedImage`."""
        if self.path.exists():
            with self.path.open("rb") as file:
                os.fsync(file.fileno())
        reach("download.chunk_synced")

    def blocks(self) -> Iterable[bytes]:
        """See `StagedImage`."""
        return read_blocks(self.path) if self.path.exists() else ()

    @property
    def _etag_path(self) -> Path:
        return self.path.with_suffix(".etag")


@dataclass(frozen=True, slots=True)
class FileStaging:
    """A folder of `.part` files named by digest."""

    folder: Path

    def open(self, sha256: str) -> StagedImage:
        """See `Staging`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return StagedFile(self.folder / f"{sha256}.part")

    def clear(self, *, keep_sha256: str = "") -> None:
        """See `Staging`."""
        if self.folder.is_dir():
            for path in self.folder.iterdir():
                if not keep_sha256 or path.stem != keep_sha256:
                    path.unlink()


@dataclass(slots=True)
class Pace:
    """Says how long to hold back, and when a connection is too slow to go on with.

    Rates are bytes per second, 0 for no limit; the lower one is an average over
    `window_seconds` of one connection, not counting the time held back.
    """

    max_bytes_per_second: int = 0
    min_bytes_per_second: int = 0
    window_seconds: float = 30.0
    _free_at: float = field(init=False, default=0.0)
    _window_began_at: float = field(init=False, default=0.0)
    _window_bytes: int = field(init=False, default=0)

    def begin(self, now: float) -> None:
        """Begin with a new connection."""
        self._window_began_at = now
        self._window_bytes = 0

    def hold_back_seconds(self, block_bytes: int, now: float) -> float:
        """Say how long to wait after a block, 0 or more."""
        if not self.max_bytes_per_second:
            return 0.0
        self._free_at = (
            max(now, self._free_at) + block_bytes / self.max_bytes_per_second
        )
        return self._free_at - now

    def held_back(self, seconds: float) -> None:
        """Leave the time just waited out of the account: it was not the server's."""
        self._window_began_at += seconds

    def is_too_slow(self, block_bytes: int, now: float) -> bool:
        """Say whether the window that ends with this block brought too few bytes."""
        self._window_bytes += block_bytes
        elapsed = now - self._window_began_at
        if not self.min_bytes_per_second or elapsed < self.window_seconds:
            return False
        is_slow = self._window_bytes < self.min_bytes_per_second * elapsed
        self.begin(now)
        return is_slow


@dataclass(slots=True)
class Downloader:
    """Fetches one image.

    Attributes:
        wait: sleeps for some seconds; the agent keeps its heartbeats going in it.
        on_block: called after each block read, with the number of bytes held.
        on_retry: called after each wait, may raise to give up the order.
        server_answered_at: when the server itself last answered anything but this
            download, by the monotonic clock; None if it does not answer.
    """

    transport: Transport
    chunk_bytes: int
    patience_seconds: float
    path_patience_seconds: float
    backoff: Backoff
    wait: Callable[[float], None]
    on_block: Callable[[int], None]
    on_retry: Callable[[int], None]
    server_answered_at: Callable[[], float | None]
    pace: Pace = field(default_factory=Pace)
    monotonic: Callable[[], float] = time.monotonic
    _refusals: int = field(init=False, default=0)
    _path_fails_since: float | None = field(init=False, default=None)

    def fetch(self, order: Order, staged: StagedImage) -> None:
        """Fetch until all bytes of the order's image are held.

        Raises:
            DownloadError: `download_failed` after too many refusals or too long
                without a byte, or the code of the path where that is what failed;
                `size_mismatch` if the server has another size;
                `device_storage_full` if there is no room for it.
        """
        size_bytes = order.firmware.size_bytes
        missing_bytes = size_bytes - staged.length_bytes()
        if staged.free_bytes() < missing_bytes:
            # Better than to fill the disk under everything else on the device.
            _drop(staged)
            raise DownloadError(
                ErrorCode.DEVICE_STORAGE_FULL,
                f"{missing_bytes} bytes are missing, {staged.free_bytes()} are free.",
            )
        last_progress_at = self.monotonic()
        while (held := staged.length_bytes()) != size_bytes:
            if held > size_bytes:
                staged.begin("")
            retry_after, code = None, ErrorCode.DOWNLOAD_FAILED
            try:
                self._fetch_chunk(order, staged)
            except UnavailableError as error:
                reason, retry_after = str(error), error.retry_after_seconds
                code = code_of(error)
                self._lose_patience(code, reason)
            except (RefusedError, NotFirmwareError, InsecureAddressError) as error:
                reason, code = str(error), code_of(error)
                self._refuse(error, staged)
            except OSError as error:
                _drop(staged)
                raise _not_written(error) from error
            else:
                reason = "The answer was empty."
            if staged.length_bytes() > held:
                last_progress_at = self.monotonic()
                self._refusals = 0
                self._path_fails_since = None
                self.backoff.reset()
                if staged.length_bytes() - held >= self.chunk_bytes:
                    continue
            if staged.length_bytes() == size_bytes:
                break
            if self.monotonic() - last_progress_at > self.patience_seconds:
                raise DownloadError(code, reason)
            wait = self.backoff.next_seconds(retry_after)
            logger.warning(
                "download interrupted",
                extra={"reason": reason, "retry_seconds": round(wait, 1)},
            )
            self.wait(wait)
            self.on_retry(staged.length_bytes())
        reach("download.complete")

    def _fetch_chunk(self, order: Order, staged: StagedImage) -> None:
        size_bytes = order.firmware.size_bytes
        first = staged.length_bytes()
        last = min(first + self.chunk_bytes, size_bytes) - 1
        with self.transport.download(
            order.firmware.download_url,
            first=first,
            last=last,
            etag=staged.etag(),
            more_headers={"traceparent": order.traceparent}
            if order.traceparent
            else None,
        ) as body:
            self._place(body, first, staged, size_bytes)
            self.pace.begin(self.monotonic())
            try:
                for block in body.blocks:
                    is_measured = body.total_bytes is not None
                    if not staged.length_bytes() and not is_measured:
                        _refuse_page(body, block)
                    if staged.length_bytes() + len(block) > size_bytes:
                        raise _size_mismatch("more", size_bytes)
                    staged.append(block)
                    self.on_block(staged.length_bytes())
                    self._keep_pace(len(block))
            finally:
                staged.sync()

    def _keep_pace(self, block_bytes: int) -> None:
        now = self.monotonic()
        if self.pace.is_too_slow(block_bytes, now):
            raise UnavailableError("The download is slower than allowed.")
        seconds = self.pace.hold_back_seconds(block_bytes, now)
        if seconds > 0:
            self.wait(seconds)
            self.pace.held_back(self.monotonic() - now)

    def _place(
        self, body: Body, first: int, staged: StagedImage, size_bytes: int
    ) -> None:
        """Make the staged bytes end where the answer begins."""
        if body.encoding not in ("", "identity"):
            raise NotFirmwareError(
                f"The answer is compressed ({body.encoding[:40]}), though the image "
                "was asked for as it is: something on the way changes it."
            )
        if body.total_bytes not in (None, size_bytes):
            _refuse_page(body, next(body.blocks, b""))
            raise _size_mismatch(str(body.total_bytes), size_bytes)
        if body.status == 200 or first == 0:
            # 200: ranges are not served, or the image is no longer the one begun.
            staged.begin(body.etag)
        if body.first != staged.length_bytes():
            staged.begin("")
            raise UnavailableError("The answer begins at another byte.")

    def _refuse(self, error: TransportError, staged: StagedImage) -> None:
        if isinstance(error, RefusedError) and error.status == 416:
            staged.begin("")
        self._refusals += 1
        # The address of the order itself does not get better by asking again.
        if self._refusals >= MAX_REFUSALS or isinstance(error, InsecureAddressError):
            raise DownloadError(code_of(error), str(error)) from error

    def _lose_patience(self, code: ErrorCode, reason: str) -> None:
        """Give up a path that fails while the server is there for all the rest."""
        answered_at = self.server_answered_at()
        if code is ErrorCode.DOWNLOAD_FAILED or answered_at is None:
            self._path_fails_since = None
            return
        now = self.monotonic()
        since = self._path_fails_since
        if since is None:
            since = self._path_fails_since = now
        # What the server answered before says nothing of whether it is there now.
        if now - since > self.path_patience_seconds and answered_at > since:
            raise DownloadError(code, reason)


def code_of(error: TransportError) -> ErrorCode:
    """Say by which code a download is reported that fails for good in this way."""
    if isinstance(error, NotFirmwareError):
        return ErrorCode.PATH_NOT_FIRMWARE
    if isinstance(error, InsecureAddressError):
        return ErrorCode.PATH_FOREIGN_HOST if error.host else ErrorCode.DOWNLOAD_FAILED
    if not isinstance(error, UnavailableError | RefusedError):
        return ErrorCode.DOWNLOAD_FAILED
    if error.foreign_host and error.status in {0, 401, 403}:
        return ErrorCode.PATH_FOREIGN_HOST
    if error.status in {401, 403, 407, 511}:
        return ErrorCode.PATH_UNAUTHORIZED
    if error.status in {404, 410}:
        return ErrorCode.PATH_NOT_FOUND
    if 300 <= error.status < 400:
        return ErrorCode.PATH_FOREIGN_HOST
    if error.status >= 500:
        return ErrorCode.PATH_SERVER_ERROR
    return ErrorCode.DOWNLOAD_FAILED


def _refuse_page(body: Body, block: bytes) -> None:
    """Tell a web page, by its type or its beginning, from an image.

    Raises:
        NotFirmwareError: it is a page.
    """
    if body.media_type in PAGE_TYPES or looks_like_page(block):
        raise NotFirmwareError(PAGE_MESSAGE)


def _drop(staged: StagedImage) -> None:
    """Give back the room, as even the state could not be saved beside these bytes."""
    with contextlib.suppress(OSError):
        staged.begin("")


def _not_written(error: OSError) -> DownloadError:
    code = (
        ErrorCode.DEVICE_STORAGE_FULL
        if is_no_space(error)
        else ErrorCode.DOWNLOAD_FAILED
    )
    return DownloadError(code, f"The image cannot be written: {error.strerror}.")


def _size_mismatch(seen: str, size_bytes: int) -> DownloadError:
    return DownloadError(
        ErrorCode.SIZE_MISMATCH,
        f"The server has {seen} bytes instead of {size_bytes}.",
    )
