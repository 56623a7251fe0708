"""What the documentation shows of notifications is what is sent."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from deployments.choices import DeploymentStatus, Strategy
from deployments.models import MailRecipient, Notification
from deployments.notifications.texts import subject_of, text_of
from deployments.rules.events import NEEDS_A_PERSON, NOTIFIED, EventName
from deployments.services.operate import (
    pause_deployment,
    resume_deployment,
    rollback_deployment,
)
from deployments.services.receivers import create_receiver
from devices.services.credentials import rotate_key
from firmware.choices import FirmwareStatus
from health.choices import HealthEvent
from tests.deployments.world import World

OF_NO_DEPLOYMENT = {
    EventName.SIGNING_KEY_EXPIRING,
    EventName.KEY_ROTATED,
    EventName.KEY_EXPIRING,
    EventName.CERTIFICATE_EXPIRING,
    EventName.RETIRED_KEY_USED,
    EventName.ENROLMENT_WAITING,
    EventName.AUDIT_ANCHORED,
}
PAGE = Path(settings.BASE_DIR) / "docs" / "notifications.md"
EXAMPLES: dict[str, Any] = {
    payload["type"]: payload
    for payload in map(
        json.loads, re.findall(r"```json\n(.*?)\n```", PAGE.read_text(), re.DOTALL)
    )
}


def shape(value: Any) -> Any:
    """Return the keys of a payload, however deep, without what stands in them."""
    if isinstance(value, dict):
        return {key: shape(part) for key, part in value.items()}
    if isinstance(value, list):
        return [shape(part) for part in value[:1]]
    return type(value).__name__


def test_each_event_type_has_one_example() -> None:
    assert sorted(EXAMPLES) == sorted(NOTIFIED)


def test_the_events_of_new_mail_recipients_are_documented() -> None:
    (sentence,) = re.findall(r"sent what needs a person: (.*?)\. ", PAGE.read_text())

    assert re.findall(r"`([^`]+)`", sentence) == list(NEEDS_A_PERSON)


@pytest.mark.parametrize("event", NOTIFIED)
def test_an_example_has_known_words_and_can_be_mailed(event: str) -> None:
    payload = EXAMPLES[event]

    if event.startswith("firmware."):
        assert payload["data"]["firmware"]["status"] in FirmwareStatus.values
    elif event not in {*HealthEvent.values, *OF_NO_DEPLOYMENT}:
        deployment = payload["data"]["deployment"]
        assert deployment["status"] in DeploymentStatus.values
        assert deployment["strategy"] in Strategy.values
    assert EventName(event).label in subject_of(payload)
    assert event in text_of(payload)
    assert payload["data"]["message"] in text_of(payload)


def test_a_new_key_is_told_as_documented(world: World) -> None:
    create_receiver(kind=MailRecipient, actor=world.admin, address="ops@example.com")
    (device,) = world.fleet(1, world.image("1.0.0"), prefix="sensor")

    for actor in (None, world.admin):
        rotate_key(device_id=device.name, actor=actor)

    documented = EXAMPLES["device.key_rotated"]
    told = [
        each.payload
        for each in Notification.objects.filter(type=documented["type"]).order_by("at")
    ]
    assert [each["data"]["message"] for each in told] == [
        f"{device.name} was given a new API key by {by}"
        for by in ("itself", world.admin.username)
    ]
    assert [shape(each) for each in told] == [shape(documented)] * 2


def test_what_is_sent_has_the_keys_of_its_example(world: World) -> None:
    create_receiver(kind=MailRecipient, actor=world.admin, address="ops@example.com")
    old, new = world.image("1.0.0"), world.image("2.0.0")
    world.fleet(4, old)
    deployment = world.launch(new, "BlueGreen", parameters={"verification_duration": 0})
    acting: dict[str, Any] = {
        "actor": world.admin,
        "deployment_id": deployment.pk,
        "reason": "lunch",
    }
    pause_deployment(**acting, now=world.now)
    resume_deployment(**acting, now=world.now)
    world.update_offered()
    rollback_deployment(**acting, now=world.now)
    world.update_offered()
    world.tick(1)

    sent = {each.type: each.payload for each in Notification.objects.all()}

    assert set(sent) >= {
        "deployment.created",
        "deployment.started",
        "stage.opened",
        "deployment.paused",
        "deployment.switched",
        "deployment.switched_back",
        "rollback.started",
        "deployment.rolled_back",
        "firmware.uploaded",
        "firmware.approved",
    }
    for event, payload in sent.items():
        if event.startswith("firmware."):
            assert shape(payload) == shape(EXAMPLES[event]), event
            continue
        documented = shape(EXAMPLES[event])
        # Every event of a blue-green deployment names the fleet that serves, and a
        # rollback by an operator belongs to no stage.
        documented["data"]["deployment"]["liveFleet"] = "str"
        if event == "rollback.started":
            del documented["data"]["stage"]
        # No device failed here.
        documented["data"].pop("failures", None)
        assert shape(payload) == documented, event
