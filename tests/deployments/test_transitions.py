"""A status comes with all its fields, its event and its row of the audit trail."""

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from deployments.choices import DEPLOYMENT_MOVES, DeploymentStatus
from deployments.models import Deployment, MailRecipient, Notification
from deployments.services.operate import (
    cancel_deployment,
    pause_deployment,
    resume_deployment,
    rollback_deployment,
)
from deployments.services.receivers import create_receiver
from deployments.services.transitions import BLANK, CARRIED, ENDED_EVENTS
from firmware.models import Firmware
from firmware.services.approval import deprecate_firmware
from hotswap.common.models import AuditEvent
from tests.deployments.world import World, events

APP = Path(settings.BASE_DIR) / "deployments"


@pytest.fixture
def images(world: World) -> tuple[Firmware, Firmware]:
    old, new = world.image("1.0.0"), world.image("1.1.0")
    world.fleet(2, old)
    return old, new


@pytest.fixture
def scheduled(world: World, images: tuple[Firmware, Firmware]) -> Deployment:
    return world.launch(images[1], scheduled_at=world.now + timedelta(hours=1))


def act(world: World, verb: Any, deployment: Deployment) -> None:
    verb(actor=world.admin, deployment_id=deployment.pk, reason="lunch", now=world.now)
    deployment.refresh_from_db()


def blanks(deployment: Deployment) -> dict[str, Any]:
    """Give the fields of a status that this one does not carry."""
    carried = CARRIED[DeploymentStatus(deployment.status)]
    return {name: getattr(deployment, name) for name in BLANK.keys() - carried}


def blank_of(deployment: Deployment) -> dict[str, Any]:
    return {name: BLANK[name] for name in blanks(deployment)}


def verbs(deployment: Deployment) -> list[tuple[str, str]]:
    rows = AuditEvent.objects.filter(object_id=str(deployment.pk)).order_by("pk")
    return list(rows.values_list("actor_kind", "verb"))


def test_the_table_has_every_status_and_known_fields() -> None:
    assert set(CARRIED) == set(DeploymentStatus)
    assert set().union(*CARRIED.values()) == set(BLANK)
    for name in BLANK:
        assert Deployment._meta.get_field(name)


def test_every_status_that_a_deployment_ends_in_has_an_event() -> None:
    ends = {status for status in DeploymentStatus if "finished_at" in CARRIED[status]}

    assert set(ENDED_EVENTS) == ends
    # Completed alone may still go on.
    left = {old for old, _ in DEPLOYMENT_MOVES} & ends
    assert left == {DeploymentStatus.COMPLETED}


def test_nothing_else_writes_a_status() -> None:
    found = {
        str(file.relative_to(APP))
        for file in APP.rglob("*.py")
        if re.search(r"\bdeployment\.status = ", file.read_text())
    }

    assert found == {"services/transitions.py"}


def test_cancelling_a_scheduled_deployment_is_notified(
    world: World, scheduled: Deployment
) -> None:
    create_receiver(
        kind=MailRecipient,
        actor=world.admin,
        address="ops@example.com",
        events=["deployment.cancelled"],
    )

    act(world, cancel_deployment, scheduled)

    assert scheduled.status == "Cancelled"
    assert scheduled.finished_at == world.now
    assert events(scheduled)[-2:] == [
        "deployment.cancel_requested",
        "deployment.cancelled",
    ]
    assert Notification.objects.get().type == "deployment.cancelled"
    assert blanks(scheduled) == blank_of(scheduled)


def test_a_scheduled_launch_that_fails_is_in_the_audit_trail(
    world: World, scheduled: Deployment
) -> None:
    deprecate_firmware(
        actor=world.admin, firmware_id=scheduled.firmware_id, reason="recalled"
    )

    world.tick(3601)

    scheduled.refresh_from_db()
    assert scheduled.status == "Failed"
    assert "Deprecated" in scheduled.failure_reason
    assert verbs(scheduled)[-1] == ("server", "deployment.failed")
    assert blanks(scheduled) == blank_of(scheduled)


def test_a_rollback_out_of_a_pause_forgets_why_it_was_paused(
    world: World, images: tuple[Firmware, Firmware]
) -> None:
    deployment = world.launch(images[1])
    world.devices["d-000"].poll()
    act(world, pause_deployment, deployment)

    act(world, rollback_deployment, deployment)

    assert deployment.status == "RollingBack"
    assert (deployment.pause_detail, deployment.paused_at) == ("", None)
    world.tick(1)
    deployment.refresh_from_db()
    assert blanks(deployment) == blank_of(deployment)


def test_a_deployment_cancelled_out_of_a_pause_forgets_why_it_was_paused(
    world: World, images: tuple[Firmware, Firmware]
) -> None:
    deployment = world.launch(images[1])
    act(world, pause_deployment, deployment)
    act(world, cancel_deployment, deployment)

    world.tick(1)

    deployment.refresh_from_db()
    assert deployment.status == "Cancelled"
    assert (deployment.pause_detail, deployment.paused_at) == ("", None)
    assert blanks(deployment) == blank_of(deployment)


def test_a_person_who_pauses_and_resumes_is_the_only_one_in_the_trail(
    world: World, images: tuple[Firmware, Firmware]
) -> None:
    deployment = world.launch(images[1])
    act(world, pause_deployment, deployment)
    assert deployment.waiting_for == "paused by an operator: lunch"

    act(world, resume_deployment, deployment)

    assert deployment.status == "Running"
    assert blanks(deployment) == blank_of(deployment)
    assert verbs(deployment)[-2:] == [
        ("person", "deployment.paused"),
        ("person", "deployment.resumed"),
    ]


def test_what_the_window_pauses_and_resumes_is_the_server_s_doing(
    world: World, images: tuple[Firmware, Firmware]
) -> None:
    every_day = ["MO", "TU", "WE", "TH", "FR", "SA", "SU"]
    window = {"days": every_day, "start": "12:30", "end": "14:00", "timezone": "UTC"}
    deployment = world.launch(images[1], maintenance_window=window)
    assert deployment.pause_reasons == ["window"]

    world.tick(1801)

    deployment.refresh_from_db()
    assert deployment.status == "Running"
    assert blanks(deployment) == blank_of(deployment)
    assert verbs(deployment)[-2:] == [
        ("server", "deployment.paused"),
        ("server", "deployment.resumed"),
    ]
