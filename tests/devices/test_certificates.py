"""Client certificates: registering them, and calling with them through a proxy."""

import ssl
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import pytest
from django.test import RequestFactory
from django.utils import timezone

from devices.metrics import CERTIFICATES_EXPIRING
from devices.models import Device, DeviceCertificate
from devices.services.registry import revoke_device
from hotswap.common.api.proxy import client_address, proxied
from hotswap.common.models import AuditEvent
from hotswap.settings import base
from tests.api import Caller, pointers, problem_of
from tests.callers import PersonCaller
from tests.common.factories import PersonFactory
from tests.common.test_tokens import DEVICE_ROUTES, path_of
from tests.devices.factories import DeviceFactory, device_token, key_of
from tests.devices.pki import Authority, Credential

SECRET = "a secret of the proxy alone"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def held(authority: Authority, device: Device) -> Credential:
    """A certificate that is registered for the device."""
    credential = authority.issue("table-device")
    register(device, credential)
    return credential


@pytest.fixture
def optional(settings: Any) -> None:
    settings.DEVICE_CERTIFICATES = "optional"
    settings.PROXY_SECRET = SECRET


@pytest.fixture
def required(settings: Any) -> None:
    settings.DEVICE_CERTIFICATES = "required"
    settings.PROXY_SECRET = SECRET


def add(caller: Caller, device: Device, pem: object) -> Any:
    return caller.post(
        f"/devices/{device.device_id}/certificates", {"certificate": pem}
    )


def register(device: Device, credential: Credential) -> None:
    caller = PersonCaller(PersonFactory.create(operator=True))
    assert add(caller, device, credential.pem).status_code == 201


def said(certificate: str, secret: str = SECRET, verified: str = "SUCCESS") -> str:
    return f"{secret};192.0.2.7;{verified};{certificate}"


def passed_on(
    credential: Credential, *, secret: str = SECRET, verified: str = "SUCCESS"
) -> dict[str, str]:
    """Return the header that the proxy sets."""
    return {"X-HotSwap-Proxy": said(quote(credential.pem), secret, verified)}


def poll(device: Device, headers: dict[str, str], token: str | None = None) -> Any:
    return Caller(token=token).get(
        f"/devices/{device.device_id}/update", headers=headers
    )


def exchange(
    device: Device, headers: dict[str, str], api_key: str | None = None
) -> Any:
    body = {"deviceId": device.device_id}
    if api_key is not None:
        body["apiKey"] = api_key
    return Caller().post("/auth/device-token", body, headers=headers)


# --- Registering ---------------------------------


def test_a_certificate_is_added_listed_and_removed(
    operator: PersonCaller, device: Device, authority: Authority
) -> None:
    credential = authority.issue("sensor-42")
    path = f"/devices/{device.device_id}/certificates"

    added = add(operator, device, credential.pem)
    listed = operator.get(path).json()["results"]
    removed = operator.delete(f"{path}/{credential.fingerprint}")

    assert added.status_code == 201
    assert added["Location"] == f"/api/v1{path}/{credential.fingerprint}"
    body = added.json()
    assert body["fingerprint"] == credential.fingerprint
    assert body["subject"] == "CN=sensor-42"
    assert body["notAfter"].endswith("Z")
    assert listed == [body]
    assert removed.status_code == 204
    assert operator.get(path).json()["results"] == []
    verbs = ["device.certificate-added", "device.certificate-removed"]
    events = AuditEvent.objects.filter(verb__in=verbs).order_by("pk")
    assert [event.verb for event in events] == verbs
    assert {event.object_id for event in events} == {str(device.pk)}


