"""The slice of the audit trail that belongs into a pack."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from django.db import connection
from django.db.models import Q

from hotswap.common import keyring
from hotswap.common.evidence.pack import EvidenceFile, json_file, ndjson_file
from hotswap.common.models import AuditEvent, AuditSeal
from hotswap.common.signatures import signatures_of
from hotswap.common.trail import chain, sealer
from hotswap.common.trail.chain import Content, content_fields, wire_time

STEP = 2000
SIGNATURES = "signatures.json"
EVENTS, CHAIN, ANCHOR = "audit-events.ndjson", "audit-chain.ndjson", "audit-anchor.json"

SEALED = """
    SELECT s.position, e.id, e.at, e.actor_kind, e.actor, e.verb, e.object_kind,
           e.object_id, e.details
    FROM common_auditevent e JOIN common_auditseal s ON s.event_id = e.id
    WHERE e.object_kind = %s AND e.object_id = %s
      AND s.position > %s AND s.position <= %s
    ORDER BY s.position LIMIT %s
"""


def trail_files(
    *, object_kind: str, object_id: str, now: datetime
) -> list[EvidenceFile]:
    """Return the rows about an object, the chain from the first of them, its anchor.

    What waits is sealed first, and the end of the chain anchored.
    """
    anchor = sealer.seal_and_anchor(now=now)
    if anchor is None:
        return []
    about = AuditEvent.objects.filter(
        Q(object_kind=object_kind) & Q(object_id=object_id)
    )
    first = (
        AuditSeal.objects.filter(event_id__in=about.values("pk"))
        .order_by("position")
        .values_list("position", flat=True)
        .first()
    ) or anchor.position
    public = keyring.audit_key().public_key()
    return [
        json_file(SIGNATURES, _signatures(object_kind, object_id)),
        ndjson_file(EVENTS, _rows(object_kind, object_id, anchor.position)),
        ndjson_file(CHAIN, _links(first, anchor.position)),
        json_file(ANCHOR, chain.anchor_document(anchor, public)),
    ]


def _signatures(object_kind: str, object_id: str) -> list[dict[str, Any]]:
    """Return who has signed, with what ties the names to the rows of the trail."""
    return [
        {
            "auditEventId": each.event_id,
            "at": wire_time(each.at),
            "verb": each.verb,
            "signer": str(each.signer),
            "name": each.name,
            "nameSalt": None if each.name_salt is None else str(each.name_salt),
            "meaning": each.meaning,
            "statement": each.statement,
            "factor": each.factor,
            "recordSha256": each.record_sha256,
        }
        for each in signatures_of(object_kind, [object_id])
    ]


def _rows(object_kind: str, object_id: str, end: int) -> Iterator[dict[str, Any]]:
    position = 0
    while True:
        with connection.cursor() as cursor:
            cursor.execute(SEALED, [object_kind, object_id, position, end, STEP])
            rows = cursor.fetchall()
        for position, row_id, *columns in rows:
            content: Content = sealer.content(columns)
            yield {"position": position, "id": row_id, **content_fields(content)}
        if len(rows) < STEP:
            return


def _links(first: int, end: int) -> Iterator[dict[str, Any]]:
    """Give the link before the first row, for the chain to begin with, and the rest."""
    before = AuditSeal.objects.filter(position=first - 1).first()
    previous = chain.GENESIS if before is None else bytes(before.chain_hash)
    yield {"position": first - 1, "chainHash": previous.hex()}
    links = AuditSeal.objects.filter(position__gte=first, position__lte=end)
    position = first - 1
    while position < end:
        rows = list(links.filter(position__gt=position).order_by("position")[:STEP])
        if not rows:
            return
        for link in rows:
            yield {
                "position": link.position,
                "eventId": link.event_id,
                "contentHash": bytes(link.content_hash).hex(),
                "chainHash": bytes(link.chain_hash).hex(),
                "sealedAt": wire_time(link.sealed_at),
            }
        position = rows[-1].position
