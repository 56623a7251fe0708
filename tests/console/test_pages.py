"""What people do on the pages of firmware, devices, groups and people."""

import hashlib
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from django.conf import settings as settings_module
from django.contrib import admin
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.test import Client
from django.urls import reverse
from django.utils.html import escape

from deployments.services.operate import rollback_deployment
from devices.models import Device, DeviceGroup
from devices.services import registry
from firmware.choices import FirmwareStatus
from firmware.models import DeviceModel, Firmware
from firmware.versions import VersionScheme
from health.models import DeviceState
from hotswap.common import people
from hotswap.common.console.pages.base import ConsoleAdmin
from hotswap.common.errors import ForbiddenError
from hotswap.common.models import AuditEvent, User
from hotswap.common.roles import Role
from tests.common.factories import PASSWORD, PersonFactory
from tests.console.conftest import ConsoleClient, Scene
from tests.firmware.factories import DeviceModelFactory, FirmwareFactory

HTMX = {"HX-Request": "true"}
UPLOAD = "/admin/firmware/firmware/upload/"


def action_url(firmware: Firmware, verb: str) -> str:
    return f"/admin/firmware/firmware/{firmware.pk}/{verb}/"


# --- Firmware ---------------------------------


def test_approve_dialog_approves_on_post(admin_client: ConsoleClient) -> None:
    firmware = FirmwareFactory.create()

    piece = admin_client.get(action_url(firmware, "approve"), headers=HTMX)
    answer = admin_client.post(
        action_url(firmware, "approve"), {"comment": "seen in the lab"}, headers=HTMX
    )

    assert b"<html" not in piece.content
    assert b"0 devices are of the model sensor-v1" in piece.content
    assert answer.status_code == 204
    assert answer["HX-Redirect"].endswith(f"/{firmware.pk}/change/")
    firmware.refresh_from_db()
    assert firmware.status == FirmwareStatus.APPROVED
    assert firmware.approved_by == admin_client.person
    assert firmware.status_comment == "seen in the lab"


def test_own_upload_is_refused_under_four_eyes(
    admin_client: ConsoleClient, settings: Any
) -> None:
    settings.FOUR_EYES = True
    firmware = FirmwareFactory.create(actor=admin_client.person)

    page = admin_client.get(f"/admin/firmware/firmware/{firmware.pk}/change/")
    answer = admin_client.post(action_url(firmware, "approve"), {"comment": ""})

    assert b"you uploaded it" in page.content
    assert answer.status_code == 200
    assert b'role="alert"' in answer.content
    firmware.refresh_from_db()
    assert firmware.status == FirmwareStatus.DRAFT


@pytest.mark.parametrize(
    ("verb", "trait", "status"),
    [
        ("reject", {}, FirmwareStatus.REJECTED),
        ("deprecate", {"approved": True}, FirmwareStatus.DEPRECATED),
    ],
)
def test_reject_and_deprecate_want_a_reason(
    admin_client: ConsoleClient, verb: str, trait: Any, status: str
) -> None:
    firmware = FirmwareFactory.create(**trait)
    before = firmware.status

    admin_client.post(action_url(firmware, verb), {"reason": " "})
    firmware.refresh_from_db()
    unchanged = firmware.status
    admin_client.post(action_url(firmware, verb), {"reason": "too slow"})
    firmware.refresh_from_db()

    assert (unchanged, firmware.status) == (before, status)


def test_a_lost_race_is_told_in_the_dialog(admin_client: ConsoleClient) -> None:
    firmware = FirmwareFactory.create(approved=True)

    answer = admin_client.post(action_url(firmware, "approve"), {"comment": ""})

    assert b"Only Draft firmware can be approved" in answer.content


def test_damaged_firmware_says_what_to_do(admin_client: ConsoleClient) -> None:
    firmware = FirmwareFactory.create()
    Firmware.objects.filter(pk=firmware.pk).update(
        damaged_at=firmware.created_at, damage="frame 0 fails its tag"
    )

    page = admin_client.get(f"/admin/firmware/firmware/{firmware.pk}/change/")
    listed = admin_client.get("/admin/firmware/firmware/?damaged=yes")

    assert b"frame 0 fails its tag" in page.content
    assert b"Upload the same image again" in page.content
    assert b"Damaged" in listed.content


