"""What is hashed and signed of the audit trail, and what a check can find.

Pure: the standard library and `cryptography`. Whoever checks evidence on another
machine uses the same functions as the server.

Rules:
- The content of a row is hashed without its id, the link binds both: rows that were
  swapped are told from rows that were changed.
- A link is SHA-256 over position, id, content, time of sealing and the link before it;
  the first one follows 32 zero bytes.
- An anchor is the signed statement (Ed25519) that the chain had a link at a position.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

GENESIS = bytes(32)
LINK = "hotswap-audit-link-1"
ANCHOR = "hotswap-audit-anchor-1"
MAX_FINDINGS = 100
# The row that says up to where the anchors of a lost key have vouched.
AUDIT_KEY_REPLACED = "audit-key.replaced"


class FindingKind(StrEnum):
    """What was done to the trail."""

    ROW_CHANGED = "row_changed"
    ROW_REMOVED = "row_removed"
    ROWS_SWAPPED = "rows_swapped"
    ROW_INSERTED = "row_inserted"
    LINK_CHANGED = "link_changed"
    LINK_REMOVED = "link_removed"
    CHAIN_RECOMPUTED = "chain_recomputed"
    OLDER_COPY = "older_copy"
    ANCHOR_FORGED = "anchor_forged"
    TRIGGER_MISSING = "trigger_missing"
    TRIGGER_DISABLED = "trigger_disabled"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it was sealed.

    Attributes:
        position: in the chain, if it has one there.
        event_id: of the row, if it is of one.
    """

    kind: FindingKind
    detail: str
    position: int | None = None
    event_id: int | None = None


@dataclass(frozen=True, slots=True)
class Content:
    """A row of the trail without its id."""

    at: datetime
    actor_kind: str
    actor: UUID | None
    verb: str
    object_kind: str
    object_id: str
    details: Any


@dataclass(frozen=True, slots=True)
class Link:
    """One place in the chain.

    Attributes:
        position: counts from 1, without gaps.
        content_hash, chain_hash: 32 bytes.
    """

    position: int
    event_id: int
    content_hash: bytes
    chain_hash: bytes
    sealed_at: datetime


@dataclass(frozen=True, slots=True)
class Anchor:
    """The chain had this link at this position.

    Attributes:
        origin: where this copy was found, for people.
    """

    position: int
    chain_hash: bytes
    at: datetime
    signature: bytes
    origin: str = field(default="", compare=False)


def wire_time(at: datetime) -> str:
    """Return a time in UTC to the microsecond, as it is hashed."""
    text = at.astimezone(UTC).isoformat(timespec="microseconds")
    return text.removesuffix("+00:00") + "Z"


