"""Logins, tokens and their ends."""

import base64
import hashlib
import hmac
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from django.db import connection
from django.utils import timezone

from devices.models import Device, DeviceKey
from devices.services.credentials import (
    IssuedToken,
    issue_device_token,
    rotate_key,
)
from devices.services.registry import change_device, revoke_device
from hotswap.common.keyring import token_keys
from hotswap.common.models import RefreshToken
from hotswap.common.tokens import (
    DeviceToken,
    PersonToken,
    issue_token_pair,
    password_stamp,
    person_access_token,
    rotate_refresh_token,
)
from hotswap.retention import enforce_policies
from tests.api import Caller, problem_of
from tests.callers import PersonCaller
from tests.common.factories import PASSWORD, PersonFactory
from tests.common.test_roles import NOBODY, ROWS
from tests.devices.factories import DeviceFactory, device_token, key_of


def log_in(caller: Caller, username: str, password: str = PASSWORD, **options: Any):
    body = {"username": username, "password": password}
    return caller.post("/auth/token", body, **options)


def test_login_gives_a_pair_of_tokens_and_the_role(anonymous: Caller, db: None) -> None:
    person = PersonFactory.create(operator=True)

    response = log_in(anonymous, person.username)

    assert response.status_code == 200
    body = response.json()
    assert set(body) == {"access", "refresh", "expiresIn", "role"}
    assert body["expiresIn"] == 900
    assert body["role"] == "Operator"
    assert response["Cache-Control"] == "no-store"
    assert Caller(token=body["access"]).get("/devices").status_code == 200


@pytest.mark.parametrize("password", ["wrong", PASSWORD.lower(), f"{PASSWORD} ", " "])
def test_a_wrong_password_is_401(anonymous: Caller, db: None, password: str) -> None:
    person = PersonFactory.create()

    response = log_in(anonymous, person.username, password)

    problem_of(response, 401, "login_failed")
    assert response["WWW-Authenticate"].startswith("Bearer")


def test_an_unknown_name_gets_the_same_answer_as_a_wrong_password(
    anonymous: Caller, db: None
) -> None:
    wrong = problem_of(log_in(anonymous, PersonFactory.create().username, "x"), 401)
    unknown = problem_of(log_in(anonymous, "nobody-of-this-name", "x"), 401)

    assert {**wrong, "traceId": ""} == {**unknown, "traceId": ""}


def test_a_deactivated_person_cannot_log_in(anonymous: Caller, db: None) -> None:
    person = PersonFactory.create()
    person.is_active = False
    person.save()

    problem_of(log_in(anonymous, person.username), 401, "login_failed")


def test_a_person_without_a_role_cannot_log_in(anonymous: Caller, db: None) -> None:
    person = PersonFactory.create()
    person.groups.clear()

    problem_of(log_in(anonymous, person.username), 401, "login_failed")


def test_ten_failures_close_a_login_for_the_rest_of_the_minute(
    anonymous: Caller, db: None
) -> None:
    person = PersonFactory.create()

    answers = [log_in(anonymous, person.username, "x") for _ in range(21)]

    # A minute may end in between, once.
    assert {answer.status_code for answer in answers} == {401, 429}
    throttled = answers[-1] if answers[-1].status_code == 429 else answers[10]
    problem_of(throttled, 429, "throttled")
    assert 1 <= int(throttled["Retry-After"]) <= 60


def test_a_closed_login_refuses_the_right_password_and_leaves_others_alone(
    anonymous: Caller, db: None, settings: Any
) -> None:
    settings.LOGIN_FAILURES_PER_MINUTE = 0
    closed = PersonFactory.create()
    problem_of(log_in(anonymous, closed.username), 429)

    settings.LOGIN_FAILURES_PER_MINUTE = 10
    for _ in range(20):
        log_in(anonymous, closed.username, "x")

    assert log_in(anonymous, PersonFactory.create().username).status_code == 200


def test_successful_logins_are_not_counted(anonymous: Caller, db: None) -> None:
    person = PersonFactory.create()

    answers = [log_in(anonymous, person.username) for _ in range(15)]

    assert {answer.status_code for answer in answers} == {200}