def upload(client: Client, content: bytes, **fields: str) -> Any:
    given = {"model": "sensor-v1", "version": "2.5.0", "rebootRequired": "on"}
    file = SimpleUploadedFile("image.bin", content)
    return client.post(UPLOAD, {**given, **fields, "file": file})


def test_upload_stores_a_draft(admin_client: ConsoleClient) -> None:
    DeviceModelFactory.create(name="sensor-v1")

    answer = upload(admin_client, b"image" * 100_000, releaseNotes="Two\nlines")

    firmware = Firmware.objects.get()
    assert answer.status_code == 302
    assert answer["Location"].endswith(f"/{firmware.pk}/change/")
    assert (firmware.status, firmware.size) == (FirmwareStatus.DRAFT, 500_000)
    assert firmware.uploaded_by == admin_client.person
    assert firmware.reboot_required
    assert firmware.release_notes.splitlines() == ["Two", "lines"]


def test_an_upload_is_compared_with_the_digest_of_its_form(
    admin_client: ConsoleClient,
) -> None:
    DeviceModelFactory.create(name="sensor-v1")
    digest = hashlib.sha256(b"image").hexdigest()

    wrong = upload(admin_client, b"another", checksum=digest)
    kept = Firmware.objects.count()
    right = upload(admin_client, b"image", checksum=f" {digest} ")

    assert b"The image that arrived has the SHA-256" in wrong.content
    assert digest.encode() in wrong.content
    assert (kept, right.status_code) == (0, 302)


def test_a_digest_of_no_sense_is_named_beside_its_field(
    admin_client: ConsoleClient,
) -> None:
    DeviceModelFactory.create(name="sensor-v1")

    answer = upload(admin_client, b"image", checksum="abc")

    assert b"Must be a SHA-256" in answer.content
    assert not Firmware.objects.exists()


def test_a_deprecated_version_is_reinstated(admin_client: ConsoleClient) -> None:
    firmware = FirmwareFactory.create(deprecated=True)
    url = f"/admin/firmware/firmware/{firmware.pk}/reinstate/"

    admin_client.post(url, {"reason": "it was the probe"})

    firmware.refresh_from_db()
    assert (firmware.status, firmware.status_comment) == (
        FirmwareStatus.APPROVED,
        "it was the probe",
    )


def test_a_draft_is_deleted_and_an_approved_one_is_not(
    admin_client: ConsoleClient,
) -> None:
    draft, approved = FirmwareFactory.create(), FirmwareFactory.create(approved=True)
    place = "/admin/firmware/firmware"

    gone = admin_client.post(f"{place}/{draft.pk}/delete/", {"x": "y"})
    admin_client.post(f"{place}/{approved.pk}/delete/", {"x": "y"})

    assert gone["Location"] == f"{place}/"
    assert list(Firmware.objects.all()) == [approved]


def test_an_unticked_box_means_no_reboot(admin_client: ConsoleClient) -> None:
    DeviceModelFactory.create(name="sensor-v1")
    fields = {"model": "sensor-v1", "version": "2.5.0", "securityVersion": "3"}

    admin_client.post(UPLOAD, {**fields, "file": SimpleUploadedFile("a", b"image")})

    firmware = Firmware.objects.get()
    assert not firmware.reboot_required
    assert firmware.security_version == 3


def test_upload_takes_the_token_of_its_form(log_in: Any) -> None:
    DeviceModelFactory.create(name="sensor-v1")
    client = log_in(Role.ADMIN, enforce_csrf_checks=True)
    client.get(UPLOAD)
    token = client.cookies["csrftoken"].value

    forged = upload(client, b"image")
    answer = upload(client, b"image", csrfmiddlewaretoken=token)

    assert (forged.status_code, answer.status_code) == (403, 302)
    assert Firmware.objects.count() == 1


def test_a_refused_upload_keeps_what_was_written(admin_client: ConsoleClient) -> None:
    DeviceModelFactory.create(name="sensor-v1")

    answer = upload(admin_client, b"image", version="two", releaseNotes="long notes")

    assert answer.status_code == 200
    assert b"long notes" in answer.content
    assert b"semantic" in answer.content.lower()
    assert not Firmware.objects.exists()


