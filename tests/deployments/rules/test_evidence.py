"""SQL and Python say the same of every order, device and state that are drawn."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any
from uuid import UUID

import pytest
from django.db import connection
from django.db.models import Q
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deployments.criteria import HealthCriteria
from deployments.models import Deployment, Target, Update
from deployments.rules.evidence import (
    HAS_BEGUN,
    HAS_MOVED_ON,
    HAS_REBOOTED,
    IS_LOCKED,
    IS_NEW_BOOT,
    IS_PROVED,
    IS_REPEATED,
    IS_UNREADABLE,
    IS_UPDATED_SINCE,
    RUNS_NEWER,
    RUNS_ORDERED,
    SHOWS_FORMER,
    has_begun,
    has_moved_on,
    has_rebooted,
    is_locked,
    is_new_boot,
    is_repeated,
    is_updated_since,
    missing_proof,
    must_refuse,
    runs_newer,
    runs_ordered,
)
from deployments.services.sweeps.statements import identity
from devices.models import Device
from firmware.models import Firmware
from health.models import DeviceState
from tests.deployments.world import ScriptedDevice, World

START = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
WATCH, OTHER_WATCH = UUID(int=1), UUID(int=2)
NEW, FORMER = "a" * 64, "b" * 64
CRITERIA = HealthCriteria(
    confirmation_duration=timedelta(seconds=20), heartbeats_required=2
)

moments = st.integers(0, 6).map(lambda n: START + timedelta(seconds=10 * n))
maybe = st.none() | moments
boots = st.sampled_from(["", "boot-1", "boot-2"])
checksums = st.sampled_from(["", NEW, FORMER, "c" * 64])


@st.composite
def orders(draw: Any) -> Update:
    return Update(
        pk=WATCH,
        kind=draw(st.sampled_from(["install", "rollback"])),
        reboot_required=draw(st.booleans()),
        boot_id_before=draw(boots),
        boot_count_before=draw(st.none() | st.integers(0, 3)),
        offered_at=START,
        installing_at=draw(maybe),
        rebooting_at=draw(maybe),
        gave_up_at=draw(maybe),
        claimed_at=draw(maybe),
    )


@st.composite
def states(draw: Any) -> DeviceState:
    last = draw(maybe)
    since = draw(st.none() | moments) if last else None
    return DeviceState(
        watch_id=draw(st.sampled_from([WATCH, OTHER_WATCH])),
        boot_id=draw(boots),
        boot_count=draw(st.integers(0, 4)),
        firmware_checksum=draw(checksums),
        firmware_version=draw(st.sampled_from(["", "1.0.0", "1.1.0"])),
        last_heartbeat_at=last,
        online_until=draw(moments),
        breach=draw(st.sampled_from(["", "cpu"])),
        verdict=draw(st.sampled_from(["healthy", "unknown", "unhealthy"])),
        refused_count=draw(st.integers(0, 1)),
        refused_at=draw(maybe),
        healthy_since=since,
        healthy_at=draw(moments) if since else None,
        healthy_count=draw(st.integers(1, 3)) if since else 0,
    )


images = st.builds(
    Firmware,
    version=st.just("1.1.0"),
    sha256=st.just(NEW),
    damaged_at=maybe,
    signature_revoked_at=maybe,
)


def row_of(instance: Any, table: str, name: str) -> tuple[str, str]:
    """Give an instance as a row of its table, without storing it."""
    values = {
        field.column: getattr(instance, field.attname)
        for field in instance._meta.concrete_fields
        if field.attname not in ("body", "content")
    }
    plain = {
        column: value.isoformat() if isinstance(value, datetime) else value
        for column, value in values.items()
        if isinstance(value, str | int | float | bool | datetime | UUID | None)
    }
    return (
        f"jsonb_populate_record(NULL::{table}, %({name}_row)s::jsonb) {name}",
        json.dumps(plain, default=str),
    )


def ask(
    conditions: list[str],
    order: Update,
    state: DeviceState,
    image: Firmware,
    target: Target,
    **values: Any,
) -> list[bool]:
    """Ask the database of conditions over these rows, which it does not hold."""
    rows = {
        "u": row_of(order, "deployments_update", "u"),
        "s": row_of(state, "health_devicestate", "s"),
        "f": row_of(image, "firmware_firmware", "f"),
        "t": row_of(target, "deployments_target", "t"),
    }
    tables = ", ".join(sql for sql, _ in rows.values())
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {', '.join(conditions)} FROM {tables}",
            {f"{name}_row": body for name, (_, body) in rows.items()} | values,
        )
        return [bool(value) for value in cursor.fetchone()]


drawn = settings(
    max_examples=250,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.mark.usefixtures("db")
@drawn
@given(orders(), states(), images)
def test_boots_images_and_repetition(
    order: Update, state: DeviceState, image: Firmware
) -> None:
    order.firmware = image
    target = Target(from_checksum=FORMER)
    conditions = [RUNS_ORDERED, IS_NEW_BOOT, HAS_REBOOTED, IS_REPEATED]

    found = ask(conditions, order, state, image, target)

    assert found == [
        runs_ordered(order, state),
        is_new_boot(order, state),
        has_rebooted(order, state),
        is_repeated(order),
    ]


@pytest.mark.usefixtures("db")
@drawn
@given(orders(), states(), images)
def test_proof(order: Update, state: DeviceState, image: Firmware) -> None:
    order.firmware = image
    # A claim forgets what was healthy before it.
    if state.healthy_since and state.healthy_at and state.last_heartbeat_at:
        state.healthy_since = max(
            state.healthy_since, order.claimed_at or state.healthy_since
        )
        state.healthy_at = max(state.healthy_since, state.healthy_at)
        state.last_heartbeat_at = max(state.last_heartbeat_at, state.healthy_at)

    (is_proved,) = ask(
        [IS_PROVED],
        order,
        state,
        image,
        Target(),
        beats=CRITERIA.heartbeats_required,
        window=CRITERIA.confirmation_duration,
    )

    assert is_proved is (missing_proof(order, state, CRITERIA) == "")


@pytest.mark.usefixtures("db")
def test_an_honest_claim_is_proved_and_a_breach_ends_it() -> None:
    order = Update(
        pk=WATCH,
        kind="install",
        reboot_required=True,
        boot_id_before="boot-1",
        claimed_at=START,
        firmware=Firmware(sha256=NEW, version="1.1.0"),
    )
    state = DeviceState(
        watch_id=WATCH,
        boot_id="boot-2",
        firmware_checksum=NEW,
        healthy_since=START,
        healthy_at=START + timedelta(seconds=20),
        last_heartbeat_at=START + timedelta(seconds=20),
        healthy_count=3,
    )
    longer = replace(CRITERIA, confirmation_duration=timedelta(seconds=21))

    assert missing_proof(order, state, CRITERIA) == ""
    assert "3 of 2 healthy heartbeats" in missing_proof(order, state, longer)
    state.breach = "cpu"
    assert "not healthy" in missing_proof(order, state, CRITERIA)
    assert missing_proof(order, None, CRITERIA) == "a heartbeat after its claim"


def shows_former(order: Update, state: DeviceState, target: Target) -> bool:
    """Say the rule in Python; the product asks it of many devices alone."""
    said = order.rebooting_at or order.installing_at or order.offered_at
    if not state.firmware_checksum or state.firmware_checksum != target.from_checksum:
        return False
    if state.last_heartbeat_at is None or state.last_heartbeat_at < said:
        return False
    has_stayed = order.installing_at is None or order.gave_up_at is not None
    is_back = is_new_boot(order, state)
    return (has_stayed or is_back) and (order.rebooting_at is None or is_back)


def is_unreadable(
    order: Update, state: DeviceState, image: Firmware, now: datetime
) -> bool:
    if state.online_until <= now or order.claimed_at is None:
        return False
    refused_at = state.refused_at if state.refused_count else None
    if refused_at is not None and refused_at >= order.claimed_at:
        return True
    return (
        state.last_heartbeat_at is not None
        and state.last_heartbeat_at >= order.claimed_at
        and state.verdict == "unknown"
        and not state.breach
        and state.firmware_checksum in ("", image.sha256)
    )


@pytest.mark.usefixtures("db")
@drawn
@given(orders(), states(), images)
def test_former_image_and_what_is_not_understood(
    order: Update, state: DeviceState, image: Firmware
) -> None:
    target, now = Target(from_checksum=FORMER), START + timedelta(seconds=30)

    found = ask([SHOWS_FORMER, IS_UNREADABLE], order, state, image, target, now=now)

    assert found == [
        shows_former(order, state, target),
        is_unreadable(order, state, image, now),
    ]


@pytest.fixture
def ordered(world: World) -> tuple[World, Deployment, ScriptedDevice]:
    old, new = world.image("1.0.0"), world.image("1.1.0")
    (device,) = world.fleet(1, old)
    deployment = world.launch(new)
    device.poll()
    return world, deployment, device


def of_target(sql: str, target: Target, **values: Any) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {sql} FROM deployments_target t WHERE t.id = %(target)s",
            {"target": target.pk} | values,
        )
        return bool(cursor.fetchone()[0])


def holds(condition: Any, target: Target) -> bool:
    return Target.objects.filter(Q(condition), pk=target.pk).exists()


def test_install_has_begun(ordered: tuple[World, Deployment, ScriptedDevice]) -> None:
    world, deployment, device = ordered
    target = device.target(deployment)
    seen = set()
    for kind, *moments in product(
        ["install", "rollback"], *[[None, world.now] for _ in range(3)]
    ):
        names = ("installing_at", "rebooting_at", "claimed_at")
        Update.objects.update(kind=kind, **dict(zip(names, moments, strict=True)))

        began = of_target(HAS_BEGUN, target)

        assert began is holds(has_begun(), target)
        assert began is (kind == "install" and any(moments))
        seen.add(began)
    assert seen == {True, False}


def test_former_image_is_locked(
    ordered: tuple[World, Deployment, ScriptedDevice],
) -> None:
    world, deployment, device = ordered
    formers = [
        world.image(f"0.{version}.0", security_version=version) for version in range(3)
    ]
    for former, confirmed in product([None, *formers], range(3)):
        Target.objects.update(from_firmware=former)
        Device.objects.update(security_version=confirmed)
        target = device.target(deployment)

        locked = of_target(IS_LOCKED, target)

        assert locked is holds(is_locked(), target)
        expected = former is not None and must_refuse(device.device, former)
        assert locked is expected


def test_device_was_updated_since(
    ordered: tuple[World, Deployment, ScriptedDevice],
) -> None:
    world, deployment, device = ordered
    target = device.target(deployment)
    third = world.image("1.2.0")
    seen = set()
    for status, later, same, back in product(
        ["success", "failed", "pending"], [True, False], [True, False], [True, False]
    ):
        other = Deployment.objects.get(pk=deployment.pk)
        other.pk = None
        other._state.adding = True
        other.firmware = deployment.firmware if same else third
        other.created_at = deployment.created_at + timedelta(hours=1 if later else -1)
        other.save()
        written = Target.objects.create(
            deployment=other,
            device=device.device,
            rank=1,
            stage_number=1,
            status=status,
        )
        runs = deployment.firmware if back else third
        Device.objects.update(firmware_checksum=runs.sha256)

        moved = of_target(IS_UPDATED_SINCE, target, **identity(deployment))

        assert moved is holds(is_updated_since(deployment), target)
        assert moved is (status == "success" and later and (same or not back))
        seen.add(moved)
        written.delete()
        other.delete()
    assert seen == {True, False}


def test_device_was_updated_by_other_means(
    ordered: tuple[World, Deployment, ScriptedDevice],
) -> None:
    world, deployment, device = ordered
    firmware = deployment.firmware
    older, newer = world.image("0.9.0"), world.image("9.0.0")
    other = Deployment.objects.get(pk=deployment.pk)
    other.pk = None
    other._state.adding = True
    other.save()
    later = Target.objects.create(
        deployment=other, device=device.device, rank=1, stage_number=1, status="pending"
    )
    shown = [older.sha256, firmware.sha256, newer.sha256, "f" * 64, ""]
    seen = set()
    for checksum, former, exposed, is_later, later_exposed in product(
        shown,
        [older.sha256, newer.sha256, ""],
        [None, world.now],
        [True, False],
        [None, world.now],
    ):
        Device.objects.update(firmware_checksum=checksum)
        Target.objects.filter(deployment=deployment).update(
            from_checksum=former, exposed_at=exposed
        )
        Target.objects.filter(pk=later.pk).update(exposed_at=later_exposed)
        hours = timedelta(hours=1 if is_later else -1)
        Deployment.objects.filter(pk=other.pk).update(
            created_at=deployment.created_at + hours
        )
        target = device.target(deployment)

        moved = of_target(RUNS_NEWER, target, **identity(deployment))

        assert moved is holds(runs_newer(deployment), target)
        is_others = is_later and later_exposed is not None
        assert moved is (
            checksum == newer.sha256
            and former != newer.sha256
            and exposed is not None
            and not is_others
        )
        both = of_target(HAS_MOVED_ON, target, **identity(deployment))
        assert both is holds(has_moved_on(deployment), target)
        seen.add(moved)
    assert seen == {True, False}
