"""Exports of the trail: signed, and any change to one is found."""

import csv
import io
import json
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from hotswap.cli.main import app
from hotswap.common import keyring
from hotswap.common.api.audit_chain import public_key_pem
from hotswap.common.models import AuditEvent, AuditSeal
from hotswap.common.trail import export
from hotswap.common.trail.export import ANCHOR_FILE, CSV_FILE
from hotswap.common.trail.export_check import NoExportError, check_export
from tests.api import pointers, problem_of
from tests.callers import PersonCaller
from tests.common.trail.conftest import Trail, owner_rights

ROUTE = "/audit-events/export"
Lines = list[bytes]


@pytest.fixture
def trail_of_ten(trail: Trail) -> Trail:
    trail.add(6)
    trail.seal()
    trail.add(4)
    return trail


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("from=0521-12-06T06:51:38-20:14", 10),
        ("to=1159-03-25T17:29:22%2B22:58", 0),
    ],
)
def test_an_offset_that_the_database_does_not_know_is_taken(
    trail_of_ten: Trail, admin: PersonCaller, query: str, count: int
) -> None:
    last = json.loads(exported(admin, f"?{query}").splitlines()[-1])

    assert last["rows"] >= count
    assert bool(last["rows"]) == bool(count)


def test_a_time_beyond_the_calendar_is_the_senders_fault(
    trail_of_ten: Trail, admin: PersonCaller
) -> None:
    answer = admin.get(f"{ROUTE}?to=9999-12-31T23:59:59-23:59")

    assert list(pointers(problem_of(answer, 400))) == ["/to"]


def exported(caller: PersonCaller, query: str = "") -> bytes:
    answer = caller.get(f"{ROUTE}{query}")
    assert answer.status_code == 200
    assert answer["Content-Type"] == "application/x-ndjson"
    content: bytes = b"".join(answer)
    return content


def check(content: bytes) -> Any:
    return check_export(io.BytesIO(content), keyring.audit_key().public_key())


def documents(content: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in content.splitlines()]


def test_an_export_holds_every_row_with_its_place(
    admin: PersonCaller, trail_of_ten: Trail
) -> None:
    content = exported(admin)

    start, *rows, end = documents(content)
    assert check(content).faults == []
    assert [row["position"] for row in rows] == list(range(1, 12))
    assert [row["id"] for row in rows] == sorted(row["id"] for row in rows)
    assert rows[-1]["verb"] == "audit.exported"
    assert rows[-1]["actorName"] == admin.person.username
    assert start["by"] == str(admin.person.pseudonym)
    assert start["anchor"]["position"] == end["rows"] == 11


def test_rows_are_read_in_batches(
    admin: PersonCaller, trail_of_ten: Trail, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "BATCH", 3)

    content = exported(admin)

    report = check(content)
    assert (report.rows, report.faults) == (11, [])


def test_filters_are_those_of_the_list_and_are_told(
    admin: PersonCaller, trail_of_ten: Trail
) -> None:
    content = exported(admin, "?objectKind=audit")

    start, *rows, _ = documents(content)
    assert check(content).is_genuine
    assert start["query"] == {"objectKind": "audit"}
    assert {row["objectKind"] for row in rows} == {"audit"}
    problem_of(admin.get(f"{ROUTE}?colour=red"), 400)
    problem_of(admin.get(f"{ROUTE}?from=yesterday"), 400)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda lines: [*lines[:3], *lines[4:]], "lines are not those"),
        (lambda lines: [*lines[:3], lines[2], *lines[3:]], "lines are not those"),
        (lambda lines: [lines[0], lines[2], lines[1], *lines[3:]], "not those"),
        (lambda lines: lines[:-1], "its end was cut off"),
        (lambda lines: [*lines, lines[1]], "behind the signature"),
        (
            lambda lines: [*lines[:-1], lines[-1].replace(b'"rows":11', b'"rows":12')],
            "not signed by this key",
        ),
        (
            lambda lines: [
                lines[0],
                lines[1].replace(b'"n":1', b'"n":2'),
                *lines[2:],
            ],
            "is not what was sealed",
        ),
    ],
)
def test_any_change_is_found(
    admin: PersonCaller,
    trail_of_ten: Trail,
    change: Callable[[Lines], Lines],
    fault: str,
) -> None:
    lines = exported(admin).splitlines(keepends=True)

    faults = check(b"".join(change(lines))).faults

    assert any(fault in found for found in faults), faults


def test_a_row_that_was_changed_in_the_database_is_named(
    admin: PersonCaller, trail_of_ten: Trail
) -> None:
    row = AuditEvent.objects.order_by("id")[1]
    with owner_rights():
        AuditEvent.objects.filter(pk=row.pk).update(verb="other")

    faults = check(exported(admin)).faults

    assert faults == [f"row {row.pk} is not what was sealed"]


