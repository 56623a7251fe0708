"""The life of a device's API key: its end, its successors, its overlap."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.utils import timezone

from devices.models import Device, DeviceKey
from devices.services.credentials import (
    KEY_OVERLAP,
    MAX_LIVE_KEYS,
    issue_device_token,
    rotate_key,
)
from devices.services.registry import revoke_device
from hotswap.common.keyring import peppered_digest
from hotswap.common.models import AuditEvent
from tests.api import Caller, pointers, problem_of
from tests.callers import PersonCaller
from tests.common.factories import PersonFactory
from tests.devices.factories import DeviceFactory, device_token, key_of


def row_of(key: str) -> DeviceKey:
    return DeviceKey.objects.get(digest=peppered_digest(key))


def opens(device: Device, key: str, after: timedelta = timedelta(0)) -> bool:
    issued = issue_device_token(
        device_id=device.device_id, api_key=key, now=timezone.now() + after
    )
    return issued is not None


def rotated_by_device(device: Device) -> str:
    return rotate_key(device_id=device.device_id, actor=None).api_key


def rotated_by_person(device: Device) -> str:
    actor = PersonFactory.create(operator=True)
    return rotate_key(device_id=device.device_id, actor=actor).api_key


def live_keys(device: Device) -> int:
    return DeviceKey.objects.live(timezone.now()).filter(device=device).count()


def let_end(device: Device, after: timedelta) -> None:
    """Move the end of the device's keys to that long from now."""
    DeviceKey.objects.filter(device=device).update(expires_at=timezone.now() + after)


# --- What is told of a key ---------------------------------


def test_the_answer_to_a_rotation_says_when_the_new_key_ends(
    operator: PersonCaller, device: Device
) -> None:
    body = operator.post(f"/devices/{device.device_id}/api-key").json()

    assert set(body) == {"apiKey", "expiresAt"}
    assert body["expiresAt"].endswith("Z")
    ends = datetime.fromisoformat(body["expiresAt"])
    assert ends == row_of(body["apiKey"]).expires_at


@pytest.mark.parametrize(
    ("remaining", "status"),
    [
        (timedelta(days=90), "valid"),
        (timedelta(days=14, minutes=1), "valid"),
        (timedelta(days=14), "expiring"),
        (timedelta(minutes=1), "expiring"),
        (timedelta(0), "expired"),
        (timedelta(days=-5), "expired"),
    ],
)
def test_a_device_shows_how_its_key_stands(
    viewer: PersonCaller, device: Device, remaining: timedelta, status: str
) -> None:
    let_end(device, remaining)

    one = viewer.get(f"/devices/{device.device_id}").json()
    (listed,) = viewer.get("/devices").json()["results"]

    ends = DeviceKey.objects.get(device=device).expires_at
    for shown in (one, listed):
        assert shown["keyStatus"] == status
        assert datetime.fromisoformat(shown["keyExpiresAt"]) == ends


def test_the_key_shown_is_the_newest(viewer: PersonCaller, device: Device) -> None:
    let_end(device, timedelta(days=1))

    new = rotated_by_device(device)

    shown = viewer.get(f"/devices/{device.device_id}").json()
    assert shown["keyStatus"] == "valid"
    assert datetime.fromisoformat(shown["keyExpiresAt"]) == row_of(new).expires_at


def test_a_revoked_device_has_no_key(operator: PersonCaller, device: Device) -> None:
    rotated_by_device(device)

    shown = operator.post(f"/devices/{device.device_id}/revoke").json()

    assert shown["keyStatus"] == "none"
    assert shown["keyExpiresAt"] is None
    assert live_keys(device) == 0


# --- Rotation ---------------------------------


@pytest.mark.parametrize("rotate", [rotated_by_device, rotated_by_person])
def test_two_rotations_in_a_row_leave_all_three_keys_in_use(
    device: Device, rotate: Callable[[Device], str]
) -> None:
    keys = [key_of(device), rotate(device), rotate(device)]

    assert [opens(device, key) for key in keys] == [True, True, True]
    assert DeviceKey.objects.current().get(device=device) == row_of(keys[-1])


def test_a_second_rotation_does_not_lengthen_the_overlap_of_the_first(
    device: Device,
) -> None:
    rotated_by_person(device)
    ends = row_of(key_of(device)).expires_at

    rotated_by_person(device)
    rotated_by_device(device)

    assert row_of(key_of(device)).expires_at == ends


def test_a_device_that_loses_the_answer_keeps_its_key(device: Device) -> None:
    for _ in range(10):
        rotated_by_device(device)

    assert opens(device, key_of(device), after=timedelta(days=80))


def test_the_overlap_begins_when_the_device_uses_its_new_key(device: Device) -> None:
    new = rotated_by_device(device)
    use = timedelta(days=30)

    assert opens(device, new, after=use)

    assert opens(device, key_of(device), after=use + KEY_OVERLAP - timedelta(hours=1))
    assert not opens(device, key_of(device), after=use + KEY_OVERLAP)
    assert opens(device, new, after=use + KEY_OVERLAP)


def test_the_overlap_begins_at_the_first_use_only(device: Device) -> None:
    new = rotated_by_device(device)
    opens(device, new)
    ends = row_of(key_of(device)).expires_at

    opens(device, new, after=timedelta(hours=5))

    assert row_of(key_of(device)).expires_at == ends


def test_using_a_key_ends_the_older_ones_and_no_newer(device: Device) -> None:
    used = rotated_by_device(device)
    lost = rotated_by_device(device)

    assert opens(device, used)

    later = KEY_OVERLAP + timedelta(hours=1)
    assert not opens(device, key_of(device), after=later)
    assert opens(device, lost, after=later)