def test_an_upload_without_a_file_names_the_field(admin_client: ConsoleClient) -> None:
    DeviceModelFactory.create(name="sensor-v1")
    fields = {"model": "sensor-v1", "version": "2.5.0"}
    body = "".join(
        f'--edge\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    )

    answer = admin_client.post(
        UPLOAD,
        f"{body}--edge--\r\n".encode(),
        content_type="multipart/form-data; boundary=edge",
        headers=HTMX,
    )

    assert b"Image: is missing" in answer.content


def test_an_upload_over_the_limit_is_refused(
    admin_client: ConsoleClient, settings: Any
) -> None:
    DeviceModelFactory.create(name="sensor-v1")
    settings.FIRMWARE_MAX_BYTES = 1000

    answer = upload(admin_client, b"x" * 5000)

    assert b"1000 bytes at most" in answer.content
    assert not Firmware.objects.exists()


def test_a_device_model_is_added_once(admin_client: ConsoleClient) -> None:
    url = "/admin/firmware/devicemodel/create/"

    first = admin_client.post(
        url,
        {
            "name": "gateway-v2",
            "description": "At the gate",
            "versionScheme": "numeric",
        },
    )
    again = admin_client.post(url, {"name": "gateway-v2", "versionScheme": "semver"})
    wrong = admin_client.post(url, {"name": "no spaces", "versionScheme": "semver"})

    assert first.status_code == 302
    assert b"already" in again.content
    assert wrong.status_code == 200
    assert DeviceModel.objects.get().version_scheme == "numeric"


def test_the_scheme_of_a_model_is_edited_until_its_first_upload(
    admin_client: ConsoleClient,
) -> None:
    model = DeviceModelFactory.create(name="sensor-v1")
    page = f"/admin/firmware/devicemodel/{model.pk}/change/"
    url = f"/admin/firmware/devicemodel/{model.pk}/edit/"

    changed = admin_client.post(url, {"versionScheme": "numeric"})
    uploaded = upload(admin_client, b"image", version="1.7.1.10")
    refused = admin_client.post(url, {"versionScheme": "semver"})

    model.refresh_from_db()
    assert (changed.status_code, uploaded.status_code) == (302, 302)
    assert b"only before the first upload" in refused.content
    assert model.version_scheme == "numeric"
    assert b"numbers separated by dots" in admin_client.get(page).content


def test_an_upload_of_another_scheme_says_what_is_expected(
    admin_client: ConsoleClient,
) -> None:
    DeviceModelFactory.create(name="sensor-v1", version_scheme=VersionScheme.DATE)

    form = admin_client.get(UPLOAD)
    answer = upload(admin_client, b"image", version="1.2.3")

    assert b"sensor-v1 (date)" in form.content
    assert b"a date such as 2026.01.05" in answer.content
    assert not Firmware.objects.exists()


# --- Devices and groups ---------------------------------


def test_registering_shows_the_key_once(operator_client: ConsoleClient) -> None:
    DeviceModelFactory.create(name="sensor-v1")
    given = {"deviceId": "s-1", "model": "sensor-v1", "region": "US-EAST", "tags": ""}

    answer = operator_client.post("/admin/devices/device/register/", given)
    again = operator_client.post("/admin/devices/device/register/", given)

    device = Device.objects.get()
    page = operator_client.get(f"/admin/devices/device/{device.pk}/change/")
    assert b"hsd_" in answer.content
    assert b"hotswap-agent --config agent.toml" in answer.content
    assert "no-store" in answer["Cache-Control"]
    assert b"already" in again.content
    assert b"hsd_" not in page.content


def test_registering_says_what_is_wrong(operator_client: ConsoleClient) -> None:
    DeviceModelFactory.create(name="sensor-v1")
    given = {"deviceId": "s-1", "model": "sensor-v1", "region": "US-EAST"}
    wrong = [
        ("deviceId", "no spaces", "Must be letters, digits and . _ : -"),
        ("deviceId", "import", "reserved"),
        ("tags", "site: a\nplant-7", "Line 2: write name: value"),
        ("tags", "a: 1\n\na: 2", "Line 3: a is there twice"),
        ("tags", "timezone: berlin", "&#x27;berlin&#x27; is not a time"),
    ]

    for field, value, said in wrong:
        answer = operator_client.post(
            "/admin/devices/device/register/", {**given, field: value}
        )
        assert said in answer.content.decode(), value
    assert not Device.objects.exists()


def test_a_device_is_edited_through_the_service(
    operator_client: ConsoleClient, scene: Scene
) -> None:
    url = f"/admin/devices/device/{scene.device.pk}"

    operator_client.post(
        f"{url}/edit/",
        {"region": "APAC", "tags": "site: plant-7", "metadata": ""},
    )
    operator_client.post(f"{url}/disable/")

    scene.device.refresh_from_db()
    assert scene.device.region == "APAC"
    assert scene.device.tags == {"site": "plant-7"}
    assert not scene.device.enabled
    acts = AuditEvent.objects.filter(
        verb="device.changed", actor=operator_client.person.pseudonym
    )
    assert acts.count() == 2


def test_revoking_takes_a_post(operator_client: ConsoleClient, scene: Scene) -> None:
    operator_client.post(f"/admin/devices/device/{scene.device.pk}/revoke/")

    scene.device.refresh_from_db()
    assert scene.device.revoked_at is not None


def test_why_a_device_was_revoked_is_shown(
    operator_client: ConsoleClient, scene: Scene
) -> None:
    page = f"/admin/devices/device/{scene.device.pk}"

    operator_client.post(f"{page}/revoke/", {"reason": "stolen from the depot"})

    assert b"stolen from the depot" in operator_client.get(f"{page}/change/").content


def test_rollbacks_of_all_deployments_are_listed(
    viewer_client: ConsoleClient, scene: Scene
) -> None:
    rollback_deployment(
        actor=scene.world.admin,
        deployment_id=scene.deployment.pk,
        reason="the valve sticks",
        now=scene.world.now,
    )

    page = viewer_client.get("/admin/deployments/rollback/")
    others = viewer_client.get("/admin/deployments/rollback/?trigger=gate")

    assert b"the valve sticks" in page.content
    assert scene.deployment.name.encode() in page.content
    assert b"the valve sticks" not in others.content


def test_a_version_that_no_device_has_reported_is_called_so(
    viewer_client: ConsoleClient, scene: Scene
) -> None:
    said, _ = registry.register_device(
        actor=scene.world.admin,
        device_id="silent",
        model_name=scene.model.name,
        firmware_version="9.9.9",
    )

    silent = viewer_client.get(f"/admin/devices/device/{said.pk}/change/")
    heard = viewer_client.get(f"/admin/devices/device/{scene.device.pk}/change/")

    assert b"it has not reported yet" in silent.content
    assert b"Runs now" not in silent.content
    assert b"Runs now" in heard.content


def test_the_list_of_devices_filters(
    viewer_client: ConsoleClient, scene: Scene
) -> None:
    DeviceState.objects.update(online_until="2100-01-01T00:00Z")
    shown = {
        "q=d-00": True,
        "status=online&region=US-EAST&model=sensor-v1&enabled=yes": True,
        "status=revoked": False,
        "status=offline": False,
        "region=APAC": False,
        "enabled=no": False,
        "key=expiring": False,
        "key=alarm": False,
        "certificate=expiring": False,
        "health=healthy": True,
        "health=unhealthy": False,
        "health=unknown": False,
        "health=nonsense": True,
    }

    for query, expected in shown.items():
        answer = viewer_client.get(f"/admin/devices/device/?{query}")
        assert (b"d-000" in answer.content) is expected, query


def test_members_are_put_in_all_or_none(
    operator_client: ConsoleClient, scene: Scene
) -> None:
    url = f"/admin/devices/devicegroup/{scene.group.pk}"

    refused = operator_client.post(
        f"{url}/add-devices/", {"device_ids": "d-001, nobody"}
    )
    before = scene.group.members.count()
    operator_client.post(f"{url}/add-devices/", {"device_ids": "d-001\nd-002 d-001"})
    operator_client.post(f"{url}/remove-devices/", {"device_ids": "d-000"})
    operator_client.post(f"{url}/rename/", {"name": "bench", "description": ""})

    scene.group.refresh_from_db()
    assert b"nobody" in refused.content
    assert before == 1
    members = scene.group.members.values_list("device_id", flat=True)
    assert sorted(members) == ["d-001", "d-002"]
    assert scene.group.name == "bench"


def test_a_group_is_made_and_removed(operator_client: ConsoleClient) -> None:
    operator_client.post("/admin/devices/devicegroup/create/", {"name": "new"})
    group = DeviceGroup.objects.get()

    answer = operator_client.post(f"/admin/devices/devicegroup/{group.pk}/remove/")

    assert answer["Location"] == "/admin/devices/devicegroup/"
    assert not DeviceGroup.objects.exists()


# --- People and audit ---------------------------------


def test_a_person_is_made_with_a_role(admin_client: ConsoleClient) -> None:
    given = {"username": "olive", "email": "", "role": "Operator"}
    url = "/admin/common/user/create/"

    weak = admin_client.post(url, {**given, "password": "12345"})
    made = admin_client.post(url, {**given, "password": PASSWORD})

    assert weak.status_code == 200
    assert made.status_code == 302
    assert User.objects.get(username="olive").role is Role.OPERATOR


def test_a_disabled_person_is_out_at_once(
    admin_client: ConsoleClient, operator_client: ConsoleClient
) -> None:
    url = f"/admin/common/user/{operator_client.person.pk}"

    admin_client.post(f"{url}/disable/")
    shut_out = operator_client.get("/admin/")
    admin_client.post(f"{url}/enable/")
    still_out = operator_client.get("/admin/")
    operator_client.force_login(User.objects.get(pk=operator_client.person.pk))

    assert shut_out.status_code == 302
    assert still_out.status_code == 302
    assert operator_client.get("/admin/").status_code == 200


def test_nobody_disables_themselves(admin_client: ConsoleClient) -> None:
    url = f"/admin/common/user/{admin_client.person.pk}/disable/"

    answer = admin_client.post(url)

    admin_client.person.refresh_from_db()
    assert b"cannot disable" in answer.content
    assert admin_client.person.is_active


def test_a_person_gets_another_role_and_address(
    admin_client: ConsoleClient, log_in: Callable[..., ConsoleClient]
) -> None:
    other = log_in(Role.OPERATOR)
    url = f"/admin/common/user/{other.person.pk}"
    launch = "/admin/deployments/deployment/launch/"
    assert other.get(launch).status_code == 200

    form = admin_client.get(f"{url}/edit/").content.decode()
    admin_client.post(f"{url}/edit/", {"role": "Viewer", "email": "new@example.com"})

    assert '<option value="Operator" selected>' in form
    assert other.get(launch).status_code == 403
    row = AuditEvent.objects.get(verb="person.changed")
    assert row.details == {
        "role": {"from": "Operator", "to": "Viewer"},
        "email": "changed",
    }
    assert User.objects.get(pk=other.person.pk).email == "new@example.com"


def test_a_new_password_ends_the_logins_of_a_person(
    admin_client: ConsoleClient, viewer_client: ConsoleClient
) -> None:
    person = viewer_client.person
    url = f"/admin/common/user/{person.pk}/set-password/"

    weak = admin_client.post(url, {"password": "short"})
    strong = admin_client.post(url, {"password": "a-rather-long-password"})

    assert b"too short" in weak.content
    assert strong.status_code == 302
    assert viewer_client.get("/admin/").status_code == 302
    login = {"username": person.username, "password": "a-rather-long-password"}
    assert Client().post("/admin/login/", login).status_code == 302


def test_nobody_changes_their_own_role_or_sets_their_password(
    admin_client: ConsoleClient,
) -> None:
    own = f"/admin/common/user/{admin_client.person.pk}"

    admin_client.post(f"{own}/edit/", {"role": "Viewer", "email": ""})
    admin_client.post(f"{own}/set-password/", {"password": "a-rather-long-password"})

    person = User.objects.get(pk=admin_client.person.pk)
    assert person.role == Role.ADMIN
    assert not person.check_password("a-rather-long-password")


@pytest.mark.django_db(transaction=True)
def test_two_admins_cannot_take_the_role_from_each_other_at_once() -> None:
    admins = [PersonFactory.create(admin=True) for _ in range(2)]
    barrier = Barrier(2)

    def demote(actor: User, other: User) -> bool:
        try:
            barrier.wait(60)
            people.change_person(
                actor=actor, user_id=other.pk, role=Role.VIEWER, email=""
            )
        except ForbiddenError:
            return False
        finally:
            connection.close()
        return True

    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(demote, admins, reversed(admins)))

    assert sorted(done) == [False, True]
    roles = [User.objects.get(pk=each.pk).role for each in admins]
    assert roles.count(Role.ADMIN) == 1