@pytest.mark.parametrize("content", [b"", b"{}\n", b"[1]\n", b"\xff\xfe", b"id;at\n"])
def test_other_files_are_no_exports(content: bytes) -> None:
    with pytest.raises(NoExportError):
        check(content)


def test_the_command_checks_an_export_with_the_public_key_alone(
    admin: PersonCaller, trail_of_ten: Trail, tmp_path: Path
) -> None:
    file, key = tmp_path / "audit.ndjson", tmp_path / "server.pem"
    file.write_bytes(exported(admin))
    key.write_text(public_key_pem())
    words = ["audit", "verify", "--export", str(file), "--public-key", str(key)]

    good = CliRunner().invoke(app, words)
    file.write_bytes(file.read_bytes().replace(b"device.", b"Device.", 1))
    bad = CliRunner().invoke(app, words)
    file.write_bytes(b"id;at\n")
    other = CliRunner().invoke(app, words)
    without = CliRunner().invoke(app, words[:4])

    assert good.exit_code == 0, good.output
    assert "An export of 11 rows" in good.stdout
    assert "It is what the server has signed." in good.stdout
    assert bad.exit_code == 1
    assert "NOT WHAT THE SERVER HAS SIGNED" in bad.stdout
    assert other.exit_code == without.exit_code == 2


def test_an_export_is_made_at_a_time(trail_of_ten: Trail, admin: PersonCaller) -> None:
    made = datetime(2026, 3, 3, 12, 0, tzinfo=UTC)

    response = export.export_response(
        AuditEvent.objects.all(), actor=admin.person, query={}, now=made
    )

    assert 'filename="audit-2026-03-03.ndjson"' in response["Content-Disposition"]
    (start, *_) = documents(b"".join(response))
    assert start["at"] == "2026-03-03T12:00:00.000000Z"


@pytest.fixture
def pack(admin: PersonCaller, trail_of_ten: Trail, tmp_path: Path) -> Path:
    """An export as CSV."""
    answer = admin.get(f"{ROUTE}?form=csv")
    assert answer.status_code == 200
    assert answer["Content-Type"] == "application/zip"
    file = tmp_path / "audit.zip"
    file.write_bytes(b"".join(answer))
    return file


def changed_pack(pack: Path, change: Callable[[bytes], bytes]) -> Path:
    """Write a copy of an export whose CSV is another one."""
    copy = pack.with_name("changed.zip")
    with zipfile.ZipFile(pack) as found, zipfile.ZipFile(copy, "w") as made:
        for name in found.namelist():
            content = found.read(name)
            made.writestr(name, change(content) if name == CSV_FILE else content)
    return copy


def test_an_export_as_csv_holds_every_row_with_its_place(
    admin: PersonCaller, pack: Path
) -> None:
    with zipfile.ZipFile(pack) as found:
        text = found.read(CSV_FILE).decode("utf-8-sig")
        anchor = json.loads(found.read(ANCHOR_FILE))

    rows = list(csv.DictReader(io.StringIO(text)))
    assert [int(row["position"]) for row in rows] == list(range(1, 12))
    assert rows[-1]["verb"] == "audit.exported"
    assert rows[-1]["actorName"] == admin.person.username
    assert json.loads(rows[-1]["details"]) == {"form": "csv"}
    hashes = {s.position: s.content_hash.hex() for s in AuditSeal.objects.all()}
    assert {int(row["position"]): row["contentHash"] for row in rows} == hashes
    assert anchor["position"] == 11


def test_an_export_as_csv_is_checked_on_any_machine(pack: Path, tmp_path: Path) -> None:
    key = tmp_path / "server.pem"
    key.write_text(public_key_pem())

    def verify(file: Path) -> tuple[int, str]:
        arguments = ["evidence", "verify", str(file), "--public-key", str(key)]
        result = CliRunner().invoke(app, arguments)
        return result.exit_code, result.output

    assert verify(pack)[0] == 0
    for change in (
        lambda content: content.replace(b"audit.exported", b"audit.imported"),
        lambda content: b"".join(content.splitlines(keepends=True)[:-1]),
    ):
        code, said = verify(changed_pack(pack, change))
        assert code == 1
        assert f"{CSV_FILE} is not the file that was signed" in said


def test_another_form_is_refused_by_its_name(admin: PersonCaller) -> None:
    for form in ("xml", ""):
        answer = admin.get(f"{ROUTE}?form={form}")

        assert list(pointers(problem_of(answer, 400))) == ["/form"]