def test_failures_of_one_device_do_not_close_the_fleet_behind_its_address(
    anonymous: Caller, db: None
) -> None:
    guessed, other = DeviceFactory.create(), DeviceFactory.create()
    for _ in range(20):
        anonymous.post(
            "/auth/device-token", {"deviceId": guessed.device_id, "apiKey": "x"}
        )

    response = anonymous.post(
        "/auth/device-token", {"deviceId": other.device_id, "apiKey": key_of(other)}
    )

    assert response.status_code == 200


def test_a_refresh_token_gives_a_new_pair_once(anonymous: Caller, db: None) -> None:
    pair = issue_token_pair(user=PersonFactory.create())

    response = anonymous.post("/auth/refresh", {"refresh": pair.refresh})

    assert response.status_code == 200
    renewed = response.json()
    assert renewed["refresh"] != pair.refresh
    assert Caller(token=renewed["access"]).get("/devices").status_code == 200
    again = anonymous.post("/auth/refresh", {"refresh": renewed["refresh"]})
    assert again.status_code == 200


def test_using_a_refresh_token_twice_revokes_its_family(
    anonymous: Caller, db: None
) -> None:
    person = PersonFactory.create()
    pair, elsewhere = issue_token_pair(user=person), issue_token_pair(user=person)
    newest = anonymous.post("/auth/refresh", {"refresh": pair.refresh}).json()

    reused = anonymous.post("/auth/refresh", {"refresh": pair.refresh})

    problem_of(reused, 401, "token_invalid")
    after = anonymous.post("/auth/refresh", {"refresh": newest["refresh"]})
    problem_of(after, 401, "token_invalid")
    other_login = anonymous.post("/auth/refresh", {"refresh": elsewhere.refresh})
    assert other_login.status_code == 200


def test_refresh_tokens_are_stored_as_digests_only(db: None) -> None:
    pair = issue_token_pair(user=PersonFactory.create())

    row = RefreshToken.objects.get()

    assert pair.refresh not in str(vars(row))
    assert row.digest == hashlib.sha256(pair.refresh.encode()).hexdigest()


def test_an_expired_refresh_token_is_refused_and_tidied_away(db: None) -> None:
    pair = issue_token_pair(user=PersonFactory.create())
    later = timezone.now() + timedelta(days=7, seconds=1)

    assert rotate_refresh_token(refresh=pair.refresh, now=later) is None
    enforce_policies(now=later, names=["refresh-tokens"])

    assert not RefreshToken.objects.exists()


def test_a_new_password_ends_access_and_refresh_tokens(
    anonymous: Caller, db: None
) -> None:
    person = PersonFactory.create()
    pair = issue_token_pair(user=person)

    person.set_password("Another-Horse-8")
    person.save()

    problem_of(Caller(token=pair.access).get("/devices"), 401, "token_revoked")
    problem_of(anonymous.post("/auth/refresh", {"refresh": pair.refresh}), 401)


def test_deactivation_ends_access_and_refresh_tokens(
    anonymous: Caller, db: None
) -> None:
    person = PersonFactory.create()
    pair = issue_token_pair(user=person)

    person.is_active = False
    person.save()

    problem_of(Caller(token=pair.access).get("/devices"), 401, "token_revoked")
    problem_of(anonymous.post("/auth/refresh", {"refresh": pair.refresh}), 401)


def test_deletion_ends_access_and_refresh_tokens(anonymous: Caller, db: None) -> None:
    person = PersonFactory.create()
    pair = issue_token_pair(user=person)

    person.delete()

    problem_of(Caller(token=pair.access).get("/devices"), 401, "token_revoked")
    problem_of(anonymous.post("/auth/refresh", {"refresh": pair.refresh}), 401)


def test_a_lost_role_counts_at_once(db: None) -> None:
    person = PersonFactory.create(admin=True)
    caller = Caller(token=person_access_token(person))

    person.groups.clear()

    problem_of(caller.get("/devices"), 403)


@pytest.mark.django_db(transaction=True)
def test_of_eight_exchanges_at_once_one_wins() -> None:
    pair = issue_token_pair(user=PersonFactory.create())
    barrier = threading.Barrier(8)

    def exchange(_: int) -> object:
        try:
            barrier.wait()
            return rotate_refresh_token(refresh=pair.refresh, now=timezone.now())
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(exchange, range(8)))

    winners = [result for result in results if result is not None]
    assert len(winners) == 1
    # The seven others were a second use, which ends the family.
    assert not RefreshToken.objects.filter(
        used_at__isnull=True, revoked_at__isnull=True
    ).exists()


