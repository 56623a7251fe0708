"""The fast path of what a fleet asks all day: polls, heartbeats, reports, downloads.

Rules:
- Only what is plain in every respect is answered here. Whatever is not goes the long
  way, through the whole of Django, which alone refuses; nothing has been stored then.
- Judgements and orders are those of the services that the long way calls, too.
- The caller is looked up at every request, as on the long way: a revoked or erased
  device is not answered here.
- The answers are those of the long way, byte for byte and header for header.
"""

import re
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from django.conf import settings
from django.core.exceptions import DisallowedHost
from django.db import NotSupportedError, OperationalError
from django.http import HttpRequest, HttpResponse
from django.http.request import UnreadablePostError
from django.http.response import HttpResponseBase
from django.utils import timezone
from rest_framework.exceptions import APIException, ParseError
from rest_framework.renderers import JSONRenderer

from deployments.protocols.native.instruction import instruction_of
from deployments.protocols.native.messages import (
    read_plain_heartbeat,
    read_plain_report,
)
from deployments.rules.evidence import IS_REPEATED
from deployments.services.offers import (
    PENDING_WORK,
    POLL_SECONDS,
    PendingWork,
    answer_poll,
    find_download,
)
from deployments.services.reports import apply_report
from devices.admission import IS_CALLER
from devices.models import Device
from devices.selectors import admitted_device, is_admitted_device
from firmware.api.downloads import ImageResponse, image_response
from firmware.api.trust import trusted_keys
from firmware.storage import is_plain
from health.api.serializers import heartbeat_output
from health.heartbeat import Heartbeat
from health.models import DeviceState
from health.services.heartbeats import (
    CONTACT_RESOLUTION,
    HeartbeatAnswer,
    record_heartbeat,
    record_plain_heartbeat,
)
from health.services.watching import IS_NEW_POLL, poll_changes
from hotswap.common.api.parsers import parse_json
from hotswap.common.api.throttling import check_device_rate, mark_counted
from hotswap.common.errors import HotSwapError
from hotswap.common.rows import Columns, prepared_cursor
from hotswap.common.tokens import DeviceToken, verified_subject
from hotswap.common.tracing import routine_request

ROUTE = re.compile(
    r"/api/v1/devices/([A-Za-z0-9._:-]{1,128})/"
    r"(?:(update)|(health)|updates/([0-9a-f-]{36})/reports)\Z"
)
DOWNLOAD = re.compile(r"/api/v1/firmware/([0-9a-f-]{36})/download\Z")
# The patterns of the long way, under which requests are counted.
DEVICE_ROUTE = "api/v1/devices/<str:device_id>"
POLL_ROUTE = f"{DEVICE_ROUTE}/update"
HEARTBEAT_ROUTE = f"{DEVICE_ROUTE}/health"
REPORT_ROUTE = f"{DEVICE_ROUTE}/updates/<uuid:update_id>/reports"
DOWNLOAD_ROUTE = "api/v1/firmware/<uuid:firmware_id>/download"
MAX_BODY_BYTES = 16 * 1024

