"""Devices that register themselves with an enrolment token."""

import json
import secrets
import threading
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from devices.choices import EnrolmentStatus
from devices.models import Device, DeviceKey, EnrolmentRequest, EnrolmentToken
from devices.services import enrolment
from devices.services.enrolment import Applicant, Enrolled
from hotswap.common.models import AuditEvent
from tests.api import Caller, pointers, problem_of
from tests.callers import PersonCaller
from tests.common.factories import PersonFactory
from tests.devices.factories import DeviceFactory, EnrolmentTokenFactory, value_of
from tests.firmware.factories import DeviceModelFactory
from tests.words import says


@pytest.fixture(autouse=True)
def models(db: None) -> None:
    for name in ("sensor-v1", "sensor-v2"):
        DeviceModelFactory.create(name=name)


def ask(token: EnrolmentToken | str, device_id: object = "d-1", **fields: Any) -> Any:
    """Call as a device does; it has no token of its own yet."""
    body = {
        "enrolmentToken": token if isinstance(token, str) else value_of(token),
        "deviceId": device_id,
        "model": "sensor-v1",
        "secret": f"{device_id}".ljust(40, "s"),
    }
    return Caller().post("/enrolments", body | fields)


def fetch_token(device_id: str, api_key: str) -> Any:
    return Caller().post(
        "/auth/device-token", {"deviceId": device_id, "apiKey": api_key}
    )


def enrolment_of(device_id: str = "d-1") -> EnrolmentRequest:
    return EnrolmentRequest.objects.get(device_id=device_id)


def approve(caller: Caller, device_id: str = "d-1", **body: Any) -> Any:
    return caller.post(f"/enrolments/{enrolment_of(device_id).pk}/approve", body)


def reject(caller: Caller, device_id: str = "d-1", **body: Any) -> Any:
    return caller.post(f"/enrolments/{enrolment_of(device_id).pk}/reject", body)


# --- Tokens ------------------------------------------------------------------------


def test_the_value_of_a_token_is_shown_once(admin: PersonCaller) -> None:
    made = admin.post("/enrolment-tokens", {"name": "line 3", "maxUses": 5})

    listed = admin.get("/enrolment-tokens").json()["results"]

    assert made.status_code == 201
    value = made.json()["enrolmentToken"]
    assert made["Cache-Control"] == "no-store"
    assert len(value) > 40
    assert value not in json.dumps(listed)
    assert value not in str(vars(EnrolmentToken.objects.get()))
    assert listed[0]["status"] == "active"
    assert listed[0]["needsApproval"] is True
    assert listed[0]["maxUses"] == 5
    assert listed[0]["uses"] == 0


def test_a_token_ends_after_thirty_days_unless_told(admin: PersonCaller) -> None:
    admin.post("/enrolment-tokens", {"name": "line 3"})

    ends = EnrolmentToken.objects.get().expires_at

    assert timedelta(days=29) < ends - timezone.now() <= timedelta(days=30)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("expiresAt", "2020-01-01T00:00:00Z"),
        ("expiresAt", 5),
        ("expiresAt", "2099-01-01T00:00:00"),
        ("maxUses", 0),
        ("maxUses", "5"),
        ("maxUses", 1_000_001),
        ("region", "MOON"),
        ("needsApproval", "yes"),
        ("tags", {"a:b": "c"}),
        ("tags", {"timezone": "Berlin"}),
        ("name", ""),
    ],
)
def test_a_token_that_makes_no_sense_is_refused(
    admin: PersonCaller, field: str, value: Any
) -> None:
    response = admin.post("/enrolment-tokens", {"name": "n", field: value})

    document = problem_of(response, 400)
    assert any(pointer.startswith(f"/{field}") for pointer in pointers(document))
    assert not EnrolmentToken.objects.exists()


def test_a_token_for_an_unknown_model_is_422(admin: PersonCaller) -> None:
    response = admin.post("/enrolment-tokens", {"name": "n", "model": "toaster"})

    problem_of(response, 422, "unknown_model")


