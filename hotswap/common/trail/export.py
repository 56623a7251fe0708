"""The audit trail for an inspection, as NDJSON or CSV, with its own signature.

Rules:
- What waits is sealed and the chain anchored first, so that each row has its position.
- Rows are read and sent in batches, the oldest first; those that come meanwhile are
  left out.
- The last line of NDJSON is signed by the key that signs anchors, and covers every byte
  before it (`hotswap.common.trail.export_check`).
- CSV has no place for a signature: it goes out in a zip, beside an index that is signed
  as that of an evidence pack is, and is checked as one (`hotswap.common.evidence`).
"""

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

from django.db.models import QuerySet
from django.http import StreamingHttpResponse

from hotswap.common import audit, keyring
from hotswap.common.csv_cells import MARK, csv_lines
from hotswap.common.evidence.pack import EvidenceFile, evidence_pack, json_file
from hotswap.common.models import AuditEvent, AuditSeal, User
from hotswap.common.trail import chain, sealer
from hotswap.common.trail.chain import (
    Anchor,
    Content,
    canonical,
    content_fields,
    wire_time,
)
from hotswap.common.trail.export_check import END, START

BATCH = 2000
CSV_FILE, ANCHOR_FILE = "audit-events.csv", "audit-anchor.json"
COLUMNS = (
    *("id", "position", "at", "actorKind", "actor", "actorName"),
    *("verb", "objectKind", "objectId", "details", "contentHash"),
)


class Form(StrEnum):
    """What an export is written as."""

    NDJSON = "ndjson"
    CSV = "csv"


# Of each form: content type and ending of the file that is sent.
SENT_AS = {
    Form.NDJSON: ("application/x-ndjson", "ndjson"),
    Form.CSV: ("application/zip", "zip"),
}


def export_trail(
    rows: QuerySet[AuditEvent],
    *,
    actor: User,
    query: Mapping[str, Any],
    now: datetime,
    form: Form = Form.NDJSON,
) -> Iterator[bytes]:
    """Write into the trail that rows of it go out, and give the bytes of the export.

    Args:
        query: by what the rows were filtered, as the reader is told.
    """
    audit.record(
        actor=actor,
        verb="audit.exported",
        object_kind="audit",
        object_id="export",
        details={**query, "form": form.value},
    )
    anchor = sealer.seal_and_anchor(now=now)
    # This row too, and none that is written while they are sent.
    newest = AuditEvent.objects.order_by("-id").values_list("id", flat=True).first()
    write = _signed_lines if form is Form.NDJSON else _signed_pack
    return write(rows.filter(pk__lte=newest), actor, query, anchor, now)


def export_response(
    rows: QuerySet[AuditEvent],
    *,
    actor: User,
    query: Mapping[str, Any],
    now: datetime,
    form: Form = Form.NDJSON,
) -> StreamingHttpResponse:
    """Send an export as a file, while it is written; arguments as `export_trail`."""
    content_type, ending = SENT_AS[form]
    return StreamingHttpResponse(
        export_trail(rows, actor=actor, query=query, now=now, form=form),
        content_type=content_type,
        headers={
            "Cache-Control": "no-store",
            "Content-Disposition": (
                f'attachment; filename="audit-{now:%Y-%m-%d}.{ending}"'
            ),
        },
    )


def _signed_pack(
    rows: QuerySet[AuditEvent],
    actor: User,
    query: Mapping[str, Any],
    anchor: Anchor | None,
    now: datetime,
) -> Iterator[bytes]:
    key = keyring.audit_key()
    signed = None if anchor is None else chain.anchor_document(anchor, key.public_key())
    return evidence_pack(
        kind="audit",
        subject={
            "id": "export",
            "name": "trail",
            "by": str(actor.pseudonym),
            "query": dict(query),
        },
        files=[
            EvidenceFile(CSV_FILE, _csv_pieces(rows)),
            json_file(ANCHOR_FILE, signed),
        ],
        key=key,
        now=now,
    )


def _csv_pieces(rows: QuerySet[AuditEvent]) -> Iterator[bytes]:
    yield MARK + csv_lines([COLUMNS])
    for batch in _batches(rows):
        yield csv_lines(
            [_cell(line[column]) for column in COLUMNS] for line in _lines(batch)
        )


def _cell(value: Any) -> str:
    if isinstance(value, Mapping):
        return json.dumps(value, ensure_ascii=False, sort_keys=True) if value else ""
    return "" if value is None else str(value)


def _signed_lines(
    rows: QuerySet[AuditEvent],
    actor: User,
    query: Mapping[str, Any],
    anchor: Anchor | None,
    now: datetime,
) -> Iterator[bytes]:
    key = keyring.audit_key()
    public = key.public_key()
    digest, count = hashlib.sha256(), 0
    start = {
        "type": START,
        "at": wire_time(now),
        "keyId": chain.key_id(public),
        "by": str(actor.pseudonym),
        "query": query,
        "anchor": None if anchor is None else chain.anchor_document(anchor, public),
    }
    piece = canonical(start) + b"\n"
    digest.update(piece)
    yield piece
    for batch in _batches(rows):
        piece = b"".join(canonical(line) + b"\n" for line in _lines(batch))
        digest.update(piece)
        count += len(batch)
        yield piece
    end = {
        "type": END,
        "at": wire_time(now),
        "keyId": chain.key_id(public),
        "rows": count,
        "sha256": digest.hexdigest(),
    }
    signature = base64.b64encode(key.sign(canonical(end))).decode()
    yield canonical({**end, "signature": signature}) + b"\n"


def _batches(rows: QuerySet[AuditEvent]) -> Iterator[list[AuditEvent]]:
    last = 0
    while batch := list(rows.filter(pk__gt=last).order_by("id")[:BATCH]):
        yield batch
        last = batch[-1].pk


def _lines(batch: list[AuditEvent]) -> Iterator[dict[str, Any]]:
    """Give the rows with their places in the chain and the names of who acted."""
    seals = AuditSeal.objects.filter(event_id__in=[row.pk for row in batch])
    sealed = {seal.event_id: seal for seal in seals}
    people = User.objects.filter(pseudonym__in={row.actor for row in batch})
    names = dict(people.values_list("pseudonym", "username"))
    for row in batch:
        seal = sealed.get(row.pk)
        content = Content(
            row.at,
            row.actor_kind,
            row.actor,
            row.verb,
            row.object_kind,
            row.object_id,
            row.details,
        )
        yield {
            "id": row.pk,
            "position": None if seal is None else seal.position,
            "contentHash": None if seal is None else bytes(seal.content_hash).hex(),
            "actorName": None if row.actor is None else names.get(row.actor),
            **content_fields(content),
        }