def test_a_new_key_helps_a_device_whose_key_has_expired(
    operator: PersonCaller, device: Device
) -> None:
    let_end(device, timedelta(days=-3))
    old_end = row_of(key_of(device)).expires_at

    new = operator.post(f"/devices/{device.device_id}/api-key").json()["apiKey"]

    assert opens(device, new)
    assert not opens(device, key_of(device))
    assert row_of(key_of(device)).expires_at == old_end


def test_a_device_with_a_token_rotates_after_its_key_has_expired(
    device: Device, device_caller: Caller
) -> None:
    let_end(device, timedelta(seconds=-1))

    answer = device_caller.post(
        f"/devices/{device.device_id}/api-key", {"apiKey": key_of(device)}
    )

    assert opens(device, answer.json()["apiKey"])


@pytest.mark.parametrize("proof", [None, "", "hsd_wrong", "another's", "retired"])
def test_a_token_alone_gives_no_key(operator: PersonCaller, proof: str | None) -> None:
    # Failures are counted by device and minute.
    device = DeviceFactory.create(device_id=f"d-{uuid4()}")
    path = f"/devices/{device.device_id}/api-key"
    given = {} if proof is None else {"apiKey": proof}
    if proof == "another's":
        given = {"apiKey": key_of(DeviceFactory.create())}
    elif proof == "retired":
        given = {"apiKey": key_of(device)}
        assert operator.post(path).status_code == 201
        let_end(device, timedelta(seconds=-1))
        DeviceKey.objects.filter(pk=row_of(key_of(device)).pk).update(
            superseded_at=timezone.now() - timedelta(hours=25)
        )
    before = DeviceKey.objects.filter(device=device).count()

    refused = Caller(token=device_token(device)).post(path, given)

    code = "login_failed" if proof else "invalid"
    problem_of(refused, 401 if proof else 400, code)
    assert DeviceKey.objects.filter(device=device).count() == before
    device.refresh_from_db()
    assert (device.alarm_at is not None) == (proof == "retired")


def test_wrong_proofs_of_a_key_are_counted(db: None) -> None:
    device = DeviceFactory.create(device_id=f"d-{uuid4()}")
    caller = Caller(token=device_token(device))
    path = f"/devices/{device.device_id}/api-key"

    # The count is kept by the minute, which may end in between.
    found = [caller.post(path, {"apiKey": "x"}).status_code for _ in range(21)]

    assert found[0] == 401
    assert 429 in found


def test_a_person_proves_no_key(operator: PersonCaller, device: Device) -> None:
    answer = operator.post(
        f"/devices/{device.device_id}/api-key", {"apiKey": key_of(device)}
    )

    assert pointers(problem_of(answer, 400)) == {"/apiKey": "unknown"}


def test_the_number_of_keys_in_use_stays_bounded(device: Device) -> None:
    opens(device, key_of(device))

    keys = [rotated_by_device(device) for _ in range(12)]

    assert live_keys(device) == MAX_LIVE_KEYS
    assert opens(device, key_of(device))
    assert [opens(device, key) for key in keys[-3:]] == [True, True, True]
    assert not opens(device, keys[0])


def test_the_key_taken_into_use_last_is_never_surplus(device: Device) -> None:
    lost = [rotated_by_device(device) for _ in range(2)]
    held = rotated_by_device(device)
    assert opens(device, held)

    for _ in range(6):
        rotated_by_device(device)

    assert opens(device, held)
    assert not opens(device, lost[0])


def test_the_same_request_again_gives_no_other_key(
    device: Device, device_caller: Caller
) -> None:
    path = f"/devices/{device.device_id}/api-key"

    first, again = (
        device_caller.post(
            path,
            {"apiKey": key_of(device)},
            headers={"Idempotency-Key": "rotation-1"},
        ).json()
        for _ in range(2)
    )

    assert opens(device, first["apiKey"])
    assert again == first | {"apiKey": None}
    assert DeviceKey.objects.filter(device=device).count() == 2
    assert AuditEvent.objects.filter(verb="device.key-rotated").count() == 1


@pytest.mark.django_db(transaction=True)
def test_rotations_at_once_each_give_a_key_that_opens() -> None:
    device = DeviceFactory.create()

    def rotate(_: int) -> str:
        try:
            return rotated_by_device(device)
        finally:
            connection.close()

    with ThreadPoolExecutor(3) as pool:
        keys = list(pool.map(rotate, range(3)))

    assert len(set(keys)) == 3
    assert DeviceKey.objects.current().filter(device=device).count() == 1
    assert all(opens(device, key) for key in [key_of(device), *keys])


@pytest.mark.django_db(transaction=True)
def test_first_uses_and_a_rotation_at_once_do_not_block_each_other() -> None:
    device = DeviceFactory.create()
    keys = [key_of(device), rotated_by_device(device), rotated_by_device(device)]

    def act(step: Callable[[], Any]) -> Any:
        try:
            return step()
        finally:
            connection.close()

    steps: list[Callable[[], Any]] = [
        *(lambda key=key: opens(device, key) for key in keys),
        lambda: rotated_by_device(device),
    ]
    with ThreadPoolExecutor(len(steps)) as pool:
        found = list(pool.map(act, steps))

    assert all(found)


def test_a_revoked_device_cannot_rotate(device: Device, device_caller: Caller) -> None:
    revoke_device(actor=PersonFactory.create(operator=True), device_id=device.device_id)

    answer = device_caller.post(f"/devices/{device.device_id}/api-key")

    problem_of(answer, 401, "token_revoked")
    assert live_keys(device) == 0
