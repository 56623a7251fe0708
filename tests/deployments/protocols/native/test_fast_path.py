"""The short way of plain device requests: it answers as the long way does."""

import json
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.test import RequestFactory
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from deployments.models import Event, Report, Update
from deployments.protocols.native.fast_path import _read_json
from deployments.protocols.native.messages import (
    read_plain_heartbeat,
    read_plain_report,
    read_report,
)
from devices.services import registry
from firmware.models import Firmware
from health.heartbeat import read_heartbeat
from health.models import DeviceState, Reading
from hotswap.common.api import throttling
from tests.api import Caller, pointers, problem_of
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


def planned_device() -> tuple[Caller, str, Firmware]:
    """Return a device that will get an order, its name, and the firmware of that."""
    world = World()
    former, firmware = world.image("1.0.0"), world.image("2.0.0")
    [scripted] = world.fleet(1, former)
    world.launch(firmware)
    caller = Caller(token=device_token(scripted.device))
    return caller, scripted.name, firmware


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


def test_a_poll_is_noted_with_its_interval_as_on_the_long_way(
    device: Any, caller: Caller
) -> None:
    spans = []
    for headers in ({}, long_way(caller)):
        age(device, 30)
        answer = caller.get("/devices/quick-device/update", headers=headers)
        state = DeviceState.objects.get(device=device)
        assert answer["Poll-Interval"] == str(state.poll_interval_seconds) == "60"
        assert state.last_poll_at == state.last_seen_at
        spans.append(state.online_until - state.last_seen_at)

    assert spans == [timedelta(minutes=3)] * 2


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
        {"cpuUsage": 104},
        {"cpuUsage": "3"},
        {"cpuUsage": True},
        {"uptime": -1},
        {"bootId": ""},
        {"secureBoot": "perhaps"},
        {"secureBoot": None},
        {"firmwareChecksum": "x"},
        {"firmwareVersion": 1},
        {"applicationMetrics": {"errorRate": 2}},
        {"applicationMetrics": {"x": "1"}},
        {"applicationMetrics": {"": 1}},
        {"applicationMetrics": {f"m{n}": 1 for n in range(65)}},
        {"applicationMetrics": []},
        {"surplus": 1},
    ],
    ids=str,
)
def test_an_odd_heartbeat_is_answered_as_on_the_long_way(
    device: Any, caller: Caller, change: dict[str, Any]
) -> None:
    path, body = "/devices/quick-device/health", BEAT | change

    odd = caller.post(path, body)

    assert odd.json()["ignored"]
    assert shape(odd) == shape(caller.post(path, body, headers=long_way(caller)))
    assert Reading.objects.filter(device_id=device.pk).count() == 3


def test_a_body_that_is_no_json_is_refused(caller: Caller) -> None:
    answer = caller.post("/devices/quick-device/health", raw=b'{"cpuUsage": 1, ')

    assert answer.status_code == 400


def test_a_heartbeat_of_another_boot_begins_anew_and_late_mail_changes_nothing(
    device: Any, caller: Caller
) -> None:
    caller.post("/devices/quick-device/health", BEAT | {"bootId": "boot-2"})

    late = caller.post("/devices/quick-device/health", BEAT)

    assert late.status_code == 200
    assert late.json()["applied"] is False
    state = DeviceState.objects.get(device=device)
    assert state.boot_id == "boot-2"
    assert [each[0] for each in state.past_boots] == ["boot-1"]
    again = caller.post("/devices/quick-device/health", BEAT, headers=long_way(caller))
    assert shape(late) == shape(again)


def test_a_device_that_is_planned_for_gets_its_order() -> None:
    caller, name, _ = planned_device()

    answer = caller.get(f"/devices/{name}/update")

    assert answer.status_code == 200
    assert json.loads(answer.content)["firmware"]["version"] == "2.0.0"
    repeated = caller.get(f"/devices/{name}/update", headers=long_way(caller))
    assert shape(answer) == shape(repeated)


