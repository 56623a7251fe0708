"""Hold the audit trail against its chain, and the chain against its anchors.

Rules:
- Reading alone, in steps of a few thousand rows; a writer or the sealer waits for none.
- Anchors are read before the chain: what is sealed in the meantime puts the chain
  ahead of them, never behind.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db import connection
from django.db.models import Min

from hotswap.common import keyring
from hotswap.common.models import (
    AuditAnchor,
    AuditEvent,
    AuditPending,
    AuditSeal,
)
from hotswap.common.trail import anchors, chain
from hotswap.common.trail.chain import (
    Anchor,
    ChainCheck,
    Content,
    Finding,
    FindingKind,
    Findings,
    Link,
)
from hotswap.common.trail.sealer import content

STEP = 5000

# Of each table: its triggers, and the function that they are to call.
REFUSE, QUEUE = "common_refuse_audit_change", "common_queue_audit_seal"
TRIGGERS = {
    ("common_auditevent", "audit_append_only"): REFUSE,
    ("common_auditevent", "audit_no_truncate"): REFUSE,
    ("common_auditevent", "audit_queue_seal"): QUEUE,
    ("common_auditseal", "seal_append_only"): REFUSE,
    ("common_auditseal", "seal_no_truncate"): REFUSE,
    ("common_auditanchor", "anchor_append_only"): REFUSE,
    ("common_auditanchor", "anchor_no_truncate"): REFUSE,
}
# What each function does, in a phrase of its source.
DEEDS = {REFUSE: "RAISE EXCEPTION", QUEUE: "INSERT INTO common_auditpending"}

LINKS = """
    SELECT s.position, s.event_id, s.content_hash, s.chain_hash, s.sealed_at,
           e.at, e.actor_kind, e.actor, e.verb, e.object_kind, e.object_id, e.details
    FROM common_auditseal s LEFT JOIN common_auditevent e ON e.id = s.event_id
    WHERE s.position > %s AND s.position <= %s
    ORDER BY s.position LIMIT %s
"""
UNSEALED = """
    SELECT e.id FROM common_auditevent e
    WHERE e.id >= %s
      AND NOT EXISTS (SELECT FROM common_auditseal s WHERE s.event_id = e.id)
      AND NOT EXISTS (SELECT FROM common_auditpending p WHERE p.event_id = e.id)
    ORDER BY e.id LIMIT %s
"""
WAITING_FOR_NOTHING = """
    SELECT p.event_id FROM common_auditpending p
    WHERE NOT EXISTS (SELECT FROM common_auditevent e WHERE e.id = p.event_id)
    ORDER BY p.event_id LIMIT %s
"""
FOUND_TRIGGERS = """
    SELECT t.tgname, t.tgenabled::text, p.proname, p.prosrc
    FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
    WHERE t.tgrelid = %s::regclass AND NOT t.tgisinternal
