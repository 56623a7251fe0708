"""The ring of signing keys: rotation with overlap, retirement, revocation."""

import base64
import hashlib
import secrets
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import DatabaseError, transaction
from django.utils import timezone

from firmware import signing
from firmware.choices import KeyStatus
from firmware.exceptions import (
    KeyStatusError,
    LastKeyError,
    NextKeyExistsError,
    UnknownKeyError,
)
from firmware.models import Firmware, ImageSignature, SigningKey
from firmware.services import key_rotation
from firmware.services.keys import image_signature, signing_key_for
from firmware.services.manifests import manifest_for
from firmware.storage import image_store
from hotswap.common.models import AuditEvent
from tests.api import Caller
from tests.callers import PersonCaller
from tests.common.factories import PersonFactory
from tests.firmware.factories import FirmwareFactory

pytestmark = pytest.mark.django_db


def active() -> SigningKey:
    return SigningKey.objects.get(status=KeyStatus.ACTIVE)


def published(caller: Caller) -> dict[str, dict[str, Any]]:
    return {key["keyId"]: key for key in caller.get("/signing-keys").json()}


def is_signed_by(key: SigningKey, firmware: Firmware) -> bool:
    signature = image_signature(firmware, key)
    digest = bytes.fromhex(firmware.sha256)
    return signature is not None and signing.is_signed(
        key.public_key, digest, signature
    )


# --- Rotation ----------------------------------------------------------------------


def test_the_next_key_is_published_before_it_signs(anonymous: Caller) -> None:
    former = active()

    following = key_rotation.create_signing_key(actor=None)
    before = FirmwareFactory.create()
    key_rotation.rotate_signing_key(actor=None)
    after = FirmwareFactory.create()

    statuses = {key: shown["status"] for key, shown in published(anonymous).items()}
    assert statuses == {former.key_id: "Retiring", following.key_id: "Active"}
    assert before.key == former
    assert after.key == following


def test_only_one_next_key_is_published() -> None:
    key_rotation.create_signing_key(actor=None)

    with pytest.raises(NextKeyExistsError):
        key_rotation.create_signing_key(actor=None)


def test_a_rotation_without_a_next_key_makes_one() -> None:
    former = active()

    new = key_rotation.rotate_signing_key(actor=None, overlap=timedelta(days=3))

    former.refresh_from_db()
    assert active() == new
    assert former.status == KeyStatus.RETIRING
    assert former.not_after is not None
    left = former.not_after - timezone.now()
    assert timedelta(days=2, hours=23) < left <= timedelta(days=3)


def test_a_rotation_without_overlap_retires_at_once(anonymous: Caller) -> None:
    former = active()

    new = key_rotation.rotate_signing_key(actor=None, overlap=timedelta(0))

    former.refresh_from_db()
    assert former.status == KeyStatus.RETIRED
    assert list(published(anonymous)) == [new.key_id]


def test_a_new_manifest_is_signed_by_the_active_key() -> None:
    firmware = FirmwareFactory.create()
    old = manifest_for(firmware, above=0)

    new_key = key_rotation.rotate_signing_key(actor=None)
    new = manifest_for(firmware, above=0)

    assert old.key != new.key == new_key
    assert new.sequence > old.sequence
    digest = hashlib.sha256(bytes(new.body)).digest()
    assert signing.is_signed(new_key.public_key, digest, new.signature)


def test_an_image_is_signed_again_by_a_new_row_and_never_edited() -> None:
    firmware = FirmwareFactory.create()
    former, signature = active(), firmware.signature
    new = key_rotation.rotate_signing_key(actor=None)

    assert key_rotation.sign_missing() == 1

    firmware.refresh_from_db()
    assert (firmware.signature, firmware.key) == (signature, former)
    assert is_signed_by(new, firmware)
    assert is_signed_by(former, firmware)
    assert key_rotation.sign_missing() == 0


def test_a_rejected_image_is_not_signed_again() -> None:
    FirmwareFactory.create(rejected=True)
    key_rotation.rotate_signing_key(actor=None)

    assert key_rotation.sign_missing() == 0


def test_an_image_that_nobody_signed_yet_is_signed_when_it_is_wanted() -> None:
    firmware = FirmwareFactory.create()
    new = key_rotation.rotate_signing_key(actor=None)

    assert is_signed_by(new, firmware)

    assert ImageSignature.objects.filter(firmware=firmware, key=new).count() == 1
    assert AuditEvent.objects.filter(verb="firmware.signed_again").count() == 1


def test_the_database_keeps_signatures_as_they_are() -> None:
    firmware = FirmwareFactory.create()
    image_signature(firmware, key_rotation.rotate_signing_key(actor=None))
    rows = ImageSignature.objects.all()

    for change in (lambda: rows.update(signature="AAAA"), rows.delete):
        with pytest.raises(DatabaseError), transaction.atomic():
            change()


# --- What a device that has pinned some of the keys gets -----------------------------