def test_a_device_over_its_limit_stays_refused_until_the_window_ends(
    device: Any, caller: Caller, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.DEVICE_REQUESTS_PER_SECOND = 0
    settings.DEVICE_REQUESTS_BURST = 50
    # Twice fifty, and the lot of five in which it goes over.
    monkeypatch.setattr(throttling, "_window", lambda seconds: (7, 3.0))
    path = "/devices/quick-device/update"

    codes = [caller.get(path).status_code for _ in range(130)]

    allowed = codes.index(429)
    assert 100 <= allowed <= 105
    assert set(codes[allowed:]) == {429}
    late = caller.post("/devices/quick-device/health", BEAT, headers=long_way(caller))
    assert late.status_code == 429
    assert late["Retry-After"] == "3"


# --- Downloads ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Range": "bytes=0-9"},
        {"Range": "bytes=10-"},
        {"Range": "bytes=-5"},
        {"Range": "bytes=0-1,5-6"},
        {"Range": "bytes=0-99", "If-Range": '"another"'},
    ],
    ids=str,
)
def test_a_download_is_answered_as_on_the_long_way(headers: dict[str, str]) -> None:
    caller, name, firmware = planned_device()
    caller.get(f"/devices/{name}/update")
    path = f"/firmware/{firmware.pk}/download"

    with CaptureQueriesContext(connection) as queries:
        quick = caller.get(path, headers=headers)
    assert len(queries) == 1
    long = caller.get(path, headers=headers | long_way(caller))

    assert quick.status_code == long.status_code
    assert dict(quick.headers) == dict(long.headers)
    assert b"".join(quick) == b"".join(long)


def test_a_download_without_an_order_is_refused_as_on_the_long_way(
    caller: Caller,
) -> None:
    firmware = World().image("1.0.0")
    path = f"/firmware/{firmware.pk}/download"

    quick = caller.get(path)

    assert quick.status_code == 403
    assert quick.json()["code"] == "no_active_update"
    assert (
        quick.json()["code"]
        == caller.get(path, headers=long_way(caller)).json()["code"]
    )


def test_a_revoked_device_downloads_nothing() -> None:
    caller, name, firmware = planned_device()
    caller.get(f"/devices/{name}/update")
    actor = PersonFactory.create(operator=True)
    registry.revoke_device(actor=actor, device_id=name)

    assert caller.get(f"/firmware/{firmware.pk}/download").status_code == 401


# --- Reports -----------------------------------------------------------------------


def ordered_device() -> tuple[Caller, str]:
    """Return a device that has an order, and the address of its reports."""
    caller, name, _ = planned_device()
    order = caller.get(f"/devices/{name}/update").json()
    return caller, f"/devices/{name}/updates/{order['updateId']}/reports"


@pytest.fixture
def ordered() -> tuple[Caller, str]:
    return ordered_device()


WAY = [
    {"sequence": 1, "status": "downloading", "progressPercentage": 12.5},
    {"sequence": 2, "status": "downloading", "progressPercentage": 80},
    {"sequence": 2, "status": "downloading"},
    {"sequence": 3, "status": "verifying"},
    {"sequence": 4, "status": "installing", "bootId": "boot-1"},
    {"sequence": 5, "status": "rebooting", "bootId": "boot-1"},
    {"sequence": 4, "status": "installing", "bootId": "boot-1"},
    {
        "sequence": 6,
        "status": "confirming",
        "bootId": "boot-2",
        "firmwareVersion": "2.0.0",
        "firmwareChecksum": CHECKSUM,
    },
    {"sequence": 7, "status": "downloading"},
]
# The places of those that are repeated, older, or come after the claim.
WITHOUT_EFFECT = (2, 6, 8)


def test_a_report_is_answered_as_on_the_long_way(ordered: tuple[Caller, str]) -> None:
    caller, path = ordered
    for place, report in enumerate(WAY):
        quick = caller.post(path, report)
        # The same again is kept and changes nothing, on either way.
        again = caller.post(path, report, headers=long_way(caller))

        assert quick.json() == {"applied": place not in WITHOUT_EFFECT}
        assert again.json() == {"applied": False}
        lengths = {"Content-Length": quick["Content-Length"]}
        assert dict(again.headers) | lengths == dict(quick.headers)


def rows_of(path: str) -> list[dict[str, Any]]:
    """Return all that reports write, without times and without whose it is."""
    update = Update.objects.get(pk=path.split("/")[4])
    rows: list[Any] = [update, update.target, DeviceState.objects.get()]
    rows += Event.objects.filter(deployment=update.deployment).order_by("id")
    rows += Report.objects.filter(update=update).order_by("id")
    return [
        {
            field.name: getattr(row, field.attname)
            for field in row._meta.concrete_fields
            if not field.is_relation
            and not field.primary_key
            and field.name not in ("number", "traceparent", "watch_id", "baseline")
            and not hasattr(getattr(row, field.attname), "tzinfo")
        }
        for row in rows
    ]


def test_reports_leave_the_same_rows_as_on_the_long_way() -> None:
    left = []
    for way in ("quick", "long"):
        with transaction.atomic():
            caller, path = ordered_device()
            headers = long_way(caller) if way == "long" else {}
            for report in WAY:
                assert caller.post(path, report, headers=headers).status_code == 200
            left.append(rows_of(path))
            transaction.set_rollback(True)

    assert left[0] == left[1]
    assert [row["status"] for row in left[0] if "was_applied" in row] == [
        report["status"] for report in WAY
    ]