def test_what_is_no_single_certificate_is_refused(
    operator: PersonCaller, device: Device, authority: Authority
) -> None:
    one = authority.issue("one")
    texts = {
        "nonsense": "hello",
        "empty PEM": "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
        "chain": one.pem + authority.root.pem,
        "with its key": one.pem + one.key_pem,
        "key alone": one.key_pem,
    }

    for what, text in texts.items():
        problem = problem_of(add(operator, device, text), 400, "certificate_invalid")
        assert pointers(problem) == {"/certificate": "certificate_invalid"}, what

    assert not DeviceCertificate.objects.exists()


@pytest.mark.parametrize("value", [None, 5, "", "x" * 20_000, ["x"]])
def test_a_certificate_of_the_wrong_kind_is_refused(
    operator: PersonCaller, device: Device, value: object
) -> None:
    assert set(pointers(problem_of(add(operator, device, value), 400))) == {
        "/certificate"
    }


@pytest.mark.parametrize("version", [1, 3, 5, 9, 255])
def test_a_certificate_of_another_version_is_none(
    operator: PersonCaller, device: Device, authority: Authority, version: int
) -> None:
    der = ssl.PEM_cert_to_DER_cert(authority.issue("odd").pem)
    third = b"\xa0\x03\x02\x01"
    odd = der.replace(third + b"\x02", third + bytes([version]), 1)

    refused = add(operator, device, ssl.DER_cert_to_PEM_cert(odd))

    assert odd != der
    problem_of(refused, 400, "certificate_invalid")


def test_an_expired_certificate_is_422(
    operator: PersonCaller, device: Device, authority: Authority
) -> None:
    credential = authority.issue("old", ends_in=timedelta(hours=-1))

    problem_of(add(operator, device, credential.pem), 422, "certificate_expired")


def test_a_certificate_belongs_to_one_device(
    operator: PersonCaller, device: Device, held: Credential
) -> None:
    other = DeviceFactory.create()

    problem_of(add(operator, device, held.pem), 409, "certificate_exists")
    problem_of(add(operator, other, held.pem), 409, "certificate_exists")


def test_a_device_has_ten_certificates_at_most(
    operator: PersonCaller, device: Device, authority: Authority
) -> None:
    answers = [
        add(operator, device, authority.issue(f"c-{number}").pem)
        for number in range(11)
    ]

    assert [answer.status_code for answer in answers[:10]] == [201] * 10
    problem_of(answers[10], 422, "too_many_certificates")


def test_a_revoked_or_unknown_device_gets_no_certificate(
    operator: PersonCaller, device: Device, authority: Authority
) -> None:
    pem = authority.issue("late").pem
    operator.post(f"/devices/{device.device_id}/revoke")

    problem_of(add(operator, device, pem), 409, "device_revoked")
    unknown = operator.post("/devices/nobody/certificates", {"certificate": pem})
    problem_of(unknown, 404, "device_not_found")
    problem_of(operator.get("/devices/nobody/certificates"), 404, "device_not_found")


def test_only_a_certificate_of_the_device_is_removed(
    operator: PersonCaller, held: Credential
) -> None:
    other = DeviceFactory.create()

    answer = operator.delete(
        f"/devices/{other.device_id}/certificates/{held.fingerprint}"
    )

    problem_of(answer, 404, "certificate_not_found")
    assert DeviceCertificate.objects.count() == 1


# --- Optional ---------------------------------


@pytest.mark.usefixtures("optional")
@pytest.mark.parametrize(("address", "method"), DEVICE_ROUTES)
def test_a_certificate_alone_opens_every_device_route(
    device: Device, held: Credential, address: str, method: str
) -> None:
    path = path_of(address, device.device_id)
    body = {"apiKey": key_of(device)} if path.endswith("/api-key") else {}
    with_token = Caller(token=device_token(device)).request(method, path, body)

    alone = Caller().request(method, path, {}, headers=passed_on(held))

    assert alone.status_code == with_token.status_code != 401