@pytest.mark.parametrize(
    ("pins", "signs"),
    [
        (("old",), "old"),
        (("new",), "new"),
        (("old", "new"), "new"),
        (("stranger",), "new"),
        (None, "new"),
    ],
)
def test_the_key_that_signs_is_one_that_the_device_has_pinned(
    pins: tuple[str, ...] | None, signs: str
) -> None:
    old = active()
    new = key_rotation.rotate_signing_key(actor=None)
    names = {"old": old.key_id, "new": new.key_id, "stranger": "f" * 16}
    trusted = None if pins is None else frozenset(names[pin] for pin in pins)

    key = signing_key_for(trusted, now=timezone.now())

    assert key.key_id == names[signs]


def test_the_key_that_signs_is_listed_first(anonymous: Caller) -> None:
    key_rotation.rotate_signing_key(actor=None)
    key_rotation.create_signing_key(actor=None)

    statuses = [key["status"] for key in anonymous.get("/signing-keys").json()]

    assert statuses == ["Active", "Next", "Retiring"]


def test_a_key_whose_time_is_over_signs_for_nobody_and_is_not_listed(
    anonymous: Caller,
) -> None:
    old = active()
    key_rotation.rotate_signing_key(actor=None, overlap=timedelta(days=1))
    later = timezone.now() + timedelta(days=1, seconds=1)

    key = signing_key_for(frozenset({old.key_id}), now=later)
    SigningKey.objects.filter(pk=old.pk).update(not_after=timezone.now())

    assert key == active()
    assert old.key_id not in published(anonymous)


def test_the_end_of_the_overlap_retires_the_key_and_erases_its_private_half() -> None:
    old = active()
    key_rotation.rotate_signing_key(actor=None, overlap=timedelta(days=1))
    now = timezone.now()

    early = key_rotation.retire_ended(now=now + timedelta(hours=23))
    due = key_rotation.retire_ended(now=now + timedelta(hours=25))

    old.refresh_from_db()
    assert (early, due) == (0, 1)
    assert old.status == KeyStatus.RETIRED
    assert bytes(old.sealed_private_key) == b""
    assert AuditEvent.objects.filter(
        verb="signing-key.retired", object_id=old.key_id, actor=None
    ).exists()


# --- Retiring and revoking -----------------------------------------------------------


def test_the_active_key_is_not_retired() -> None:
    with pytest.raises(LastKeyError):
        key_rotation.retire_signing_key(actor=None, key_id=active().key_id)


def test_a_retiring_key_and_one_that_never_signed_can_be_retired() -> None:
    old = active()
    key_rotation.rotate_signing_key(actor=None)
    following = key_rotation.create_signing_key(actor=None)

    for key in (old, following):
        key_rotation.retire_signing_key(actor=None, key_id=key.key_id)

    assert set(SigningKey.objects.values_list("status", flat=True)) == {
        "Active",
        "Retired",
    }
    with pytest.raises(KeyStatusError):
        key_rotation.retire_signing_key(actor=None, key_id=old.key_id)


def test_a_key_that_is_not_there_is_named() -> None:
    for verb in (key_rotation.retire_signing_key, key_rotation.revoke_signing_key):
        more: Any = {"reason": "x"} if verb is key_rotation.revoke_signing_key else {}
        with pytest.raises(UnknownKeyError, match="f00"):
            verb(actor=None, key_id="f00", **more)


def test_the_last_key_is_not_revoked() -> None:
    with pytest.raises(LastKeyError, match="successor"):
        key_rotation.revoke_signing_key(
            actor=None, key_id=active().key_id, reason="leaked"
        )

    assert active().status == KeyStatus.ACTIVE


def test_revoking_the_active_key_lets_the_next_one_sign(anonymous: Caller) -> None:
    old = active()
    following = key_rotation.create_signing_key(actor=None)

    done = key_rotation.revoke_signing_key(
        actor=None, key_id=old.key_id, reason="leaked"
    )

    assert done.active == following == active()
    assert list(published(anonymous)) == [following.key_id]
    assert signing_key_for(frozenset({old.key_id}), now=timezone.now()) == following


def test_an_image_that_another_key_has_signed_outlives_a_revocation() -> None:
    old = active()
    firmware = FirmwareFactory.create(approved=True)
    key_rotation.rotate_signing_key(actor=None)
    key_rotation.sign_missing()

    done = key_rotation.revoke_signing_key(
        actor=None, key_id=old.key_id, reason="leaked"
    )

    assert done.held_back == 0
    assert Firmware.objects.deployable().get() == firmware


