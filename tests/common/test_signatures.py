"""Electronic signatures at the API: who signs, by what, and what the trail keeps."""

import hashlib
import json
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.utils import timezone

from deployments.models import Deployment
from firmware.models import Firmware
from hotswap.common.models import AuditEvent, User
from hotswap.common.personal_tokens import create_token
from hotswap.common.roles import Role
from hotswap.common.signatures import Meaning, signatures_of
from tests.api import Caller, pointers, problem_of
from tests.callers import PersonCaller
from tests.common.factories import PASSWORD, PersonFactory
from tests.deployments.world import World
from tests.devices.factories import DeviceFactory
from tests.factors import add_app, add_recovery_codes, code_of
from tests.firmware.factories import FirmwareFactory

pytestmark = pytest.mark.django_db

APPROVAL = {"meaning": "approval", "password": PASSWORD}


@pytest.fixture
def _required(settings: Any) -> None:
    settings.REQUIRE_SIGNATURES = True


@pytest.fixture
def draft() -> Firmware:
    firmware: Firmware = FirmwareFactory.create()
    return firmware


def approve(caller: Caller, firmware: Firmware, **body: Any) -> Any:
    options = {"headers": body.pop("headers", {})}
    return caller.post(f"/firmware/{firmware.pk}/approve", body, **options)


def row_of(verb: str, object_id: object) -> AuditEvent:
    return AuditEvent.objects.get(verb=verb, object_id=str(object_id))


def canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


@pytest.mark.usefixtures("_required")
def test_an_approval_is_refused_without_a_signature(
    admin: PersonCaller, draft: Firmware
) -> None:
    refused = problem_of(approve(admin, draft), 403, "signature_required")

    assert Meaning.APPROVAL.statement in refused["detail"]
    draft.refresh_from_db()
    assert draft.status == "Draft"


@pytest.mark.usefixtures("_required")
def test_a_signature_is_bound_to_person_time_meaning_and_record(
    admin: PersonCaller, draft: Firmware
) -> None:
    answer = approve(admin, draft, signature=APPROVAL)

    assert answer.status_code == 200
    row = row_of("firmware.approved", draft.pk)
    signed = row.details["signature"]
    admin.person.refresh_from_db()
    name = canonical([str(admin.person.name_salt), admin.person.username])
    assert row.actor == admin.person.pseudonym
    assert signed["meaning"] == "approval"
    assert signed["statement"] == Meaning.APPROVAL.statement
    assert signed["factor"] == "password"
    assert signed["nameSha256"] == hashlib.sha256(name).hexdigest()
    assert signed["record"]["sha256"] == draft.sha256
    assert signed["record"]["version"] == draft.version
    record = hashlib.sha256(canonical(signed["record"])).hexdigest()
    assert signed["recordSha256"] == record
    kept = json.dumps(row.details)
    assert PASSWORD not in kept
    assert admin.person.username not in kept


@pytest.mark.usefixtures("_required")
def test_a_code_signs_once(admin: PersonCaller) -> None:
    secret = add_app(admin.person)
    first, second = FirmwareFactory.create(), FirmwareFactory.create()
    by_code = {"meaning": "approval", "code": code_of(secret)}

    assert approve(admin, first, signature=by_code).status_code == 200
    problem_of(approve(admin, second, signature=by_code), 400, "signature_wrong")

    details = row_of("firmware.approved", first.pk).details
    assert details["signature"]["factor"] == "totp"


def test_whoever_has_no_password_signs_by_a_code(
    admin: PersonCaller, draft: Firmware
) -> None:
    add_app(admin.person)
    codes = add_recovery_codes(admin.person)

    answer = approve(admin, draft, signature={"meaning": "approval", "code": codes[0]})

    assert answer.status_code == 200
    details = row_of("firmware.approved", draft.pk).details
    assert details["signature"]["factor"] == "recovery_codes"


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "once"}])
def test_a_wrong_password_signs_nothing_and_is_audited(
    admin: PersonCaller, draft: Firmware, headers: dict[str, str]
) -> None:
    wrong = {"meaning": "approval", "password": "not it"}

    refused = approve(admin, draft, signature=wrong, headers=headers)

    problem = problem_of(refused, 400, "signature_wrong")
    assert pointers(problem) == {"/signature": "signature_wrong"}
    failed = row_of("person.signature-failed", admin.person.pseudonym)
    assert failed.details == {"meaning": "approval"}
    draft.refresh_from_db()
    assert draft.status == "Draft"