def test_making_and_revoking_a_token_are_audited(admin: PersonCaller) -> None:
    made = admin.post("/enrolment-tokens", {"name": "n"}).json()

    revoked = admin.post(f"/enrolment-tokens/{made['id']}/revoke")
    again = admin.post(f"/enrolment-tokens/{made['id']}/revoke")

    assert revoked.json()["status"] == "revoked"
    assert again.json()["revokedAt"] == revoked.json()["revokedAt"]
    events = AuditEvent.objects.filter(object_id=made["id"]).order_by("id")
    assert [event.verb for event in events] == [
        "enrolment-token.created",
        "enrolment-token.revoked",
    ]
    assert {event.actor for event in events} == {admin.person.pseudonym}


# --- At once -----------------------------------------------------------------------


def test_a_device_is_registered_at_once_where_nobody_need_approve() -> None:
    token = EnrolmentTokenFactory.create(needs_approval=False, tags={"line": "3"})

    response = ask(token, tags={"site": "a", "line": "9"}, firmwareVersion="1.0.0")

    assert response.status_code == 201
    assert response["Cache-Control"] == "no-store"
    body = response.json()
    assert set(body) == {"status", "deviceId", "apiKey", "keyExpiresAt"}
    assert body["status"] == "Completed"
    device = Device.objects.get(device_id="d-1")
    assert device.tags == {"site": "a", "line": "3"}
    assert device.region == "US-EAST"
    assert device.firmware_version == "1.0.0"
    assert fetch_token("d-1", body["apiKey"]).status_code == 200


def test_a_registration_says_in_the_trail_which_enrolment_let_it_in() -> None:
    ask(EnrolmentTokenFactory.create(needs_approval=False))

    event = AuditEvent.objects.get(verb="device.registered")

    assert event.actor_kind == AuditEvent.ActorKind.SERVER
    assert event.details["enrolment"] == str(enrolment_of().pk)


def test_no_secret_is_kept_readable() -> None:
    token = EnrolmentTokenFactory.create(needs_approval=False)
    ask(token, secret="x" * 40)

    kept = str(list(EnrolmentRequest.objects.values()))
    trail = str(list(AuditEvent.objects.values()))

    assert "x" * 40 not in kept + trail
    assert value_of(token) not in kept + trail


def test_a_lost_answer_is_given_again_with_a_key_that_works() -> None:
    token = EnrolmentTokenFactory.create(needs_approval=False, max_uses=1)
    lost = ask(token).json()["apiKey"]

    again = ask(token)

    assert again.status_code == 201
    assert fetch_token("d-1", again.json()["apiKey"]).status_code == 200
    problem_of(fetch_token("d-1", lost), 401)
    assert DeviceKey.objects.count() == 1
    token.refresh_from_db()
    assert token.uses == 1


def test_once_the_key_was_used_no_other_is_given() -> None:
    token = EnrolmentTokenFactory.create(needs_approval=False)
    key = ask(token).json()["apiKey"]
    fetch_token("d-1", key)

    response = ask(token)

    problem_of(response, 409, "already_enrolled")
    assert fetch_token("d-1", key).status_code == 200


def test_a_key_is_given_again_after_the_token_has_expired() -> None:
    token = EnrolmentTokenFactory.create(needs_approval=False)
    ask(token)
    EnrolmentToken.objects.update(expires_at=timezone.now())

    assert ask(token).status_code == 201


def test_a_registered_name_cannot_be_taken_over() -> None:
    DeviceFactory.create(device_id="d-1")
    token = EnrolmentTokenFactory.create(needs_approval=False)

    problem_of(ask(token), 409, "device_exists")

    token.refresh_from_db()
    assert token.uses == 0
    assert DeviceKey.objects.count() == 1