@pytest.mark.usefixtures("optional")
def test_a_certificate_opens_no_other_device_and_no_route_of_people(
    device: Device, held: Credential
) -> None:
    other = DeviceFactory.create()
    headers = passed_on(held)

    problem_of(poll(other, headers), 403, "foreign_device")
    problem_of(Caller().get("/devices", headers=headers), 403)
    problem_of(exchange(other, headers), 401, "login_failed")


@pytest.mark.usefixtures("optional")
def test_a_certificate_is_exchanged_for_a_token(
    device: Device, held: Credential
) -> None:
    answer = exchange(device, passed_on(held))

    assert answer.status_code == 200
    assert answer.json()["keyExpiresAt"] is None
    assert poll(device, {}, answer.json()["access"]).status_code == 204


@pytest.mark.usefixtures("optional")
def test_without_a_certificate_the_key_is_still_good(
    device: Device, held: Credential
) -> None:
    answer = exchange(device, {}, key_of(device))

    assert answer.status_code == 200
    problem = problem_of(exchange(device, {}), 400)
    assert pointers(problem) == {"/apiKey": "required"}


@pytest.mark.usefixtures("optional")
def test_a_spoofed_header_is_worthless(device: Device, held: Credential) -> None:
    for headers in (
        passed_on(held, secret=""),
        passed_on(held, secret="guessed"),
        passed_on(held, secret=SECRET + "x"),
        passed_on(held, secret="\u00e4" * 5),
    ):
        problem_of(poll(device, headers), 401, "certificate_refused")
        problem_of(exchange(device, headers), 401, "certificate_refused")


@pytest.mark.usefixtures("optional")
@pytest.mark.parametrize(
    "verified", ["", "NONE", "FAILED:unable to get local issuer certificate", "success"]
)
def test_a_certificate_that_the_proxy_did_not_verify_is_refused(
    device: Device, held: Credential, verified: str
) -> None:
    answer = poll(device, passed_on(held, verified=verified))

    problem_of(answer, 401, "certificate_refused")


@pytest.mark.usefixtures("optional")
@pytest.mark.parametrize(
    "text", ["hello", "%", "-----BEGIN%20CERTIFICATE-----", "%00%ff", "x" * 50_000]
)
def test_a_header_that_holds_no_certificate_is_401(device: Device, text: str) -> None:
    headers = {"X-HotSwap-Proxy": said(text)}

    problem_of(poll(device, headers), 401, "certificate_refused")


@pytest.mark.usefixtures("optional")
def test_a_certificate_that_nobody_registered_is_refused(
    device: Device, authority: Authority
) -> None:
    stranger = authority.issue(device.device_id)

    problem_of(poll(device, passed_on(stranger)), 401, "certificate_refused")


@pytest.mark.usefixtures("optional")
def test_a_certificate_counts_in_its_time_only(
    device: Device, held: Credential, authority: Authority
) -> None:
    early = authority.issue("early", starts_in=timedelta(days=2))
    register(device, early)
    assert poll(device, passed_on(held)).status_code == 204
    DeviceCertificate.objects.filter(fingerprint=held.fingerprint).update(
        not_after=timezone.now()
    )

    problem_of(poll(device, passed_on(held)), 401, "certificate_refused")
    problem_of(poll(device, passed_on(early)), 401, "certificate_refused")


@pytest.mark.usefixtures("optional")
def test_a_removed_certificate_ends_at_once_with_its_tokens(
    operator: PersonCaller, device: Device, held: Credential
) -> None:
    token = exchange(device, passed_on(held)).json()["access"]
    by_key = exchange(device, {}, key_of(device)).json()["access"]

    operator.delete(f"/devices/{device.device_id}/certificates/{held.fingerprint}")

    problem_of(poll(device, passed_on(held)), 401, "certificate_refused")
    problem_of(poll(device, {}, token), 401, "token_revoked")
    assert poll(device, {}, by_key).status_code == 204


