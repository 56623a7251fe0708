"""What the console shows of keys, and the alarms of retired ones."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from devices.models import Device, DeviceCertificate, DeviceKey
from hotswap.common.models import AuditEvent
from tests.console.conftest import ConsoleClient, Scene
from tests.devices.pki import Authority
from tests.devices.retired import use_retired_key
from tests.words import says

LIST = "/admin/devices/device/"


def page(device: Device, verb: str = "change") -> str:
    return f"{LIST}{device.pk}/{verb}/"


def overview(client: ConsoleClient) -> str:
    return client.get("/admin/").content.decode()


@pytest.mark.parametrize(
    ("remaining", "words"),
    [
        (timedelta(days=5, hours=1), "expires in 5 d"),
        (timedelta(days=-3, hours=-1), "expired 3 d ago"),
    ],
)
def test_a_key_that_ends_soon_is_seen_everywhere(
    viewer_client: ConsoleClient, scene: Scene, remaining: timedelta, words: str
) -> None:
    keys = DeviceKey.objects.filter(device=scene.device)
    keys.update(expires_at=timezone.now() + remaining)

    listed = viewer_client.get(f"{LIST}?key=expiring").content.decode()

    assert words in listed
    assert "d-000" in listed
    assert not says(listed, "d-001")
    assert words in viewer_client.get(page(scene.device)).content.decode()
    assert "1 device key has expired or will soon" in overview(viewer_client)


def test_a_last_certificate_that_ends_soon_is_on_the_overview(
    viewer_client: ConsoleClient, scene: Scene
) -> None:
    for name, days in (("first", 2), ("last", 5)):
        DeviceCertificate.objects.create(
            device=scene.device,
            fingerprint=name,
            subject="CN=d-000",
            not_before=timezone.now() - timedelta(days=30),
            not_after=timezone.now() + timedelta(days=days),
        )

    listed = viewer_client.get(f"{LIST}?certificate=expiring").content.decode()
    shown = overview(viewer_client)

    assert "1 device certificate has expired or will soon" in shown
    assert "certificate=expiring" in shown
    assert "d-000" in listed
    assert not says(listed, "d-001")


def test_a_retired_key_in_use_is_red_until_it_is_acknowledged(
    operator_client: ConsoleClient, scene: Scene
) -> None:
    use_retired_key(scene.device, address="203.0.113.9")

    shown = operator_client.get(page(scene.device)).content.decode()
    listed = operator_client.get(f"{LIST}?key=alarm").content.decode()
    before = overview(operator_client)
    operator_client.post(page(scene.device, "acknowledge"), {"comment": "a spare"})

    assert "hs-banner hs-red" in shown
    assert "203.0.113.9" in shown
    assert "d-000" in listed
    assert "A retired key of 1 device was used" in before
    after = operator_client.get(page(scene.device)).content.decode()
    assert "A retired key was used" not in after
    assert "A retired key of" not in overview(operator_client)
    event = AuditEvent.objects.get(verb="device.alarm-acknowledged")
    assert event.details["comment"] == "a spare"


def test_the_keys_of_a_device_are_listed_with_their_ends(
    viewer_client: ConsoleClient, scene: Scene
) -> None:
    use_retired_key(scene.device)

    shown = viewer_client.get(page(scene.device)).context["keys"]

    assert [
        word
        for _, look in shown
        for word in ("current", "overlaps", "retired")
        if word in look
    ] == ["current", "retired"]


def test_a_certificate_is_added_shown_and_removed(
    operator_client: ConsoleClient, scene: Scene, settings: Any
) -> None:
    settings.DEVICE_CERTIFICATES = "optional"
    credential = Authority().issue("d-000")
    given = {"certificate": credential.pem}

    operator_client.post(page(scene.device, "add-certificate"), given)
    shown = operator_client.get(page(scene.device)).content.decode()
    again = operator_client.post(page(scene.device, "add-certificate"), given)
    operator_client.post(
        page(scene.device, "remove-certificate"),
        {"fingerprint": credential.fingerprint},
    )

    assert credential.fingerprint in shown
    assert "CN=d-000" in shown
    assert "is registered already" in again.content.decode()
    assert not scene.device.certificates.exists()
