"""A short way for what a fleet asks all day: polls without work, usual heartbeats.

Rules:
- Only what is plain in every respect is answered here. Whatever is not goes the long
  way, through the whole of Django, which alone refuses, judges and gives orders; there
  is nothing that only this module decides.
- The caller is looked up at every request, as on the long way: a revoked or erased
  device is not answered here.
- The answers are those of the long way, byte for byte and header for header.
"""

import json
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.core.exceptions import DisallowedHost
from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.http.request import UnreadablePostError
from django.utils import timezone
from rest_framework.exceptions import ParseError, Throttled

from firmware.api.trust import trusted_keys
from health.choices import SecureBoot
from health.models import DeviceState
from health.services.heartbeats import (
    CONTACT_RESOLUTION,
    Heartbeat,
    HeartbeatAnswer,
    record_usual_heartbeat,
)
from hotswap.common.api.parsers import parse_json
from hotswap.common.api.throttling import check_device_rate
from hotswap.common.errors import InvalidInputError
from hotswap.common.tokens import DeviceToken, verified_subject

ROUTE = re.compile(r"/api/v1/devices/([A-Za-z0-9._:-]{1,128})/(update|health)\Z")
MAX_BODY_BYTES = 16 * 1024
MAX_METRICS = 64
MAX_UPTIME_SECONDS = 2**53
NUMBERS = frozenset({"cpuUsage", "memoryUsage", "uptime"})
TEXTS = frozenset({"bootId", "firmwareVersion", "firmwareChecksum"})
OTHERS = frozenset({"applicationMetrics", "secureBoot"})
HEADERS = {
    "update": {"Allow": "GET, HEAD"},
    "health": {"Allow": "GET, HEAD, POST"},
}

# The device, and whether any deployment wants something of it. A contact is noted at
# most every five seconds; one that a crash of the database forgets is no loss, so
# nobody waits for the disk.
IDLE_POLL = """
    WITH caller AS (
        SELECT d.id, d.device_id FROM devices_device d
        WHERE d.id = %(device)s AND d.revoked_at IS NULL AND d.erased_at IS NULL
          AND d.device_id = %(name)s
          AND NOT EXISTS (SELECT 1 FROM deployments_update u
                          WHERE u.device_id = d.id AND u.closed_at IS NULL)
          AND NOT EXISTS (SELECT 1 FROM deployments_target t
                          WHERE t.device_id = d.id
                            AND t.status IN ('pending', 'rolling_back'))
    ), heard AS (
        UPDATE health_devicestate s
        SET last_seen_at = %(now)s,
            online_until = %(now)s + GREATEST(make_interval(secs => %(floor)s),
                s.interval_seconds * interval '2.5 seconds')
        FROM caller
        WHERE s.device_id = caller.id AND s.last_seen_at <= %(before)s
    )
    SELECT set_config('synchronous_commit', 'off', true)
    FROM caller JOIN health_devicestate s ON s.device_id = caller.id
"""
# Not what is written anew by every heartbeat, nor what those never look at.
STATE_FIELDS = tuple(
    field
    for field in DeviceState._meta.concrete_fields
    if field.name not in ("application_metrics", "past_boot_ids")
)
USUAL_HEARTBEAT = f"""
    SELECT s.xmin::text,
           u.id IS NOT NULL AS has_order, u.claimed_at IS NOT NULL AS is_claimed,
           {", ".join(f"s.{field.column}" for field in STATE_FIELDS)}
    FROM devices_device d
    JOIN health_devicestate s ON s.device_id = d.id
    LEFT JOIN deployments_update u ON u.device_id = d.id AND u.closed_at IS NULL
    WHERE d.id = %(device)s AND d.revoked_at IS NULL AND d.erased_at IS NULL
      AND d.device_id = %(name)s
      AND d.firmware_version = %(version)s AND d.firmware_checksum = %(checksum)s
      AND s.firmware_version = %(version)s AND s.firmware_checksum = %(checksum)s
      AND s.boot_id = %(boot)s
      AND NOT EXISTS (SELECT 1 FROM deployments_target t
                      WHERE t.device_id = d.id
                        AND t.status IN ('pending', 'rolling_back'))
"""  # noqa: S608


