"""The audit trail for an inspection: NDJSON that ends with its own signature.

Rules:
- What waits is sealed and the chain anchored first, so that each row has its position.
- Rows are read and sent in batches, the oldest first; those that come meanwhile are
  left out.
- The last line is signed by the key that signs anchors, and covers every byte before
  it (`hotswap.common.trail.export_check`).
"""

import base64
import hashlib
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from django.db.models import QuerySet
from django.http import StreamingHttpResponse

from hotswap.common import audit, keyring
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


def export_trail(
    rows: QuerySet[AuditEvent], *, actor: User, query: Mapping[str, Any], now: datetime
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
        details={**query, "form": "ndjson"},
    )
    anchor = sealer.seal_and_anchor(now=now)
    # This row too, and none that is written while they are sent.
    newest = AuditEvent.objects.order_by("-id").values_list("id", flat=True).first()
    return _signed_lines(rows.filter(pk__lte=newest), actor, query, anchor, now)


def export_response(
    rows: QuerySet[AuditEvent], *, actor: User, query: Mapping[str, Any], now: datetime
) -> StreamingHttpResponse:
    """Send an export as a file, while it is written; arguments as `export_trail`."""
    return StreamingHttpResponse(
        export_trail(rows, actor=actor, query=query, now=now),
        content_type="application/x-ndjson",
        headers={
            "Cache-Control": "no-store",
            "Content-Disposition": (
                f'attachment; filename="audit-{now:%Y-%m-%d}.ndjson"'
            ),
        },
    )


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