def canonical(value: Any) -> bytes:
    """Return the one JSON text of a value: sorted keys, no spaces, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def record_digest(record: Any) -> str:
    """Return the SHA-256 of what was signed, in hex digits."""
    return hashlib.sha256(canonical(record)).hexdigest()


def name_digest(salt: str, name: str) -> str:
    """Return what ties the name of a signer to a signature: 64 hex digits."""
    return hashlib.sha256(canonical([salt, name])).hexdigest()


def content_fields(content: Content) -> dict[str, Any]:
    """Return a row as JSON, as it is hashed and handed out."""
    return {
        "at": wire_time(content.at),
        "actorKind": content.actor_kind,
        "actor": None if content.actor is None else str(content.actor),
        "verb": content.verb,
        "objectKind": content.object_kind,
        "objectId": content.object_id,
        "details": content.details,
    }


def content_hash(content: Content) -> bytes:
    return hashlib.sha256(canonical(content_fields(content))).digest()


def chain_hash(
    previous: bytes,
    *,
    position: int,
    event_id: int,
    content_hash: bytes,
    sealed_at: datetime,
) -> bytes:
    """Return the hash of a link that follows `previous`."""
    parts = [
        *(LINK, position, event_id, content_hash.hex()),
        *(wire_time(sealed_at), previous.hex()),
    ]
    return hashlib.sha256(canonical(parts)).digest()


# --- Anchors -----------------------------------------------------------------------


def key_id(public: Ed25519PublicKey) -> str:
    """Name a public key: 16 hex digits."""
    return hashlib.sha256(public.public_bytes_raw()).hexdigest()[:16]


def statement(
    public: Ed25519PublicKey, *, position: int, chain_hash: bytes, at: datetime
) -> dict[str, Any]:
    """Return what an anchor says, and its signature covers."""
    return {
        "type": ANCHOR,
        "position": position,
        "chainHash": chain_hash.hex(),
        "at": wire_time(at),
        "keyId": key_id(public),
    }


def sign_anchor(
    private: Ed25519PrivateKey, *, position: int, chain_hash: bytes, at: datetime
) -> Anchor:
    document = statement(
        private.public_key(), position=position, chain_hash=chain_hash, at=at
    )
    return Anchor(position, chain_hash, at, private.sign(canonical(document)))


def is_genuine(anchor: Anchor, public: Ed25519PublicKey) -> bool:
    """Tell whether the holder of the key has made this anchor."""
    document = statement(
        public, position=anchor.position, chain_hash=anchor.chain_hash, at=anchor.at
    )
    try:
        public.verify(anchor.signature, canonical(document))
    except InvalidSignature:
        return False
    return True


def anchor_document(anchor: Anchor, public: Ed25519PublicKey) -> dict[str, Any]:
    """Return an anchor as the JSON that leaves the server."""
    document = statement(
        public, position=anchor.position, chain_hash=anchor.chain_hash, at=anchor.at
    )
    return {**document, "signature": base64.b64encode(anchor.signature).decode()}


def read_anchor(document: Mapping[str, Any], *, origin: str = "") -> Anchor:
    """Read an anchor; its signature is not looked at.

    Raises:
        ValueError: it is none.
    """
    try:
        if document["type"] != ANCHOR:
            raise ValueError(f"of the type {document['type']!r}")
        return Anchor(
            position=int(document["position"]),
            chain_hash=bytes.fromhex(document["chainHash"]),
            at=datetime.fromisoformat(document["at"]),
            signature=base64.b64decode(document["signature"], validate=True),
            origin=origin,
        )
    except (KeyError, TypeError, AttributeError, binascii.Error) as error:
        raise ValueError(f"no anchor: {error}") from None


# --- Checking ----------------------------------------------------------------------


class Findings:
    """What was found so far: all of it is counted, the first hundred are kept."""

    def __init__(self) -> None:
        self.kept: list[Finding] = []
        self.total = 0

    def add(self, kind: FindingKind, detail: str, **where: int | None) -> None:
        self.total += 1
        if len(self.kept) < MAX_FINDINGS:
            self.kept.append(Finding(kind, detail, **where))


class ChainCheck:
    """Takes the links of a chain in their order, each with its row.

    Args:
        position, chain_hash: of the trusted link before the first; the start of the
            chain if they are left out.
    """

    def __init__(
        self, findings: Findings, *, position: int = 0, chain_hash: bytes = GENESIS
    ) -> None:
        self.findings = findings
        self.position = position
        self.chain_hash = chain_hash
        # Rows that differ: what was sealed, what is there, where, id.
        self._differing: list[tuple[bytes, bytes, int, int]] = []

    def add_link(self, link: Link) -> None:
        """Check that a link follows the one before."""
        expected = self.position + 1
        if link.position != expected:
            missing = (
                f"position {expected} is"
                if link.position == expected + 1
                else f"positions {expected} to {link.position - 1} are"
            )
            self.findings.add(
                FindingKind.LINK_REMOVED,
                f"{missing} missing from the chain",
                position=expected,
            )
        elif link.chain_hash != chain_hash(
            self.chain_hash,
            position=link.position,
            event_id=link.event_id,
            content_hash=link.content_hash,
            sealed_at=link.sealed_at,
        ):
            self.findings.add(
                FindingKind.LINK_CHANGED,
                f"the link at position {link.position} does not follow from the one "
                "before",
                position=link.position,
                event_id=link.event_id,
            )
        self.position, self.chain_hash = link.position, link.chain_hash

    def add_row(self, link: Link, content: Content | None) -> None:
        """Check that a row is the one that was sealed; None: it is not there."""
        if content is None:
            self.findings.add(
                FindingKind.ROW_REMOVED,
                f"row {link.event_id} was sealed and is not there",
                position=link.position,
                event_id=link.event_id,
            )
            return
        found = content_hash(content)
        if found == link.content_hash:
            return
        if len(self._differing) < MAX_FINDINGS:
            self._differing.append(
                (link.content_hash, found, link.position, link.event_id)
            )
        else:
            self._name_changed(link.position, link.event_id)

    def finish(self) -> None:
        """Tell rows that were swapped from those that were changed."""
        by_content = {sealed: row for sealed, _, _, row in self._differing}
        for _, found, position, row in self._differing:
            other = by_content.get(found)
            if other is None:
                self._name_changed(position, row)
            else:
                self.findings.add(
                    FindingKind.ROWS_SWAPPED,
                    f"row {row} holds what was sealed as row {other}",
                    position=position,
                    event_id=row,
                )
        self._differing.clear()

    def _name_changed(self, position: int, row: int) -> None:
        self.findings.add(
            FindingKind.ROW_CHANGED,
            f"row {row} is not what was sealed",
            position=position,
            event_id=row,
        )