def test_a_report_for_a_closed_order_is_kept_once_and_refused(
    ordered: tuple[Caller, str],
) -> None:
    caller, path = ordered
    Update.objects.update(closed_at=timezone.now(), status="cancelled")

    answer = caller.post(path, {"sequence": 1, "status": "downloading"})

    assert answer.status_code == 409
    assert Report.objects.count() == 1


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"sequence": 0}, "sequence"),
        ({"sequence": True}, "sequence"),
        ({"sequence": "1"}, "sequence"),
        ({"status": "done"}, "status"),
        ({"status": []}, "status"),
    ],
    ids=str,
)
def test_a_wrong_report_is_refused_and_not_kept(
    ordered: tuple[Caller, str], change: dict[str, Any], field: str
) -> None:
    caller, path = ordered

    answer = caller.post(path, {"sequence": 1, "status": "downloading"} | change)

    assert [*pointers(problem_of(answer, 400))] == [f"/{field}"]
    assert not Report.objects.exists()


@pytest.mark.parametrize(
    ("change", "field", "code"),
    [
        ({"progressPercentage": 102}, "progressPercentage", "out_of_range"),
        ({"bootId": None}, "bootId", "null"),
        ({"firmwareChecksum": "x"}, "firmwareChecksum", "invalid"),
        ({"firmwareVersion": 2}, "firmwareVersion", "invalid"),
        ({"errorCode": "Bad Code"}, "errorCode", "invalid"),
        ({"message": "m" * 501}, "message", "too_long"),
        ({"message": 5}, "message", "invalid"),
        ({"occurredAt": 5}, "occurredAt", "invalid"),
        ({"durations": [1]}, "durations", "invalid"),
        ({"durations": {"download": -1}}, "durations/download", "out_of_range"),
        (
            {"durations": {f"{n:02}": n for n in range(17)}},
            "durations/16",
            "too_many",
        ),
        ({"surplus": {"deep": 1}}, "surplus", "unknown"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_report_is_taken_without_what_cannot_be_used(
    ordered: tuple[Caller, str], change: dict[str, Any], field: str, code: str
) -> None:
    caller, path = ordered

    answer = caller.post(path, {"sequence": 1, "status": "downloading"} | change)

    assert answer.json() == {
        "applied": True,
        "ignored": [{"pointer": f"/{field}", "code": code}],
    }
    body = Report.objects.get().body
    assert body["status"] == "downloading"
    assert "surplus" not in body
    assert len(body.get("message", "")) <= 500


def test_nobody_reports_for_another(ordered: tuple[Caller, str]) -> None:
    _, path = ordered
    other = DeviceFactory.create(device_id="other")
    caller = Caller(token=device_token(other))
    report = {"sequence": 1, "status": "downloading"}

    assert caller.post(path, report).status_code == 403
    own = f"/devices/other/{path.split('/', 3)[3]}"
    assert caller.post(own, report).status_code == 404
    assert not Report.objects.exists()


def test_a_revoked_device_reports_nothing(ordered: tuple[Caller, str]) -> None:
    caller, path = ordered
    registry.revoke_device(
        actor=PersonFactory.create(operator=True), device_id=path.split("/")[2]
    )

    answer = caller.post(path, {"sequence": 1, "status": "downloading"})

    assert answer.status_code == 401
    assert not Report.objects.exists()


# --- What is read on the short way is right on the long one ------------------------


ODD = st.none() | st.booleans() | st.integers(-1, 101) | st.floats(-1, 101) | st.text()
VALUES = {
    "cpuUsage": st.floats(-1, 101) | ODD,
    "memoryUsage": st.integers(0, 100) | ODD,
    "uptime": st.integers(0, 2**53 + 1) | ODD,
    "bootId": st.text("ab-._:\n ", max_size=66) | ODD,
    "firmwareVersion": st.sampled_from(["1.0.0", "1.0", " 1.0.0", "1.0.0\n"]) | ODD,
    "firmwareChecksum": st.sampled_from([CHECKSUM, CHECKSUM.upper(), "a"]) | ODD,
    "applicationMetrics": st.dictionaries(
        st.sampled_from(["errorRate", "x", "", "n" * 65]), ODD
    ),
    "secureBoot": st.sampled_from(["enabled", "disabled", "unknown", "on"]) | ODD,
    "sequence": st.integers(0, 2**53 + 1) | ODD,
    "status": st.sampled_from(["downloading", "confirming", "failed", "done"]) | ODD,
    "progressPercentage": st.floats(-1, 101) | ODD,
    "message": st.text(max_size=3),
    "occurredAt": st.sampled_from(["1970-01-01T00:00:00Z", "0000-00-00", "9" * 40])
    | ODD,
    "otherSlotChecksum": st.sampled_from([CHECKSUM, CHECKSUM.upper(), "", "a"]) | ODD,
}


IN_REPORTS = {"sequence", "status", "progressPercentage", "message", "occurredAt"}
IN_BOTH = {"bootId", "firmwareVersion", "firmwareChecksum"}


def bodies(right: dict[str, Any], names: set[str]) -> st.SearchStrategy[dict[str, Any]]:
    """Right bodies of which up to two fields are something else, right or not."""
    changes = st.sets(st.sampled_from(sorted(names)), max_size=2).flatmap(
        lambda some: st.fixed_dictionaries({name: VALUES[name] for name in some})
    )
    return changes.map(lambda changed: right | changed)


def asked(body: dict[str, Any]) -> Any:
    return RequestFactory().post(
        "/", json.dumps(body).encode(), content_type="application/json"
    )


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(bodies(BEAT, VALUES.keys() - IN_REPORTS))
def test_a_heartbeat_that_is_read_quickly_means_the_same_at_length(
    body: dict[str, Any],
) -> None:
    quick = read_plain_heartbeat(_read_json(asked(body)))
    event(f"read: {quick is not None}")
    if quick is not None:
        assert read_heartbeat(body) == (quick, [])
        assert not quick.missing


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(bodies({"sequence": 3, "status": "downloading"}, IN_REPORTS | IN_BOTH))
def test_a_report_that_is_read_quickly_means_the_same_at_length(
    body: dict[str, Any],
) -> None:
    quick = read_plain_report(_read_json(asked(body)))
    event(f"read: {quick is not None}")
    if quick is not None:
        assert read_report(body) == (quick, [])


@pytest.mark.django_db(transaction=True)
def test_a_database_that_refuses_is_said_to_pass() -> None:
    device = DeviceFactory.create(device_id="quick-device")
    caller = Caller(token=device_token(device))
    caller.post("/devices/quick-device/health", BEAT)
    holder = connection.copy()
    try:
        with holder.cursor() as cursor, connection.cursor() as own:
            holder.set_autocommit(False)
            cursor.execute("SELECT 1 FROM health_devicestate FOR UPDATE")
            own.execute("SET lock_timeout = '100ms'")
            refused = caller.post("/devices/quick-device/health", BEAT)
            holder.rollback()
            own.execute("SET lock_timeout = 0")
    finally:
        holder.close()

    problem_of(refused, 503, "try_again")


def test_an_eager_device_is_told_to_wait(caller: Caller, settings: Any) -> None:
    settings.DEVICE_REQUESTS_PER_SECOND = 0
    settings.DEVICE_REQUESTS_BURST = 2

    codes = {caller.get("/devices/quick-device/update").status_code for _ in range(20)}

    assert codes == {204, 429}


def test_the_whole_update_of_a_device_takes_few_statements() -> None:
    world = World(now=timezone.now())
    former, firmware = world.image("1.0.0"), world.image("2.0.0")
    first, scripted = world.fleet(2, former)
    caller = Caller(token=device_token(scripted.device))
    health = f"/devices/{scripted.name}/health"
    beat = BEAT | {"firmwareVersion": "1.0.0", "firmwareChecksum": former.sha256}
    caller.post(health, beat)
    world.launch(firmware)
    # For it the manifest is signed, which the others share.
    first.poll()
    counts: dict[str, int] = {}

    def counted(what: str, send: Any) -> Any:
        with CaptureQueriesContext(connection) as queries:
            answer = send()
        assert answer.status_code == 200, answer.content
        counts[what] = counts.get(what, 0) + sum(
            "SAVEPOINT" not in str(each["sql"]) for each in queries.captured_queries
        )
        return answer

    order = counted("poll", lambda: caller.get(f"/devices/{scripted.name}/update"))
    path = f"/devices/{scripted.name}/updates/{order.json()['updateId']}/reports"
    image = order.json()["firmware"]["downloadUrl"]
    counted("download", lambda: caller.get(image))
    words = ("downloading", "verifying", "installing", "rebooting")
    for number, word in enumerate(words, start=1):
        report = {"sequence": number, "status": word, "bootId": "boot-1"}
        counted("reports", lambda report=report: caller.post(path, report))
    claim = {"sequence": 5, "status": "confirming", "bootId": "boot-2"}
    counted("reports", lambda: caller.post(path, claim))
    beat |= {"bootId": "boot-2", "firmwareVersion": "2.0.0"}
    beat["firmwareChecksum"] = firmware.sha256
    counted("first heartbeat", lambda: caller.post(health, beat))
    counted("heartbeat", lambda: caller.post(health, beat))

    assert counts == {
        "poll": 4,
        "download": 1,
        "reports": 5,
        "first heartbeat": 5,
        "heartbeat": 2,
    }
