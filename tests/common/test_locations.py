"""Whatever a route makes, the answer says where it is (RFC 9110, 15.3.2)."""

from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.conf import settings as django_settings

from tests.api import Caller
from tests.callers import PersonCaller
from tests.deployments.world import World
from tests.devices.factories import DeviceFactory, EnrolmentTokenFactory, value_of
from tests.devices.pki import Authority
from tests.firmware.factories import DeviceModelFactory
from tests.firmware.forms import upload

CHECKED_IN = Path(django_settings.BASE_DIR) / "docs" / "openapi.yaml"
Make = Callable[[PersonCaller], Any]


def launch(caller: PersonCaller) -> Any:
    world = World()
    old, new = world.image("1.0.0"), world.image("2.0.0")
    world.fleet(1, old)
    body = {
        "firmwareId": str(new.pk),
        "strategy": "Direct",
        "targetDevices": ["d-000"],
        "offlineDevices": "wait",
        "scheduledAt": "2126-01-01T00:00:00Z",
    }
    return caller.post("/deployments", body)


def copy(caller: PersonCaller) -> Any:
    first = launch(caller).json()["id"]
    return caller.post(f"/deployments/{first}/copy", {"reason": "again"})


def make_model(caller: PersonCaller) -> Any:
    return caller.post("/device-models", {"name": "made-here"})


def upload_firmware(caller: PersonCaller) -> Any:
    DeviceModelFactory.create(name="sensor-v1")
    return upload(caller)


def register(caller: PersonCaller) -> Any:
    DeviceModelFactory.create(name="sensor-v1")
    return caller.post("/devices", {"deviceId": "d-1", "model": "sensor-v1"})


def rotate_key(caller: PersonCaller) -> Any:
    return caller.post(f"/devices/{DeviceFactory.create()}/api-key")


def add_certificate(caller: PersonCaller) -> Any:
    body = {"certificate": Authority().issue("d-1").pem}
    return caller.post(f"/devices/{DeviceFactory.create()}/certificates", body)


def enrol(caller: PersonCaller) -> Any:
    DeviceModelFactory.create(name="sensor-v1")
    body = {
        "enrolmentToken": value_of(EnrolmentTokenFactory.create(needs_approval=False)),
        "deviceId": "d-1",
        "model": "sensor-v1",
        "secret": "s" * 40,
    }
    return Caller().post("/enrolments", body)


MAKERS: dict[str, Make] = {
    "/deployments": launch,
    "/deployments/{deploymentId}/copy": copy,
    "/device-groups": lambda caller: caller.post(
        "/device-groups", {"name": "g", "type": "Static"}
    ),
    "/device-models": make_model,
    "/devices": register,
    "/devices/{deviceId}/api-key": rotate_key,
    "/devices/{deviceId}/certificates": add_certificate,
    "/enrolment-tokens": lambda caller: caller.post(
        "/enrolment-tokens", {"name": "line 3"}
    ),
    "/enrolments": enrol,
    "/firmware": upload_firmware,
    "/gateways": lambda caller: caller.post(
        "/gateways", {"url": "jsons://127.0.0.1/gate"}
    ),
    "/mail-recipients": lambda caller: caller.post(
        "/mail-recipients", {"address": "ops@example.com"}
    ),
    "/people": lambda caller: caller.post(
        "/people", {"username": "new", "role": "Viewer"}
    ),
    "/webhooks": lambda caller: caller.post(
        "/webhooks", {"url": "https://127.0.0.1/hook"}
    ),
}


@pytest.fixture(autouse=True)
def loopback_allowed(settings: Any) -> None:
    settings.WEBHOOK_ALLOWED_NETWORKS = [ip_network("127.0.0.0/8")]


def test_every_route_that_makes_something_is_tried_below() -> None:
    document = yaml.safe_load(CHECKED_IN.read_text())

    makes = {
        path.removeprefix("/api/v1")
        for path, methods in document["paths"].items()
        for operation in methods.values()
        if "201" in operation["responses"]
    }

    assert makes == set(MAKERS)


@pytest.mark.parametrize("route", MAKERS)
def test_what_was_made_can_be_read_where_the_answer_says(
    admin: PersonCaller, route: str
) -> None:
    made = MAKERS[route](admin)

    assert made.status_code == 201, made.content
    found = admin.get(made["Location"])
    assert found.status_code == 200
    assert found.json()["createdAt"]
