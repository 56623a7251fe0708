"""How often a person may use the API."""

from typing import Any

import pytest

from devices.models import Device
from hotswap.common.api import throttling
from hotswap.common.cache import ForgivingRedisCache
from tests.api import Caller, problem_of
from tests.callers import PersonCaller
from tests.firmware.factories import DeviceModelFactory

COSTLY = [
    ("UPLOADS_PER_MINUTE", "POST", "/firmware"),
    ("IMPORTS_PER_MINUTE", "POST", "/devices/import"),
    ("EXPORTS_PER_MINUTE", "GET", "/devices/export"),
    ("EXPORTS_PER_MINUTE", "GET", "/devices/table-device/export"),
    ("PREVIEWS_PER_MINUTE", "POST", "/deployments/preview"),
    ("PREVIEWS_PER_MINUTE", "POST", "/device-groups/preview"),
]


@pytest.fixture(autouse=True)
def one_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no minute end in between."""
    number = throttling._window(60)[0]
    monkeypatch.setattr(throttling, "_window", lambda seconds: (number, 30.5))


def statuses(caller: Caller, method: str, path: str, count: int) -> list[int]:
    return [caller.request(method, path).status_code for _ in range(count)]


@pytest.mark.parametrize(("rate", "method", "path"), COSTLY)
def test_what_costs_much_has_a_limit_of_its_own(
    admin: PersonCaller,
    device: Device,
    settings: Any,
    rate: str,
    method: str,
    path: str,
) -> None:
    setattr(settings, rate, 3)

    taken = statuses(admin, method, path, 3)
    refused = admin.request(method, path)

    assert 429 not in taken
    problem_of(refused, 429, "throttled")
    assert refused["Retry-After"] == "31"
    assert admin.get("/devices").status_code == 200


def test_all_requests_of_a_person_have_a_limit(
    viewer: PersonCaller, admin: PersonCaller, settings: Any
) -> None:
    settings.PERSON_REQUESTS_PER_MINUTE = 5

    found = statuses(viewer, "GET", "/devices", 6)

    assert found == [200] * 5 + [429]
    assert admin.get("/devices").status_code == 200


def test_requests_in_lots_are_counted_together(
    viewer: PersonCaller, settings: Any
) -> None:
    settings.PERSON_REQUESTS_PER_MINUTE = 100

    found = statuses(viewer, "GET", "/device-models", 120)

    assert found[:100] == [200] * 100
    assert set(found[110:]) == {429}


def test_an_upload_over_the_limit_is_refused_before_it_is_read(
    admin: PersonCaller, settings: Any
) -> None:
    DeviceModelFactory.create(name="sensor-v1")
    settings.UPLOADS_PER_MINUTE = 1
    statuses(admin, "POST", "/firmware", 1)

    refused = admin.post(
        "/firmware",
        raw=b"--x\r\n" + b"a" * 100_000,
        content_type="multipart/form-data; boundary=x",
    )

    problem_of(refused, 429, "throttled")


def test_the_limits_hold_while_redis_is_away(
    viewer: PersonCaller, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = ForgivingRedisCache("redis://127.0.0.1:1/0", {})
    monkeypatch.setattr(throttling, "cache", away)
    settings.PERSON_REQUESTS_PER_MINUTE = 5

    found = statuses(viewer, "GET", "/devices", 6)

    assert found == [200] * 5 + [429]


def test_devices_are_not_counted_as_people(
    device: Device, device_caller: Caller, settings: Any
) -> None:
    settings.PERSON_REQUESTS_PER_MINUTE = 1

    path = f"/devices/{device.device_id}/update"

    assert statuses(device_caller, "GET", path, 5) == [204] * 5
