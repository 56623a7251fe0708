"""Anchors of the audit trail in the buckets of images, and what a check finds."""

import json
import secrets
from pathlib import Path
from typing import Any

import pytest

from firmware.services.audit_anchors import publish_anchors
from firmware.services.cleanup import tidy_store
from hotswap.common.models import AuditAnchor, AuditEvent, AuditSeal
from hotswap.common.trail import anchors
from hotswap.common.trail.verifier import verify
from tests.callers import PersonCaller
from tests.common.trail.conftest import Trail, owner_rights
from tests.common.trail.test_tampering import recompute
from tests.s3 import S3Server, use_bucket
from tests.waiting import wait_until


@pytest.fixture
def bucket(rclone_s3: S3Server, settings: Any, tmp_path: Path, trail: Trail) -> Path:
    """Keep images in a bucket of their own; give the folder of its anchors."""
    name = rclone_s3.make_bucket(f"anchors-{secrets.token_hex(4)}")
    settings.FIRMWARE_DIR = tmp_path / "firmware"
    use_bucket(settings, rclone_s3, name)
    return rclone_s3.folder / name / "audit"


def published(trail: Trail, bucket: Path, rows: int = 3) -> Path:
    """Anchor some rows; return the file of the anchor in the bucket."""
    before = set(bucket.glob("*")) if bucket.exists() else set()
    trail.add(rows)
    trail.wait_a_day()
    trail.seal()
    assert publish_anchors() == 1
    (made,) = wait_until(
        lambda: set(bucket.glob("*.json")) - before, what="the anchor is in the bucket"
    )
    return made


def kinds(**values: Any) -> list[str]:
    return [each.kind.value for each in verify(**values).findings]


def forget_here(audit: Path) -> None:
    """Remove the anchors from the database and the folder, as their owner could."""
    with owner_rights():
        AuditAnchor.objects.all().delete()
    for path in audit.glob("*.json"):
        path.unlink()


def test_each_anchor_is_published_once_and_stays(trail: Trail, bucket: Path) -> None:
    first = published(trail, bucket)
    second = published(trail, bucket)

    assert publish_anchors() == 0
    tidy_store(now=trail.now.replace(year=2100))

    assert sorted(bucket.iterdir()) == sorted([first, second])
    newest = anchors.last_anchor()
    assert newest is not None
    held = json.loads(second.read_text())
    assert (held["position"], held["chainHash"]) == (6, newest.chain_hash.hex())
    assert kinds(start=1) == []


def test_a_chain_recomputed_with_all_anchors_here_removed_is_found(
    trail: Trail, bucket: Path, audit_dir: Path
) -> None:
    published(trail, bucket)
    forget_here(audit_dir)
    with owner_rights():
        AuditEvent.objects.update(verb="device.other")
        recompute(1)

    found = verify(start=1)

    assert [each.kind.value for each in found.findings] == ["chain_recomputed"]
    assert "of the bucket main" in found.findings[0].detail


def test_an_end_cut_off_with_all_anchors_here_is_found(
    trail: Trail,
    bucket: Path,
    audit_dir: Path,
) -> None:
    published(trail, bucket)
    forget_here(audit_dir)
    with owner_rights():
        last = AuditSeal.objects.get(position=3)
        AuditEvent.objects.filter(pk=last.event_id).delete()
        last.delete()

    assert kinds(start=1) == ["older_copy"]


def test_a_forged_anchor_in_the_bucket_is_found(trail: Trail, bucket: Path) -> None:
    made = published(trail, bucket)
    document = json.loads(made.read_text()) | {"position": 99}
    name = made.name.replace("000000000003", "000000000099")
    (bucket / name).write_text(json.dumps(document))
    (bucket / name.replace("99-", "98-")).write_text("no JSON")

    wait_until(lambda: len(kinds(start=1)) == 2, what="both are listed")

    assert set(kinds(start=1)) == {"anchor_forged"}


def test_a_bucket_that_does_not_answer_is_named_and_the_rest_is_checked(
    trail: Trail,
    bucket: Path,
    settings: Any,
    admin: PersonCaller,
) -> None:
    published(trail, bucket)
    settings.S3_ENDPOINT = "http://127.0.0.1:1"

    assert publish_anchors() == 0
    found = verify(start=1)
    shown = admin.get("/audit-events/verify?from=1").json()

    assert found.unread_buckets == ("main",)
    assert found.is_intact
    assert (shown["unreadBuckets"], shown["intact"]) == (["main"], True)


def test_without_buckets_there_is_nothing_to_publish(trail: Trail) -> None:
    trail.add(1)
    trail.seal()

    assert publish_anchors() == 0
    assert verify(start=1).unread_buckets == ()
