"""Bodies of uploads, whole and broken."""

from collections.abc import Iterable
from typing import Any

from tests.api import Caller

BOUNDARY = "----hotswap-boundary"
CONTENT_TYPE = f"multipart/form-data; boundary={BOUNDARY}"
Part = tuple[str, bytes, str | None]


def form(parts: Iterable[Part]) -> bytes:
    """Write a multipart body of (name, content, file name or None)."""
    body = b""
    for name, content, file_name in parts:
        body += (
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"'.encode()
        )
        if file_name is not None:
            body += f'; filename="{file_name}"\r\n'.encode()
            body += b"Content-Type: application/octet-stream"
        body += b"\r\n\r\n" + content + b"\r\n"
    return body + f"--{BOUNDARY}--\r\n".encode()


def parts_of(content: bytes | None, fields: dict[str, str]) -> list[Part]:
    """List the parts of an upload, the file last."""
    parts: list[Part] = [(n, value.encode(), None) for n, value in fields.items()]
    if content is not None:
        parts.append(("file", content, "image.bin"))
    return parts


def upload(
    caller: Caller, content: bytes | None = b"image", **fields: str | None
) -> Any:
    """Upload an image; a field of None is left out."""
    given = {"model": "sensor-v1", "version": "1.0.0"} | fields
    kept = {name: value for name, value in given.items() if value is not None}
    return send(caller, form(parts_of(content, kept)))


def send(caller: Caller, body: bytes, content_type: str = CONTENT_TYPE) -> Any:
    return caller.request("POST", "/firmware", raw=body, content_type=content_type)