# The device, and whether any deployment wants something of it. A contact is noted at
# most every five seconds; one that a crash of the database forgets is no loss, so
# nobody waits for the disk.
POLL = f"""
    WITH caller AS (
        SELECT d.id FROM devices_device d
        WHERE {IS_CALLER}
    ), work AS ({PENDING_WORK}), noted AS (
        UPDATE health_devicestate s
        {poll_changes(f"({POLL_SECONDS})")}
        FROM caller, work
        WHERE s.device_id = caller.id AND {IS_NEW_POLL}
    )
    SELECT set_config('synchronous_commit', 'off', true), work.*
    FROM caller JOIN health_devicestate s ON s.device_id = caller.id
    CROSS JOIN work
"""  # noqa: S608
# Not what is written anew by every heartbeat.
STATE = Columns(DeviceState, "s", without=("application_metrics",))
DEVICE = Columns(
    Device,
    "d",
    without=(
        *("created_at", "updated_at", "region", "tags", "metadata", "enabled"),
        *("revoked_at", "erased_at", "security_version", "version_key"),
    ),
)
HEARTBEAT = f"""
    SELECT {STATE.sql}, {DEVICE.sql}, s.xmin::text, u.id IS NOT NULL,
           u.id IS NOT NULL AND {IS_REPEATED}
    FROM devices_device d
    JOIN health_devicestate s ON s.device_id = d.id
    LEFT JOIN deployments_update u ON u.device_id = d.id AND u.closed_at IS NULL
    LEFT JOIN firmware_firmware f ON f.id = u.firmware_id
    WHERE {IS_CALLER}
      AND NOT EXISTS (SELECT FROM deployments_target t
                      WHERE t.device_id = d.id
                        AND t.status IN ('pending', 'rolling_back')
                        AND (u.id IS NULL OR t.id <> u.target_id))
"""  # noqa: S608


