"""What the API, the command line and the console tell of the chain."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from typer.testing import CliRunner

from hotswap.cli.main import app
from hotswap.common.models import AuditEvent
from hotswap.common.trail import chain
from tests.api import problem_of
from tests.callers import PersonCaller
from tests.common.trail.conftest import Trail, owner_rights

ROUTE = "/api/v1/audit-events/verify"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    for name in [name for name in os.environ if name.startswith("HOTSWAP_")]:
        monkeypatch.delenv(name)
    return lambda *words: CliRunner().invoke(app, ["audit", *words])


@pytest.fixture
def sealed(trail: Trail) -> Trail:
    trail.add(5)
    trail.seal()
    trail.add(3)
    trail.seal()
    trail.add(2)
    return trail


def tamper() -> int:
    row = AuditEvent.objects.order_by("id")[1]
    with owner_rights():
        AuditEvent.objects.filter(pk=row.pk).update(verb="other")
    return row.pk


def test_the_answer_covers_what_follows_the_last_anchor(
    admin: PersonCaller, sealed: Trail
) -> None:
    answer = admin.get(ROUTE)

    body = answer.json()
    assert answer.status_code == 200
    assert body["intact"] is True
    assert (body["sealedUpTo"], body["waiting"]) == (8, 2)
    assert (body["checkedFrom"], body["checkedTo"], body["next"]) == (6, 8, None)
    assert body["findings"] == []
    anchor = chain.read_anchor(body["anchor"])
    public: Any = load_pem_public_key(body["publicKey"].encode())
    assert anchor.position == 5
    assert chain.is_genuine(anchor, public)


def test_all_of_the_chain_is_checked_by_choice_and_the_row_named(
    admin: PersonCaller, sealed: Trail
) -> None:
    row = tamper()

    recent = admin.get(ROUTE).json()
    whole = admin.get(f"{ROUTE}?from=1").json()

    assert recent["intact"] is True
    assert whole["intact"] is False
    assert (whole["checkedFrom"], whole["checkedTo"]) == (1, 8)
    assert whole["findingCount"] == 1
    (finding,) = whole["findings"]
    assert (finding["kind"], finding["eventId"]) == ("row_changed", row)
    assert finding["position"] == 2


@pytest.mark.parametrize("text", ["0", "-1", "x", "", "1.5", "²", "9" * 16])
def test_a_position_that_is_none_is_refused(
    admin: PersonCaller, sealed: Trail, text: str
) -> None:
    problem = problem_of(admin.get(f"{ROUTE}?from={text}"), 400)

    assert problem["errors"][0]["pointer"] == "/from"


def test_a_position_beyond_the_end_finds_nothing(
    admin: PersonCaller, sealed: Trail
) -> None:
    body = admin.get(f"{ROUTE}?from=900").json()

    assert body["intact"] is True
    assert (body["checkedFrom"], body["checkedTo"]) == (9, 8)


def test_the_command_checks_everything_and_ends_with_0(
    run: Callable[..., Any], sealed: Trail
) -> None:
    done = run("verify")
    shown = json.loads(run("verify", "--json").stdout)

    assert done.exit_code == 0, done.output
    assert "Sealed up to #8 at 2026-03-02T" in done.stdout
    assert "2 rows wait" in done.stdout
    assert "8 links checked" in done.stdout
    assert "Nothing was changed." in done.stdout
    assert (shown["checkedFrom"], shown["intact"]) == (1, True)


def test_the_command_names_what_was_changed_and_ends_with_1(
    run: Callable[..., Any], sealed: Trail
) -> None:
    row = tamper()

    done = run("verify")
    recent = run("verify", "--since-anchor")

    assert done.exit_code == 1
    assert f"row_changed: row {row} is not what was sealed" in done.stdout
    assert "THE TRAIL WAS CHANGED." in done.stdout
    assert recent.exit_code == 0


def test_the_command_anchors_now(
    run: Callable[..., Any], sealed: Trail, audit_dir: Path
) -> None:
    done = run("anchor", "--json")

    anchor = chain.read_anchor(json.loads(done.stdout))
    key: Any = load_pem_public_key(run("public-key").stdout.encode())
    assert anchor.position == 10
    assert chain.is_genuine(anchor, key)
    assert len(list(audit_dir.glob("anchor-*"))) == 2


def test_there_is_nothing_to_anchor_in_an_empty_trail(
    run: Callable[..., Any], trail: Trail
) -> None:
    done = run("anchor")

    assert done.exit_code == 1
    assert "trail_empty" in done.stderr
