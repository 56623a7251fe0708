"""Check a pack on any machine, with nothing but the public key of the server.

Pure: the standard library and `cryptography`.
"""

import base64
import binascii
import hashlib
import json
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from hotswap.common.evidence.pack import INDEX, SIGNATURE, TYPE
from hotswap.common.trail import chain
from hotswap.common.trail.chain import ChainCheck, Findings, Link, canonical

SIGNATURES = "signatures.json"
EVENTS, CHAIN, ANCHOR = "audit-events.ndjson", "audit-chain.ndjson", "audit-anchor.json"
CHUNK = 1 << 20
MAX_INDEX_BYTES = 1 << 20
MAX_LINE_BYTES = 4 << 20
# What the standard library raises of a zip that is damaged, or not of its kind.
BROKEN = (
    *(OSError, EOFError, RuntimeError, OverflowError, struct.error, zlib.error),
    *(zipfile.BadZipFile, zipfile.LargeZipFile),
)


class UnreadableError(Exception):
    """The file is no pack, or not a whole one."""


@dataclass(slots=True)
class Report:
    """What a check has found.

    Attributes:
        index: what the pack says of itself; of no worth unless `faults` is empty.
        faults: sentences; none if the pack is what the server has signed.
        rows, links: of the audit trail, that were checked.
        signatures: of people, in these rows, that were checked.
    """

    index: dict[str, Any]
    faults: list[str] = field(default_factory=list)
    rows: int = 0
    links: int = 0
    signatures: int = 0

    @property
    def is_genuine(self) -> bool:
        return not self.faults


def check_pack(path: Path, public: Ed25519PublicKey) -> Report:
    """Check signature, files, and the slice of the audit trail up to its anchor.

    Raises:
        UnreadableError: it is no pack.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _check(archive, public)
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UnreadableError(f"{path.name} is no evidence pack: {error}") from None
    except BROKEN as error:
        raise UnreadableError(f"{path.name} is no whole zip: {error}") from None


def _check(archive: zipfile.ZipFile, public: Ed25519PublicKey) -> Report:
    content = _whole(archive, INDEX)
    index = json.loads(content)
    if index["type"] != TYPE:
        raise ValueError(f"of the type {index['type']!r}")
    report = Report(index)
    try:
        signature = base64.b64decode(_whole(archive, SIGNATURE), validate=True)
        public.verify(signature, content)
    except (InvalidSignature, binascii.Error):
        report.faults.append("the index is not signed by this key")
        return report
    listed = {file["name"]: file for file in index["files"]}
    names = archive.namelist()
    for name in sorted(set(names) - {*listed, INDEX, SIGNATURE}):
        report.faults.append(f"{name} is not in the index")
    for name in sorted({name for name in names if names.count(name) > 1}):
        report.faults.append(f"{name} is there twice")
    for name, file in listed.items():
        if name not in names:
            report.faults.append(f"{name} is missing")
        elif _digest(archive, name) != (file["size"], file["sha256"]):
            report.faults.append(f"{name} is not the file that was signed")
    if report.is_genuine and {EVENTS, CHAIN, ANCHOR} <= listed.keys():
        _check_trail(archive, public, report)
        if SIGNATURES in listed:
            _check_signatures(archive, report)
    return report


def _whole(archive: zipfile.ZipFile, name: str) -> bytes:
    with archive.open(name) as file:
        content = file.read(MAX_INDEX_BYTES + 1)
    if len(content) > MAX_INDEX_BYTES:
        raise ValueError(f"{name} is too long")
    return content


def _digest(archive: zipfile.ZipFile, name: str) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    with archive.open(name) as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return size, digest.hexdigest()


def _lines(file: IO[bytes]) -> Iterator[dict[str, Any]]:
    while line := file.readline(MAX_LINE_BYTES):
        yield json.loads(line)


def _check_trail(
    archive: zipfile.ZipFile, public: Ed25519PublicKey, report: Report
) -> None:
    """Follow the chain from the first row to the anchor, and find each row in it."""
    anchor = chain.read_anchor(json.loads(_whole(archive, ANCHOR)))
    if not chain.is_genuine(anchor, public):
        report.faults.append("the anchor of the audit trail is not signed by this key")
    with archive.open(EVENTS) as file:
        rows = {int(row["position"]): row for row in _lines(file)}
    findings = Findings()
    with archive.open(CHAIN) as file:
        lines = _lines(file)
        before = next(lines)
        check = ChainCheck(
            findings,
            position=int(before["position"]),
            chain_hash=bytes.fromhex(before["chainHash"]),
        )
        for line in lines:
            link = Link(
                position=int(line["position"]),
                event_id=int(line["eventId"]),
                content_hash=bytes.fromhex(line["contentHash"]),
                chain_hash=bytes.fromhex(line["chainHash"]),
                sealed_at=datetime.fromisoformat(line["sealedAt"]),
            )
            check.add_link(link)
            report.links += 1
            row = rows.pop(link.position, None)
            if row is not None:
                report.rows += 1
                _check_row(row, link, report)
    report.faults += [finding.detail for finding in findings.kept]
    if rows:
        report.faults.append(f"{len(rows)} rows of the audit trail are in no link")
    if (check.position, check.chain_hash) != (anchor.position, anchor.chain_hash):
        report.faults.append("the chain of the audit trail does not end at its anchor")


def _check_signatures(archive: zipfile.ZipFile, report: Report) -> None:
    """Hold who is said to have signed against the rows of the audit trail."""
    with archive.open(EVENTS) as file:
        rows = {
            row["id"]: row for row in _lines(file) if row["details"].get("signature")
        }
    for listed in json.loads(_whole(archive, SIGNATURES)):
        row = rows.pop(listed["auditEventId"], None)
        report.signatures += 1
        if row is None or not _is_signature_of(row, listed):
            report.faults.append(
                f"the signature of row {listed['auditEventId']} is not the one that "
                "the audit trail has"
            )
    for row_id in rows:
        report.faults.append(f"{SIGNATURES} lacks the signature of row {row_id}")


def _is_signature_of(row: dict[str, Any], listed: dict[str, Any]) -> bool:
    signed = row["details"]["signature"]
    name_holds = listed["name"] is None or signed["nameSha256"] == chain.name_digest(
        listed["nameSalt"], listed["name"]
    )
    digest = chain.record_digest(signed["record"])
    return (
        name_holds
        and digest == signed["recordSha256"] == listed["recordSha256"]
        and (row["actor"], row["at"]) == (listed["signer"], listed["at"])
        and all(
            signed[name] == listed[name] for name in ("meaning", "statement", "factor")
        )
    )


def _check_row(row: dict[str, Any], link: Link, report: Report) -> None:
    content = {key: row[key] for key in row if key not in ("position", "id")}
    digest = hashlib.sha256(canonical(content)).digest()
    if (row["id"], digest) != (link.event_id, link.content_hash):
        report.faults.append(
            f"row {row['id']} of the audit trail is not what was sealed"
        )