@pytest.mark.usefixtures("optional")
def test_a_revoked_device_is_out_with_its_certificate(
    device: Device, held: Credential
) -> None:
    revoke_device(actor=PersonFactory.create(operator=True), device_id=device.device_id)

    problem_of(poll(device, passed_on(held)), 401, "certificate_refused")
    problem_of(exchange(device, passed_on(held)), 401, "certificate_refused")


@pytest.mark.usefixtures("optional")
def test_a_token_counts_more_than_the_certificate_beside_it(
    device: Device, held: Credential
) -> None:
    other = DeviceFactory.create()

    assert poll(other, passed_on(held), device_token(other)).status_code == 204
    problem_of(poll(device, passed_on(held), "nonsense"), 401, "token_invalid")


@pytest.mark.usefixtures("optional")
def test_a_fingerprint_is_taken_where_the_proxy_computes_it(
    device: Device, held: Credential, settings: Any
) -> None:
    settings.CERTIFICATE_FORMAT = "sha256"
    digits = held.fingerprint.upper()
    with_colons = ":".join(digits[i : i + 2] for i in range(0, 64, 2))

    for text in (held.fingerprint, digits, with_colons):
        answer = poll(device, {"X-HotSwap-Proxy": said(text)})
        assert answer.status_code == 204, text
    sha1 = poll(device, {"X-HotSwap-Proxy": said("a" * 40)})
    problem_of(sha1, 401, "certificate_refused")


@pytest.mark.usefixtures("optional")
def test_one_header_holds_all_that_is_believed(
    device: Device, held: Credential
) -> None:
    """Whatever a client gets in beside the proxy's header, or over it."""
    good, pem = passed_on(held)["X-HotSwap-Proxy"], quote(held.pem)
    for value in (
        f"{good},{good}",
        f"{said('')},{good}",
        f"guess;192.0.2.7;SUCCESS;{pem}",
        f";192.0.2.7;SUCCESS;{pem}",
        f"{SECRET};SUCCESS;{pem}",
        f"{SECRET}",
        f"192.0.2.7;SUCCESS;{pem}",
    ):
        refused = poll(device, {"X-HotSwap-Proxy": value})
        problem_of(refused, 401, "certificate_refused")
    old = {"X-Client-Cert": pem, "X-Client-Verify": "SUCCESS"}
    beside = poll(device, {"X-HotSwap-Proxy": said("", verified="NONE"), **old})
    problem_of(beside, 401, "not_authenticated")
    assert poll(device, {"X-HotSwap-Proxy": good}).status_code == 204


@pytest.mark.parametrize(
    ("networks", "expected"),
    [("127.0.0.0/8", "192.0.2.9"), ("10.0.0.0/8,2001:db8::/32", "127.0.0.1")],
)
def test_a_proxy_without_a_secret_is_believed_the_address_alone(
    rf: RequestFactory, settings: Any, networks: str, expected: str
) -> None:
    settings.PROXY_ADDRESSES = [base.ip_network(n) for n in networks.split(",")]
    request = rf.get("/", headers={"X-Real-IP": "192.0.2.9"})

    assert client_address(request) == expected
    assert proxied(request.META) is None


def test_a_proxy_with_a_secret_tells_the_address(
    rf: RequestFactory, settings: Any
) -> None:
    settings.PROXY_SECRET = SECRET
    told = rf.get("/", headers={"X-HotSwap-Proxy": said("")})
    lied = rf.get("/", headers={"X-HotSwap-Proxy": said("", "x" * 20)})
    alone = rf.get("/", headers={"X-Real-IP": "192.0.2.9"})

    assert client_address(told) == "192.0.2.7"
    assert client_address(lied) == client_address(alone) == "127.0.0.1"


def test_switched_off_the_headers_are_not_looked_at(
    device: Device, held: Credential, settings: Any
) -> None:
    settings.PROXY_SECRET = SECRET

    problem_of(poll(device, passed_on(held)), 401, "not_authenticated")
    problem = problem_of(exchange(device, passed_on(held)), 400)
    assert pointers(problem) == {"/apiKey": "required"}
    garbage = {"X-HotSwap-Proxy": "x;y"}
    assert exchange(device, garbage, key_of(device)).status_code == 200