def test_an_enrolled_device_cannot_be_taken_over_with_another_secret() -> None:
    token = EnrolmentTokenFactory.create(needs_approval=False)
    ask(token)

    problem_of(ask(token, secret="o" * 32), 409, "device_exists")


def test_a_revoked_device_gets_no_key_again(operator: PersonCaller) -> None:
    token = EnrolmentTokenFactory.create(needs_approval=False)
    ask(token)
    operator.post("/devices/d-1/revoke")

    problem_of(ask(token), 409, "already_enrolled")


# --- Bad tokens ----------------------------------------------------------------------


@pytest.mark.parametrize("state", ["wrong", "expired", "revoked", "used up"])
def test_a_token_that_is_no_good_is_401_and_writes_nothing(
    admin: PersonCaller, state: str
) -> None:
    token = EnrolmentTokenFactory.create(needs_approval=False, max_uses=1)
    value = value_of(token)
    match state:
        case "wrong":
            value = "hse_" + secrets.token_urlsafe(32)
        case "expired":
            EnrolmentToken.objects.update(expires_at=timezone.now())
        case "revoked":
            admin.post(f"/enrolment-tokens/{token.pk}/revoke")
        case _:
            ask(token, f"first-{secrets.token_hex(4)}")
    before = Device.objects.count()

    response = ask(value, f"d-{secrets.token_hex(4)}")

    problem_of(response, 401, "enrolment_token_invalid")
    assert "WWW-Authenticate" in response
    assert Device.objects.count() == before


def test_wrong_tokens_are_counted_and_then_refused_for_a_while(settings: Any) -> None:
    name = f"d-{secrets.token_hex(6)}"
    limit = settings.LOGIN_FAILURES_PER_MINUTE

    # The count is kept by the minute, which may end in between.
    found = [ask("hse_wrong", name).status_code for _ in range(2 * limit + 1)]

    assert found[0] == 401
    assert 429 in found


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("secret", "s" * 31),
        ("secret", "s" * 257),
        ("secret", "s" * 31 + "\n"),
        ("secret", "ä" * 40),
        ("secret", 5),
        ("deviceId", "import"),
        ("deviceId", "a b"),
        ("region", "MOON"),
        ("tags", {"a": 1}),
        ("tags", {"timezone": "CET/CEST"}),
        ("firmwareVersion", 1),
        ("surprise", 1),
    ],
)
def test_a_field_that_is_no_good_is_400(field: str, value: Any) -> None:
    token = EnrolmentTokenFactory.create(needs_approval=False)

    response = ask(token, **{"secret": "s" * 32, field: value})

    document = problem_of(response, 400)
    assert any(pointer.startswith(f"/{field}") for pointer in pointers(document))


@pytest.mark.parametrize(
    ("said", "kept"),
    [("one", "one"), (" 1.0 b\n", "1.0 b"), ("", ""), ("v" * 70, "v" * 64)],
)
def test_a_device_calls_its_image_as_it_likes(said: str, kept: str) -> None:
    token = EnrolmentTokenFactory.create(needs_approval=False)

    response = ask(token, firmwareVersion=said)

    assert response.status_code == 201
    device = Device.objects.get(device_id=response.json()["deviceId"])
    assert (device.firmware_version, device.version_key) == (kept, "")


def test_an_unknown_model_is_422() -> None:
    token = EnrolmentTokenFactory.create(needs_approval=False)

    problem_of(ask(token, model="toaster"), 422, "unknown_model")

    token.refresh_from_db()
    assert token.uses == 0


@pytest.mark.parametrize(
    ("fields", "pointer", "code"),
    [
        ({"model": "sensor-v2"}, "/model", "wrong_model"),
        ({"region": "EU"}, "/region", "wrong_region"),
        ({"tags": {f"t{n}": "" for n in range(50)}}, "/tags", "too_many"),
    ],
)
def test_a_token_lets_in_only_what_it_is_for(
    fields: dict[str, Any], pointer: str, code: str
) -> None:
    token = EnrolmentTokenFactory.create(
        needs_approval=False, model_name="sensor-v1", region="APAC", tags={"x": "y"}
    )

    document = problem_of(ask(token, **fields), 422, "not_allowed_by_token")

    assert pointers(document) == {pointer: code}
    token.refresh_from_db()
    assert token.uses == 0


