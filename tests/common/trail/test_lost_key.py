"""What a check can still prove after the key of the anchors was lost and replaced."""

import base64
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hotswap.common import keyring
from hotswap.common.models import AuditEvent, AuditSeal
from hotswap.common.services import replace_audit_key
from hotswap.common.trail import verifier
from tests.callers import PersonCaller
from tests.common.trail.conftest import Trail, owner_rights


@pytest.fixture
def keys(settings: Any, tmp_path: Path) -> Iterator[Path]:
    shutil.copytree(settings.KEYS_DIR, tmp_path / "keys")
    settings.KEYS_DIR = tmp_path / "keys"
    keyring.forget_keys()
    yield tmp_path / "keys"
    keyring.forget_keys()


@pytest.fixture
def replaced(trail: Trail, keys: Path) -> Trail:
    """A trail that was anchored at 5, whose key was lost at 8 and replaced."""
    trail.add(5)
    trail.seal()
    trail.add(3)
    trail.seal()
    (keys / "audit.key").unlink()
    keyring.forget_keys()
    replace_audit_key(actor=None)
    trail.wait_a_day()
    trail.seal()
    return trail


def test_nothing_is_called_forged_and_the_unproved_part_is_told(
    replaced: Trail, admin: PersonCaller
) -> None:
    found = verifier.verify(start=1)

    assert found.findings == ()
    assert found.unproved_to == 8
    # Of the new key: the anchor, its file, and the head.
    assert found.anchors == 3
    shown = admin.get("/audit-events/verify?from=1").json()
    assert (shown["unprovedTo"], shown["intact"]) == (8, True)


def test_a_key_that_was_never_lost_leaves_nothing_unproved(trail: Trail) -> None:
    trail.add(2)
    trail.seal()

    assert verifier.verify(start=1).unproved_to is None


def test_later_changes_to_the_unproved_part_are_found(replaced: Trail) -> None:
    row = AuditEvent.objects.order_by("id")[1]
    link = AuditSeal.objects.get(position=4)
    with owner_rights():
        AuditEvent.objects.filter(pk=row.pk).update(verb="other")
        AuditSeal.objects.filter(pk=link.pk).update(chain_hash=b"x" * 32)

    kinds = {finding.kind.value for finding in verifier.verify(start=1).findings}

    assert {"row_changed", "link_changed"} <= kinds


def test_an_anchor_behind_the_unproved_part_is_still_forged(
    replaced: Trail, audit_dir: Path
) -> None:
    newest = max(audit_dir.glob("anchor-*.json"))
    anchor = json.loads(newest.read_text())
    anchor["signature"] = base64.b64encode(bytes(64)).decode()
    newest.write_text(json.dumps(anchor))

    kinds = {finding.kind.value for finding in verifier.verify(start=1).findings}

    assert kinds == {"anchor_forged"}
