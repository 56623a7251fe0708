"""The pages of the key rings."""

from pathlib import Path

import pytest

from firmware.models import Firmware, SigningKey, StorageKey
from firmware.services import key_rotation
from firmware.storage import image_store
from hotswap.common.models import AuditEvent
from tests.console.conftest import ConsoleClient
from tests.firmware.factories import FirmwareFactory

SIGNING = "/admin/firmware/signingkey/"
STORAGE = "/admin/firmware/storagekey/"

pytestmark = pytest.mark.django_db


def active() -> SigningKey:
    return SigningKey.objects.get(status="Active")


def test_a_key_is_published_and_rotated_in(admin_client: ConsoleClient) -> None:
    former = active()

    admin_client.post(f"{SIGNING}create/", {"x": "y"})
    admin_client.post(f"{SIGNING}rotate/", {"overlap": "30"})

    former.refresh_from_db()
    assert former.status == "Retiring"
    assert active() != former
    acts = AuditEvent.objects.filter(actor=admin_client.person.pseudonym)
    acts = acts.exclude(object_kind="person")
    assert {act.verb for act in acts} == {
        "signing-key.created",
        "signing-key.rotated",
    }


def test_a_second_next_key_is_refused_in_the_dialog(
    admin_client: ConsoleClient,
) -> None:
    admin_client.post(f"{SIGNING}create/", {"x": "y"})

    answer = admin_client.post(f"{SIGNING}create/", {"x": "y"})

    assert b"published as the next" in answer.content
    assert SigningKey.objects.count() == 2


def test_an_impossible_overlap_is_told_beside_its_field(
    admin_client: ConsoleClient,
) -> None:
    answer = admin_client.post(f"{SIGNING}rotate/", {"overlap": "-1"})

    assert answer.status_code == 200
    assert SigningKey.objects.count() == 1


def test_the_active_key_says_why_it_cannot_be_taken_out_of_use(
    admin_client: ConsoleClient,
) -> None:
    page = admin_client.get(f"{SIGNING}{active().pk}/change/")
    answer = admin_client.post(f"{SIGNING}{active().pk}/retire/", {"x": "y"})

    assert b"rotate the ring first" in page.content
    assert b"publish the next key" in page.content
    assert b"PRIVATE" not in page.content
    assert answer.status_code == 200
    assert active().status == "Active"


def test_a_retiring_key_is_retired(admin_client: ConsoleClient) -> None:
    former = active()
    key_rotation.rotate_signing_key(actor=None)

    admin_client.post(f"{SIGNING}{former.pk}/retire/", {"x": "y"})

    former.refresh_from_db()
    assert former.status == "Retired"


def test_a_revocation_wants_the_id_of_the_key_and_a_reason(
    admin_client: ConsoleClient,
) -> None:
    former = active()
    key_rotation.rotate_signing_key(actor=None)
    url = f"{SIGNING}{former.pk}/revoke/"

    for given in (
        {"key_id": "f00", "reason": "leaked"},
        {"key_id": former.key_id, "reason": " "},
    ):
        assert admin_client.post(url, given).status_code == 200
    former.refresh_from_db()
    before = former.status
    admin_client.post(url, {"key_id": former.key_id, "reason": "leaked"})

    former.refresh_from_db()
    assert (before, former.status, former.status_comment) == (
        *("Retiring", "Revoked", "leaked"),
    )


def test_images_held_back_are_shown_and_signed_again(
    admin_client: ConsoleClient,
) -> None:
    firmware = FirmwareFactory.create(approved=True)
    damaged = FirmwareFactory.create()
    Path(image_store().path(damaged.storage_name)).unlink()
    former = active()
    key_rotation.rotate_signing_key(actor=None)
    admin_client.post(
        f"{SIGNING}{former.pk}/revoke/", {"key_id": former.key_id, "reason": "leaked"}
    )

    listed = admin_client.get("/admin/firmware/firmware/")
    page = admin_client.get(f"/admin/firmware/firmware/{firmware.pk}/change/")
    done = admin_client.post(f"{SIGNING}sign-again/", {"x": "y"}, follow=True)

    assert b"Held back" in listed.content
    assert b"Held back" in page.content
    assert b"1 image was compared and signed again" in done.content
    assert b"1 are damaged in the store" in done.content
    assert Firmware.objects.deployable().get() == firmware


def test_a_revocation_can_sign_at_once(admin_client: ConsoleClient) -> None:
    firmware = FirmwareFactory.create(approved=True)
    former = active()
    key_rotation.create_signing_key(actor=None)

    admin_client.post(
        f"{SIGNING}{former.pk}/revoke/",
        {"key_id": former.key_id, "reason": "leaked", "sign_again": "on"},
    )

    assert active() != former
    assert Firmware.objects.deployable().get() == firmware


def test_a_storage_key_is_rotated_and_the_former_deleted(
    admin_client: ConsoleClient,
) -> None:
    FirmwareFactory.create()
    former = StorageKey.objects.get()

    admin_client.post(f"{STORAGE}rotate/", {"x": "y"})
    refused = admin_client.post(f"{STORAGE}{former.pk}/remove/", {"x": "y"})
    key_rotation.rewrap_images()
    deleted = admin_client.post(f"{STORAGE}{former.pk}/remove/", {"x": "y"})

    assert b"Retiring" in refused.content
    assert deleted["Location"] == STORAGE
    assert StorageKey.objects.get() != former


def test_others_than_admins_look_and_see_what_it_needs(
    viewer_client: ConsoleClient, operator_client: ConsoleClient
) -> None:
    for client in (viewer_client, operator_client):
        for url in (SIGNING, STORAGE, f"{SIGNING}{active().pk}/change/"):
            page = client.get(url)
            assert page.status_code == 200
            assert b"needs Admin" in page.content
        assert client.post(f"{SIGNING}rotate/", {"overlap": "1"}).status_code == 403
    assert SigningKey.objects.count() == 1