def test_a_device_gets_the_region_of_its_token() -> None:
    ask(EnrolmentTokenFactory.create(needs_approval=False, region="APAC"))

    assert Device.objects.get().region == "APAC"


# --- Waiting for a person -----------------------------------------------------------


def test_a_device_waits_until_it_is_approved(operator: PersonCaller) -> None:
    token = EnrolmentTokenFactory.create()
    first, second = ask(token), ask(token)

    approved = approve(operator, comment="seen on the line")
    done = ask(token)

    assert [first.status_code, second.status_code] == [202, 202]
    assert first.json() == {"status": "Pending"}
    assert int(first["Retry-After"]) > 0
    assert approved.json()["status"] == "Approved"
    assert approved.json()["decidedBy"] == operator.person.username
    assert done.status_code == 201
    assert fetch_token("d-1", done.json()["apiKey"]).status_code == 200
    assert enrolment_of().status == EnrolmentStatus.COMPLETED
    token.refresh_from_db()
    assert token.uses == 1


def test_a_waiting_device_is_no_device_yet(viewer: PersonCaller) -> None:
    ask(EnrolmentTokenFactory.create())

    assert not Device.objects.exists()
    listed = viewer.get("/enrolments?status=Pending").json()["results"]
    assert [row["deviceId"] for row in listed] == ["d-1"]
    assert viewer.get("/enrolments?status=Completed").json()["results"] == []


def test_a_decision_is_audited_with_its_comment(operator: PersonCaller) -> None:
    ask(EnrolmentTokenFactory.create())
    approve(operator, comment="seen on the line")

    event = AuditEvent.objects.get(verb="enrolment.approved")

    assert event.actor == operator.person.pseudonym
    assert event.details["comment"] == "seen on the line"
    assert not says(json.dumps(event.details), "d-1")


def test_a_rejected_device_is_told_so(operator: PersonCaller) -> None:
    token = EnrolmentTokenFactory.create()
    ask(token)
    reject(operator, comment="not ours")

    problem_of(ask(token), 403, "enrolment_rejected")

    assert not Device.objects.exists()


def test_an_approval_can_be_taken_back_until_it_is_collected(
    operator: PersonCaller,
) -> None:
    token = EnrolmentTokenFactory.create()
    ask(token)
    approve(operator)

    assert reject(operator).status_code == 200

    problem_of(ask(token), 403, "enrolment_rejected")


def test_a_decision_is_made_once(operator: PersonCaller) -> None:
    token = EnrolmentTokenFactory.create()
    ask(token)
    approve(operator)

    problem_of(approve(operator), 409, "wrong_status")
    ask(token)
    problem_of(reject(operator), 409, "wrong_status")

    assert AuditEvent.objects.filter(verb__startswith="enrolment.").count() == 1


def test_another_secret_cannot_collect_what_was_approved(
    operator: PersonCaller,
) -> None:
    token = EnrolmentTokenFactory.create()
    ask(token)
    approve(operator)

    problem_of(ask(token, secret="o" * 40), 409, "enrolment_conflict")

    assert ask(token).status_code == 201


def test_a_rejected_name_may_be_asked_for_by_the_right_device(
    operator: PersonCaller,
) -> None:
    token = EnrolmentTokenFactory.create()
    ask(token, secret="i" * 40)
    reject(operator)

    assert ask(token).status_code == 202
    problem_of(ask(token, secret="i" * 40), 409, "enrolment_conflict")


