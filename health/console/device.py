"""What the page of a device shows of its health: latest, baseline, history."""

import json
from datetime import datetime, timedelta
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html

from devices.models import Device
from health.baseline import RunningStatistics
from health.console.badges import VERDICT_BADGES
from health.models import DeviceEvent, DeviceState, Reading
from health.services.heartbeats import current_verdict
from health.services.history import device_history, history_as_json
from health.triggers import APPLICATION_METRICS, TRIGGERS, Trigger, by_unit
from hotswap.common.console.badges import badge
from hotswap.common.console.text import age, span_in_words

NOT_REPORTED = "not reported"
# So long the page of a device says that another board was heard in its name.
SHOWN_DUPLICATE = timedelta(days=7)
SPANS = {
    "1h": ("1 hour", timedelta(hours=1)),
    "24h": ("24 hours", timedelta(hours=24)),
    "7d": ("7 days", timedelta(days=7)),
    "30d": ("30 days", timedelta(days=30)),
}


def baseline_rows(state: DeviceState) -> list[dict[str, str]]:
    """Return what is usual for a device, and how far its latest values are from it."""
    return [
        _against_usual(each, state.measured(each), state.usual(each))
        for each in TRIGGERS
    ]


def _against_usual(
    trigger: Trigger, value: float | None, usual: RunningStatistics
) -> dict[str, str]:
    """Put a value beside what is usual."""
    digits = trigger.shown_digits
    row = {"name": trigger.title, "latest": NOT_REPORTED, "reports": "0"}
    if value is not None:
        row["latest"] = trigger.shown(value, digits)
    if not usual.is_known:
        return {**row, "unknown": "not known: no healthy report yet"}
    distance = "–"
    if value is not None:
        spreads = usual.distance(value)
        distance = (
            f"{_difference(trigger, value - usual.mean)}; it never varied"
            if spreads is None
            else f"{spreads:+.1f} σ"
        )
    return {
        **row,
        "reports": f"{usual.samples:,}"
        + ("" if usual.is_certain else f", {usual.confidence} confidence"),
        "mean": trigger.shown(usual.mean, digits),
        "spread": f"± {trigger.shown(usual.spread, digits)}",
        "distance": distance,
    }


def _difference(trigger: Trigger, value: float) -> str:
    """Write how far a value is from another; two percentages are points apart."""
    shown = trigger.shown(value, trigger.shown_digits, "+")
    return f"{shown.removesuffix('%')}points" if trigger.unit == "%" else shown


def _shown(trigger: Trigger, value: float | None) -> str:
    return NOT_REPORTED if value is None else trigger.shown(value)


def health_rows(state: DeviceState, now: datetime) -> list[tuple[str, Any]]:
    """Return what a device last said of its health, line by line."""
    if state.last_heartbeat_at is None:
        return [("Verdict", badge("unknown", *VERDICT_BADGES["unknown"]))]
    verdict, reason = current_verdict(state, now)
    return [
        (
            "Verdict",
            format_html(
                '{} <span class="hs-hint">{} heartbeat {}</span>',
                badge(verdict, *VERDICT_BADGES[verdict]),
                f"{reason};" if reason else "",
                age(state.last_heartbeat_at, now),
            ),
        ),
        *((each.title, _shown(each, state.measured(each))) for each in TRIGGERS),
        (
            "Up for",
            NOT_REPORTED
            if state.uptime_seconds is None
            else span_in_words(state.uptime_seconds),
        ),
        ("Boot id", state.boot_id or NOT_REPORTED),
        ("Secure boot", state.secure_boot),
    ]


def chart_of(device: Device, wanted: str, metric: str = "") -> dict[str, Any]:
    """Return what the console draws of a device's history.

    Args:
        wanted: a key of `SPANS`; anything else counts as the span that fits.
        metric: an application metric to draw as well. Those of the latest heartbeat
            are offered, and the one that is drawn.
    """
    now = timezone.now()
    chosen = wanted if wanted in SPANS else _fitting_span(device, now)
    history = device_history(
        device=device, now=now, since=now - SPANS[chosen][1], metric=metric
    )
    shown = history_as_json(device, history)
    state = DeviceState.objects.filter(device_id=device.pk).first()
    # What is judged is on the first chart already.
    reported = {metric, *(state.application_metrics if state else ())}
    offered = reported - APPLICATION_METRICS.keys()
    return {
        "spans": [(key, name, key == chosen) for key, (name, _) in SPANS.items()],
        "span": chosen,
        "has_points": bool(history.points),
        "bucket_seconds": shown["bucketSeconds"],
        "data": DjangoJSONEncoder().encode(shown),
        "charts": [
            {
                "unit": unit,
                "measures": json.dumps(
                    [(each.title, each.field, each.scale) for each in triggers]
                ),
                "names": ", ".join(each.label for each in triggers),
            }
            for unit, triggers in by_unit()
        ],
        "metric": metric,
        "metrics": sorted(offered - {""}),
        "has_metric": any(point.metric for point in history.points),
    }


def _fitting_span(device: Device, now: datetime) -> str:
    """Return the key of the span that shows most of what there is.

    Of a new device the time since its registration, of a silent one that in which it
    was last heard, of one that has come back within the hour that hour; else 24 hours.
    """
    state = _state(device)
    heard = state.last_heartbeat_at if state else None
    known = now - device.created_at
    silent = now - heard if heard else timedelta()
    wanted = max(min(known, SPANS["24h"][1]), silent)
    hour, day = SPANS["1h"][1], SPANS["24h"][1]
    if hour < wanted <= day and silent < hour:
        before = Reading.objects.filter(
            device_id=device.pk, at__gt=now - day, at__lte=now - hour
        )
        if not before.exists():
            return "1h"
    return next((key for key, (_, span) in SPANS.items() if span >= wanted), "30d")


def _state(device: Device) -> DeviceState | None:
    state: DeviceState | None = getattr(device, "state", None)
    return state


def warnings_context(request: HttpRequest, device: Device) -> dict[str, Any] | None:
    """Return what is wrong with what is heard of a device."""
    now, state = timezone.now(), _state(device)
    if state is None:
        return None
    is_duplicate = (
        state.duplicate_at is not None and now - state.duplicate_at < SHOWN_DUPLICATE
    )
    return {
        "state": state,
        "refused": age(state.refused_at, now) if state.refused_count else "",
        "duplicate": age(state.duplicate_at, now) if is_duplicate else "",
    }


def latest_context(request: HttpRequest, device: Device) -> dict[str, Any]:
    """Return what a device last said of its health."""
    state = _state(device)
    return {"health": health_rows(state, timezone.now()) if state else []}


def history_context(request: HttpRequest, device: Device) -> dict[str, Any]:
    """Return the history of a device, and what is usual for it."""
    now, state = timezone.now(), _state(device)
    return {
        "state": state,
        "history": chart_of(
            device, request.GET.get("history", ""), request.GET.get("metric", "")
        ),
        "baseline": baseline_rows(state) if state else [],
        "heard": age(state.last_heartbeat_at, now) if state else "",
    }


def newest_events(
    device: Device, limit: int, until: datetime | None
) -> QuerySet[DeviceEvent]:
    """Return the newest lines of a device's own log."""
    events = DeviceEvent.objects.filter(device=device)
    if until is not None:
        events = events.filter(at__lte=until)
    return events.order_by("-id")[:limit]
