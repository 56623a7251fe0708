"""Electronic signatures in the console: asked for, refused, shown."""

from typing import Any
from uuid import uuid4

import pytest

from deployments.services.requests import Selection
from firmware.models import Firmware, SigningKey
from firmware.services.key_rotation import create_signing_key
from hotswap.common.models import AuditEvent, User
from hotswap.common.signatures import Meaning
from tests.common.factories import PASSWORD, PersonFactory
from tests.console.conftest import ConsoleClient, Scene
from tests.devices.factories import DeviceFactory
from tests.factors import add_app, code_of
from tests.firmware.factories import FirmwareFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def _required(settings: Any) -> None:
    settings.REQUIRE_SIGNATURES = True


@pytest.fixture
def draft() -> Firmware:
    firmware: Firmware = FirmwareFactory.create()
    return firmware


def page_of(firmware: Firmware, part: str) -> str:
    return f"/admin/firmware/firmware/{firmware.pk}/{part}/"


def text_of(answer: Any) -> str:
    return str(answer.content.decode())


@pytest.mark.usefixtures("_required")
def test_an_approval_shows_what_is_signed_and_keeps_it(
    admin_client: ConsoleClient, draft: Firmware
) -> None:
    form = text_of(admin_client.get(page_of(draft, "approve")))
    unsigned = admin_client.post(page_of(draft, "approve"), {"comment": "fine"})
    wrong = admin_client.post(
        page_of(draft, "approve"), {"comment": "fine", "signature": "not it"}
    )
    given = {"comment": "fine", "signature": PASSWORD}
    admin_client.post(page_of(draft, "approve"), given)

    assert Meaning.APPROVAL.statement in form
    assert 'type="password" name="signature"' in form
    assert "This field is required." in text_of(unsigned)
    assert "The password is wrong." in text_of(wrong)
    assert "not it" not in text_of(wrong)
    draft.refresh_from_db()
    assert draft.status == "Approved"
    page = text_of(admin_client.get(page_of(draft, "change")))
    assert Meaning.APPROVAL.statement in page
    assert admin_client.person.username in page
    row = AuditEvent.objects.get(verb="firmware.approved", object_id=str(draft.pk))
    assert row.details["signature"]["recordSha256"] in page
    listed = text_of(admin_client.get("/admin/common/auditevent/"))
    assert Meaning.APPROVAL.statement in listed


def test_without_the_setting_nothing_is_asked(
    admin_client: ConsoleClient, draft: Firmware
) -> None:
    form = text_of(admin_client.get(page_of(draft, "approve")))
    admin_client.post(page_of(draft, "approve"), {"comment": "fine"})

    assert 'name="signature"' not in form
    draft.refresh_from_db()
    assert draft.status == "Approved"


@pytest.mark.usefixtures("_required")
def test_whoever_has_no_password_needs_an_app_to_sign(
    admin_client: ConsoleClient, draft: Firmware
) -> None:
    person = admin_client.person
    person.set_unusable_password()
    person.save()
    admin_client.force_login(person)

    blocked = text_of(admin_client.get(page_of(draft, "approve")))
    secret = add_app(person)
    admin_client.post(
        page_of(draft, "approve"), {"comment": "", "signature": code_of(secret)}
    )

    assert "set up an authenticator app" in blocked
    draft.refresh_from_db()
    assert draft.status == "Approved"


def test_a_rollback_and_an_erasure_are_signed(
    admin_client: ConsoleClient, scene: Scene, settings: Any
) -> None:
    settings.REQUIRE_SIGNATURES = True
    deployment, person = scene.deployment, PersonFactory.create()
    scene.world.update_offered()
    rollback = f"/admin/deployments/deployment/{deployment.pk}/rollback/"
    erase = f"/admin/common/user/{person.pk}/erase/"

    admin_client.post(rollback, {"reason": "bad", "signature": PASSWORD})
    admin_client.post(erase, {"typed": person.username, "signature": PASSWORD})

    deployment.refresh_from_db()
    assert deployment.status == "RollingBack"
    shown = admin_client.get(f"/admin/deployments/deployment/{deployment.pk}/change/")
    assert Meaning.ROLLBACK.statement in text_of(shown)
    assert User.objects.get(pk=person.pk).erased_at is not None


