"""Anchors: signed ends of the chain, in the database and outside of it.

Rules:
- One is made a day, and whenever evidence is handed out. It is kept for good in
  `settings.AUDIT_DIR` and in the buckets of images (`settings.STORED_ANCHORS_HOOK`),
  and told to whoever listens (`audit.anchored`).
- `head.json` there is the signed end of the chain as of the last sealing. It is written
  after the transaction, so it may lag behind the table and is never ahead of it.
- Files are never written over, `head.json` excepted: after the restore of an older
  database the anchors of both histories are there.
"""

import json
import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from django.conf import settings
from django.db import transaction
from django.utils.module_loading import import_string

from hotswap.common import keyring
from hotswap.common.models import AuditAnchor, AuditSeal
from hotswap.common.trail import chain
from hotswap.common.trail.chain import Anchor

HEAD = "head.json"
PATTERN = "anchor-*.json"
# Anchors whose files are looked for; more are not made within one round of the sealer.
NEWEST = 50

AnchorKey = tuple[int, str]
"""Position of an anchor, and its hash in lower hex."""


@dataclass(frozen=True, slots=True)
class StoredAnchors:
    """Anchors in the buckets of images.

    Attributes:
        unreadable: what is no anchor, and why.
        unreachable: names of the buckets that did not answer.
    """

    anchors: tuple[Anchor, ...]
    unreadable: tuple[str, ...]
    unreachable: tuple[str, ...]


def stored_anchors(known: Iterable[Anchor]) -> StoredAnchors:
    """Return the anchors in the buckets of images, but for those that are known."""
    keys = {(anchor.position, anchor.chain_hash.hex()) for anchor in known}
    found: StoredAnchors = import_string(settings.STORED_ANCHORS_HOOK)(known=keys)
    return found


def anchor_from_row(row: AuditAnchor) -> Anchor:
    return Anchor(
        position=row.position,
        chain_hash=bytes(row.chain_hash),
        at=row.at,
        signature=bytes(row.signature),
        origin="the database",
    )


def newest_anchors() -> list[Anchor]:
    """Return the newest anchors of the database, the newest first."""
    return [
        anchor_from_row(row)
        for row in AuditAnchor.objects.order_by("-position")[:NEWEST]
    ]


def last_anchor() -> Anchor | None:
    row = AuditAnchor.objects.order_by("-position").first()
    return None if row is None else anchor_from_row(row)


def make_anchor(*, now: datetime) -> Anchor | None:
    """Sign the end of the chain; None while the chain is empty.

    There is one anchor at a position: whoever comes second gets that of the first. The
    sealer writes its file, on whichever machine that is.
    """
    with transaction.atomic():
        end = AuditSeal.objects.order_by("-position").first()
        if end is None:
            return None
        made = chain.sign_anchor(
            keyring.audit_key(),
            position=end.position,
            chain_hash=bytes(end.chain_hash),
            at=now,
        )
        row, is_new = AuditAnchor.objects.get_or_create(
            position=made.position,
            defaults={
                "chain_hash": made.chain_hash,
                "at": made.at,
                "signature": made.signature,
            },
        )
        anchor = anchor_from_row(row)
        if is_new:
            import_string(settings.AUDIT_ANCHORED_HOOK)(
                anchor=chain.anchor_document(anchor, keyring.audit_key().public_key()),
                now=now,
            )
    return anchor


def make_due_anchor(*, now: datetime) -> None:
    """Make the anchor of the day, and write the files of anchors that are missing.

    An anchor of a time to come, by a clock that was wrong, puts off none.
    """
    last = last_anchor()
    if last is None or not last.at <= now < last.at + settings.AUDIT_ANCHOR_INTERVAL:
        make_anchor(now=now)
    write_anchor_files()


# --- Files -------------------------------------------------------------------------


def folder() -> Path:
    return Path(settings.AUDIT_DIR)


def write_anchor_files() -> None:
    """Write the files of the newest anchors that have none."""
    for anchor in newest_anchors():
        name = f"anchor-{anchor.position:012}-{anchor.chain_hash.hex()[:8]}.json"
        if not (folder() / name).exists():
            _write(folder() / name, anchor)


def write_head(*, now: datetime) -> None:
    """Sign the end of the chain into `head.json`."""
    end = AuditSeal.objects.order_by("-position").first()
    if end is not None:
        signed = chain.sign_anchor(
            keyring.audit_key(),
            position=end.position,
            chain_hash=bytes(end.chain_hash),
            at=now,
        )
        _write(folder() / HEAD, signed)


def _write(path: Path, anchor: Anchor) -> None:
    document = chain.anchor_document(anchor, keyring.audit_key().public_key())
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with draft.open("x") as file:
            file.write(f"{json.dumps(document, indent=2)}\n")
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def read_anchor_files() -> tuple[list[Anchor], list[str]]:
    """Return the anchors outside of the database, and what is no anchor and why."""
    found, unreadable = [], []
    for path in [*sorted(folder().glob(PATTERN)), folder() / HEAD]:
        try:
            document = json.loads(path.read_text())
            if not isinstance(document, dict):
                raise ValueError("no JSON object")
            found.append(chain.read_anchor(document, origin=path.name))
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            unreadable.append(f"{path.name}: {error}")
    return found, unreadable