def test_an_image_that_only_the_revoked_key_signed_is_held_back() -> None:
    old = active()
    firmware = FirmwareFactory.create(approved=True)
    new = key_rotation.rotate_signing_key(actor=None)
    assert key_rotation.held_back_if_revoked(key_id=old.key_id) == 1

    done = key_rotation.revoke_signing_key(
        actor=None, key_id=old.key_id, reason="leaked"
    )

    firmware.refresh_from_db()
    assert done.held_back == 1
    assert firmware.signature_revoked_at is not None
    assert not Firmware.objects.deployable().exists()
    assert image_signature(firmware, new) is None
    # Without proof, nothing signs it by itself.
    assert key_rotation.sign_missing() == 0


def test_an_image_held_back_is_signed_after_its_bytes_were_compared() -> None:
    person = PersonFactory.create(admin=True)
    old = active()
    firmware = FirmwareFactory.create(approved=True)
    damaged = FirmwareFactory.create(content=secrets.token_bytes(1000))
    new = key_rotation.rotate_signing_key(actor=person)
    key_rotation.revoke_signing_key(actor=person, key_id=old.key_id, reason="leaked")
    path = Path(image_store().path(damaged.storage_name))
    path.write_bytes(path.read_bytes()[:-1])

    done = key_rotation.sign_held_back(actor=person)

    firmware.refresh_from_db()
    assert done.signed == 1
    assert list(done.refused) == [damaged.pk]
    assert Firmware.objects.deployable().get() == firmware
    assert is_signed_by(new, firmware)
    event = AuditEvent.objects.get(verb="firmware.signed_again")
    assert (event.object_id, event.actor) == (str(firmware.pk), person.pseudonym)


def test_an_image_that_its_signature_does_not_fit_is_held_back() -> None:
    firmware = FirmwareFactory.create()
    other = base64.b64encode(bytes(256)).decode()
    firmware.signature = other
    old = firmware.key
    new = key_rotation.rotate_signing_key(actor=None)

    assert image_signature(firmware, new) is None

    firmware.refresh_from_db()
    assert firmware.key == old
    assert firmware.signature_revoked_at is not None
    assert AuditEvent.objects.filter(verb="firmware.held_back").count() == 1


def test_every_act_is_in_the_audit_trail() -> None:
    person = PersonFactory.create(admin=True)
    old = active()

    key_rotation.create_signing_key(actor=person)
    key_rotation.rotate_signing_key(actor=person)
    key_rotation.revoke_signing_key(actor=person, key_id=old.key_id, reason="leaked")
    key_rotation.create_signing_key(actor=person)
    withdrawn = SigningKey.objects.get(status=KeyStatus.NEXT)
    key_rotation.retire_signing_key(actor=person, key_id=withdrawn.key_id)

    verbs = AuditEvent.objects.filter(
        object_kind="signing-key", actor=person.pseudonym
    ).order_by("pk")
    assert [event.verb.removeprefix("signing-key.") for event in verbs] == [
        *("created", "rotated", "revoked", "created", "retired"),
    ]
    assert verbs[2].details["reason"] == "leaked"


@pytest.mark.parametrize(
    ("before", "after"),
    [("Revoked", "Active"), ("Retired", "Active"), ("Retiring", "Active")],
)
def test_the_database_refuses_to_bring_a_key_back(before: str, after: str) -> None:
    old = active()
    key_rotation.rotate_signing_key(actor=None)
    if before == "Retired":
        key_rotation.retire_signing_key(actor=None, key_id=old.key_id)
    if before == "Revoked":
        key_rotation.revoke_signing_key(actor=None, key_id=old.key_id, reason="leaked")

    with pytest.raises(DatabaseError, match="transition"), transaction.atomic():
        SigningKey.objects.filter(pk=old.pk).update(status=after)


# --- What is published -------------------------------------------------------------


def test_published_keys_may_be_kept_for_a_moment_and_asked_again(
    anonymous: Caller,
) -> None:
    first = anonymous.get("/signing-keys")
    etag = first["ETag"]
    again = anonymous.get("/signing-keys", headers={"If-None-Match": etag})
    key_rotation.rotate_signing_key(actor=None)
    changed = anonymous.get("/signing-keys", headers={"If-None-Match": etag})

    assert first["Cache-Control"] == "public, max-age=5, must-revalidate"
    assert (again.status_code, again.content) == (304, b"")
    assert again["ETag"] == etag
    assert changed.status_code == 200
    assert changed["ETag"] != etag


def test_the_api_shows_the_signature_of_the_most_current_key(
    admin: PersonCaller,
) -> None:
    old = active()
    firmware = FirmwareFactory.create()
    before = admin.get(f"/firmware/{firmware.pk}").json()
    new = key_rotation.rotate_signing_key(actor=None)
    key_rotation.sign_missing()

    after = admin.get(f"/firmware/{firmware.pk}").json()
    (listed,) = admin.get("/firmware").json()["results"]

    digest = bytes.fromhex(firmware.sha256)
    assert before["keyId"] == old.key_id
    assert after["keyId"] == listed["keyId"] == new.key_id
    assert signing.is_signed(new.public_key, digest, after["signature"])
    assert after["signatureRevokedAt"] is None
