"""What the audit page answers: who did what to which thing, by their names."""

import csv
import io
import json
import re
import zipfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from devices.services.registry import change_device
from firmware.services.approval import approve_firmware
from hotswap.common import audit, keyring
from hotswap.common.console.pages.audit_event import KINDS_WITHOUT_PAGE, pages_by_kind
from hotswap.common.evidence.check import check_pack
from hotswap.common.models import AuditEvent
from hotswap.common.trail.export_check import check_export
from tests.api import Caller
from tests.console.conftest import ConsoleClient, Scene

LIST = "/admin/common/auditevent/"


def found(client: ConsoleClient, query: str) -> list[Any]:
    """Return the rows that a search, or a filter, shows."""
    return list(client.get(f"{LIST}?{query}").context["cl"].result_list)


@pytest.fixture
def disabled(scene: Scene) -> Scene:
    """Let a person disable a device."""
    change_device(
        actor=scene.world.admin,
        device_id=scene.device.device_id,
        changes={"enabled": False},
    )
    return scene


def test_a_search_finds_what_a_person_did_to_a_device(
    admin_client: ConsoleClient, disabled: Scene
) -> None:
    person, device = disabled.world.admin.username, disabled.device

    rows = found(admin_client, f"q={person}+{device.device_id}")

    assert "device.changed" in {row.verb for row in rows}
    assert {row.object_id for row in rows} == {str(device.pk)}
    assert {row.actor for row in rows} == {disabled.world.admin.pseudonym}


def test_a_search_for_a_name_that_nothing_has_finds_nothing(
    admin_client: ConsoleClient, disabled: Scene
) -> None:
    assert found(admin_client, "q=nobody-of-this-name") == []


def test_a_new_text_is_shown_once(admin_client: ConsoleClient, scene: Scene) -> None:
    approve_firmware(
        actor=scene.world.admin, firmware_id=scene.draft.pk, comment="ran for a week"
    )

    page = admin_client.get(f"{LIST}?q=firmware.approved").content.decode()

    row = next(part for part in page.split("<tr") if "ran for a week" in part)
    assert row.count("ran for a week") == 1
    assert "Draft → Approved" in row


def test_a_row_names_its_object_and_leads_to_its_page(
    admin_client: ConsoleClient, disabled: Scene
) -> None:
    shown = admin_client.get(f"{LIST}?q=device.changed").content.decode()

    assert f">{disabled.device.device_id}</a>" in shown
    assert f"/admin/devices/device/{disabled.device.pk}/change/" in shown


def test_a_refused_login_of_a_name_that_nobody_has_is_shown(
    admin_client: ConsoleClient,
) -> None:
    refused = Caller().post(
        "/api/v1/auth/token", {"username": "nobody-of-this-name", "password": "guess"}
    )
    assert refused.status_code == 401

    shown = admin_client.get(f"{LIST}?q=person.login-failed").content.decode()

    assert "person unknown" in shown


@pytest.mark.parametrize("kind", sorted(pages_by_kind()))
def test_a_row_about_what_is_no_object_of_its_table_is_shown(
    admin_client: ConsoleClient, kind: str
) -> None:
    audit.record(actor=None, verb="tried.something", object_kind=kind, object_id="none")

    assert len(found(admin_client, "q=tried.something")) == 1


def test_the_details_name_people_and_things_instead_of_their_ids(
    admin_client: ConsoleClient, scene: Scene
) -> None:
    approved = approve_firmware(
        actor=scene.world.admin, firmware_id=scene.draft.pk, comment="ran for a week"
    )

    page = admin_client.get(LIST).content.decode()

    rows = page.split("<tr")
    approval = next(row for row in rows if "ran for a week" in row)
    pseudonym = str(scene.world.admin.pseudonym)
    name = scene.world.admin.username
    assert f'approvedBy – → <span title="{pseudonym}">{name}</span>' in approval
    assert f">{pseudonym}" not in page
    assert f"{approved.approved_at:%Y-%m-%d %H:%M:%S} UTC" in approval
    launch = next(row for row in rows if "strategy: Canary" in row)
    key = str(scene.approved.pk)
    assert f'firmware: <span title="{key}">{scene.approved}</span>' in launch


def test_every_kind_that_was_recorded_of_an_object_with_a_page_can_be_chosen(
    admin_client: ConsoleClient, scene: Scene
) -> None:
    recorded = set(AuditEvent.objects.values_list("object_kind", flat=True))

    assert recorded - set(pages_by_kind()) <= set(KINDS_WITHOUT_PAGE)
    for kind, page in pages_by_kind().items():
        assert page.page_template, kind
        assert page.audit_field == "pk" or page.opts.get_field(page.audit_field)
        assert {row.object_kind for row in found(admin_client, f"kind={kind}")} <= {
            kind
        }


