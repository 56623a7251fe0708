"""The past of the demo: written by the services, at the times at which it happened."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from deployments.choices import DeploymentStatus as Status
from deployments.models import Deployment
from devices.models import Device
from firmware.choices import FirmwareStatus
from firmware.models import Firmware
from firmware.services.keys import ensure_firmware_keys
from hotswap.common.models import AuditEvent, AuditPending, AuditSeal
from hotswap.common.trail.verifier import verify
from hotswap.demo.clock import MovableClock
from hotswap.demo.fleet import (
    FACTORY_VERSION,
    REGIONS,
    SENSOR,
    TRACKER,
    DemoFiles,
    Kind,
    build_images,
    make_roster,
)
from hotswap.demo.history import LENGTH, write_history
from hotswap.demo.pace import FOR_PEOPLE, canary, regional
from hotswap.demo.people import create_missing, load_cast
from tests.callers import PersonCaller
from tests.common.factories import PersonFactory
from tests.deployments.world import World


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> MovableClock:
    found = MovableClock()
    monkeypatch.setattr(timezone, "now", found)
    found.set(datetime.now(UTC) - LENGTH)
    return found


@pytest.mark.django_db
def test_thirty_days_are_lived_through_by_the_services(
    tmp_path: Path, clock: MovableClock, settings: Any
) -> None:
    settings.AUDIT_DIR = tmp_path / "audit"
    files = DemoFiles(tmp_path)
    build_images(files)
    ensure_firmware_keys()
    create_missing(load_cast(files.logins))
    roster = make_roster()
    began = datetime.now(UTC) - LENGTH

    write_history(files=files, roster=roster, clock=clock)

    ends = Counter(Deployment.objects.values_list("status", flat=True))
    assert ends == {Status.COMPLETED: 5, Status.ROLLED_BACK: 1, Status.CANCELLED: 1}
    assert not Deployment.objects.moved_by_ticks().exists()
    # Of each launch that is acknowledged which was so.
    read = dict(Deployment.objects.values_list("name", "acknowledged"))
    downgrades = [name for name, codes in read.items() if "downgrade" in codes]
    assert downgrades == ["Back to 2.3.0, for a comparison"]
    assert not any("previously_rolled_back" in codes for codes in read.values())
    assert Firmware.objects.filter(status=FirmwareStatus.DEPRECATED).count() == 2
    assert Firmware.objects.filter(status=FirmwareStatus.REJECTED).count() == 1
    # Every device is as the demo switches it on.
    powered = {each.device_id for each in roster if each.kind is not Kind.SPARE}
    running = dict(Device.objects.values_list("device_id", "firmware_version"))
    assert {running[name] for name in powered} == {FACTORY_VERSION}
    assert files.read_api_keys().keys() == {each.device_id for each in roster}
    # The past is where it belongs: in its days, and in the chain from its beginning.
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM health_reading_default")
        assert cursor.fetchone() == (0,)
        cursor.execute("SELECT min(at), max(at) FROM health_reading")
        first, last = cursor.fetchone()
    assert first - began < timedelta(hours=12)
    assert datetime.now(UTC) - last < timedelta(hours=1)
    assert not AuditPending.objects.exists()
    assert AuditSeal.objects.count() == AuditEvent.objects.count()
    assert AuditSeal.objects.order_by("position")[0].sealed_at < began + timedelta(
        days=1
    )
    assert verify(start=1).findings == ()


def test_the_clock_stands_moves_and_lets_go() -> None:
    clock = MovableClock()
    clock.set(datetime(2026, 3, 2, tzinfo=UTC))

    first, second = clock(), clock()
    clock.advance(60)

    assert first < second < clock()
    with pytest.raises(ValueError, match="which is after"):
        clock.set(first)
    clock.release()
    assert abs(clock() - datetime.now(UTC)) < timedelta(minutes=1)


@pytest.mark.django_db
def test_what_the_story_asks_for_is_taken_as_it_is() -> None:
    world, operator = (
        World(now=timezone.now()),
        PersonCaller(PersonFactory.create(operator=True)),
    )
    for model in (SENSOR, TRACKER):
        world.fleet(2, world.image("2.4.0", model=model), prefix=model)
    images = {m: str(world.image("2.5.0", model=m).pk) for m in (SENSOR, TRACKER)}

    answers = [
        operator.post("/deployments", canary("good", images[SENSOR], FOR_PEOPLE)),
        operator.post("/deployments", regional("beside", images[TRACKER], REGIONS)),
    ]

    assert [each.status_code for each in answers] == [201, 201], answers
