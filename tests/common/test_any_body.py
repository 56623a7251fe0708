"""Whatever a body says, the answer is a success or a problem document, never a 5xx."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from devices.models import Device
from tests.api import Caller, problem_of
from tests.callers import PersonCaller
from tests.common.test_roles import NOBODY, ROWS
from tests.devices.factories import GroupFactory, device_token
from tests.firmware.factories import FirmwareFactory

LIMITS = {
    "confirmationDuration": "PT1S",
    "heartbeatsRequired": 2,
    "watchDuration": "PT1H",
}
THRESHOLDS = {
    "offlineAfter": "PT1M",
    "cpuUsage": 95,
    "cpuDuration": "PT1M",
    "memoryUsage": 90.5,
    "memoryDuration": "PT1M",
    "errorRate": 0.1,
    "errorDuration": "PT0S",
    "successRate": 95,
    "minimumSample": 1,
    "minimumExposure": 90,
}
DEPLOYMENT = {
    "name": "d",
    "firmwareId": NOBODY,
    "strategy": "Canary",
    "targetDevices": ["table-device"],
    "initialPercentage": 10,
    "increments": [30, 100],
    "waitDuration": "PT1M",
    "healthThreshold": 99,
    "scheduledAt": "2099-01-01T00:00:00Z",
    "healthCriteria": LIMITS,
    "rollbackThresholds": THRESHOLDS,
    "onWarning": "pause",
    "offlineDevices": "wait",
    "busyDevices": "wait",
    "offlineDeadline": "PT24H",
    "deviceTimeout": "PT30M",
    "maxAttempts": 3,
    "acknowledge": ["no_previous_image"],
}
DEVICE = {
    "model": "sensor-v1",
    "region": "US-EAST",
    "tags": {"site": "plant-7"},
    "metadata": {"rack": 7},
    "enabled": True,
}
RULE = {
    "region": ["EU"],
    "model": ["sensor-v1"],
    "tags": {"site": ["plant-7"]},
    "firmwareVersion": {"below": "2.0.0", "atLeast": "1.0.0", "is": ["1.5.0"]},
}
GROUP = {"name": "g", "description": "", "type": "Dynamic", "rule": RULE}
MODEL = {"description": "d", "requiresSecureBoot": True, "versionScheme": "date"}
# A body of each route that would be taken (where what it names exists).
EXAMPLES: dict[str, dict[str, Any]] = {
    "auth/token": {"username": "a", "password": "b", "code": "000000"},
    "auth/refresh": {"refresh": "hsr_x"},
    "auth/logout": {"refresh": "hsr_x"},
    "auth/password": {"currentPassword": "a", "newPassword": "b"},
    "people": {"username": "a", "role": "Viewer", "email": "a@example.com"},
    "people/<uuid:person_id>": {"role": "Viewer", "email": "a@example.com"},
    "auth/device-token": {"deviceId": "d", "apiKey": "hsd_x"},
    "device-models": MODEL | {"name": "m"},
    "device-models/<uuid:model_id>": MODEL,
    "firmware/<uuid:firmware_id>": {"releaseNotes": "n"},
    "firmware/<uuid:firmware_id>/approve": {"comment": "c"},
    "firmware/<uuid:firmware_id>/reject": {"comment": "c"},
    "firmware/<uuid:firmware_id>/deprecate": {"reason": "r"},
    "devices": DEVICE | {"deviceId": "d", "firmwareVersion": "1.0.0"},
    "devices/<str:device_id>": DEVICE,
    "devices/<str:device_id>/health": {
        "cpuUsage": 1.5,
        "memoryUsage": 2,
        "uptime": 3,
        "bootId": "b",
        "firmwareVersion": "1.0.0",
        "firmwareChecksum": "a" * 64,
        "applicationMetrics": {"errorRate": 0.5},
        "secureBoot": "enabled",
    },
    "devices/<str:device_id>/updates/<uuid:update_id>/reports": {
        "sequence": 1,
        "status": "downloading",
        "progressPercentage": 5,
        "bootId": "b",
        "firmwareVersion": "1.0.0",
        "firmwareChecksum": "a" * 64,
        "errorCode": "e",
        "message": "m",
        "occurredAt": "2026-01-01T00:00:00Z",
        "durations": {"download": 1.5},
    },
    "device-groups": GROUP,
    "device-groups/<uuid:group_id>": GROUP,
    "device-groups/preview": {"type": "Dynamic", "rule": RULE},
    "device-groups/<uuid:group_id>/devices": {"deviceIds": ["table-device"]},
    "enrolment-tokens": {
        "name": "n",
        "model": "sensor-v1",
        "region": "EU",
        "tags": {"site": "plant-7"},
        "needsApproval": True,
        "maxUses": 5,
        "expiresAt": "2099-01-01T00:00:00Z",
    },
    "enrolments": {
        "enrolmentToken": "hse_x",
        "deviceId": "d",
        "model": "sensor-v1",
        "region": "EU",
        "tags": {"site": "plant-7"},
        "firmwareVersion": "1.0.0",
        "secret": "s" * 40,
    },
    "enrolments/<uuid:enrolment_id>/approve": {"comment": "c"},
    "enrolments/<uuid:enrolment_id>/reject": {"comment": "c"},
    "deployments": DEPLOYMENT,
    "deployments/preview": DEPLOYMENT,
}
JSON_ROUTES = [
    (address.removeprefix("api/v1/"), method)
    for address, method, *_ in ROWS
    if method != "GET" and address != "api/v1/firmware"
]

texts = st.text(st.characters(exclude_categories=()), max_size=20) | st.sampled_from(
    [
        *("", " ", "\x00", "a" * 3000, "import", "..", "PT1S", "P1Y", "-PT1S", "1.0.0"),
        *("2026-01-01", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"),
        NOBODY,
    ]
)
numbers = (
    st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([0, -1, 2**31, 2**63, 10**400, -(10**400), 1e308, 5e-324, -0.0])
)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4)
    ),
    max_leaves=8,
)


@st.composite
def bodies(draw: st.DrawFn, sample: dict[str, Any]) -> Any:
    """Draw any JSON, or a good body of which some places hold any JSON."""
    if not sample or draw(st.integers(0, 9)) == 0:
        return draw(values)
    body = json.loads(json.dumps(sample))
    for _ in range(draw(st.integers(1, 2))):
        place = body
        if not place:
            break
        name = draw(st.sampled_from(sorted(place)))
        if isinstance(place[name], dict) and place[name] and draw(st.booleans()):
            place, name = place[name], draw(st.sampled_from(sorted(place[name])))
        match draw(st.integers(0, 5)):
            case 0:
                place.pop(name)
            case 1:
                place[draw(texts)] = draw(values)
            case _:
                place[name] = draw(values)
    return body


@pytest.mark.parametrize(
    ("address", "method"), JSON_ROUTES, ids=[f"{m} {a}" for a, m in JSON_ROUTES]
)
def test_no_body_makes_the_server_fail(
    address: str, method: str, admin: PersonCaller, device: Device
) -> None:
    is_operation = address.startswith("deployments/<") and method == "POST"
    sample = {"reason": "r"} if is_operation else EXAMPLES.get(address, {})
    firmware = FirmwareFactory.create(approved=True)
    group = GroupFactory.create()
    path = "/" + (
        address.replace("<str:device_id>", device.device_id)
        .replace("<uuid:firmware_id>", str(firmware.pk))
        .replace("<uuid:group_id>", str(group.pk))
        .replace("<uuid:update_id>", NOBODY)
        .replace("<uuid:deployment_id>", NOBODY)
        .replace("<uuid:token_id>", NOBODY)
        .replace("<uuid:import_id>", NOBODY)
        .replace("<uuid:enrolment_id>", NOBODY)
    )
    is_for_devices = address.endswith(("/health", "/reports"))
    caller = Caller(token=device_token(device)) if is_for_devices else admin

    @settings(
        max_examples=25,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @example(sample | {"firmwareId": str(firmware.pk)} if "strategy" in sample else {})
    @example(sample)
    @given(bodies(sample))
    def answers(body: Any) -> None:
        response = caller.request(method, path, raw=json.dumps(body).encode())

        assert response.status_code < 500, body
        if response.status_code >= 400:
            problem_of(response, response.status_code)

    answers()