"""


@dataclass(frozen=True, slots=True)
class ChainState:
    """How far the trail is sealed.

    Attributes:
        position: of the last link; 0 while the chain is empty.
        waiting: how many rows wait to be sealed.
        anchor: the newest, if there is one.
    """

    position: int
    sealed_at: datetime | None
    waiting: int
    anchor: Anchor | None


@dataclass(frozen=True, slots=True)
class Verification:
    """What a check has found.

    Attributes:
        first, last: positions that were checked; `last < first` where there was none.
        next: where the next part begins, if this one was not all.
        total: how many findings there are; `findings` has the first hundred.
        anchors: how many signed ends the chain was compared with.
        unread_buckets: the buckets whose anchors could not be compared, as they did not
            answer.
        unproved_to: up to which position only the key that was lost has vouched; None
            where none was. What is before is sound in itself, or there is a finding.
    """

    state: ChainState
    first: int
    last: int
    next: int | None
    findings: tuple[Finding, ...]
    total: int
    anchors: int
    unread_buckets: tuple[str, ...]
    unproved_to: int | None

    @property
    def is_intact(self) -> bool:
        return self.total == 0


def chain_state() -> ChainState:
    end = AuditSeal.objects.order_by("-position").first()
    return ChainState(
        position=0 if end is None else end.position,
        sealed_at=None if end is None else end.sealed_at,
        waiting=AuditPending.objects.count(),
        anchor=anchors.last_anchor(),
    )


def verify(*, start: int | None = None, limit: int | None = None) -> Verification:
    """Check the trail.

    Args:
        start: the first position that is checked. Without it the check begins behind
            the last anchor whose signature holds, which vouches for what is before.
        limit: how many positions are checked at most.
    """
    findings = Findings()
    check_triggers(findings)
    unproved_to = _unproved_to()
    genuine, unread_buckets = _genuine_anchors(findings, unproved_to or 0)
    state = chain_state()
    _compare_anchors(findings, genuine, state)
    if start is None:
        trusted = _last_trusted(genuine, state)
        before = 0 if trusted is None else trusted.position
    else:
        before = min(max(start, 1) - 1, state.position)
    end = state.position if limit is None else min(state.position, before + limit)
    check = ChainCheck(findings, position=before, chain_hash=_hash_at(before, findings))
    for link, row in _links(before, end):
        check.add_link(link)
        check.add_row(link, row)
    if check.position < end:
        _add_removed_end(findings, check.position, end)
    check.finish()
    is_all = end == state.position
    if is_all:
        _check_unsealed(findings, before)
    return Verification(
        state=state,
        first=before + 1,
        last=end,
        next=None if is_all else end + 1,
        findings=tuple(findings.kept),
        total=findings.total,
        anchors=len(genuine),
        unread_buckets=unread_buckets,
        unproved_to=unproved_to,
    )


def require_triggers() -> None:
    """Check that the database guards the trail.

    Raises:
        ImproperlyConfigured: a trigger is missing, disabled or does something else.
    """
    findings = Findings()
    check_triggers(findings)
    if findings.total:
        found = "; ".join(finding.detail for finding in findings.kept)
        raise ImproperlyConfigured(
            f"the audit trail is not guarded: {found}. Find out who did that and what "
            "they changed (`hotswap audit verify`), then put the triggers back "
            "(docs/operate/audit.md, Triggers)"
        )


def check_triggers(findings: Findings) -> None:
    """Check that the database still refuses changes, and queues what is new."""
    for table in dict.fromkeys(table for table, _ in TRIGGERS):
        with connection.cursor() as cursor:
            cursor.execute(FOUND_TRIGGERS, [table])
            found = {name: row for name, *row in cursor.fetchall()}
        for (of_table, name), function in TRIGGERS.items():
            if of_table != table:
                continue
            if name not in found:
                findings.add(
                    FindingKind.TRIGGER_MISSING,
                    f"the trigger {name} of {table} is missing",
                )
                continue
            enabled, called, source = found[name]
            if enabled != "A":
                why = "is disabled" if enabled == "D" else "can be switched off"
            elif called != function or DEEDS[function] not in source:
                why = "does something else"
            else:
                continue
            findings.add(
                FindingKind.TRIGGER_DISABLED, f"the trigger {name} of {table} {why}"
            )


def _unproved_to() -> int | None:
    """Return up to where only a key that was lost has vouched for the chain."""
    replaced = AuditEvent.objects.filter(verb=chain.AUDIT_KEY_REPLACED)
    row = replaced.order_by("-id").first()
    return None if row is None else int(row.details["unprovedTo"])


def _genuine_anchors(
    findings: Findings, unproved_to: int
) -> tuple[list[Anchor], tuple[str, ...]]:
    """Return all anchors whose signature holds, and the buckets that did not answer.

    They are of the files, the buckets and the database. Those up to `unproved_to` may
    be of the key that was lost: they prove nothing, and nothing against anybody.
    """
    outside, unreadable = anchors.read_anchor_files()
    public = keyring.audit_key().public_key()
    inside = [anchors.anchor_from_row(row) for row in AuditAnchor.objects.all()]
    stored = anchors.stored_anchors(
        known=(each for each in inside if chain.is_genuine(each, public))
    )
    for text in (*unreadable, *stored.unreadable):
        findings.add(FindingKind.ANCHOR_FORGED, f"{text} cannot be read")
    genuine = []
    for anchor in (*inside, *outside, *stored.anchors):
        if chain.is_genuine(anchor, public):
            genuine.append(anchor)
            continue
        if anchor.position <= unproved_to:
            continue
        findings.add(
            FindingKind.ANCHOR_FORGED,
            f"the anchor of position {anchor.position} in {anchor.origin} is not "
            "signed by the key of this server",
            position=anchor.position,
        )
    return genuine, stored.unreachable


def _compare_anchors(
    findings: Findings, genuine: list[Anchor], state: ChainState
) -> None:
    positions = {anchor.position for anchor in genuine}
    sealed = {
        position: bytes(found)
        for position, found in AuditSeal.objects.filter(
            position__in=positions
        ).values_list("position", "chain_hash")
    }
    for anchor in genuine:
        found = sealed.get(anchor.position)
        if found == anchor.chain_hash:
            continue
        if anchor.position > state.position:
            kind = FindingKind.OLDER_COPY
            detail = (
                f"the chain ends at position {state.position}, and was signed up to "
                f"{anchor.position} at {chain.wire_time(anchor.at)} ({anchor.origin}): "
                "the tables are an older copy, or their end was removed"
            )
        elif found is None:
            # The gap is found with the links, if they are checked.
            kind = FindingKind.LINK_REMOVED
            detail = f"position {anchor.position} was signed and is missing"
        else:
            kind = FindingKind.CHAIN_RECOMPUTED
            detail = (
                f"the chain up to position {anchor.position} is another one than was "
                f"signed at {chain.wire_time(anchor.at)} ({anchor.origin})"
            )
        findings.add(kind, detail, position=anchor.position)


def _last_trusted(genuine: list[Anchor], state: ChainState) -> Anchor | None:
    inside = [
        anchor
        for anchor in genuine
        if anchor.origin != anchors.HEAD and anchor.position <= state.position
    ]
    return max(inside, key=lambda anchor: anchor.position, default=None)


def _hash_at(position: int, findings: Findings) -> bytes:
    if position == 0:
        return chain.GENESIS
    found = AuditSeal.objects.filter(position=position).first()
    if found is not None:
        return bytes(found.chain_hash)
    findings.add(
        FindingKind.LINK_REMOVED,
        f"position {position} is missing from the chain",
        position=position,
    )
    return chain.GENESIS


def _add_removed_end(findings: Findings, position: int, end: int) -> None:
    findings.add(
        FindingKind.LINK_REMOVED,
        f"positions {position + 1} to {end} are missing from the chain",
        position=position + 1,
    )


def _links(before: int, end: int) -> Iterator[tuple[Link, Content | None]]:
    while before < end:
        with connection.cursor() as cursor:
            cursor.execute(LINKS, [before, end, STEP])
            rows: list[tuple[Any, ...]] = cursor.fetchall()
        if not rows:
            return
        for position, event_id, hashed, chained, sealed_at, *columns in rows:
            link = Link(position, event_id, bytes(hashed), bytes(chained), sealed_at)
            yield link, None if columns[0] is None else content(columns)
        before = rows[-1][0]


def _check_unsealed(findings: Findings, before: int) -> None:
    """Find rows that no link tells of, and what waits without a row."""
    lowest = (
        AuditSeal.objects.filter(position__gte=before).aggregate(
            lowest=Min("event_id")
        )["lowest"]
        if before
        else None
    )
    with connection.cursor() as cursor:
        cursor.execute(UNSEALED, [lowest or 0, chain.MAX_FINDINGS])
        for (row,) in cursor.fetchall():
            findings.add(
                FindingKind.ROW_INSERTED,
                f"row {row} is in no link and does not wait for one: it was inserted "
                "past the sealer, or its link was removed",
                event_id=row,
            )
        cursor.execute(WAITING_FOR_NOTHING, [chain.MAX_FINDINGS])
        for (row,) in cursor.fetchall():
            findings.add(
                FindingKind.ROW_REMOVED,
                f"row {row} was removed before it was sealed",
                event_id=row,
            )
