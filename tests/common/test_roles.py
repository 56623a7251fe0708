"""Who may call what: one table of role x route -> status."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.urls import URLPattern, URLResolver, get_resolver
from django.utils import timezone

from deployments.services.tick import TICK_JOB
from health.services.watching import SWEEP_JOB
from hotswap.common.models import JobRun
from hotswap.monitoring.caching import cached
from tests.api import Caller, problem_of

NOBODY = "00000000-0000-4000-8000-000000000000"
CALLERS = ("anonymous", "viewer", "operator", "admin", "device_caller")

# Route, method, then the status for: nobody, Viewer, Operator, Admin, Device.
# The requests have no body and name things that do not exist, except the device of
# the last caller; 400, 404 and 415 therefore mean that the caller was let through.
TABLE = """
    health                                         GET    200 200 200 200 200
    health/ready                                   GET    200 200 200 200 200
    health/status                                  GET    401 200 200 200 403
    metrics                                        GET    401 200 200 200 403
    /auth/token                                    POST   400 400 400 400 400
    /auth/refresh                                  POST   400 400 400 400 400
    /auth/logout                                   POST   400 400 400 400 400
    /auth/password                                 POST   401 400 400 400 403
    /people                                        GET    401 403 403 200 403
    /people                                        POST   401 403 403 400 403
    /people/<person>                               GET    401 403 403 404 403
    /people/<person>                               PATCH  401 403 403 404 403
    /people/<person>                               DELETE 401 403 403 404 403
    /people/<person>/export                        GET    401 403 403 404 403
    /people/<person>/invite                        POST   401 403 403 404 403
    /people/<person>/reset-password                POST   401 403 403 404 403
    /people/<person>/reset-second-factors          POST   401 403 403 404 403
    /people/<person>/disable                       POST   401 403 403 404 403
    /people/<person>/enable                        POST   401 403 403 404 403
    /auth/device-token                             POST   400 400 400 400 400
    /audit-events                                  GET    401 403 403 200 403
    /audit-events/export                           GET    401 403 403 200 403
    /audit-events/verify                           GET    401 403 403 200 403
    /device-models                                 GET    401 200 200 200 403
    /device-models                                 POST   401 403 403 400 403
    /device-models/<model>                         GET    401 404 404 404 403
    /device-models/<model>                         PATCH  401 403 403 404 403
    /firmware                                      GET    401 200 200 200 403
    /firmware                                      POST   401 403 403 415 403
    /firmware/<firmware>                           GET    401 404 404 404 403
    /firmware/<firmware>                           PATCH  401 403 403 400 403
    /firmware/<firmware>/approve                   POST   401 403 403 404 403
    /firmware/<firmware>/reject                    POST   401 403 403 400 403
    /firmware/<firmware>/deprecate                 POST   401 403 403 400 403
    /firmware/<firmware>                           DELETE 401 403 403 404 403
    /firmware/<firmware>/reinstate                 POST   401 403 403 400 403
    /firmware/<firmware>/verify                    POST   401 403 403 404 403
    /firmware/<firmware>/usage                     GET    401 404 404 404 403
    /firmware/<firmware>/history                   GET    401 404 404 404 403
    /firmware/<firmware>/evidence                  GET    401 403 403 404 403
    /firmware/<firmware>/exposure                  GET    401 404 404 404 403
    /firmware/<firmware>/sbom                      GET    401 404 404 404 403
    /firmware/<firmware>/sbom                      POST   401 403 403 400 403
    /firmware/<firmware>/download                  GET    401 403 403 403 403
    /signing-keys                                  GET    200 200 200 200 200
    /devices                                       GET    401 200 200 200 403
    /devices                                       POST   401 403 400 400 403
    /devices/import                                POST   401 403 403 415 403
    /devices/export                                GET    401 200 200 200 403
    /device-imports                                GET    401 403 403 200 403
    /device-imports/<import>                       GET    401 403 403 404 403
    /device-imports/<import>/keys                  GET    401 403 403 404 403
    /device-imports/<import>/keys                  DELETE 401 403 403 404 403
    /devices/<device>                              GET    401 200 200 200 403
    /devices/<device>                              PUT    401 403 400 400 403
    /devices/<device>                              PATCH  401 403 200 200 403
    /devices/<device>                              DELETE 401 403 403 204 403
    /devices/<device>/export                       GET    401 403 403 200 403
    /devices/<device>/firmware-history             GET    401 200 200 200 403
    /devices/<device>/deployments                  GET    401 200 200 200 403
    /devices/<device>/enable                       POST   401 403 200 200 403
    /devices/<device>/disable                      POST   401 403 200 200 403
    /devices/<device>/revoke                       POST   401 403 200 200 403
    /devices/<device>/api-key                      POST   401 403 201 201 400
    /devices/<device>/acknowledge-alarm            POST   401 403 409 409 403
    /devices/<device>/certificates                 GET    401 200 200 200 403
    /devices/<device>/certificates                 POST   401 403 400 400 403
    /devices/<device>/certificates/<fingerprint>   GET    401 404 404 404 403
    /devices/<device>/certificates/<fingerprint>   DELETE 401 403 404 404 403
    /devices/<device>/health                       GET    401 200 200 200 403
    /devices/<device>/health                       POST   401 403 403 403 400
    /devices/<device>/health/events                GET    401 200 200 200 403
    /devices/<device>/health/history               GET    401 200 200 200 403
    /devices/<device>/update                       GET    401 403 403 403 204
    /devices/<device>/updates/<update>/reports     POST   401 403 403 403 400
    /device-groups                                 GET    401 200 200 200 403
    /device-groups                                 POST   401 403 400 400 403
    /device-groups/preview                         POST   401 403 400 400 403
    /device-groups/<group>                         GET    401 404 404 404 403
    /device-groups/<group>                         PUT    401 403 400 400 403
    /device-groups/<group>                         DELETE 401 403 404 404 403
    /device-groups/<group>/devices                 GET    401 404 404 404 403
    /device-groups/<group>/devices                 POST   401 403 400 400 403
    /device-groups/<group>/devices                 DELETE 401 403 400 400 403
    /enrolment-tokens                              GET    401 403 403 200 403
    /enrolment-tokens                              POST   401 403 403 400 403
    /enrolment-tokens/<token>                      GET    401 403 403 404 403
    /enrolment-tokens/<token>/revoke               POST   401 403 403 404 403
    /enrolments                                    GET    401 200 200 200 403
    /enrolments                                    POST   400 400 400 400 400
    /enrolments/<enrolment>/approve                POST   401 403 404 404 403
    /enrolments/<enrolment>/reject                 POST   401 403 404 404 403
    /rollbacks                                     GET    401 200 200 200 403
    /deployments                                   GET    401 200 200 200 403
    /deployments                                   POST   401 403 400 400 403
    /deployments/preview                           POST   401 403 400 400 403
    /deployments/<deployment>                      GET    401 404 404 404 403
    /deployments/<deployment>                      PUT    401 403 400 400 403
    /deployments/<deployment>                      PATCH  401 403 404 404 403
    /deployments/<deployment>/evidence             GET    401 403 403 404 403
    /deployments/<deployment>/status               GET    401 404 404 404 403
    /deployments/<deployment>/metrics              GET    401 404 404 404 403
    /deployments/<deployment>/health-report        GET    401 404 404 404 403
    /deployments/<deployment>/rollbacks            GET    401 404 404 404 403
    /deployments/<deployment>/devices              GET    401 404 404 404 403
    /deployments/<deployment>/devices/<device>     GET    401 404 404 404 403
    /deployments/<deployment>/logs                 GET    401 404 404 404 403
    /deployments/<deployment>/pause                POST   401 403 400 400 403
    /deployments/<deployment>/resume               POST   401 403 400 400 403
    /deployments/<deployment>/cancel               POST   401 403 400 400 403
    /deployments/<deployment>/rollback             POST   401 403 400 400 403
    /deployments/<deployment>/retry-failed         POST   401 403 400 400 403
    /deployments/<deployment>/copy                 POST   401 403 404 404 403
    /deployments/<deployment>/acknowledge-hold     POST   401 403 400 400 403
    /deployments/<deployment>/fleets               GET    401 404 404 404 403
    /quarantines                                   GET    401 200 200 200 403
    /devices/<device>/quarantines/<firmware>/release POST 401 403 400 400 403
    /deployments/<deployment>/approve-stage        POST   401 403 403 400 403
    /webhooks                                      GET    401 403 403 200 403
    /webhooks                                      POST   401 403 403 400 403
    /webhooks/<receiver>                           GET    401 403 403 404 403
    /webhooks/<receiver>                           PATCH  401 403 403 404 403
    /webhooks/<receiver>                           DELETE 401 403 403 404 403
    /webhooks/<receiver>/rotate-secret             POST   401 403 403 404 403
    /webhooks/<receiver>/test                      POST   401 403 403 404 403
    /webhooks/<receiver>/deliveries                GET    401 403 403 404 403
    /webhooks/<receiver>/deliveries/<delivery>/resend POST 401 403 403 404 403
    /mail-recipients                               GET    401 403 403 200 403
    /mail-recipients                               POST   401 403 403 400 403
    /mail-recipients/<receiver>                    GET    401 403 403 404 403
    /mail-recipients/<receiver>                    PATCH  401 403 403 404 403
    /mail-recipients/<receiver>                    DELETE 401 403 403 404 403
    /mail-recipients/<receiver>/test               POST   401 403 403 404 403
    /mail-recipients/<receiver>/deliveries         GET    401 403 403 404 403
    /mail-recipients/<receiver>/deliveries/<delivery>/resend POST 401 403 403 404 403
    /gateways                                      GET    401 403 403 200 403
    /gateways                                      POST   401 403 403 400 403
    /gateways/<receiver>                           GET    401 403 403 404 403
    /gateways/<receiver>                           PATCH  401 403 403 404 403
    /gateways/<receiver>                           DELETE 401 403 403 404 403
    /gateways/<receiver>/test                      POST   401 403 403 404 403
    /gateways/<receiver>/deliveries                GET    401 403 403 404 403
    /gateways/<receiver>/deliveries/<delivery>/resend POST 401 403 403 404 403
    /schema                                        GET    401 200 200 200 403
    /docs                                          GET    401 200 200 200 403