class QuickMiddleware:
    """Answers the plain requests of devices before the rest of the chain."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        answer = None
        if settings.DEVICE_CERTIFICATES == "off":
            found = ROUTE.match(request.path_info)
            if found is not None:
                name, route = found.groups()
                if route == "update" and request.method == "GET":
                    answer = _answer(request, name, route, _idle_poll)
                elif route == "health" and request.method == "POST":
                    answer = _answer(request, name, route, _usual_heartbeat)
        return self.get_response(request) if answer is None else answer


def _answer(
    request: HttpRequest,
    name: str,
    route: str,
    act: Callable[[HttpRequest, str, str, datetime], HttpResponse | None],
) -> HttpResponse | None:
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
        answer = act(request, name, subject, timezone.now())
        if answer is None:
            return None
        check_device_rate("device", subject)
    except (DisallowedHost, Throttled):
        return None
    for header, value in HEADERS[route].items():
        answer.headers[header] = value
    answer.headers["X-Frame-Options"] = settings.X_FRAME_OPTIONS
    answer.headers["Content-Length"] = str(len(answer.content))
    return answer


def _idle_poll(
    request: HttpRequest, name: str, device: str, now: datetime
) -> HttpResponse | None:
    try:
        # It decides nothing where there is no order, but a wrong one is refused.
        trusted_keys(request)
    except InvalidInputError:
        return None
    with connection.cursor() as cursor:
        cursor.execute(
            IDLE_POLL,
            {
                "device": device,
                "name": name,
                "now": now,
                "before": now - CONTACT_RESOLUTION,
                "floor": settings.ONLINE_FLOOR.total_seconds(),
            },
        )
        if cursor.fetchone() is None:
            return None
    interval: timedelta = settings.POLL_INTERVAL
    answer = HttpResponse(
        status=204, headers={"Poll-Interval": str(int(interval.total_seconds()))}
    )
    del answer.headers["Content-Type"]
    return answer


def _usual_heartbeat(
    request: HttpRequest, name: str, device: str, now: datetime
) -> HttpResponse | None:
    beat = _read_heartbeat(request)
    if beat is None:
        return None
    with connection.cursor() as cursor:
        cursor.execute(
            USUAL_HEARTBEAT,
            {
                "device": device,
                "name": name,
                "version": beat.firmware_version,
                "checksum": beat.firmware_checksum,
                "boot": beat.boot_id,
            },
        )
        row = cursor.fetchone()
    if row is None:
        return None
    version, has_order, is_claimed, *values = row
    if has_order and not is_claimed:
        return None
    state = DeviceState.from_db(
        "default", [field.attname for field in STATE_FIELDS], values
    )
    if isinstance(state.limits, str):
        state.limits = json.loads(state.limits)
    answer = record_usual_heartbeat(
        state=state, row_version=version, beat=beat, is_deploying=has_order, now=now
    )
    return None if answer is None else _heartbeat_answer(answer)


def _heartbeat_answer(answer: HeartbeatAnswer) -> HttpResponse:
    body = {
        "updateAvailable": answer.update_available,
        "nextHeartbeatSeconds": answer.next_heartbeat_seconds,
    }
    return HttpResponse(
        json.dumps(body, separators=(",", ":")), content_type="application/json"
    )


def _read_heartbeat(request: HttpRequest) -> Heartbeat | None:
    """Read a heartbeat that is right in every field; None where anything is odd."""
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
    if not isinstance(given, dict) or not (
        NUMBERS | TEXTS <= given.keys() <= NUMBERS | TEXTS | OTHERS
    ):
        return None
    metrics = given.get("applicationMetrics", {})
    secure_boot = given.get("secureBoot", SecureBoot.UNKNOWN.value)
    # What is compared with the stored row needs no other check of its form.
    if (
        not all(_is_number(given[key]) for key in NUMBERS)
        or not all(given[key] and isinstance(given[key], str) for key in TEXTS)
        or not (0 <= given["cpuUsage"] <= 100 and 0 <= given["memoryUsage"] <= 100)
        or not isinstance(given["uptime"], int)
        or not 0 <= given["uptime"] <= MAX_UPTIME_SECONDS
        or not isinstance(secure_boot, str)
        or secure_boot not in SecureBoot.values
        or not isinstance(metrics, dict)
        or len(metrics) > MAX_METRICS
        or not all(1 <= len(key) <= 64 for key in metrics)
        or not all(_is_number(value) for value in metrics.values())
        or not 0 <= metrics.get("errorRate", 0) <= 1
    ):
        return None
    return Heartbeat(
        cpu_usage=float(given["cpuUsage"]),
        memory_usage=float(given["memoryUsage"]),
        uptime=given["uptime"],
        boot_id=given["bootId"],
        firmware_version=given["firmwareVersion"],
        firmware_checksum=given["firmwareChecksum"],
        application_metrics={key: float(value) for key, value in metrics.items()},
        secure_boot=secure_boot,
    )


def _is_number(value: Any) -> bool:
    """Tell whether a value is a number that a float holds exactly enough."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, float) or abs(value) <= MAX_UPTIME_SECONDS
