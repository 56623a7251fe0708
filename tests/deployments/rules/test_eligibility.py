"""A launch and an offer leave the same devices out, for the same reason."""

from typing import Any

import pytest
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deployments.models import Quarantine
from deployments.rules.codes import NEUTRAL_CODES, message_of
from deployments.rules.eligibility import RULES, Candidate, refusal
from deployments.services.requests import Selection
from deployments.services.targeting import judged_devices
from devices.models import Device
from firmware.models import DeviceModel, Firmware
from firmware.services.device_models import create_device_model
from health.models import DeviceState
from tests.deployments.world import World, events

CASES: dict[str, Any] = {
    "revoked": st.booleans(),
    "enabled": st.sampled_from([True, True, False]),
    "other_model": st.sampled_from([False, False, True]),
    "installed": st.sampled_from([False, False, True]),
    "security_version": st.integers(0, 2),
    "required_version": st.integers(0, 2),
    "requires_secure_boot": st.booleans(),
    "secure_boot": st.sampled_from(["enabled", "disabled", "unknown"]),
    "was_heard": st.sampled_from([True, True, False]),
    "quarantined": st.sampled_from([False, False, True]),
    "offline": st.sampled_from(["wait", "exclude", "reject"]),
    "busy": st.sampled_from(["wait", "exclude"]),
}


@pytest.fixture
def images(world: World) -> list[Firmware]:
    """Give what the device runs, and images with the security versions 0, 1 and 2."""
    old = world.image("1.0.0")
    world.fleet(1, old)
    create_device_model(actor=None, name="another")
    return [
        old,
        *(
            world.image(f"1.1.{version}", security_version=version)
            for version in (0, 1, 2)
        ),
    ]


@settings(
    max_examples=120,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(drawn=st.fixed_dictionaries(CASES))
def test_sql_and_python_name_the_same_reason(
    world: World, images: list[Firmware], drawn: dict[str, Any]
) -> None:
    old, *others = images
    new = others[drawn["required_version"]]
    model = "another" if drawn["other_model"] else new.model.name
    DeviceModel.objects.update(requires_secure_boot=drawn["requires_secure_boot"])
    Device.objects.update(
        revoked_at=timezone.now() if drawn["revoked"] else None,
        enabled=drawn["enabled"],
        model=DeviceModel.objects.get(name=model),
        firmware_checksum=(new if drawn["installed"] else old).sha256,
        security_version=drawn["security_version"],
    )
    device = Device.objects.get()
    DeviceState.objects.all().delete()
    if drawn["was_heard"]:
        DeviceState.objects.create(
            device=device,
            last_seen_at=world.now,
            online_until=world.now.replace(year=world.now.year + 1),
            secure_boot=drawn["secure_boot"],
        )
    Quarantine.objects.all().delete()
    if drawn["quarantined"]:
        Quarantine.objects.create(
            device=device,
            firmware=new,
            last_code="cpu",
            updated_at=world.now,
            quarantined_at=world.now,
        )
    firmware = Firmware.objects.select_related("model").get(pk=new.pk)

    (judged,) = judged_devices(
        Selection(everyone=True),
        firmware,
        offline=drawn["offline"],
        busy=drawn["busy"],
        now=world.now,
    )
    refused = refusal(
        Candidate(
            device,
            DeviceState.objects.filter(device=device).first(),
            firmware,
            is_first_order=True,
            is_quarantined=lambda: drawn["quarantined"],
        )
    )

    if not refused and not drawn["was_heard"] and drawn["offline"] != "wait":
        # Whoever polls is heard.
        assert judged.exclusion == "offline"
    else:
        assert judged.exclusion == refused


def test_every_rule_has_a_code_with_a_message_and_is_no_evidence() -> None:
    for rule in RULES:
        assert message_of(rule.code)
        assert rule.code in NEUTRAL_CODES or rule.code in ("revoked", "offline", "busy")


def test_a_device_that_runs_the_image_by_now_is_left_out_at_once(world: World) -> None:
    """Not told first to come back in its maintenance window, or in its turn."""
    old, new = world.image("1.0.0"), world.image("1.1.0")
    (device,) = world.fleet(1, old)
    window = {"days": ["SU"], "start": "01:00", "end": "02:00", "timezone": "device"}
    deployment = world.launch(new, maintenance_window=window)
    device.reboot_into(new)
    device.beat()

    assert device.poll() is None

    target = device.target(deployment)
    assert (target.status, target.error_code) == ("skipped", "already_installed")
    assert events(deployment)[-1] == "device.skipped"