@pytest.mark.usefixtures("optional")
def test_a_certificate_proves_enough_for_a_new_key(
    device: Device, held: Credential, authority: Authority
) -> None:
    path = f"/devices/{device.device_id}/api-key"
    token = exchange(device, passed_on(held)).json()["access"]

    with_it = Caller().post(path, {}, headers=passed_on(held))
    stolen = Caller(token=token).post(path, {})

    assert with_it.status_code == 201
    assert pointers(problem_of(stolen, 400)) == {"/apiKey": "required"}


# --- Required ---------------------------------


@pytest.mark.usefixtures("required")
def test_required_means_key_and_certificate(device: Device, held: Credential) -> None:
    headers = passed_on(held)

    both = exchange(device, headers, key_of(device))

    assert both.status_code == 200
    problem_of(exchange(device, {}, key_of(device)), 401, "certificate_required")
    problem_of(exchange(device, headers, "hsd_wrong"), 401, "login_failed")
    assert pointers(problem_of(exchange(device, headers), 400)) == {
        "/apiKey": "required"
    }
    token = both.json()["access"]
    assert poll(device, headers, token).status_code == 204
    problem_of(poll(device, headers), 401, "not_authenticated")


@pytest.mark.usefixtures("required")
@pytest.mark.parametrize(("address", "method"), DEVICE_ROUTES)
def test_a_stolen_token_is_worthless_without_the_certificate(
    device: Device, held: Credential, address: str, method: str
) -> None:
    caller = Caller(token=device_token(device))
    path = path_of(address, device.device_id)

    problem_of(caller.request(method, path, {}), 401, "certificate_required")
    with_it = caller.request(method, path, {}, headers=passed_on(held))
    assert with_it.status_code != 401


@pytest.mark.usefixtures("required")
def test_the_certificate_of_another_device_does_not_help(
    device: Device, held: Credential
) -> None:
    other = DeviceFactory.create()

    token = exchange(other, passed_on(held), key_of(other))
    call = poll(other, passed_on(held), device_token(other))

    problem_of(token, 401, "certificate_required")
    problem_of(call, 401, "certificate_required")


@pytest.mark.usefixtures("required")
def test_people_need_no_certificate(viewer: PersonCaller) -> None:
    assert viewer.get("/devices").status_code == 200


def test_devices_whose_last_certificate_ends_are_counted_and_found(
    viewer: PersonCaller,
) -> None:
    ends = {
        "lasting": (5, 20),
        "ending": (3, 5),
        "ended": (-3, -1),
        "revoked": (-1,),
        "none": (),
    }
    devices = {name: DeviceFactory.create() for name in ends}
    for name, days in ends.items():
        for number in days:
            DeviceCertificate.objects.create(
                device=devices[name],
                fingerprint=f"{name} {number}",
                subject=name,
                not_before=timezone.now() - timedelta(days=30),
                not_after=timezone.now() + timedelta(days=number),
            )
    revoke_device(
        actor=PersonFactory.create(operator=True),
        device_id=devices["revoked"].device_id,
    )

    def found(query: str) -> set[str]:
        rows = viewer.get(f"/devices?{query}").json()["results"]
        known = {device.device_id: name for name, device in devices.items()}
        return {known[row["deviceId"]] for row in rows}

    assert found("certificateExpiring=true") == {"ending", "ended"}
    assert found("certificateExpiring=false") == {"lasting", "revoked", "none"}
    problem_of(viewer.get("/devices?certificateExpiring=soon"), 400)
    shown = CERTIFICATES_EXPIRING.values(CERTIFICATES_EXPIRING.rows())
    assert sorted(shown) == [(["expired"], 1), (["soon"], 1)]
