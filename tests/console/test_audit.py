"""What the audit page answers: who did what to which thing, by their names."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from devices.services.registry import change_device
from hotswap.common.console.pages.audit_event import pages_by_kind
from hotswap.common.models import AuditEvent
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


def test_a_row_names_its_object_and_leads_to_its_page(
    admin_client: ConsoleClient, disabled: Scene
) -> None:
    shown = admin_client.get(f"{LIST}?q=device.changed").content.decode()

    assert f">{disabled.device.device_id}</a>" in shown
    assert f"/admin/devices/device/{disabled.device.pk}/change/" in shown


def test_every_kind_that_was_recorded_of_an_object_with_a_page_can_be_chosen(
    admin_client: ConsoleClient, scene: Scene
) -> None:
    recorded = set(AuditEvent.objects.values_list("object_kind", flat=True))

    assert recorded - set(pages_by_kind()) <= {"token-key"}
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
