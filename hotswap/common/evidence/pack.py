"""Write a pack while it is sent: a zip, its index last, signed.

Pure but for the key: the standard library and `cryptography`.
"""

import base64
import hashlib
import json
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hotswap.common.trail.chain import canonical, key_id, wire_time

TYPE = "hotswap-evidence-1"
INDEX, SIGNATURE = "index.json", "index.json.sig"
# Times in a zip have two seconds and no zone; those in the files say more.
ZIP_TIME = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class EvidenceFile:
    """One file of a pack.

    Attributes:
        pieces: its bytes, read while they are sent.
    """

    name: str
    pieces: Iterable[bytes]


def json_file(name: str, value: Any) -> EvidenceFile:
    """Return a file of one JSON value, for people to read as well."""
    return EvidenceFile(name, [json.dumps(value, indent=2, sort_keys=True).encode()])


def ndjson_file(name: str, values: Iterable[Any]) -> EvidenceFile:
    """Return a file of one JSON value a line."""
    return EvidenceFile(name, (canonical(value) + b"\n" for value in values))


class _Outlet:
    """What the zip is written to: a stream that cannot be sought."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._pieces.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        pass

    def taken(self) -> bytes:
        data = b"".join(self._pieces)
        self._pieces.clear()
        return data


def evidence_pack(
    *,
    kind: str,
    subject: dict[str, Any],
    files: Iterable[EvidenceFile],
    key: Ed25519PrivateKey,
    now: datetime,
) -> Iterator[bytes]:
    """Give the bytes of a pack.

    Args:
        kind: of what it tells, `firmware`, `deployment` or `audit`.
        subject: what names it.
    """
    outlet = _Outlet()
    listed: list[dict[str, Any]] = []
    with zipfile.ZipFile(cast(Any, outlet), "w", zipfile.ZIP_DEFLATED) as archive:
        for file in files:
            digest, size = hashlib.sha256(), 0
            with archive.open(_entry(file.name), "w", force_zip64=True) as member:
                for piece in file.pieces:
                    member.write(piece)
                    digest.update(piece)
                    size += len(piece)
                    if data := outlet.taken():
                        yield data
            listed.append(
                {"name": file.name, "size": size, "sha256": digest.hexdigest()}
            )
        index = {
            "type": TYPE,
            "kind": kind,
            **subject,
            "createdAt": wire_time(now),
            "keyId": key_id(key.public_key()),
            "files": listed,
        }
        content = json.dumps(index, indent=2).encode()
        archive.writestr(_entry(INDEX), content)
        archive.writestr(_entry(SIGNATURE), base64.b64encode(key.sign(content)))
    yield outlet.taken()


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, ZIP_TIME)
    entry.compress_type = zipfile.ZIP_DEFLATED
    return entry
