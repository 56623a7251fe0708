"""`Idempotency-Key`: the same request again gets the same answer, and acts once."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from ipaddress import ip_network
from typing import Any

import pytest
import yaml
from django.conf import settings
from django.db import connection
from django.utils import timezone

from deployments.services.receivers import create_webhook
from devices.models import Device, DeviceKey
from firmware.models import DeviceModel, Firmware
from firmware.storage import image_store
from hotswap.common.keyring import unseal
from hotswap.common.models import AuditEvent, RememberedAnswer
from hotswap.retention import enforce_policies
from tests.api import Caller, problem_of
from tests.callers import PersonCaller
from tests.common.factories import PersonFactory
from tests.devices.factories import DeviceFactory, key_of
from tests.firmware.factories import DeviceModelFactory, FirmwareFactory

KEY = {"Idempotency-Key": "7f9c"}
DEVICE = {"deviceId": "d-1", "model": "sensor-v1"}


@pytest.fixture(autouse=True)
def model(db: None) -> DeviceModel:
    return DeviceModelFactory.create(name="sensor-v1")


def test_a_replay_gives_the_same_answer_and_acts_once(operator: PersonCaller) -> None:
    first = operator.post("/devices", DEVICE, headers=KEY)

    again = operator.post("/devices", DEVICE, headers=KEY)

    assert first.status_code == again.status_code == 201
    assert again.json() == first.json() | {"apiKey": None}
    for name in ("ETag", "Location", "Cache-Control", "Content-Type"):
        assert first[name] == again[name]
    assert DeviceKey.objects.count() == 1


def test_the_order_of_keys_in_the_body_does_not_matter_but_their_values_do(
    operator: PersonCaller,
) -> None:
    body = {"deviceId": "d-1", "model": "sensor-v1", "tags": {"a": "1"}}
    operator.post("/devices", body, headers=KEY)

    other = operator.post("/devices", body | {"tags": {"a": "2"}}, headers=KEY)

    problem_of(other, 422, "idempotency_key_reused")


def test_the_answer_is_stored_sealed_and_without_the_api_key(
    operator: PersonCaller,
) -> None:
    answer = operator.post("/devices", DEVICE, headers=KEY).json()

    row = RememberedAnswer.objects.get()

    assert row.body is not None
    assert b"sensor-v1" not in bytes(row.body)
    kept = [row.headers, row.request_digest, row.route]
    opened = json.loads(unseal(bytes(row.body), purpose="remembered-answer"))
    assert answer["apiKey"] not in json.dumps([*kept, opened])
    assert opened == answer | {"apiKey": None}


SECRETS = [
    ("/devices", DEVICE, "apiKey"),
    ("/devices/table-device/api-key", {}, "apiKey"),
    ("/enrolment-tokens", {"name": "line"}, "enrolmentToken"),
    ("/people", {"username": "new", "role": "Viewer"}, "password"),
    ("/webhooks", {"url": "https://127.0.0.1/hook"}, "secret"),
    ("/webhooks/<webhook>/rotate-secret", {}, "secret"),
]


@pytest.mark.parametrize(("path", "body", "secret"), SECRETS)
def test_a_replay_does_not_show_a_secret_again(
    admin: PersonCaller,
    device: Device,
    settings: Any,
    path: str,
    body: dict[str, Any],
    secret: str,
) -> None:
    settings.WEBHOOK_ALLOWED_NETWORKS = [ip_network("127.0.0.0/8")]
    webhook, _ = create_webhook(actor=admin.person, url="https://127.0.0.1/other")
    path = path.replace("<webhook>", str(webhook.pk))

    first = admin.post(path, body, headers=KEY)
    again = admin.post(path, body, headers=KEY)

    assert first.status_code == again.status_code < 300
    assert first.json()[secret]
    assert again.json() == first.json() | {secret: None}


def test_every_secret_of_an_answer_is_among_those_that_no_replay_shows() -> None:
    document = yaml.safe_load((settings.BASE_DIR / "docs/openapi.yaml").read_text())
    schemas = document["components"]["schemas"]
    shown = {
        (name, field)
        for name, schema in schemas.items()
        for field, described in schema.get("properties", {}).items()
        if "shown once" in described.get("description", "")
    }

    assert {field for _, field in shown} == {secret for *_, secret in SECRETS}
    for name, field in shown:
        assert "null" in schemas[name]["properties"][field]["type"]


def test_a_failure_is_not_remembered(operator: PersonCaller) -> None:
    unknown = DEVICE | {"model": "sensor-v2"}
    problem_of(operator.post("/devices", unknown, headers=KEY), 422, "unknown_model")
    DeviceModelFactory.create(name="sensor-v2")

    response = operator.post("/devices", unknown, headers=KEY)

    assert response.status_code == 201


def test_a_key_belongs_to_one_person(operator: PersonCaller, admin: Caller) -> None:
    operator.post("/devices", DEVICE, headers=KEY)

    response = admin.post("/devices", DEVICE, headers=KEY)

    problem_of(response, 409, "device_exists")


def test_a_key_belongs_to_one_address(operator: PersonCaller) -> None:
    operator.post("/devices", DEVICE, headers=KEY)

    response = operator.post("/devices/d-1/disable", headers=KEY)

    assert response.json()["enabled"] is False


def test_a_rotation_is_replayed_without_its_key(
    device: Device, device_caller: Caller
) -> None:
    path = f"/devices/{device.device_id}/api-key"

    proof = {"apiKey": key_of(device)}

    answers = [device_caller.post(path, proof, headers=KEY) for _ in range(2)]

    assert answers[1].json() == answers[0].json() | {"apiKey": None}
    assert DeviceKey.objects.filter(device=device).count() == 2


@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb", "a\x7fb"])
def test_a_key_that_is_none_is_refused(operator: PersonCaller, key: str) -> None:
    response = operator.post("/devices", DEVICE, headers={"Idempotency-Key": key})

    problem_of(response, 400)
    assert not Device.objects.exists()


def test_a_remembered_answer_is_forgotten_after_a_day(operator: PersonCaller) -> None:
    operator.post("/devices", DEVICE, headers=KEY)

    enforce_policies(now=timezone.now() + timedelta(hours=23), names=["answers"])
    kept = RememberedAnswer.objects.count()
    enforce_policies(now=timezone.now() + timedelta(hours=25), names=["answers"])

    assert kept == 1
    assert RememberedAnswer.objects.count() == 0


def test_damage_found_by_a_refused_approval_stays_noted(admin: PersonCaller) -> None:
    firmware = FirmwareFactory.create()
    with open(image_store().path(firmware.storage_name), "r+b") as file:
        file.seek(200)
        file.write(b"damage")

    response = admin.post(f"/firmware/{firmware.pk}/approve", {}, headers=KEY)

    problem_of(response, 409, "image_changed")
    assert Firmware.objects.get().damaged_at is not None
    assert AuditEvent.objects.filter(verb="firmware.damaged").count() == 1
    assert not RememberedAnswer.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_of_two_at_once_one_acts_and_both_get_its_answer() -> None:
    DeviceModelFactory.create(name="sensor-v1")
    caller = PersonCaller(PersonFactory.create(operator=True))
    barrier = threading.Barrier(4)

    def register(_: int) -> Any:
        try:
            barrier.wait()
            own = Caller(token=caller.token)
            return own.post("/devices", DEVICE, headers=KEY)
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(register, range(4)))

    assert {answer.status_code for answer in answers} == {201}
    bodies = [answer.json() for answer in answers]
    assert len({body.pop("apiKey") for body in bodies} - {None}) == 1
    assert all(body == bodies[0] for body in bodies)
    assert Device.objects.count() == 1
    assert DeviceKey.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_of_two_registrations_of_one_name_at_once_one_wins() -> None:
    DeviceModelFactory.create(name="sensor-v1")
    caller = PersonCaller(PersonFactory.create(operator=True))
    barrier = threading.Barrier(4)

    def register(_: int) -> int:
        try:
            barrier.wait()
            return Caller(token=caller.token).post("/devices", DEVICE).status_code
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        statuses = sorted(pool.map(register, range(4)))

    assert statuses == [201, 409, 409, 409]
    assert Device.objects.count() == 1


def test_a_stale_if_match_is_412_and_a_fresh_one_is_taken(
    operator: PersonCaller, device: Device
) -> None:
    path = f"/devices/{device.device_id}"
    stale = operator.get(path)["ETag"]
    fresh = operator.patch(path, {"region": "EU"}, headers={"If-Match": stale})["ETag"]

    late = operator.patch(path, {"region": "APAC"}, headers={"If-Match": stale})

    problem_of(late, 412, "stale")
    listed = {"If-Match": f'"other", {fresh}'}
    assert operator.patch(path, {"region": "APAC"}, headers=listed).status_code == 200
    anything = operator.put(path, {"model": "sensor-v1"}, headers={"If-Match": "*"})
    assert anything.status_code == 200


def test_a_weak_etag_never_matches(operator: PersonCaller, device: Device) -> None:
    path = f"/devices/{device.device_id}"
    etag = operator.get(path)["ETag"]

    response = operator.patch(path, {}, headers={"If-Match": f"W/{etag}"})

    problem_of(response, 412, "stale")


def test_a_change_of_nothing_keeps_the_etag(
    operator: PersonCaller, device: Device
) -> None:
    path = f"/devices/{device.device_id}"
    before = operator.get(path)["ETag"]

    response = operator.patch(path, {"region": device.region})

    assert response["ETag"] == before
    assert AuditEvent.objects.filter(verb="device.changed").count() == 0


def test_the_etag_of_the_answer_is_that_of_the_next_read(
    operator: PersonCaller, admin: PersonCaller
) -> None:
    device = DeviceFactory.create()
    path = f"/devices/{device.device_id}"
    group = operator.post("/device-groups", {"name": "g"})
    firmware = FirmwareFactory.create()
    approved = admin.post(f"/firmware/{firmware.pk}/approve", {})

    changed = operator.patch(path, {"region": "EU"})

    assert changed["ETag"] == operator.get(path)["ETag"]
    assert approved["ETag"] == admin.get(f"/firmware/{firmware.pk}")["ETag"]
    group_path = f"/device-groups/{group.json()['id']}"
    assert group["ETag"] == operator.get(group_path)["ETag"]


@pytest.mark.parametrize("verb", ["approve", "reject", "deprecate"])
def test_a_stale_if_match_stops_the_verbs_of_firmware_too(
    admin: PersonCaller, verb: str
) -> None:
    firmware = FirmwareFactory.create(approved=verb == "deprecate")
    body = {"reason": "r"} if verb == "deprecate" else {"comment": "c"}

    response = admin.post(
        f"/firmware/{firmware.pk}/{verb}", body, headers={"If-Match": '"stale"'}
    )

    problem_of(response, 412, "stale")
    status = firmware.status
    firmware.refresh_from_db()
    assert firmware.status == status