class FastPathMiddleware:
    """Answers the plain requests of devices before the rest of the chain."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if settings.DEVICE_CERTIFICATES != "off":
            return self.get_response(request)
        route, answer = _answer_plain(request)
        if answer is None:
            return self.get_response(request)
        request.fast_route = route  # type: ignore[attr-defined]
        return answer


def _answer_plain(request: HttpRequest) -> tuple[str, HttpResponseBase | None]:
    """Return the route of a request, and its answer where it is plain."""
    found = ROUTE.match(request.path_info)
    if found is not None:
        name, update, health, order = found.groups()
        if update and request.method == "GET":
            handle = partial(_poll, name)
            return POLL_ROUTE, _answer(request, "poll", handle, "GET, HEAD")
        if health and request.method == "POST":
            handle = partial(_heartbeat, name)
            answer = _answer(request, "heartbeat", handle, "GET, HEAD, POST")
            return HEARTBEAT_ROUTE, answer
        if order and request.method == "POST":
            handle = partial(_report, name, order)
            return REPORT_ROUTE, _answer(request, "report", handle, "POST")
    elif request.method == "GET":
        found = DOWNLOAD.match(request.path_info)
        if found is not None:
            fetch = partial(_download, found[1])
            return DOWNLOAD_ROUTE, _answer(request, "download", fetch, "GET, HEAD")
    return "", None


def _answer(
    request: HttpRequest,
    what: str,
    handle: Callable[[HttpRequest, UUID, datetime], HttpResponseBase | None],
    allowed: str,
) -> HttpResponseBase | None:
    """Let a caller who is known and not too eager be answered; else None."""
    meta = request.META
    kind, _, token = meta.get("HTTP_AUTHORIZATION", "").partition(" ")
    if kind != "Bearer" or meta.get("QUERY_STRING") or "HTTP_TRANSFER_ENCODING" in meta:
        return None
    subject = verified_subject(token, DeviceToken)
    if subject is None:
        return None
    try:
        request.get_host()
        check_device_rate("device", subject)
        mark_counted(request)
        with routine_request(f"{request.method} {what}", meta):
            answer = handle(request, UUID(subject), timezone.now())
    except (DisallowedHost, APIException, HotSwapError):
        return None
    except (OperationalError, NotSupportedError):
        # Nothing was stored; the long way tries again, and says so if it cannot.
        return None
    if answer is None:
        return None
    answer.headers["Allow"] = allowed
    answer.headers["X-Frame-Options"] = settings.X_FRAME_OPTIONS
    if isinstance(answer, HttpResponse):
        answer.headers["Content-Length"] = str(len(answer.content))
    return answer


def _poll(
    name: str, request: HttpRequest, device: UUID, now: datetime
) -> HttpResponse | None:
    # It decides nothing where there is no order, but a wrong one is refused.
    trusted = trusted_keys(request)
    with prepared_cursor() as cursor:
        cursor.execute(
            POLL,
            {
                "device": device,
                "name": name,
                "now": now,
                "before": now - CONTACT_RESOLUTION,
                "online_floor": settings.ONLINE_FLOOR.total_seconds(),
                "deploying_seconds": int(
                    settings.POLL_INTERVAL_DEPLOYING.total_seconds()
                ),
                "idle_seconds": int(settings.POLL_INTERVAL.total_seconds()),
            },
        )
        row = cursor.fetchone()
    if row is None:
        return None
    work = PendingWork(*row[1:])
    answer = answer_poll(device_id=device, work=work, now=now, trusted=trusted)
    headers = {"Poll-Interval": str(int(answer.interval.total_seconds()))}
    if answer.order is not None:
        return _json(instruction_of(answer.order), headers)
    response = HttpResponse(status=204, headers=headers)
    del response.headers["Content-Type"]
    return response


def _json(body: dict[str, Any], headers: dict[str, str] | None = None) -> HttpResponse:
    return HttpResponse(
        JSONRenderer().render(body), content_type="application/json", headers=headers
    )


def _heartbeat(
    name: str, request: HttpRequest, device: UUID, now: datetime
) -> HttpResponse | None:
    beat = read_plain_heartbeat(_read_json(request))
    if beat is None:
        return None
    answer = plain_heartbeat(name, device, beat, now)
    if answer is None:
        caller = admitted_device(device)
        if caller is None or caller.device_id != name:
            return None
        answer = record_heartbeat(device=caller, beat=beat, now=now)
    return _json(heartbeat_output(answer))


def plain_heartbeat(
    name: str, device: UUID, beat: Heartbeat, now: datetime
) -> HeartbeatAnswer | None:
    """Store a heartbeat by two statements; None, and nothing, where that is not enough.

    Args:
        name, device: of an admitted device, as its address and its token call it.
    """
    with prepared_cursor() as cursor:
        cursor.execute(HEARTBEAT, {"device": device, "name": name})
        row = cursor.fetchone()
    if row is None:
        return None
    values = iter(row)
    state, caller = STATE.take(values), DEVICE.take(values)
    version, has_order, is_available = values
    return record_plain_heartbeat(
        device=caller,
        state=state,
        row_version=version,
        beat=beat,
        has_order=has_order,
        is_available=is_available,
        now=now,
    )


def _report(
    name: str, order: str, request: HttpRequest, device: UUID, now: datetime
) -> HttpResponse | None:
    report = read_plain_report(_read_json(request))
    try:
        update_id = UUID(order)
    except ValueError:
        return None
    if report is None or str(update_id) != order:
        return None
    applied = apply_report(
        device_id=device,
        name=name,
        update_id=update_id,
        report=report,
        now=now,
        only_open=True,
    )
    return _json({"applied": applied})


def _download(
    firmware_id: str, request: HttpRequest, device: UUID, now: datetime
) -> HttpResponseBase | None:
    found = find_download(device_id=device, firmware_id=firmware_id)
    if found is None:
        return None
    region, firmware = found
    if is_plain(firmware.storage_name):
        # Its store gives it out.
        return None
    answer = image_response(
        request,
        firmware,
        device=device,
        region=region,
        is_admitted=partial(is_admitted_device, device),
    )
    return answer if isinstance(answer, ImageResponse) else None


def _read_json(request: HttpRequest) -> dict[str, Any] | None:
    """Read a body that is a JSON object of a usual size; else None."""
    meta = request.META
    length = meta.get("CONTENT_LENGTH") or ""
    if (
        meta.get("CONTENT_TYPE") != "application/json"
        or not (length.isascii() and length.isdigit() and len(length) < 8)
        or int(length) > MAX_BODY_BYTES
    ):
        return None
    try:
        # The request keeps it for whoever reads it again.
        given = parse_json(request.body)
    except (ParseError, UnreadablePostError):
        return None
    return given if isinstance(given, dict) else None
