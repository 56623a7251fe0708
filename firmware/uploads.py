"""Receiving an image: multipart, hashed and encrypted while it arrives.

Nothing of a body that is too large, too slow, cut short or wrongly framed is kept.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast

from django.conf import settings
from django.core.exceptions import RequestDataTooBig, SuspiciousOperation
from django.core.files.uploadedfile import UploadedFile
from django.core.files.uploadhandler import FileUploadHandler, StopUpload
from django.http import UnreadablePostError
from django.http.multipartparser import MultiPartParser, MultiPartParserError
from rest_framework.exceptions import ParseError, UnsupportedMediaType, ValidationError
from rest_framework.request import Request

from firmware.exceptions import FirmwareTooLargeError, UploadStalledError
from firmware.services.keys import current_storage_key
from firmware.storage import ImageReceiver, StagedImage
from hotswap.common.api.parsers import check_text
from hotswap.common.body_timeouts import PIECE_BYTES, StalledBodyError, body_failure
from hotswap.common.errors import TooLargeError

FILE_FIELD = "file"


class _ImageHandler(FileUploadHandler):
    """Feed the one file of the form to a receiver."""

    chunk_size = 256 * 1024

    def __init__(self, receiver: ImageReceiver) -> None:
        super().__init__()
        self.receiver = receiver
        self.staged: StagedImage | None = None
        self.is_too_large = False
        self.refused: str | None = None

    def new_file(self, field_name: str, *args: Any, **kwargs: Any) -> None:
        super().new_file(field_name, *args, **kwargs)
        if field_name != FILE_FIELD or self.staged is not None:
            self.refused = field_name
            raise StopUpload(connection_reset=False)

    def receive_data_chunk(self, raw_data: bytes, start: int) -> None:
        try:
            self.receiver.write(raw_data)
        except OverflowError:
            self.is_too_large = True
            # Not reset: the rest is read and dropped, so that the answer arrives.
            raise StopUpload(connection_reset=False) from None

    def file_complete(self, file_size: int) -> UploadedFile:
        self.staged = self.receiver.finish()
        return UploadedFile(name="image", size=file_size)


class _WatchedStream:
    """Count what arrives and remember its end, to tell a whole body from a cut one."""

    TAIL_BYTES = 256

    def __init__(self, request: Request) -> None:
        self._request = request._request
        self.received = 0
        self.tail = b""

    def read(self, size: int) -> bytes:
        try:
            # One piece a call: of more, those before a stall would be lost.
            piece: bytes = self._request.read(min(size, PIECE_BYTES))
        except UnreadablePostError:
            failure = body_failure(self._request)
            if isinstance(failure, StalledBodyError):
                raise UploadStalledError(f"{failure}; nothing was kept") from None
            raise
        self.received += len(piece)
        self.tail = (self.tail + piece[-self.TAIL_BYTES :])[-self.TAIL_BYTES :]
        return piece


@contextmanager
def receive_upload(
    request: Request,
) -> Iterator[tuple[dict[str, str], StagedImage | None]]:
    """Read a multipart body; give its text fields and the staged image.

    The staged file is gone when the block ends, unless it went to the store.

    Raises:
        UnsupportedMediaType: not multipart/form-data (415).
        ParseError: malformed, or ended before its closing boundary.
        FirmwareTooLargeError: the image exceeds 100 MiB (413).
        UploadStalledError: the client has stopped, or sends too slowly (408).
        ValidationError: a file under another name, or a field twice.
    """
    content_type = request.META.get("CONTENT_TYPE", "")
    if not content_type.lower().startswith("multipart/form-data"):
        raise UnsupportedMediaType(content_type)
    receiver = ImageReceiver(
        current_storage_key(), max_bytes=settings.FIRMWARE_MAX_BYTES
    )
    try:
        yield _read(request, receiver)
    finally:
        receiver.discard()


def _length(request: Request) -> int:
    """Return the length that the body is said to have; 0 for none, or nonsense."""
    text = request.META.get("CONTENT_LENGTH") or "0"
    return int(text) if text.isascii() and text.isdigit() else 0


def _drain(stream: _WatchedStream) -> None:
    """Read the rest of a refused body, so that the answer arrives."""
    with suppress(UploadStalledError, UnreadablePostError):
        while stream.read(64 * 1024):
            pass


def _read(
    request: Request, receiver: ImageReceiver
) -> tuple[dict[str, str], StagedImage | None]:
    handler = _ImageHandler(receiver)
    stream = _WatchedStream(request)
    try:
        parser = MultiPartParser(request.META, cast(Any, stream), [handler], "utf-8")
        posted, _ = parser.parse()
    except MultiPartParserError as error:
        _drain(stream)
        raise ParseError(
            f"malformed multipart body: {error}", code="malformed"
        ) from None
    except RequestDataTooBig:
        _drain(stream)
        raise TooLargeError("the text fields are too large") from None
    except SuspiciousOperation as error:
        _drain(stream)
        raise ParseError(str(error), code="malformed") from None
    except UnreadablePostError:
        if body_failure(request._request) is not None:
            raise
        raise ParseError(
            "the body ended before it was complete", code="incomplete"
        ) from None
    except UploadStalledError:
        # Of an image that is too large, the rest is read for politeness only.
        if not handler.is_too_large:
            raise
    if handler.is_too_large:
        raise FirmwareTooLargeError(
            f"an image may have {settings.FIRMWARE_MAX_BYTES} bytes at most"
        )
    if handler.refused is not None:
        raise ValidationError(
            {handler.refused: ["send exactly one file, in the field `file`"]},
            code="unknown",
        )
    while stream.read(64 * 1024):
        pass
    boundary = parser._boundary  # type: ignore[attr-defined]
    is_whole = stream.tail.rstrip(b"\r\n").endswith(b"--" + boundary + b"--")
    if not is_whole or stream.received < _length(request):
        raise ParseError("the body ended before it was complete", code="incomplete")
    fields: dict[str, str] = {}
    for name, values in posted.lists():
        if len(values) > 1:
            raise ValidationError({name: ["given twice"]}, code="duplicate_key")
        check_text(values[0])
        fields[name] = values[0]
    return fields, handler.staged
