"""Devices are ordered by the image they run, else by what they say."""

import threading
from collections.abc import Callable
from datetime import datetime
from hashlib import sha256
from typing import Any

import pytest
from django.db import connections, transaction

from devices.models import Device
from devices.services import registry
from devices.services.version_keys import refresh_version_keys
from firmware.models import DeviceModel
from firmware.services.device_models import change_device_model
from firmware.versions import VersionScheme, version_key
from tests.api import pointers, problem_of
from tests.callers import PersonCaller
from tests.common.factories import PersonFactory
from tests.devices.factories import DeviceFactory
from tests.firmware.factories import DeviceModelFactory, FirmwareFactory
from tests.waiting import is_waited_for, wait_until

SEMVER, NUMERIC = VersionScheme.SEMVER, VersionScheme.NUMERIC
OPAQUE = VersionScheme.OPAQUE
UNKNOWN = "f" * 64


def key_of(device: Device) -> str:
    return Device.objects.values_list("version_key", flat=True).get(pk=device.pk)


def runs(device: Device, version: str, checksum: str, now: datetime) -> None:
    registry.record_running_firmware(
        device=Device.objects.get(pk=device.pk),
        version=version,
        checksum=checksum,
        now=now,
    )


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("scheme", "said", "key"),
    [
        (SEMVER, "2.5.0", version_key("2.5.0", SEMVER)),
        (SEMVER, "1.7.1.10", ""),
        (SEMVER, "", ""),
        (NUMERIC, "1.7.1.10", version_key("1.7.1.10", NUMERIC)),
        (NUMERIC, "v2.3-14-gabcdef", ""),
        (VersionScheme.DATE, "2026-01-05", "d20260105010"),
        (OPAQUE, "2.5.0", ""),
    ],
)
def test_what_a_device_says_is_read_by_the_scheme_of_its_model(
    scheme: VersionScheme, said: str, key: str
) -> None:
    DeviceModelFactory.create(name="m", version_scheme=scheme)
    registered = DeviceFactory.create(model_name="m", firmware_version=said)
    reported = DeviceFactory.create(model_name="m")

    if said:
        runs(reported, said, UNKNOWN, reported.created_at)

    assert key_of(registered) == key_of(reported) == key


@pytest.mark.django_db
@pytest.mark.parametrize("said", ["2.5.0", "1.0.0", "nightly", ""])
def test_a_known_image_orders_its_device_whatever_that_calls_it(said: str) -> None:
    image = FirmwareFactory.create(version="2.5.0")
    FirmwareFactory.create(version="1.0.0")
    device = DeviceFactory.create()

    runs(device, said, image.sha256, device.created_at)

    assert key_of(device) == image.precedence


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("said", "ordered"), [("1.0.0", "1.0.0"), ("1.1.0", "1.1.0"), ("nightly", "1.1.0")]
)
def test_of_versions_with_the_same_bytes_it_is_the_one_that_is_named_or_the_newest(
    said: str, ordered: str
) -> None:
    image = FirmwareFactory.create(version="1.0.0", content=b"same")
    FirmwareFactory.create(version="1.1.0", content=b"same")
    device = DeviceFactory.create()

    runs(device, said, image.sha256, device.created_at)

    assert key_of(device) == version_key(ordered, SEMVER)


@pytest.mark.django_db
def test_an_image_of_another_model_orders_nothing() -> None:
    image = FirmwareFactory.create(model_name="other", version="2.5.0")
    device = DeviceFactory.create(model_name="sensor-v1")

    runs(device, "nightly", image.sha256, device.created_at)

    assert key_of(device) == ""


@pytest.mark.django_db
def test_an_upload_orders_the_devices_that_run_it_already() -> None:
    DeviceModelFactory.create(name="lock", version_scheme=OPAQUE)
    first = FirmwareFactory.create(model_name="lock", version="first")
    known, unknown, other = (DeviceFactory.create(model_name="lock") for _ in range(3))
    runs(known, "first", first.sha256, known.created_at)
    runs(other, "first", UNKNOWN, other.created_at)
    runs(unknown, "whatever", sha256(b"second").hexdigest(), unknown.created_at)
    before = key_of(unknown)

    second = FirmwareFactory.create(
        model_name="lock", version="second", content=b"second"
    )

    assert before == ""
    assert key_of(unknown) == second.precedence > first.precedence
    assert key_of(known) == first.precedence
    assert key_of(other) == ""


@pytest.mark.django_db
def test_a_new_scheme_reads_anew_what_the_devices_say() -> None:
    model = DeviceModelFactory.create(name="m")
    device = DeviceFactory.create(model_name="m", firmware_version="1.7.1.10")

    change_device_model(
        actor=PersonFactory.create(admin=True),
        model_id=model.pk,
        changes={"version_scheme": NUMERIC},
    )

    assert key_of(device) == version_key("1.7.1.10", NUMERIC)