def test_audit_names_people_and_leads_to_things(
    admin_client: ConsoleClient, scene: Scene
) -> None:
    answer = admin_client.get("/admin/common/auditevent/?kind=device&who=person")

    assert scene.world.admin.username in answer.content.decode()
    assert f"/admin/devices/device/{scene.device.pk}/change/" in answer.content.decode()
    assert b"deployment.created" not in answer.content


@pytest.mark.parametrize("role", [Role.ADMIN, Role.OPERATOR, Role.VIEWER])
@pytest.mark.parametrize(
    "wanted", ["", "/admin/", "/admin/devices/device/", "https://elsewhere.example/"]
)
def test_a_login_leads_on_its_way_or_to_where_its_role_begins(
    db: None, role: Role, wanted: str
) -> None:
    person = PersonFactory.create(role=role)
    home = "/admin/deployments/deployment/" if role == Role.OPERATOR else "/admin/"

    answer = Client().post(
        "/admin/login/",
        {"username": person.username, "password": PASSWORD, "next": wanted},
    )

    expected = wanted if wanted == "/admin/devices/device/" else home
    assert (answer.status_code, answer["Location"]) == (302, expected)


@pytest.mark.usefixtures("one_window")
def test_login_has_the_limit_of_the_api(settings: Any, db: None) -> None:
    settings.LOGIN_FAILURES_PER_MINUTE = 3
    client = Client()
    given = {"username": "no-such-person", "password": "wrong"}

    answers = [client.post("/admin/login/", given).content for _ in range(4)]

    assert b"Too many failures" not in answers[2]
    assert b"Too many failures" in answers[3]