@pytest.mark.parametrize("is_idempotent", [False, True])
def test_wrong_signatures_count_as_failed_logins(
    admin: PersonCaller, draft: Firmware, settings: Any, is_idempotent: bool
) -> None:
    settings.LOGIN_FAILURES_PER_MINUTE = 3
    wrong = {"meaning": "approval", "password": "not it"}

    answers = []
    for _ in range(3 * 3):
        headers = {"Idempotency-Key": uuid4().hex} if is_idempotent else {}
        answer = approve(admin, draft, signature=wrong, headers=headers)
        answers.append(answer.status_code)

    assert set(answers) == {400, 429}
    name = {"username": admin.person.username, "password": "not it"}
    answers = [Caller().post("/auth/token", name).status_code for _ in range(3 * 3)]
    assert 429 in answers


def test_a_program_cannot_sign(draft: Firmware) -> None:
    person = PersonFactory.create(admin=True)
    _, text = create_token(
        user=person,
        name="pipeline",
        role=Role.ADMIN,
        lifetime=timedelta(days=1),
        now=timezone.now(),
    )

    refused = approve(Caller(token=text), draft, signature=APPROVAL)

    problem_of(refused, 403, "signature_by_token")


@pytest.mark.parametrize(
    ("signature", "pointer", "code"),
    [
        ({**APPROVAL, "meaning": "rollback"}, "/signature/meaning", "invalid"),
        ({"meaning": "approval"}, "/signature/password", "required"),
        ({**APPROVAL, "code": "123456"}, "/signature/code", "conflict"),
        ({"password": PASSWORD}, "/signature/meaning", "required"),
        ({**APPROVAL, "name": "ada"}, "/signature/name", "unknown"),
        ("yes", "/signature", "invalid"),
    ],
)
def test_a_signature_says_what_the_route_asks_for(
    admin: PersonCaller, draft: Firmware, signature: Any, pointer: str, code: str
) -> None:
    problem = problem_of(approve(admin, draft, signature=signature), 400)

    assert pointers(problem)[pointer] == code
    draft.refresh_from_db()
    assert draft.status == "Draft"


def test_a_signature_that_nobody_requires_is_kept(
    admin: PersonCaller, draft: Firmware
) -> None:
    assert approve(admin, draft, signature=APPROVAL).status_code == 200

    (signed,) = signatures_of("firmware", [str(draft.pk)])
    assert (signed.name, signed.factor) == (admin.person.username, "password")


def test_an_approval_that_is_not_signed_says_nothing_of_signatures(
    admin: PersonCaller, draft: Firmware
) -> None:
    approve(admin, draft)

    assert "signature" not in row_of("firmware.approved", draft.pk).details


def test_a_repeated_request_needs_no_second_code(
    admin: PersonCaller, draft: Firmware
) -> None:
    secret, key = add_app(admin.person), {"Idempotency-Key": uuid4().hex}
    first = {"meaning": "approval", "code": code_of(secret)}
    later = {"meaning": "approval", "code": code_of(secret, later=1)}

    done = approve(admin, draft, signature=first, headers=key)
    again = approve(admin, draft, signature=later, headers=key)

    assert done.status_code == again.status_code == 200
    assert done.json() == again.json()


@pytest.mark.usefixtures("_required")
def test_each_decision_about_a_firmware_is_signed_with_its_reason(
    admin: PersonCaller,
) -> None:
    rejected, withdrawn = FirmwareFactory.create(), FirmwareFactory.create()
    approve(admin, withdrawn, signature=APPROVAL)
    recall = {"reason": "leaks", "cancelDeployments": True}
    decisions: list[tuple[Firmware, str, str, str, dict[str, Any]]] = [
        (rejected, "reject", "rejected", "rejection", {"comment": "leaks"}),
        (withdrawn, "deprecate", "deprecated", "withdrawal", {"reason": "leaks"}),
        (withdrawn, "deprecate", "recalled", "withdrawal", recall),
        (withdrawn, "reinstate", "reinstated", "reinstatement", {"reason": "leaks"}),
    ]

    for firmware, path, verb, meaning, body in decisions:
        route = f"/firmware/{firmware.pk}/{path}"
        problem_of(admin.post(route, body), 403, "signature_required")
        signature = {"meaning": meaning, "password": PASSWORD}
        answer = admin.post(route, {**body, "signature": signature})

        assert answer.status_code == 200, answer.content
        signed = row_of(f"firmware.{verb}", firmware.pk).details["signature"]
        assert signed["statement"] == Meaning(meaning).statement
        assert signed["record"]["sha256"] == firmware.sha256
        assert signed["record"]["reason"] == "leaks"
    assert len(signatures_of("firmware", [str(withdrawn.pk)])) == 4


