"""The sealer: gives each row of the audit trail its place in the chain.

Rules:
- Level-triggered: it takes what waits. Rows are queued by a trigger in their own
  transaction, so one that commits late is sealed late and none is passed over.
- Writers never wait for it: it reads what is committed, and locks nothing of theirs.
- One server seals at a time; the others leave it to that one.
"""

import json
from datetime import datetime

from django.db import connection, transaction

from hotswap.common import locks
from hotswap.common.copying import copy_rows
from hotswap.common.models import AuditPending, AuditSeal
from hotswap.common.trail import anchors, chain
from hotswap.common.trail.chain import Anchor, Content

BATCH = 1000
BATCHES = 100

WAITING = """
    SELECT p.event_id, e.at, e.actor_kind, e.actor, e.verb, e.object_kind, e.object_id,
           e.details
    FROM common_auditpending p JOIN common_auditevent e ON e.id = p.event_id
    ORDER BY p.event_id LIMIT %s
"""


def tend(*, now: datetime) -> int:
    """Seal what waits, anchor once a day; return how many rows were sealed."""
    sealed = seal_all(now=now)
    anchors.make_due_anchor(now=now)
    if sealed or not (anchors.folder() / anchors.HEAD).exists():
        anchors.write_head(now=now)
    return sealed


def seal_all(*, now: datetime, is_awaited: bool = False) -> int:
    """Seal what waits, in transactions of a thousand rows; return how many rows.

    Args:
        is_awaited: wait for another server that seals just now.
    """
    total = 0
    for _ in range(BATCHES):
        sealed = _seal_batch(now, is_awaited)
        total += sealed
        if sealed < BATCH:
            break
    return total


def seal_and_anchor(*, now: datetime) -> Anchor | None:
    """Seal what waits and sign the end of the chain; None while it is empty.

    For what is handed out. Rows that come meanwhile are not awaited.
    """
    while seal_all(now=now, is_awaited=True) == BATCHES * BATCH:
        pass
    return anchors.make_anchor(now=now)


def _seal_batch(now: datetime, is_awaited: bool) -> int:
    with transaction.atomic(), connection.cursor() as cursor:
        if is_awaited:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [locks.AUDIT_CHAIN])
        else:
            cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [locks.AUDIT_CHAIN])
            if cursor.fetchone() != (True,):
                return 0
        cursor.execute(WAITING, [BATCH])
        rows = cursor.fetchall()
        if not rows:
            return 0
        end = AuditSeal.objects.order_by("-position").first()
        position = 0 if end is None else end.position
        previous = chain.GENESIS if end is None else bytes(end.chain_hash)
        links = []
        for event_id, *columns in rows:
            position += 1
            hashed = chain.content_hash(content(columns))
            previous = chain.chain_hash(
                previous,
                position=position,
                event_id=event_id,
                content_hash=hashed,
                sealed_at=now,
            )
            links.append((position, event_id, hashed, previous, now))
        copy_rows(
            AuditSeal,
            ("position", "event_id", "content_hash", "chain_hash", "sealed_at"),
            links,
        )
        AuditPending.objects.filter(event_id__in=[row[0] for row in rows]).delete()
    return len(rows)


def content(columns: list[object]) -> Content:
    """Read a row of the trail from its columns, in the order of the fields."""
    at, actor_kind, actor, verb, object_kind, object_id, details = columns
    return Content(
        at,  # type: ignore[arg-type]
        *(str(actor_kind), actor, str(verb), str(object_kind), str(object_id)),  # type: ignore[arg-type]
        json.loads(str(details)),
    )
