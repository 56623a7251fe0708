"""Keys that end soon, and keys that are used after their end."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from devices.models import Device, DeviceKey
from devices.services.alarms import (
    ALARM_PAUSE,
    announce_expiring_keys,
    forget_retired_keys,
)
from devices.services.credentials import rotate_key
from devices.services.registry import revoke_device
from hotswap.common.models import AuditEvent
from tests.api import Caller, pointers, problem_of
from tests.callers import PersonCaller
from tests.common.factories import PersonFactory
from tests.devices.factories import DeviceFactory, key_of
from tests.devices.retired import ADDRESS, present_key, retire_key, use_retired_key

USED = "device.retired-key-used"
EXPIRING = "device.key-expiring"


def events(verb: str) -> list[AuditEvent]:
    return list(AuditEvent.objects.filter(verb=verb).order_by("pk"))


def shown(caller: Caller, device: Device) -> Any:
    return caller.get(f"/devices/{device.device_id}").json()


# --- A retired key is used ---------------------------------


def test_a_retired_key_is_refused_as_any_wrong_key_and_raises_an_alarm(
    anonymous: Caller, viewer: PersonCaller, device: Device
) -> None:
    retire_key(device, key_of(device))
    body = {"deviceId": device.device_id}

    retired = anonymous.post("/auth/device-token", body | {"apiKey": key_of(device)})
    wrong = anonymous.post("/auth/device-token", body | {"apiKey": "hsd_wrong"})

    refusals = [problem_of(answer, 401, "login_failed") for answer in (retired, wrong)]
    assert refusals[0]["detail"] == refusals[1]["detail"]
    (event,) = events(USED)
    assert event.actor_kind == AuditEvent.ActorKind.SERVER
    assert event.object_id == str(device.pk)
    assert event.details["address"] == "127.0.0.1"
    alarm = shown(viewer, device)["alarm"]
    assert alarm["code"] == "retired_key_used"
    assert alarm["address"] == "127.0.0.1"
    assert alarm["at"].endswith("Z")


def test_a_key_in_its_overlap_raises_no_alarm(device: Device) -> None:
    rotate_key(device_id=device.device_id, actor=PersonFactory.create(operator=True))

    assert present_key(device, key_of(device))

    assert events(USED) == []


def test_a_key_that_expired_by_itself_raises_no_alarm(device: Device) -> None:
    DeviceKey.objects.update(expires_at=timezone.now() - timedelta(days=1))

    assert not present_key(device, key_of(device))
    rotate_key(device_id=device.device_id, actor=PersonFactory.create(operator=True))
    assert not present_key(device, key_of(device))

    assert events(USED) == []


def test_the_key_of_a_revoked_device_raises_an_alarm(device: Device) -> None:
    revoke_device(actor=PersonFactory.create(operator=True), device_id=device.device_id)

    assert not present_key(device, key_of(device))

    assert len(events(USED)) == 1


def test_a_retired_key_with_another_name_raises_the_alarm_of_its_device(
    device: Device,
) -> None:
    other = DeviceFactory.create()
    retire_key(device, key_of(device))

    assert not present_key(other, key_of(device))

    assert [event.object_id for event in events(USED)] == [str(device.pk)]


def test_one_alarm_an_hour_for_each_key(device: Device) -> None:
    retire_key(device, key_of(device))
    now = timezone.now()

    for after in (timedelta(0), ALARM_PAUSE / 2, ALARM_PAUSE, ALARM_PAUSE * 1.5):
        present_key(device, key_of(device), now=now + after)

    assert len(events(USED)) == 2


@pytest.mark.django_db(transaction=True)
def test_uses_at_once_raise_one_alarm() -> None:
    device = DeviceFactory.create()
    retire_key(device, key_of(device))

    def present(_: int) -> bool:
        try:
            return present_key(device, key_of(device))
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        assert not any(pool.map(present, range(4)))

    assert len(events(USED)) == 1


def test_an_alarm_is_acknowledged_once(operator: PersonCaller, device: Device) -> None:
    use_retired_key(device)
    path = f"/devices/{device.device_id}/acknowledge-alarm"

    first = operator.post(path, {"comment": "an old image of the disk"})
    second = operator.post(path)

    assert first.json()["alarm"] is None
    problem_of(second, 409, "no_alarm")
    (event,) = events("device.alarm-acknowledged")
    assert event.actor == operator.person.pseudonym
    assert event.details["comment"] == "an old image of the disk"


def test_a_use_after_the_acknowledgement_raises_it_anew(
    operator: PersonCaller, device: Device
) -> None:
    key = use_retired_key(device)
    operator.post(f"/devices/{device.device_id}/acknowledge-alarm")

    present_key(device, key, now=timezone.now() + ALARM_PAUSE)

    assert shown(operator, device)["alarm"]["address"] == ADDRESS


@pytest.mark.parametrize(
    ("body", "pointer"), [({"comment": 5}, "/comment"), ({"reason": "x"}, "/reason")]
)
def test_an_acknowledgement_of_no_sense_is_refused(
    operator: PersonCaller, device: Device, body: Any, pointer: str
) -> None:
    use_retired_key(device)

    answer = operator.post(f"/devices/{device.device_id}/acknowledge-alarm", body)

    assert set(pointers(problem_of(answer, 400))) == {pointer}
    assert shown(operator, device)["alarm"] is not None


def test_devices_are_filtered_by_their_alarm(
    viewer: PersonCaller, device: Device
) -> None:
    use_retired_key(device)
    other = DeviceFactory.create()

    def found(query: str) -> list[str]:
        rows = viewer.get(f"/devices?{query}").json()["results"]
        return [row["deviceId"] for row in rows]

    assert found("alarm=true") == [device.device_id]
    assert found("alarm=false") == [other.device_id]
    problem_of(viewer.get("/devices?alarm=maybe"), 400)


def test_retired_keys_are_forgotten_after_a_year(device: Device) -> None:
    key = use_retired_key(device)
    now = timezone.now()

    assert forget_retired_keys(now - timedelta(days=2), 10) == 0
    assert forget_retired_keys(now, 10) == 1

    assert not present_key(device, key)
    assert DeviceKey.objects.filter(device=device).count() == 1


# --- A key ends soon ---------------------------------


def end_in(device: Device, remaining: timedelta) -> None:
    DeviceKey.objects.filter(device=device).update(
        expires_at=timezone.now() + remaining
    )


def test_each_key_is_told_of_once(device: Device) -> None:
    DeviceFactory.create()
    end_in(device, timedelta(days=14))

    told = [announce_expiring_keys(now=timezone.now()) for _ in range(2)]

    assert told == [1, 0]
    (event,) = events(EXPIRING)
    assert event.actor_kind == AuditEvent.ActorKind.SERVER
    assert event.object_id == str(device.pk)
    ends = DeviceKey.objects.get(device=device).expires_at
    assert event.details == {"expiresAt": f"{ends:%Y-%m-%dT%H:%M:%SZ}"}


def test_the_next_key_of_a_device_is_told_of_again(device: Device) -> None:
    end_in(device, timedelta(days=1))
    announce_expiring_keys(now=timezone.now())
    rotate_key(device_id=device.device_id, actor=None)
    assert announce_expiring_keys(now=timezone.now()) == 0

    told = announce_expiring_keys(now=timezone.now() + timedelta(days=80))

    assert told == 1


def test_nobody_is_told_of_the_keys_of_a_revoked_device(device: Device) -> None:
    revoke_device(actor=PersonFactory.create(operator=True), device_id=device.device_id)

    assert announce_expiring_keys(now=timezone.now() + timedelta(days=89)) == 0


def test_many_keys_are_told_of_in_batches(
    db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("devices.services.alarms.SWEEP_BATCH", 2)
    for _ in range(5):
        end_in(DeviceFactory.create(), timedelta(days=3))

    assert announce_expiring_keys(now=timezone.now()) == 5

    assert len({event.object_id for event in events(EXPIRING)}) == 5


def test_the_warning_time_is_a_setting(device: Device, settings: Any) -> None:
    settings.DEVICE_KEY_WARNING = timedelta(days=3)
    end_in(device, timedelta(days=4))

    assert announce_expiring_keys(now=timezone.now()) == 0
    assert announce_expiring_keys(now=timezone.now() + timedelta(days=1)) == 1


def test_devices_are_filtered_by_the_end_of_their_key(
    viewer: PersonCaller, device: Device
) -> None:
    fresh, gone, revoked = (DeviceFactory.create() for _ in range(3))
    end_in(device, timedelta(days=3))
    end_in(gone, timedelta(days=-3))
    revoke_device(
        actor=PersonFactory.create(operator=True), device_id=revoked.device_id
    )

    def found(query: str) -> set[str]:
        rows = viewer.get(f"/devices?{query}").json()["results"]
        return {row["deviceId"] for row in rows}

    assert found("keyExpiring=true") == {device.device_id, gone.device_id}
    assert found("keyExpiring=false") == {fresh.device_id, revoked.device_id}
    problem_of(viewer.get("/devices?keyExpiring=soon"), 400)