# --- The whole console ---------------------------------


def test_a_demo_says_so_on_every_page(
    viewer_client: ConsoleClient, settings: Any
) -> None:
    without = viewer_client.get("/admin/")
    settings.DEMO_CLOCK = "60x"
    with_label = viewer_client.get("/admin/devices/device/")

    assert b"waits shortened" not in without.content
    assert "Demo – waits shortened (60x)" in with_label.content.decode()


def test_scripts_come_from_here_only(viewer_client: ConsoleClient) -> None:
    console = viewer_client.get("/admin/")["Content-Security-Policy"]
    elsewhere = Client().get("/health")["Content-Security-Policy"]

    assert directive(console, "script-src") == "'self' 'unsafe-eval'"
    assert directive(console, "style-src") == "'self'"
    assert "unsafe-inline" not in console
    assert directive(elsewhere, "default-src") == "'self'"
    assert "unsafe" not in elsewhere
    assert directive(console, "object-src") == "'none'"


def directive(policy: str, name: str) -> str:
    """Return what a policy of content says of one kind."""
    (found,) = (part for part in policy.split("; ") if part.split()[0] == name)
    return found.removeprefix(f"{name} ")


def test_styles_within_a_page_need_its_own_nonce(viewer_client: ConsoleClient) -> None:
    first, second = (viewer_client.get("/api/v1/docs") for _ in range(2))

    nonces = []
    for answer in (first, second):
        policy = answer["Content-Security-Policy"]
        found = re.search(rb'<style nonce="([^"]+)">', answer.content)
        assert found is not None
        assert f"'nonce-{found[1].decode()}'" in directive(policy, "style-src")
        assert "unsafe-eval" not in policy
        nonces.append(found[1])
    assert nonces[0] != nonces[1]


