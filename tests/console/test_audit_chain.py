"""What the audit page tells of the chain."""

from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from hotswap.common.models import AuditEvent
from hotswap.common.trail import sealer
from tests.common.trail.conftest import owner_rights
from tests.console.conftest import ConsoleClient, Scene

LIST = "/admin/common/auditevent/"


@pytest.fixture
def sealed(scene: Scene, settings: Any, tmp_path: Path) -> int:
    settings.AUDIT_DIR = tmp_path / "audit"
    return sealer.tend(now=timezone.now())


def test_the_list_says_how_far_the_trail_is_sealed(
    admin_client: ConsoleClient, sealed: int
) -> None:
    AuditEvent.objects.create(
        actor_kind="server", verb="test.x", object_kind="test", object_id="1"
    )

    shown = admin_client.get(LIST).content.decode()

    assert f"Sealed up to <b>#{sealed}</b>" in shown
    assert "1 row waits." in shown
    assert f"Anchored at #{sealed} on" in shown
    assert f'hx-get="{LIST}chain/"' in shown


def test_the_check_says_that_nothing_was_changed(
    admin_client: ConsoleClient, sealed: int
) -> None:
    shown = admin_client.get(f"{LIST}chain/").content.decode()

    assert "Nothing was changed." in shown
    assert "compared with 3 anchors" in shown


def test_the_check_names_what_was_changed(
    admin_client: ConsoleClient, sealed: int
) -> None:
    with owner_rights():
        AuditEvent.objects.all().delete()
    AuditEvent.objects.create(
        actor_kind="server", verb="test.x", object_kind="test", object_id="1"
    )
    with owner_rights():
        AuditEvent.objects.create(
            actor_kind="server", verb="test.y", object_kind="device", object_id="1"
        )

    shown = admin_client.get(f"{LIST}chain/").content.decode()

    assert "The trail was changed." in shown
    assert "<code>row_inserted</code>" in shown


@pytest.mark.parametrize("who", ["viewer_client", "operator_client"])
def test_nobody_else_may_check(
    request: pytest.FixtureRequest, sealed: int, who: str
) -> None:
    client: ConsoleClient = request.getfixturevalue(who)

    assert client.get(f"{LIST}chain/").status_code == 403