def test_the_device_finishes_after_its_token_has_expired(
    operator: PersonCaller,
) -> None:
    token = EnrolmentTokenFactory.create(max_uses=1)
    ask(token)
    EnrolmentToken.objects.update(expires_at=timezone.now())

    assert ask(token).status_code == 202
    approve(operator)
    assert ask(token).status_code == 201


def test_a_revoked_token_stops_those_that_wait(
    admin: PersonCaller, operator: PersonCaller
) -> None:
    token = EnrolmentTokenFactory.create()
    ask(token)
    approve(operator)
    admin.post(f"/enrolment-tokens/{token.pk}/revoke")

    problem_of(ask(token), 401, "enrolment_token_invalid")


def test_a_waiting_device_may_go_on_with_a_new_token(admin: PersonCaller) -> None:
    leaked = EnrolmentTokenFactory.create()
    ask(leaked)
    admin.post(f"/enrolment-tokens/{leaked.pk}/revoke")
    fresh = EnrolmentTokenFactory.create(needs_approval=False)

    assert ask(fresh).status_code == 201

    assert EnrolmentRequest.objects.count() == 1
    fresh.refresh_from_db()
    assert fresh.uses == 1


def test_a_name_taken_in_the_meantime_cannot_be_approved(
    operator: PersonCaller,
) -> None:
    ask(EnrolmentTokenFactory.create())
    DeviceFactory.create(device_id="d-1")

    problem_of(approve(operator), 409, "device_exists")


def test_an_enrolment_that_is_none_is_404(operator: PersonCaller) -> None:
    path = "/enrolments/00000000-0000-4000-8000-000000000000/approve"

    problem_of(operator.post(path), 404, "enrolment_not_found")


# --- Races --------------------------------------------------------------------------


def together(count: int, work: Any) -> list[Any]:
    """Run `work(number)` in threads that start at once; return what each gave."""
    barrier = threading.Barrier(count)
    found: list[Any] = [None] * count

    def run(number: int) -> None:
        try:
            barrier.wait(60)
            found[number] = work(number)
        except Exception as error:  # noqa: BLE001
            found[number] = error
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    return found


@pytest.mark.django_db(transaction=True)
def test_a_token_lets_no_more_devices_in_than_it_says() -> None:
    token = EnrolmentTokenFactory.create(needs_approval=False, max_uses=3)
    value = value_of(token)

    answers = together(
        8,
        lambda n: enrolment.enrol_device(
            enrolment_token=value,
            applicant=Applicant(f"d-{n}", "sensor-v1", "s" * 40),
            now=timezone.now(),
        ),
    )

    assert sum(isinstance(answer, Enrolled) for answer in answers) == 3
    assert answers.count(None) == 5
    assert Device.objects.count() == 3
    token.refresh_from_db()
    assert token.uses == 3


@pytest.mark.django_db(transaction=True)
def test_one_device_that_asks_many_times_at_once_counts_once() -> None:
    actor = PersonFactory.create(admin=True)
    values = [
        value_of(EnrolmentTokenFactory.create(actor=actor, max_uses=5)),
        value_of(EnrolmentTokenFactory.create(actor=actor, max_uses=5)),
    ]

    answers = together(
        8,
        lambda n: enrolment.enrol_device(
            enrolment_token=values[n % 2],
            applicant=Applicant("d-1", "sensor-v1", "s" * 40),
            now=timezone.now(),
        ),
    )

    assert [type(answer).__name__ for answer in answers] == ["Waiting"] * 8
    assert EnrolmentRequest.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_of_two_decisions_at_once_one_wins() -> None:
    actor = PersonFactory.create(operator=True)
    ask(EnrolmentTokenFactory.create())
    asked = enrolment_of()

    answers = together(
        2,
        lambda n: enrolment.approve_enrolment(
            actor=actor, enrolment_id=asked.pk, comment=str(n)
        ),
    )

    assert sum(isinstance(answer, EnrolmentRequest) for answer in answers) == 1
    assert AuditEvent.objects.filter(verb="enrolment.approved").count() == 1