def test_no_page_of_ours_has_a_style_or_script_without_a_nonce() -> None:
    folder = settings_module.BASE_DIR / "templates"
    bare = [
        f"{path}: {tag}"
        for path in folder.rglob("*.html")
        for tag in re.findall(r"<(?:style|script)\b[^>]*>", path.read_text())
        if "nonce=" not in tag and "src=" not in tag
    ]
    bare += [
        f"{path}: {tag}"
        for path in folder.rglob("*.html")
        for tag in re.findall(
            r"<[a-z][^>]*\s(?:style|on[a-z]+)=[^>]*>", path.read_text()
        )
    ]

    assert bare == []


def test_search_finds_devices_by_their_id(
    viewer_client: ConsoleClient, scene: Scene
) -> None:
    answer = viewer_client.get("/admin/search/?s=d-002&extended=1")

    assert b"d-002" in answer.content


# --- Erasing and exporting devices ---------------------------------


def erase_url(scene: Scene) -> str:
    return f"/admin/devices/device/{scene.device.pk}/erase/"


def test_a_device_is_erased_when_its_name_was_typed(
    admin_client: ConsoleClient, scene: Scene
) -> None:
    answer = admin_client.post(
        erase_url(scene), {"typed": scene.device.device_id}, headers=HTMX
    )

    assert answer.status_code == 204
    assert answer["HX-Redirect"] == "/admin/devices/device/"
    assert not Device.objects.filter(pk=scene.device.pk).exists()