@pytest.mark.django_db
def test_a_device_of_another_model_is_read_by_the_scheme_of_that() -> None:
    DeviceModelFactory.create(name="pump", version_scheme=NUMERIC)
    device = DeviceFactory.create(firmware_version="1.7.1.10")

    registry.change_device(
        actor=PersonFactory.create(operator=True),
        device_id=device.device_id,
        changes={"model_name": "pump"},
    )

    assert key_of(device) == version_key("1.7.1.10", NUMERIC)


@pytest.mark.django_db
def test_groups_compare_by_the_scheme_of_each_model(operator: PersonCaller) -> None:
    DeviceModelFactory.create(name="pump", version_scheme=NUMERIC)
    DeviceModelFactory.create(name="clock", version_scheme=VersionScheme.DATE)
    for model, said in (
        ("sensor-v1", "1.9.0"),
        ("sensor-v1", "1.10.0"),
        ("sensor-v1", "v1.2"),
        ("pump", "v1.9.9.9"),
        ("pump", "1.10.0.1"),
        ("clock", "2026.01.05"),
    ):
        DeviceFactory.create(
            device_id=f"{model}-{said}", model_name=model, firmware_version=said
        )

    preview = operator.post(
        "/device-groups/preview", {"rule": {"firmwareVersion": {"below": "1.10.0"}}}
    ).json()

    assert [row["deviceId"] for row in preview["sample"]] == [
        "pump-v1.9.9.9",
        "sensor-v1-1.9.0",
    ]


@pytest.mark.django_db
def test_groups_of_opaque_models_compare_with_what_was_uploaded(
    operator: PersonCaller,
) -> None:
    DeviceModelFactory.create(name="lock", version_scheme=OPAQUE)
    images = [
        FirmwareFactory.create(model_name="lock", version=version)
        for version in ("zeta", "alpha")
    ]
    for image in images:
        device = DeviceFactory.create(
            device_id=f"runs-{image.version}", model_name="lock"
        )
        runs(device, "a label", image.sha256, device.created_at)
    rule: dict[str, Any] = {"model": ["lock"], "firmwareVersion": {"below": "alpha"}}

    below = operator.post("/device-groups/preview", {"rule": rule}).json()
    unheard = operator.post(
        "/device-groups/preview",
        {"rule": rule | {"firmwareVersion": {"below": "beta"}}},
    )

    assert [row["deviceId"] for row in below["sample"]] == ["runs-zeta"]
    problem = problem_of(unheard, 400)
    assert pointers(problem) == {"/rule/firmwareVersion/below": "invalid"}
    assert "must be a version that was uploaded" in str(problem["errors"])


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("condition", "pointer"),
    [
        ({"below": "2.0"}, "below"),
        ({"atLeast": "2026.13.01"}, "atLeast"),
        ({"atLeast": "2026-01-05", "below": "20260105"}, "below"),
    ],
)
def test_a_bound_that_is_no_version_of_its_models_is_refused(
    operator: PersonCaller, condition: dict[str, str], pointer: str
) -> None:
    DeviceModelFactory.create(name="pump", version_scheme=NUMERIC)
    DeviceModelFactory.create(name="clock", version_scheme=VersionScheme.DATE)
    rule = {"model": ["clock"], "firmwareVersion": condition}

    problem = problem_of(operator.post("/device-groups/preview", {"rule": rule}), 400)

    assert pointers(problem) == {f"/rule/firmwareVersion/{pointer}": "invalid"}


# --- No device misses what happens beside it ------------------------------------------


def in_thread(work: Callable[[], None]) -> threading.Thread:
    def run() -> None:
        try:
            work()
        finally:
            connections.close_all()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


@pytest.mark.django_db(transaction=True)
def test_a_changed_order_waits_for_devices_that_change_what_they_run() -> None:
    model = DeviceModelFactory.create(name="sensor-v1")
    device = DeviceFactory.create()
    refreshed = threading.Event()

    def refresh() -> None:
        with transaction.atomic():
            refresh_version_keys(model_id=model.pk)
            refreshed.set()

    with transaction.atomic():
        runs(device, "1.0.0", UNKNOWN, device.created_at)
        thread = in_thread(refresh)
        wait_until(is_waited_for)
        assert not refreshed.is_set()
    thread.join(10)

    assert refreshed.is_set()
    assert key_of(device) == version_key("1.0.0", SEMVER)


@pytest.mark.django_db(transaction=True)
def test_a_device_that_changes_waits_for_a_changing_order() -> None:
    model = DeviceModelFactory.create(name="sensor-v1")
    device = DeviceFactory.create()
    now = device.created_at

    with transaction.atomic():
        DeviceModel.objects.filter(pk=model.pk).update(version_scheme=NUMERIC)
        refresh_version_keys(model_id=model.pk)
        thread = in_thread(lambda: runs(device, "1.7.1.10", UNKNOWN, now))
        wait_until(is_waited_for)
    thread.join(10)

    assert key_of(device) == version_key("1.7.1.10", NUMERIC)