@pytest.fixture
def completed(world: World) -> Deployment:
    old, new = world.image("1.0.0"), world.image("2.0.0")
    world.fleet(3, old)
    deployment = world.launch(new, "Direct")
    world.update_offered()
    return deployment


@pytest.fixture
def world(db: None) -> World:
    return World()


def test_a_rollback_is_signed_with_its_reason(
    operator: PersonCaller, completed: Deployment, settings: Any
) -> None:
    settings.REQUIRE_SIGNATURES = True
    path = f"/deployments/{completed.pk}/rollback"
    body = {"reason": "it leaks", "scope": {"stage": 1}}

    problem_of(operator.post(path, body), 403, "signature_required")
    signature = {"meaning": "rollback", "password": PASSWORD}
    answer = operator.post(path, {**body, "signature": signature})

    assert answer.status_code == 200, answer.content
    details = row_of("deployment.rolled-back", completed.pk).details
    record = details["signature"]["record"]
    assert (record["reason"], record["scope"]) == ("it leaks", {"stage": 1})
    assert record["sha256"] == completed.firmware.sha256


def test_the_approval_of_a_stage_is_signed_with_its_number(
    admin: PersonCaller, world: World, settings: Any
) -> None:
    deployment = world.launch_with_approvals()
    settings.REQUIRE_SIGNATURES = True
    path, body = f"/deployments/{deployment.pk}/approve-stage", {"comment": "fine"}

    problem_of(admin.post(path, body), 403, "signature_required")
    other = {"signature": APPROVAL}
    assert list(pointers(problem_of(admin.post(path, body | other), 400))) == [
        "/signature/meaning"
    ]
    signature = {"meaning": "stage_approval", "password": PASSWORD}
    answer = admin.post(path, {**body, "signature": signature})

    assert answer.status_code == 200, answer.content
    (signed,) = signatures_of("deployment", [str(deployment.pk)])
    assert signed.statement == Meaning.STAGE_APPROVAL.statement
    details = row_of("deployment.approved", deployment.pk).details
    record = details["signature"]["record"]
    assert (record["stage"], record["reason"]) == (2, "fine")
    assert record["sha256"] == deployment.firmware.sha256


@pytest.mark.usefixtures("_required")
def test_the_erasure_of_a_device_is_signed_without_its_name(
    admin: PersonCaller,
) -> None:
    device = DeviceFactory.create()
    name, path = device.device_id, f"/devices/{device.device_id}"

    problem_of(admin.delete(path), 403, "signature_required")
    signature = {"meaning": "device_erasure", "password": PASSWORD}
    answer = admin.delete(path, {"signature": signature})

    assert answer.status_code == 204
    details = row_of("device.erased", device.pk).details
    assert details["signature"]["record"] == {"device": str(device.pk)}
    assert name not in json.dumps(details)


@pytest.mark.usefixtures("_required")
def test_an_erasure_is_signed(admin: PersonCaller) -> None:
    person = PersonFactory.create()
    path = f"/people/{person.pseudonym}"

    problem_of(admin.delete(path), 403, "signature_required")
    signature = {"meaning": "erasure", "password": PASSWORD}
    answer = admin.delete(path, {"signature": signature})

    assert answer.status_code == 204
    record = row_of("person.erased", person.pseudonym).details["signature"]["record"]
    assert record == {"person": str(person.pseudonym), "role": "Viewer"}


def test_the_name_of_an_erased_signer_is_out_of_reach(
    admin: PersonCaller, draft: Firmware
) -> None:
    signer = PersonCaller(PersonFactory.create(admin=True))
    approve(signer, draft, signature=APPROVAL)

    admin.delete(f"/people/{signer.person.pseudonym}")

    (signed,) = signatures_of("firmware", [str(draft.pk)])
    assert (signed.name, signed.name_salt) == (None, None)
    assert signed.signer == signer.person.pseudonym
    assert User.objects.get(pk=signer.person.pk).name_salt is None
