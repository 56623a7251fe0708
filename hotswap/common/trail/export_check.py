"""Check an export of the audit trail on any machine, with the public key alone.

Pure: the standard library and `cryptography`. Memory is bounded by the longest line.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import IO, Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from hotswap.common.trail import chain
from hotswap.common.trail.chain import canonical

START = "hotswap-audit-export-1"
END = "hotswap-audit-export-end-1"
MAX_LINE_BYTES = 4 << 20
# Of a line, what is no part of the content that was hashed.
BESIDE = frozenset({"id", "position", "contentHash", "actorName"})


class NoExportError(Exception):
    """The file is no export of the audit trail."""


@dataclass(slots=True)
class ExportReport:
    """What a check has found.

    Attributes:
        start: what the export says of itself; of no worth unless `faults` is empty.
        rows: how many it holds.
        faults: sentences; none if it is what the server has signed.
    """

    start: Mapping[str, Any]
    rows: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def is_genuine(self) -> bool:
        return not self.faults


def check_export(file: IO[bytes], public: Ed25519PublicKey) -> ExportReport:
    """Check that nothing was changed, added, taken out or cut off.

    Raises:
        NoExportError: it is none.
    """
    digest = hashlib.sha256()
    line = file.readline(MAX_LINE_BYTES)
    start = _document(line)
    if start.get("type") != START:
        raise NoExportError(f"it does not begin with a line of the type {START}")
    report = ExportReport(start)
    while True:
        digest.update(line)
        line = file.readline(MAX_LINE_BYTES)
        if not line:
            report.faults.append("it ends without a signature: its end was cut off")
            return report
        found = _document(line)
        if found.get("type") == END:
            break
        report.rows += 1
        _check_row(found, report)
    _check_end(found, digest.hexdigest(), public, report)
    if file.readline(MAX_LINE_BYTES):
        report.faults.append("there is something behind the signature")
    return report


def _document(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        raise NoExportError("a line of it is no JSON") from None
    if not isinstance(found, dict):
        raise NoExportError("a line of it is no object")
    return found


def _check_row(row: dict[str, Any], report: ExportReport) -> None:
    """Compare a row with the hash that was sealed of it."""
    hashed = row.get("contentHash")
    if hashed is None:
        return
    content = {name: value for name, value in row.items() if name not in BESIDE}
    if (
        hashlib.sha256(canonical(content)).hexdigest() != hashed
        and len(report.faults) < chain.MAX_FINDINGS
    ):
        report.faults.append(f"row {row.get('id')} is not what was sealed")


def _check_end(
    end: dict[str, Any], digest: str, public: Ed25519PublicKey, report: ExportReport
) -> None:
    signed = {name: value for name, value in end.items() if name != "signature"}
    try:
        signature = base64.b64decode(str(end.get("signature")), validate=True)
        public.verify(signature, canonical(signed))
    except (InvalidSignature, binascii.Error):
        report.faults.append("it is not signed by this key")
        return
    if signed.get("sha256") != digest:
        report.faults.append("the lines are not those that were signed")
    if signed.get("rows") != report.rows:
        report.faults.append(
            f"{signed.get('rows')} rows were signed, not {report.rows}"
        )