def test_a_stage_and_the_erasure_of_a_device_are_signed(
    admin_client: ConsoleClient, scene: Scene, settings: Any
) -> None:
    world, device = scene.world, DeviceFactory.create()
    old, new = world.image("7.0.0"), world.image("8.0.0")
    fleet = world.fleet(10, old, prefix="signed")
    deployment = world.launch(
        new,
        "Canary",
        selection=Selection(device_ids=tuple(each.name for each in fleet)),
        parameters={"wait_duration": 0.0},
        require_approval_per_stage=True,
    )
    world.update_offered()
    settings.REQUIRE_SIGNATURES = True
    approve = f"/admin/deployments/deployment/{deployment.pk}/approve-stage/"
    erase = f"/admin/devices/device/{device.pk}/erase/"
    erased = {"typed": device.device_id}

    forms = [text_of(admin_client.get(approve)), text_of(admin_client.get(erase))]
    unsigned = [
        text_of(admin_client.post(approve, {"comment": "fine"})),
        text_of(admin_client.post(erase, erased)),
    ]
    admin_client.post(approve, {"comment": "fine", "signature": PASSWORD})
    admin_client.post(erase, {**erased, "signature": PASSWORD})

    assert Meaning.STAGE_APPROVAL.statement in forms[0]
    assert Meaning.DEVICE_ERASURE.statement in forms[1]
    assert all("This field is required." in page for page in unsigned)
    assert deployment.stages.get(number=2).approved_by == admin_client.person
    row = AuditEvent.objects.get(verb="device.erased", object_id=str(device.pk))
    assert row.details["signature"]["meaning"] == Meaning.DEVICE_ERASURE


@pytest.mark.usefixtures("_required")
@pytest.mark.parametrize(
    ("options", "action", "status", "meaning"),
    [
        ({}, "reject", "Rejected", Meaning.REJECTION),
        ({"approved": True}, "deprecate", "Deprecated", Meaning.WITHDRAWAL),
        ({"deprecated": True}, "reinstate", "Approved", Meaning.REINSTATEMENT),
    ],
)
def test_decisions_about_a_firmware_are_signed(
    admin_client: ConsoleClient,
    settings: Any,
    options: dict[str, bool],
    action: str,
    status: str,
    meaning: Meaning,
) -> None:
    settings.REQUIRE_SIGNATURES = False
    firmware = FirmwareFactory.create(**options)
    settings.REQUIRE_SIGNATURES = True

    form = text_of(admin_client.get(page_of(firmware, action)))
    unsigned = admin_client.post(page_of(firmware, action), {"reason": "leaks"})
    signed = {"reason": "leaks", "signature": PASSWORD}
    admin_client.post(page_of(firmware, action), signed)

    assert meaning.statement in form
    assert "This field is required." in text_of(unsigned)
    firmware.refresh_from_db()
    assert firmware.status == status
    page = text_of(admin_client.get(page_of(firmware, "change")))
    assert meaning.statement in page


@pytest.mark.usefixtures("_required")
def test_the_revocation_of_a_key_is_signed(admin_client: ConsoleClient) -> None:
    key = create_signing_key(actor=admin_client.person)
    page = f"/admin/firmware/signingkey/{key.pk}/"
    given = {"key_id": key.key_id, "reason": f"leaked {uuid4()}"}

    admin_client.post(f"{page}revoke/", given)
    assert SigningKey.objects.get(pk=key.pk).status == "Next"
    admin_client.post(f"{page}revoke/", {**given, "signature": PASSWORD})

    assert SigningKey.objects.get(pk=key.pk).status == "Revoked"
    assert Meaning.REVOCATION.statement in text_of(admin_client.get(f"{page}change/"))
