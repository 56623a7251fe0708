"""The short way of plain device requests: it answers as the long way does."""

import json
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from devices.services import registry
from health.models import DeviceState, Reading
from tests.api import Caller
from tests.common.factories import PersonFactory
from tests.deployments.world import World
from tests.devices.factories import DeviceFactory, device_token

pytestmark = pytest.mark.django_db
CHECKSUM = "ab" * 32
BEAT = {
    "cpuUsage": 3.5,
    "memoryUsage": 12,
    "uptime": 60,
    "bootId": "boot-1",
    "firmwareVersion": "1.0.0",
    "firmwareChecksum": CHECKSUM,
    "applicationMetrics": {"errorRate": 0.0, "queue": 3},
}


@pytest.fixture
def device() -> Any:
    return DeviceFactory.create(device_id="quick-device")


@pytest.fixture
def caller(device: Any) -> Caller:
    """Return a device that has sent its first heartbeat."""
    caller = Caller(token=device_token(device))
    assert caller.post("/devices/quick-device/health", BEAT).status_code == 200
    return caller


def long_way(caller: Caller) -> dict[str, str]:
    """Return headers that mean the same and are not plain."""
    return {"Authorization": f"bearer {caller.token}"}


def shape(response: Any) -> tuple[int, bytes, dict[str, str]]:
    return response.status_code, response.content, dict(response.headers)


def age(device: Any, seconds: float) -> None:
    DeviceState.objects.filter(device=device).update(
        last_seen_at=timezone.now() - timedelta(seconds=seconds)
    )


def test_an_idle_poll_is_answered_as_on_the_long_way(caller: Caller) -> None:
    path = "/devices/quick-device/update"

    with CaptureQueriesContext(connection) as queries:
        quick = caller.get(path)

    assert len(queries) == 1
    assert shape(quick) == shape(caller.get(path, headers=long_way(caller)))


def test_a_usual_heartbeat_is_answered_as_on_the_long_way(caller: Caller) -> None:
    path = "/devices/quick-device/health"

    with CaptureQueriesContext(connection) as queries:
        quick = caller.post(path, BEAT)

    assert len(queries) == 2
    assert shape(quick) == shape(caller.post(path, BEAT, headers=long_way(caller)))


def test_a_usual_heartbeat_leaves_the_same_state_as_on_the_long_way() -> None:
    states = []
    for name in ("quick", "long"):
        device = DeviceFactory.create(device_id=name)
        caller = Caller(token=device_token(device))
        headers = long_way(caller) if name == "long" else {}
        for cpu in (3.5, 99, 97.25, 4):
            body = BEAT | {"cpuUsage": cpu, "secureBoot": "enabled"}
            answer = caller.post(f"/devices/{name}/health", body, headers=headers)
            assert answer.status_code == 200
        state = DeviceState.objects.get(device=device)
        states.append(
            {
                field.name: getattr(state, field.name)
                for field in state._meta.concrete_fields
                if field.name != "device"
            }
        )
        assert Reading.objects.filter(device_id=device.pk).count() == 4

    quick, long = states
    times = {name for name, value in quick.items() if hasattr(value, "tzinfo")}
    assert {name: quick[name] for name in quick if name not in times} == {
        name: long[name] for name in long if name not in times
    }
    assert times == {name for name, value in long.items() if hasattr(value, "tzinfo")}


def test_an_idle_poll_notes_the_contact(device: Any, caller: Caller) -> None:
    age(device, 30)

    caller.get("/devices/quick-device/update")

    state = DeviceState.objects.get(device=device)
    assert timezone.now() - state.last_seen_at < timedelta(seconds=10)
    assert state.online_until > timezone.now() + timedelta(seconds=100)


def test_a_revoked_device_is_refused(device: Any, caller: Caller) -> None:
    caller.get("/devices/quick-device/update")
    actor = PersonFactory.create(operator=True)
    registry.revoke_device(actor=actor, device_id=device.device_id)

    assert caller.get("/devices/quick-device/update").status_code == 401
    assert caller.post("/devices/quick-device/health", BEAT).status_code == 401


def test_a_device_cannot_speak_for_another(caller: Caller) -> None:
    DeviceFactory.create(device_id="other")

    assert caller.get("/devices/other/update").status_code == 403
    assert caller.post("/devices/other/health", BEAT).status_code == 403


@pytest.mark.parametrize(
    "change",
    [
        {"cpuUsage": 101},
        {"cpuUsage": "3"},
        {"cpuUsage": True},
        {"uptime": 1.5},
        {"uptime": -1},
        {"bootId": ""},
        {"secureBoot": "perhaps"},
        {"secureBoot": None},
        {"applicationMetrics": {"errorRate": 2}},
        {"applicationMetrics": {"x": "1"}},
        {"applicationMetrics": {"": 1}},
        {"applicationMetrics": {f"m{n}": 1 for n in range(65)}},
        {"applicationMetrics": []},
        {"surplus": 1},
    ],
    ids=str,
)
def test_a_wrong_heartbeat_is_refused_and_not_stored(
    device: Any, caller: Caller, change: dict[str, Any]
) -> None:
    answer = caller.post("/devices/quick-device/health", BEAT | change)

    assert answer.status_code == 400
    assert Reading.objects.filter(device_id=device.pk).count() == 1


def test_a_body_that_is_no_json_is_refused(caller: Caller) -> None:
    answer = caller.post("/devices/quick-device/health", raw=b'{"cpuUsage": 1, ')

    assert answer.status_code == 400


def test_a_heartbeat_of_another_boot_is_stored_on_the_long_way(
    device: Any, caller: Caller
) -> None:
    caller.post("/devices/quick-device/health", BEAT | {"bootId": "boot-2"})

    late = caller.post("/devices/quick-device/health", BEAT)

    assert late.status_code == 200
    assert DeviceState.objects.get(device=device).boot_id == "boot-2"


def test_a_device_that_is_planned_for_gets_its_order() -> None:
    world = World()
    former, firmware = world.image("1.0.0"), world.image("2.0.0")
    [scripted] = world.fleet(1, former)
    world.launch(firmware)
    caller = Caller(token=device_token(scripted.device))

    answer = caller.get(f"/devices/{scripted.name}/update")

    assert answer.status_code == 200
    assert json.loads(answer.content)["firmware"]["version"] == "2.0.0"


def test_an_eager_device_is_told_to_wait(caller: Caller, settings: Any) -> None:
    settings.DEVICE_REQUESTS_PER_SECOND = 0
    settings.DEVICE_REQUESTS_BURST = 2

    codes = {caller.get("/devices/quick-device/update").status_code for _ in range(20)}

    assert codes == {204, 429}