def encoded(part: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


@pytest.fixture
def claims(db: None) -> dict[str, Any]:
    person = PersonFactory.create(admin=True)
    return {
        "token_type": "person",
        "exp": timezone.now() + timedelta(minutes=5),
        "iat": timezone.now(),
        "jti": "x",
        "sub": str(person.pseudonym),
        "stamp": password_stamp(person),
        "aud": "hotswap-people",
        "iss": "hotswap",
    }


def signed(claims: dict[str, Any], **headers: Any) -> str:
    key = token_keys()[-1]
    return jwt.encode(
        claims, key.private, algorithm="ES256", headers={"kid": key.kid} | headers
    )


def refused(token: str, code: str = "token_invalid") -> None:
    problem_of(Caller(token=token).get("/devices"), 401, code)


def test_a_token_with_every_claim_in_order_is_taken(claims: dict[str, Any]) -> None:
    assert Caller(token=signed(claims)).get("/devices").status_code == 200


@pytest.mark.parametrize(
    "change",
    [
        {"exp": 1},
        {"exp": None},
        {"exp": "soon"},
        {"exp": "99999999999"},
        {"exp": True},
        {"exp": [99999999999]},
        {"exp": 10**30},
        {"exp": float("inf")},
        {"exp": float("nan")},
        {"iat": "1"},
        {"iat": [1]},
        {"iat": float("-inf")},
        {"nbf": [1]},
        {"nbf": float("inf")},
        {"iat": 99999999999},
        {"aud": "hotswap-devices"},
        {"aud": None},
        {"aud": 5},
        {"iss": "someone"},
        {"sub": None},
        {"sub": 5},
        {"token_type": "refresh"},
        {"token_type": None},
        {"token_type": ["person"]},
        {"jti": None},
    ],
    ids=str,
)
def test_a_claim_out_of_order_is_refused(
    claims: dict[str, Any], change: dict[str, Any]
) -> None:
    changed = {k: v for k, v in (claims | change).items() if v is not None}

    refused(signed(changed))


@pytest.mark.parametrize("change", [{"sub": "nobody"}, {"sub": NOBODY}, {"stamp": "x"}])
def test_a_token_of_nobody_or_of_an_old_password_is_revoked(
    claims: dict[str, Any], change: dict[str, Any]
) -> None:
    refused(signed(claims | change), "token_revoked")


def test_an_expired_token_is_refused(db: None) -> None:
    token = PersonToken()
    token["sub"] = str(PersonFactory.create().pseudonym)
    token.set_exp(lifetime=timedelta(seconds=-1))

    refused(str(token))


def test_a_token_signed_by_a_foreign_key_is_refused(claims: dict[str, Any]) -> None:
    foreign = ec.generate_private_key(ec.SECP256R1())
    headers = {"kid": token_keys()[-1].kid}

    refused(jwt.encode(claims, foreign, algorithm="ES256", headers=headers))


@pytest.mark.parametrize("kid", ["unknown", "../../master", "", 5])
def test_a_token_that_names_another_key_is_refused(
    claims: dict[str, Any], kid: object
) -> None:
    token = signed(claims)
    _, body, signature = token.split(".")

    refused(f"{encoded({'alg': 'ES256', 'kid': kid})}.{body}.{signature}")


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "HS256", "RS256", ""])
def test_a_token_of_another_algorithm_is_refused(
    claims: dict[str, Any], algorithm: str
) -> None:
    key = token_keys()[-1]
    public = key.public.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    _, body, _ = signed(claims).split(".")
    start = f"{encoded({'alg': algorithm, 'typ': 'JWT', 'kid': key.kid})}.{body}"
    # What a verifier that takes the public key for a shared secret would accept.
    confused = hmac.new(public, start.encode(), hashlib.sha256).digest()
    signature = base64.urlsafe_b64encode(confused).rstrip(b"=").decode()

    refused(f"{start}.{signature}")
    refused(f"{start}.")


