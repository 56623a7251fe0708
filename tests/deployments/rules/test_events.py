"""The table of events, and that logs and notifications know no other."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings

from deployments.choices import (
    DeploymentStatus,
    Level,
    LiveFleet,
    OrderKind,
    StageStatus,
    TargetStatus,
    UpdateStatus,
)
from deployments.models import Event
from deployments.rules.codes import CODES
from deployments.rules.events import (
    NEEDS_A_PERSON,
    NOTIFIED,
    Audience,
    EventName,
)
from deployments.services.log import log
from devices.choices import RunKnowledge
from firmware.choices import ABSENT, FirmwareStatus
from health.choices import HealthEvent, Verdict
from tests.deployments.world import World

APP = Path(settings.BASE_DIR) / "deployments"
# A word in quotes within SQL: of small letters, or of capitals as statuses are.
WORD = re.compile(r"(?<![\w%\\])'([A-Za-z]+(?:[._][a-z]+)*)'")
SQL = re.compile(r"\b(SELECT|UPDATE|INSERT INTO|CASE WHEN|WHEN|WHERE|AND|EXISTS)\b")
KNOWN = {
    *CODES,
    *EventName,
    *DeploymentStatus.values,
    *TargetStatus.values,
    *UpdateStatus.values,
    *StageStatus.values,
    *OrderKind.values,
    *Level.values,
    *LiveFleet.values,
    *FirmwareStatus.values,
    ABSENT,
    *Verdict.values,
    *RunKnowledge.values,
    # What the history of a deployment counts beside codes and statuses.
    "offered",
    # Of PostgreSQL, and of links between texts.
    *("synchronous_commit", "off", "on", "and", "or"),
}


def statements() -> Iterator[tuple[str, str]]:
    """Give each string of the app that looks like SQL, with its file."""
    for file in sorted(APP.rglob("*.py")):
        if "migrations" in file.parts:
            continue
        for text in re.findall(r'"""(.*?)"""', file.read_text(), re.DOTALL):
            if len(SQL.findall(text)) > 1 and "Args:" not in text:
                yield str(file.relative_to(APP)), text


def test_each_word_in_a_statement_is_a_known_one() -> None:
    unknown = {
        (file, word)
        for file, text in statements()
        for word in WORD.findall(re.sub(r"--.*", "", text))
        if word not in KNOWN
    }

    assert unknown == set()


def test_the_statements_that_move_devices_are_among_those_looked_at() -> None:
    words = {word for _, text in statements() for word in WORD.findall(text)}

    assert {"device.failed", "rolling_back", "superseded", "Paused"} <= words


@pytest.mark.parametrize("event", EventName)
def test_an_event_has_a_label_and_somebody_to_reach(event: EventName) -> None:
    assert event.label
    assert event.audience
    assert event.level in Level.values
    Event._meta.get_field("event").run_validators(event.value)


def test_what_needs_a_person_is_notified() -> None:
    assert set(NEEDS_A_PERSON) <= set(NOTIFIED)


def test_only_what_is_notified_names_failures() -> None:
    assert {event for event in EventName if event.names_failures} <= set(NOTIFIED)


def test_the_events_of_health_are_events_here() -> None:
    assert all(
        Audience.NOTIFY in EventName(event).audience for event in HealthEvent.values
    )


def test_an_event_is_logged_at_its_usual_level_unless_it_is_said(world: World) -> None:
    old, new = world.image("1.0.0"), world.image("1.1.0")
    world.fleet(1, old)
    deployment = world.launch(new)

    log(deployment, EventName.STAGE_WARNING, "usual", now=world.now)
    log(deployment, EventName.STAGE_WARNING, "worse", now=world.now, level=Level.ERROR)

    logged = Event.objects.filter(event="stage.warning").order_by("pk")
    assert list(logged.values_list("level", flat=True)) == ["WARNING", "ERROR"]