def test_only_what_happened_lately_can_be_shown(
    admin_client: ConsoleClient, disabled: Scene
) -> None:
    old = AuditEvent.objects.create(
        at=timezone.now() - timedelta(days=2),
        actor_kind=AuditEvent.ActorKind.SERVER,
        verb="test.long-ago",
        object_kind="device",
        object_id=str(disabled.device.pk),
    )

    assert old not in found(admin_client, "since=1")
    assert old in found(admin_client, "since=7")


def test_rows_are_found_by_person_object_action_and_day(
    admin_client: ConsoleClient, disabled: Scene
) -> None:
    person, device = disabled.world.admin.username, disabled.device
    today = f"{timezone.now():%Y-%m-%d}"
    query = f"person={person}&object={device.device_id}&verb=changed"

    rows = found(admin_client, f"{query}&from={today}&until={today}")

    assert {row.verb for row in rows} == {"device.changed"}
    assert found(admin_client, f"{query}&until=2020-01-01") == []
    assert found(admin_client, f"{query}&from=0001-01-01&until=9999-12-31") == rows
    assert found(admin_client, "person=nobody-at-all") == []
    assert found(admin_client, f"object={disabled.deployment.name}&kind=deployment")
    assert found(admin_client, "from=yesterday") == []


def test_an_action_is_in_words_and_is_found_by_them(
    admin_client: ConsoleClient, disabled: Scene
) -> None:
    shown = admin_client.get(f"{LIST}?q=device.changed").content.decode()

    assert '<span title="device.changed">Device changed</span>' in shown
    assert re.search(r"1–\d+ of \d+ events<", shown)
    for written in ("device.changed", "Device+changed"):
        rows = found(admin_client, f"verb={written}")
        assert {row.verb for row in rows} == {"device.changed"}


def test_a_digest_is_cut_and_can_be_copied(
    admin_client: ConsoleClient, scene: Scene
) -> None:
    digest = "ab" * 32
    AuditEvent.objects.create(
        actor_kind=AuditEvent.ActorKind.SERVER,
        verb="test.digest",
        object_kind="firmware",
        object_id=str(scene.draft.pk),
        details={"sha256": digest, "note": "<b>"},
    )

    shown = admin_client.get(f"{LIST}?verb=test.digest").content.decode()

    assert f'data-hs-copy="{digest}"' in shown
    assert f">{digest}<" not in shown
    assert f"{digest[:12]}…</code>" in shown
    assert "note: &lt;b&gt;" in shown


def test_rows_are_exported_with_names_and_that_is_written_down(
    admin_client: ConsoleClient, operator_client: ConsoleClient, disabled: Scene
) -> None:
    answer = admin_client.get(f"{LIST}export/?verb=device.changed")
    text = b"".join(answer).decode("utf-8-sig")
    lines = list(csv.DictReader(io.StringIO(text)))

    assert {line["verb"] for line in lines} == {"device.changed"}
    assert disabled.world.admin.username in {line["person"] for line in lines}
    written = AuditEvent.objects.get(verb="audit.exported")
    assert written.actor == admin_client.person.pseudonym
    assert operator_client.get(f"{LIST}export/").status_code == 403


def test_the_signed_export_is_that_of_the_list(
    admin_client: ConsoleClient, disabled: Scene, settings: Any, tmp_path: Path
) -> None:
    settings.AUDIT_DIR = tmp_path / "audit"
    page = admin_client.get(f"{LIST}?q=device.changed").content.decode()
    answer = admin_client.get(f"{LIST}export-signed/ndjson/?q=device.changed")

    content = b"".join(answer)
    assert "export-signed/ndjson/?q=device.changed" in page
    report = check_export(io.BytesIO(content), keyring.audit_key().public_key())
    assert report.faults == []
    verbs = {json.loads(line).get("verb") for line in content.splitlines()[1:-1]}
    assert verbs == {"device.changed"}
    assert AuditEvent.objects.latest("id").verb == "audit.exported"


def test_the_signed_csv_is_that_of_the_list(
    admin_client: ConsoleClient, disabled: Scene, settings: Any, tmp_path: Path
) -> None:
    settings.AUDIT_DIR = tmp_path / "audit"
    page = admin_client.get(f"{LIST}?q=device.changed").content.decode()
    answer = admin_client.get(f"{LIST}export-signed/csv/?q=device.changed")

    assert "export-signed/csv/?q=device.changed" in page
    file = tmp_path / "audit.zip"
    file.write_bytes(b"".join(answer))
    assert check_pack(file, keyring.audit_key().public_key()).faults == []
    with zipfile.ZipFile(file) as pack:
        text = pack.read("audit-events.csv").decode("utf-8-sig")
    assert {row["verb"] for row in csv.DictReader(io.StringIO(text))} == {
        "device.changed"
    }