def test_another_name_erases_nothing(admin_client: ConsoleClient, scene: Scene) -> None:
    answer = admin_client.post(erase_url(scene), {"typed": "another"}, headers=HTMX)

    assert answer.status_code == 200
    assert b"That is not the id of" in answer.content
    assert Device.objects.filter(pk=scene.device.pk).exists()


def test_pages_of_deployments_outlive_an_erased_device(
    admin_client: ConsoleClient, scene: Scene
) -> None:
    admin_client.post(erase_url(scene), {"typed": scene.device.device_id})
    page = f"/admin/deployments/deployment/{scene.deployment.pk}"

    assert admin_client.get(f"{page}/change/").status_code == 200
    assert admin_client.get(f"{page}/live/").status_code == 200
    devices = admin_client.get(f"{page}/devices/")
    assert devices.status_code == 200
    assert f"~{scene.device.pk}" in devices.content.decode()
    assert f"/device/{scene.device.pk}/" not in devices.content.decode()
    assert admin_client.get("/admin/").status_code == 200


def test_only_admins_export_what_is_held(
    admin_client: ConsoleClient, operator_client: ConsoleClient, scene: Scene
) -> None:
    url = f"/admin/devices/device/{scene.device.pk}/export/"

    assert admin_client.get(url)["Content-Type"] == "application/json"
    assert operator_client.get(url).status_code == 403


# --- An empty server ---------------------------------


@pytest.mark.parametrize(
    "page",
    [page for page in admin.site._registry.values() if isinstance(page, ConsoleAdmin)],
    ids=lambda page: page.model.__name__,
)
def test_an_empty_list_says_one_thing(
    admin_client: ConsoleClient, page: ConsoleAdmin
) -> None:
    url = page.list_url()

    nothing = admin_client.get(url).content.decode()
    no_match = admin_client.get(f"{url}?q=no-such-thing").content.decode()

    assert len(page.empty_words[0]) > 0
    assert "No results found" not in nothing + no_match
    if "inbox</span>" in nothing:
        assert nothing.count(escape(page.empty_words[0])) == 1
        assert "Nothing matches." not in nothing
    if page.search_fields:
        assert no_match.count("Nothing matches.") == 1
        assert 'href="?">Reset search and filters' in no_match


def test_forms_of_an_empty_server_lead_to_the_device_models(
    admin_client: ConsoleClient, operator_client: ConsoleClient
) -> None:
    models = reverse("admin:firmware_devicemodel_changelist")
    pages = [
        operator_client.get(reverse("admin:devices_device_register")),
        admin_client.get(reverse("admin:firmware_firmware_upload")),
    ]

    for page in pages:
        assert f'href="{models}">' in page.content.decode()
        assert "There is no device model yet" in page.content.decode()