@pytest.mark.parametrize(
    "header",
    [
        "Bearer",
        "Bearer a b",
        "Bearer x",
        "Bearer a.b.c",
        "Bearer ..",
        "Basic YTpi",
        "Token x",
        "Bearer \xff",
        "Bearer " + "[" * 5000,
        "Bearer e30.e30.e30",
        "Bearer e30.W10.e30",
        "Bearer " + encoded({"alg": "ES256"}) + ".AAAA.AAAA",
    ],
)
def test_what_is_no_bearer_token_is_refused(db: None, header: str) -> None:
    response = Caller().get("/devices", headers={"Authorization": header})

    problem_of(response, 401, "token_invalid")


def test_a_token_of_deeply_nested_json_is_refused(db: None) -> None:
    deep = base64.urlsafe_b64encode(b'{"a":' * 9000 + b"1" + b"}" * 9000).decode()

    refused(f"{encoded({'alg': 'ES256'})}.{deep.rstrip('=')}.AAAA")
    refused(f"{deep.rstrip('=')}.e30.AAAA")


def test_a_bad_token_is_401_also_where_a_device_is_expected(
    device: Device, claims: dict[str, Any]
) -> None:
    response = Caller(token=signed(claims | {"exp": 1})).post(
        f"/devices/{device.device_id}/health", {}
    )

    problem_of(response, 401, "token_invalid")


def test_a_device_token_with_the_claims_of_a_person_is_not_a_person(
    claims: dict[str, Any], device: Device
) -> None:
    as_device = {"token_type": "device", "sub": str(device.pk)}

    refused(signed(claims | as_device))
    refused(signed(claims | {"aud": "hotswap-devices"}))


@pytest.fixture
def exchange(anonymous: Caller, device: Device):
    def call(api_key: str, device_id: str = device.device_id) -> Any:
        return anonymous.post(
            "/auth/device-token", {"deviceId": device_id, "apiKey": api_key}
        )

    return call


def test_an_api_key_is_exchanged_for_a_token_of_an_hour(
    exchange, device: Device
) -> None:
    response = exchange(key_of(device))

    assert response.status_code == 200
    body = response.json()
    assert set(body) == {"access", "expiresIn", "keyExpiresAt"}
    assert body["expiresIn"] == 3600
    key = DeviceKey.objects.get(device=device)
    assert datetime.fromisoformat(body["keyExpiresAt"]) == key.expires_at
    assert body["keyExpiresAt"].endswith("Z")
    assert response["Cache-Control"] == "no-store"
    poll = Caller(token=body["access"]).get(f"/devices/{device.device_id}/update")
    assert poll.status_code == 204


def test_a_key_opens_only_the_device_it_was_made_for(exchange, device: Device) -> None:
    other = DeviceFactory.create()

    problem_of(exchange(key_of(device), other.device_id), 401, "login_failed")
    problem_of(exchange(key_of(device), device.device_id.upper()), 401)
    problem_of(exchange(key_of(device)[:-1]), 401)
    problem_of(exchange("x", "no-such-device"), 401)


def test_an_expired_key_is_refused(device: Device) -> None:
    def token_at(days: int) -> IssuedToken | None:
        return issue_device_token(
            device_id=device.device_id,
            api_key=key_of(device),
            now=timezone.now() + timedelta(days=days),
        )

    assert token_at(89) is not None
    assert token_at(91) is None


def test_a_rotated_key_overlaps_with_the_new_one_for_a_day(
    device: Device, admin: PersonCaller
) -> None:
    new = rotate_key(device_id=device.device_id, actor=admin.person).api_key

    def opens(key: str, hours: int) -> bool:
        now = timezone.now() + timedelta(hours=hours)
        found = issue_device_token(device_id=device.device_id, api_key=key, now=now)
        return found is not None

    assert opens(key_of(device), 23)
    assert not opens(key_of(device), 25)
    assert opens(new, 25)


def test_a_device_rotates_its_own_key_and_no_other(
    device: Device, device_caller: Caller, exchange
) -> None:
    other = DeviceFactory.create()

    foreign = device_caller.post(f"/devices/{other.device_id}/api-key")
    own = device_caller.post(
        f"/devices/{device.device_id}/api-key", {"apiKey": key_of(device)}
    )

    problem_of(foreign, 403, "foreign_device")
    assert own.status_code == 201
    assert exchange(own.json()["apiKey"]).status_code == 200