"""
PLACES = {
    "<device>": "<str:device_id>",
    "<person>": "<uuid:person_id>",
    "<fingerprint>": "<str:fingerprint>",
    "<firmware>": "<uuid:firmware_id>",
    "<model>": "<uuid:model_id>",
    "<update>": "<uuid:update_id>",
    "<group>": "<uuid:group_id>",
    "<deployment>": "<uuid:deployment_id>",
    "<import>": "<uuid:import_id>",
    "<token>": "<uuid:token_id>",
    "<enrolment>": "<uuid:enrolment_id>",
    "<receiver>": "<uuid:receiver_id>",
    "<delivery>": "<uuid:delivery_id>",
}


@pytest.fixture(autouse=True)
def work_goes_on(db: None) -> Iterator[None]:
    """Ticks and sweeps have just run: the server says that it serves the fleet."""
    now = timezone.now()
    for name in (TICK_JOB, SWEEP_JOB):
        JobRun.objects.create(name=name, last_run_at=now, restarted_at=now)
    cached.forget()
    yield
    cached.forget()


def read_row(line: str) -> list[str]:
    """Read a line of the table; give the address as the URLconf has it."""
    address, *rest = line.split()
    for short, long in PLACES.items():
        address = address.replace(short, long)
    return [f"api/v1{address}" if address.startswith("/") else address, *rest]


ROWS = [read_row(line) for line in TABLE.strip().splitlines()]
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


def routes(
    patterns: list[URLPattern | URLResolver], prefix: str = ""
) -> Iterator[tuple[str, Any]]:
    """Walk the URLconf; give each address with its view."""
    for entry in patterns:
        address = prefix + str(entry.pattern)
        if isinstance(entry, URLResolver):
            yield from routes(entry.url_patterns, address)
        elif address.startswith(("api/", "health", "metrics")):
            yield address, getattr(entry.callback, "view_class", None)


def served() -> set[tuple[str, str]]:
    """Return every address and method that the URLconf serves."""
    found = set()
    for address, view in routes(get_resolver().url_patterns):
        # What is no class answers GET alone.
        methods = [m for m in METHODS if view is None or hasattr(view, m.lower())]
        found |= {(address, m) for m in (methods if view else ["GET"])}
    return found


def test_the_table_names_every_route_and_no_other() -> None:
    assert {(address, method) for address, method, *_ in ROWS} == served()


def test_every_method_of_a_view_names_its_role() -> None:
    for address, view in routes(get_resolver().url_patterns):
        if view is not None:
            methods = {m for m in METHODS if hasattr(view, m.lower())}
            assert set(getattr(view, "roles", {})) == methods, address


@pytest.mark.parametrize(
    "row", ROWS, ids=[f"{method} {address}" for address, method, *_ in ROWS]
)
def test_each_role_gets_the_status_of_the_table(
    row: list[str], device: object, request: pytest.FixtureRequest
) -> None:
    address, method, *expected = row
    path = "/" + address.replace("<str:device_id>", "table-device")
    path = re.sub("<uuid:[a-z_]+>", NOBODY, path)
    path = path.replace("<str:fingerprint>", "0" * 64)

    found = {}
    # The device calls first: it may be revoked by those that come after it.
    for name in sorted(CALLERS, key=lambda name: name != "device_caller"):
        caller: Caller = request.getfixturevalue(name)
        response = caller.request(method, path)
        found[name] = str(response.status_code)
        if response.status_code >= 400:
            problem_of(response, response.status_code)

    assert [found[name] for name in CALLERS] == expected
