"""Giving out an image: through the server, or by a short-lived link to its store.

Frames come through the server: single ranges, a strong ETag, nothing unverified. Plain
images are fetched from the store; ranges and ETags are the store's, and the device
compares the digest.
"""

import re
import time
from collections.abc import Callable, Iterator
from itertools import chain

from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase

from firmware.api.pace import downloads
from firmware.exceptions import DownloadEndedError, ImageUnavailableError
from firmware.models import Firmware
from firmware.services.delivery import download_link, stored_bytes
from hotswap.common.postgresql.sharing import release_connection
from hotswap.common.streams import CountedPieces

RANGE = re.compile(r"bytes=(\d*)-(\d*)", re.ASCII | re.IGNORECASE)
MAX_DIGITS = 18
# With what the network still holds, a revocation takes effect within 5 s.
RECHECK_SECONDS = 2.0


def requested_range(
    header: str | None, if_range: str | None, *, size: int, etag: str
) -> tuple[int, int] | bool | None:
    """Read a Range header.

    Returns:
        `(start, end)` with end exclusive; None when the whole image is to be sent (no
        range, several ranges, another unit, or `If-Range` names another image); False
        when the range cannot be satisfied.

    Source: RFC 9110, sections 13.1.5 and 14.
    """
    if header is None or (if_range is not None and if_range.strip() != etag):
        return None
    found = RANGE.fullmatch(header.strip())
    if found is None:
        return None
    first, last = found.groups()
    if not first and not last:
        return None
    if not first:
        length = min(_number(last), size)
        return (size - length, size) if length else False
    start = _number(first)
    end = min(_number(last) + 1, size) if last else size
    if last and _number(last) < start:
        return None
    return (start, end) if start < size else False


def _number(digits: str) -> int:
    """Read a number; one longer than any file is as good as the longest."""
    return int(digits) if len(digits) <= MAX_DIGITS else 10**MAX_DIGITS


def while_admitted(
    pieces: Iterator[bytes],
    is_admitted: Callable[[], bool],
    *,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[bytes]:
    """Pass pieces on for as long as their receiver is admitted, asked every 2 s.

    Raises:
        DownloadEndedError: it is not admitted any more. The connection breaks off.
    """
    asked_at = clock()
    for piece in pieces:
        if clock() - asked_at >= RECHECK_SECONDS:
            if not is_admitted():
                raise DownloadEndedError("the receiver has been shut out")
            asked_at = clock()
            release_connection()
        yield piece


class ImageResponse(StreamingHttpResponse):
    """An image, which is counted as a download."""

    is_counted = True


def image_response(
    request: HttpRequest,
    firmware: Firmware,
    *,
    device: object,
    region: str,
    is_admitted: Callable[[], bool],
) -> HttpResponseBase:
    """Answer with an image or one range of it, or lead to the store that has it.

    The first frame is verified before the status goes out, so that a damaged image is
    a clear error; damage further in breaks the connection off short of its length.

    Args:
        device: whose download it is counted as.
        region: the device's; its places are asked first.
        is_admitted: asked while the image is being sent; once it says no, the
            connection breaks off.

    Raises:
        ImageUnavailableError: the image is known to be damaged, or its first frame
            does not verify.
        StoreUnavailableError: no place that holds it answers.
        Throttled, DownloadsBusy: too many downloads are under way.
    """
    if firmware.damaged_at is not None:
        raise ImageUnavailableError(
            f"the stored image of {firmware} is damaged: {firmware.damage}"
        )
    link = download_link(firmware, region=region)
    if link is not None:
        return HttpResponse(
            status=307, headers={"Location": link, "Cache-Control": "no-store"}
        )
    etag = f'"{firmware.sha256}"'
    wanted = requested_range(
        request.headers.get("Range"),
        request.headers.get("If-Range"),
        size=firmware.size,
        etag=etag,
    )
    if wanted is False:
        return HttpResponse(
            status=416, headers={"Content-Range": f"bytes */{firmware.size}"}
        )
    start, end = wanted if isinstance(wanted, tuple) else (0, firmware.size)
    pieces: Iterator[bytes] = iter(stored_bytes(firmware, start, end, region=region))
    counted = CountedPieces(pieces, downloads.begin(device))
    first = next(counted, b"")
    # The rest waits for its receiver.
    release_connection()
    response = ImageResponse(
        while_admitted(chain((first,), counted), is_admitted),
        status=206 if isinstance(wanted, tuple) else 200,
        content_type="application/octet-stream",
    )
    response["Content-Length"] = str(end - start)
    response["Accept-Ranges"] = "bytes"
    response["ETag"] = etag
    response["Cache-Control"] = "private, no-transform"
    # What a proxy like nginx has buffered would reach a device after its revocation.
    response["X-Accel-Buffering"] = "no"
    if isinstance(wanted, tuple):
        response["Content-Range"] = f"bytes {start}-{end - 1}/{firmware.size}"
    return response