# Every route that a device gets further on than to its role.
DEVICE_ROUTES = [
    (address, method)
    for address, method, *statuses in ROWS
    if statuses[0] == "401" and (statuses[4] != "403" or address.endswith("/download"))
]


def path_of(address: str, device_id: str) -> str:
    return "/" + address.replace("<str:device_id>", device_id).replace(
        "<uuid:firmware_id>", NOBODY
    ).replace("<uuid:update_id>", NOBODY)


def test_the_routes_of_devices_are_all_there() -> None:
    assert sorted(address.rpartition("/")[2] for address, _ in DEVICE_ROUTES) == [
        *("api-key", "download", "health", "reports", "update")
    ]


@pytest.mark.parametrize(("address", "method"), DEVICE_ROUTES)
def test_a_revoked_device_is_shut_out_of_every_device_route_at_once(
    device: Device, device_caller: Caller, address: str, method: str
) -> None:
    path = path_of(address, device.device_id)
    assert device_caller.request(method, path, {}).status_code != 401

    revoke_device(actor=PersonFactory.create(operator=True), device_id=device.device_id)

    problem_of(device_caller.request(method, path, {}), 401, "token_revoked")


@pytest.mark.parametrize(("address", "method"), DEVICE_ROUTES)
def test_a_device_that_is_gone_is_shut_out_of_every_device_route_at_once(
    device: Device, device_caller: Caller, address: str, method: str
) -> None:
    device.delete()

    answer = device_caller.request(method, path_of(address, device.device_id), {})

    problem_of(answer, 401, "token_revoked")


@pytest.mark.parametrize(("address", "method"), DEVICE_ROUTES)
def test_a_disabled_device_still_speaks_on_every_device_route(
    device: Device, device_caller: Caller, address: str, method: str
) -> None:
    path = path_of(address, device.device_id)
    before = device_caller.request(method, path, {}).status_code

    change_device(
        actor=PersonFactory.create(operator=True),
        device_id=device.device_id,
        changes={"enabled": False},
    )

    assert device_caller.request(method, path, {}).status_code == before


def test_a_disabled_device_gets_a_token_and_a_key(exchange, operator) -> None:
    device = DeviceFactory.create(disabled=True)

    rotation = operator.post(f"/devices/{device.device_id}/api-key")

    assert exchange(key_of(device), device.device_id).status_code == 200
    assert rotation.status_code == 201


def test_a_revoked_device_gets_no_token_and_no_key(
    exchange, device: Device, operator: PersonCaller
) -> None:
    revoke_device(actor=operator.person, device_id=device.device_id)

    problem_of(exchange(key_of(device)), 401, "login_failed")
    rotation = operator.post(f"/devices/{device.device_id}/api-key")
    problem_of(rotation, 409, "device_revoked")


def test_the_token_of_a_device_that_is_gone_is_refused(db: None) -> None:
    token = DeviceToken()
    token["sub"] = NOBODY

    problem_of(
        Caller(token=str(token)).get("/devices/gone/update"), 401, "token_revoked"
    )


@pytest.mark.parametrize(
    ("address", "method"), [(a, m) for a, m in DEVICE_ROUTES if "device_id" in a]
)
def test_a_device_may_not_speak_of_another(
    device_caller: Caller, address: str, method: str
) -> None:
    other = DeviceFactory.create()
    path = path_of(address, other.device_id)

    problem_of(device_caller.request(method, path, {}), 403, "foreign_device")


@pytest.mark.usefixtures("one_window")
def test_a_device_that_calls_too_often_is_told_when_to_come_back(
    device: Device, settings: Any
) -> None:
    settings.DEVICE_REQUESTS_PER_SECOND = 0
    settings.DEVICE_REQUESTS_BURST = 2
    caller = Caller(token=device_token(device))

    answers = [caller.get(f"/devices/{device.device_id}/update") for _ in range(9)]

    assert answers[3].status_code == 204
    last = answers[-1]
    problem_of(last, 429, "throttled")
    assert 1 <= int(last["Retry-After"]) <= 10
