"""Copies of the anchors of the audit trail in the buckets of images.

Rules:
- Every bucket gets every new anchor, as `audit/anchor-POSITION-HASH.json`. None is
  written over or removed.
- Level-triggered: what a bucket lacks of the newest anchors is brought there.
- Without buckets images lie in a folder beside `audit/` of the data folder, where the
  anchors are anyway.
"""

import json
import logging
import re
from collections.abc import Set

from firmware import storage, storage_locations
from hotswap.common import keyring
from hotswap.common.trail import anchors, chain
from hotswap.common.trail.anchors import AnchorKey, StoredAnchors

logger = logging.getLogger(__name__)

FOLDER = "audit"
NAME = re.compile(r"anchor-([0-9]{12,})-([0-9a-f]{64})\.json", re.ASCII)
MAX_BYTES = 4096


def publish_anchors() -> int:
    """Bring the newest anchors to each bucket that lacks them; return how many."""
    newest = {
        f"anchor-{anchor.position:012}-{anchor.chain_hash.hex()}.json": anchor
        for anchor in anchors.newest_anchors()
    }
    published = 0
    for bucket in storage_locations.buckets():
        try:
            there = set(storage.documents(bucket.name, FOLDER))
            for name in sorted(newest.keys() - there):
                document = chain.anchor_document(
                    newest[name], keyring.audit_key().public_key()
                )
                storage.write_document(
                    bucket.name,
                    f"{FOLDER}/{name}",
                    f"{json.dumps(document, indent=2)}\n".encode(),
                )
                published += 1
        except storage.STORE_ERRORS as error:
            logger.warning(
                "Anchors of the audit trail are not copied",
                extra={"place": bucket.name, "reason": storage.failure_of(error)},
            )
    return published


def stored_anchors(*, known: Set[AnchorKey]) -> StoredAnchors:
    """Return the anchors in all buckets but those that are known.

    Their names say position and hash, so that of a trail that nobody has touched no
    file has to be read.
    """
    found, unreadable, unreachable = [], [], []
    for bucket in storage_locations.buckets():
        try:
            for name in storage.documents(bucket.name, FOLDER):
                named = NAME.fullmatch(name)
                if named is None or (int(named[1]), named[2]) in known:
                    continue
                origin = f"{FOLDER}/{name} of the bucket {bucket.name}"
                content = storage.read_document(
                    bucket.name, f"{FOLDER}/{name}", max_bytes=MAX_BYTES
                )
                try:
                    document = json.loads(content)
                    if not isinstance(document, dict):
                        raise ValueError("no JSON object")
                    found.append(chain.read_anchor(document, origin=origin))
                except ValueError as error:
                    unreadable.append(f"{origin}: {error}")
        except storage.STORE_ERRORS:
            unreachable.append(bucket.name)
    return StoredAnchors(tuple(found), tuple(unreadable), tuple(unreachable))
