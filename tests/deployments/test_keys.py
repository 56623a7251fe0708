"""Orders while the signing key is rotated and revoked, judged as the agent does."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from deployments.exceptions import FirmwareNotDeployableError
from deployments.models import Update
from devices.agent.protocol import parse_order
from devices.agent.verify import (
    Floor,
    TrustedKeys,
    VerificationError,
    check_image,
    check_manifest,
)
from firmware.choices import KeyStatus
from firmware.models import Firmware, SigningKey
from firmware.services import key_rotation
from tests.api import Caller, problem_of
from tests.deployments.world import ScriptedDevice, World
from tests.devices.factories import device_token

CONTENT = b"image of sensor-v1 2.5.0"


@dataclass
class Setting:
    """A device with an update before it."""

    world: World
    device: ScriptedDevice
    firmware: Firmware
    old: SigningKey

    def poll(self, *pins: SigningKey, header: str | None = None) -> Any:
        caller = Caller(token=device_token(self.device.device))
        value = header or ",".join(key.key_id for key in pins)
        return caller.get(
            f"/devices/{self.device.name}/update",
            headers={"Trusted-Keys": value} if value else {},
        )

    def launch(self) -> None:
        self.world.launch(self.firmware)


@pytest.fixture
def setting(world: World) -> Setting:
    former = world.image("2.4.0")
    firmware = world.image("2.5.0", content=CONTENT)
    (device,) = world.fleet(1, former)
    old = SigningKey.objects.get(status=KeyStatus.ACTIVE)
    return Setting(world, device, firmware, old)


def pinned(*keys: SigningKey) -> TrustedKeys:
    found = {}
    for key in keys:
        public = serialization.load_pem_public_key(key.public_key.encode())
        assert isinstance(public, rsa.RSAPublicKey)
        found[key.key_id] = public
    return TrustedKeys(found)


def verdict(instruction: dict[str, Any], *pins: SigningKey) -> str:
    """Judge manifest and image as an agent with these pins does."""
    order = parse_order(instruction)
    try:
        check_manifest(
            order,
            keys=pinned(*pins),
            model="sensor-v1",
            floor=Floor(),
            max_image_bytes=1000,
        )
        check_image([CONTENT], order, pinned(*pins))
    except VerificationError as error:
        return error.code.value
    return "accepted"


def test_after_a_rotation_every_agent_of_the_overlap_accepts_its_order(
    setting: Setting,
) -> None:
    old, new = setting.old, key_rotation.rotate_signing_key(actor=None)
    setting.launch()

    verdicts = {
        name: verdict(setting.poll(*pins).json(), *pins)
        for name, pins in {
            "old": (old,),
            "new": (new,),
            "both": (old, new),
            "old again": (old,),
        }.items()
    }

    assert set(verdicts.values()) == {"accepted"}, verdicts
    assert Update.objects.count() == 1


def test_an_agent_that_does_not_say_what_it_pins_is_served_by_the_active_key(
    setting: Setting,
) -> None:
    old, new = setting.old, key_rotation.rotate_signing_key(actor=None)
    setting.launch()

    order = setting.poll().json()

    assert order["firmware"]["keyId"] == new.key_id
    assert verdict(order, old, new) == "accepted"
    assert verdict(order, new) == "accepted"
    assert verdict(order, old) == "unknown_key"


def test_after_the_overlap_an_agent_of_the_old_key_says_that_it_knows_no_key(
    setting: Setting,
) -> None:
    old = setting.old
    new = key_rotation.rotate_signing_key(actor=None, overlap=timedelta(0))
    setting.launch()

    order = setting.poll(old).json()

    assert verdict(order, old) == "unknown_key"
    assert verdict(order, new) == "accepted"


def test_manifests_go_on_rising_from_key_to_key(setting: Setting) -> None:
    old = setting.old
    setting.launch()
    setting.poll(old)
    first = Update.objects.get().manifest_id
    new = key_rotation.rotate_signing_key(actor=None)

    setting.poll(new)
    second = Update.objects.get().manifest_id
    setting.poll(new, old)

    assert first < second
    assert Update.objects.get().manifest_id == second


def test_an_open_order_of_a_revoked_key_comes_again_under_the_active_one(
    setting: Setting,
) -> None:
    old = setting.old
    setting.launch()
    before = setting.poll().json()
    new = key_rotation.rotate_signing_key(actor=None)
    key_rotation.sign_missing()
    key_rotation.revoke_signing_key(actor=None, key_id=old.key_id, reason="leaked")

    after = setting.poll(old).json()

    assert before["firmware"]["keyId"] == old.key_id
    assert after["updateId"] == before["updateId"]
    assert after["firmware"]["keyId"] == new.key_id
    assert verdict(after, new) == "accepted"
    assert verdict(after, old) == "unknown_key"


def test_an_image_held_back_is_offered_only_after_it_was_signed_again(
    setting: Setting,
) -> None:
    setting.launch()
    order = setting.poll().json()
    key_rotation.create_signing_key(actor=None)
    done = key_rotation.revoke_signing_key(
        actor=None, key_id=setting.old.key_id, reason="leaked"
    )
    device = Caller(token=device_token(setting.device.device))
    download = f"/firmware/{order['firmware']['id']}/download"

    held = setting.poll()
    refused = device.get(download)
    key_rotation.sign_held_back(actor=None)
    free = setting.poll()

    assert held.status_code == 204
    problem_of(refused, 403, "no_active_update")
    assert verdict(free.json(), done.active) == "accepted"
    assert device.get(download).status_code == 200


def test_an_image_held_back_waits_and_says_why(setting: Setting, viewer: Any) -> None:
    deployment = setting.world.launch(setting.firmware)
    key_rotation.create_signing_key(actor=None)
    key_rotation.revoke_signing_key(
        actor=None, key_id=setting.old.key_id, reason="leaked"
    )

    polled = setting.poll()
    shown = viewer.get(f"/deployments/{deployment.pk}/devices/{setting.device.name}")

    assert polled.status_code == 204
    assert shown.json()["status"] == "pending"
    assert "signed again" in shown.json()["waitingFor"]


def test_an_image_held_back_is_not_launched(setting: Setting) -> None:
    key_rotation.create_signing_key(actor=None)
    key_rotation.revoke_signing_key(
        actor=None, key_id=setting.old.key_id, reason="leaked"
    )

    with pytest.raises(FirmwareNotDeployableError) as refused:
        setting.launch()

    assert refused.value.code == "signature_revoked"


@pytest.mark.parametrize("header", ["x", "a,,b", "A" * 16, ",".join(["0" * 16] * 65)])
def test_a_wrong_list_of_keys_is_refused(setting: Setting, header: str) -> None:
    found = problem_of(setting.poll(header=header), 400, "invalid")

    assert found["errors"][0]["pointer"] == "/headers/Trusted-Keys"


def heartbeat_body(setting: Setting) -> dict[str, Any]:
    device = setting.device
    return {
        "cpuUsage": 5.0,
        "memoryUsage": 20.0,
        "uptime": 100,
        "bootId": device.boot_id,
        "firmwareVersion": device.runs.version,
        "firmwareChecksum": device.runs.sha256,
        "applicationMetrics": {},
    }


@pytest.mark.parametrize("fast", [True, False], ids=["fast path", "full path"])
def test_heartbeats_announce_an_open_order_only_if_a_poll_repeats_it(
    setting: Setting, fast: bool
) -> None:
    setting.launch()
    setting.poll()
    device = Caller(token=device_token(setting.device.device))
    body = heartbeat_body(setting) | ({} if fast else {"odd": True})
    address = f"/devices/{setting.device.name}/health"
    repeated = device.post(address, body).json()["updateAvailable"]
    key_rotation.create_signing_key(actor=None)
    key_rotation.revoke_signing_key(
        actor=None, key_id=setting.old.key_id, reason="leaked"
    )

    announced = device.post(address, body).json()["updateAvailable"]
    held = setting.poll()
    key_rotation.sign_held_back(actor=None)
    freed = device.post(address, body).json()["updateAvailable"]

    assert repeated is True
    assert (announced, held.status_code) == (False, 204)
    assert (freed, setting.poll().status_code) == (True, 200)
