"""The overview: how the fleet fares, what is in progress, and what needs attention.

It moves by itself: the page asks for its moving part again every two seconds while a
deployment is at work, and every fifteen otherwise, and gets an answer without a body
where nothing has changed.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import urlencode

from django.db.models import Prefetch
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone

from deployments.choices import DeploymentStatus, TargetStatus
from deployments.console.badges import deployment_badge, failed_of
from deployments.console.live import segments_of, waits_for_the_unseen
from deployments.models import Deployment, Stage
from deployments.reads.estimate import (
    Estimate,
    estimate_completion,
    measured_device_times,
)
from deployments.reads.status import current_stage
from deployments.reads.waiting import deployment_waiting
from deployments.services.progress import (
    StageCounts,
    count_stages_of,
    total_of,
    usual_device_time,
)
from hotswap.common.api.etags import knows
from hotswap.common.console.region_map import Region, RegionMap, region_map
from hotswap.common.console.requests import READING, acting_person
from hotswap.common.console.text import age, estimated, percent_in_words
from hotswap.common.models import User
from hotswap.common.pluralize import counted
from hotswap.common.roles import Role
from hotswap.console.attention import concerns
from hotswap.console.checklist import first_steps
from hotswap.console.figures import (
    DAY,
    MONTH,
    ROLLBACK_TARGET_PERCENT,
    UPDATE_TARGET_PERCENT,
    Outcome,
    Outcomes,
    Part,
    fleet_figures,
    outcomes,
    updates_by_hour,
    version_spread,
)
from hotswap.monitoring.status import cached_status

SHOWN_DEPLOYMENTS: Final = 6
MOVING_SECONDS: Final = 2
RESTING_SECONDS: Final = 15
MOVING: Final = (
    DeploymentStatus.PREPARING,
    DeploymentStatus.RUNNING,
    DeploymentStatus.ROLLING_BACK,
)
# Spans of the charts: in the address, in words, and how long they are.
SPANS: Final = (
    ("1d", "24 hours", DAY),
    ("7d", "7 days", 7 * DAY),
    ("30d", "30 days", MONTH),
)
HOURS_OF_DAY: Final = 24


@dataclass(frozen=True, slots=True)
class Figure:
    """One of the large numbers.

    Attributes:
        tone: green where a target is met, amber where it is missed, grey where nothing
            is known yet.
    """

    value: str
    label: str
    detail: str
    tone: str
    url: str


def overview(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Fill the first page."""
    return context | {"title": "Overview", **moving_part(acting_person(request))}


def overview_live_view(request: HttpRequest) -> HttpResponse:
    """Render the moving part of the overview; 304 where nothing has changed."""
    if request.method not in READING:
        return HttpResponseNotAllowed(READING)
    context = moving_part(acting_person(request))
    counted_at = context.pop("counted_at")
    content = render_to_string("console/overview.html", context, request)
    etag = f'"{hashlib.sha256(content.encode()).hexdigest()[:32]}"'
    headers = {"ETag": etag, "HS-Counted-At": counted_at}
    if knows(request, etag):
        return HttpResponse(status=304, headers=headers)
    return HttpResponse(content, headers=headers)


def overview_charts_view(request: HttpRequest) -> HttpResponse:
    """Render the charts: versions over time of one model, and updates by the hour."""
    if request.method not in READING:
        return HttpResponseNotAllowed(READING)
    names = [each.name for each in fleet_figures().models]
    asked = request.GET.get("model", "")
    model = asked if asked in names else (names[0] if names else "")
    spans = {key: (words, span) for key, words, span in SPANS}
    key = request.GET.get("span", "")
    key = key if key in spans else "7d"
    return TemplateResponse(
        request,
        "console/overview_charts.html",
        {
            "models": names,
            "model": model,
            "spans": [(each, words) for each, (words, _) in spans.items()],
            "span": key,
            **_charts(model, spans[key][1]),
        },
    )


def _charts(model: str, span: timedelta) -> dict[str, Any]:
    spread = version_spread(model, span)
    hours = updates_by_hour(HOURS_OF_DAY)
    times = [_milliseconds(each.timestamp()) for each in spread.times]
    return {
        "spread_counted_at": f"{spread.counted_at:%H:%M:%S} UTC",
        "spread": json.dumps(
            {
                "kind": "area",
                "unit": "devices",
                "series": [
                    {"label": version, "points": list(zip(times, counts, strict=True))}
                    for version, counts in spread.counts.items()
                ],
            }
        ),
        "has_spread": bool(spread.counts),
        "hours": json.dumps(
            {
                "kind": "bar",
                "unit": "updates",
                "series": [
                    {
                        "label": label,
                        "tone": tone,
                        "points": [
                            [_milliseconds(hour.start.timestamp()), getattr(hour, name)]
                            for hour in hours
                        ],
                    }
                    for label, tone, name in (
                        ("proved", "green", "proved"),
                        ("failed", "red", "failed"),
                    )
                ],
            }
        ),
        "has_hours": any(hour.proved or hour.failed for hour in hours),
    }


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def moving_part(user: User) -> dict[str, Any]:
    """Return all that moves on the overview; `counted_at` says as of when it is."""
    now = timezone.now()
    active = list(
        Deployment.objects.active()
        .select_related("firmware__model")
        .prefetch_related(Prefetch("stages", Stage.objects.order_by("number")))
        .order_by("-created_at")
    )
    fleet, ended = fleet_figures(), outcomes()
    counted_at = min(fleet.counted_at, ended.counted_at)
    is_moving = any(each.status in MOVING for each in active)
    return {
        "refresh_seconds": MOVING_SECONDS if is_moving else RESTING_SECONDS,
        "counted_at": f"{counted_at:%H:%M:%S} UTC",
        "steps": first_steps(user),
        "figures": _figures(fleet.total, ended),
        "deployments": in_progress(active[:SHOWN_DEPLOYMENTS]),
        "more_deployments": max(0, len(active) - SHOWN_DEPLOYMENTS),
        "concerns": [
            {
                "concern": each,
                "since": age(each.since, now) if each.since else "",
                "url": each.url if user.may(each.role) else "",
            }
            for each in concerns(active, cached_status(), now)
        ],
        "regions": [(each, *_shares(each)) for each in fleet.regions],
        "map": _map(fleet.regions),
        "models": [(each, *_shares(each)) for each in fleet.models],
        "launch_url": reverse("admin:deployments_deployment_launch")
        if user.may(Role.OPERATOR)
        else "",
    }


def _map(regions: Sequence[Part]) -> RegionMap | None:
    """Draw where the fleet is, green what is online."""
    devices = reverse("admin:devices_device_changelist")
    return region_map(
        [
            Region(
                each.name,
                each.devices,
                (("green", each.online),),
                f"{each.online:,} of {counted(each.devices, 'device')} online",
                f"{devices}?{urlencode({'region': each.name})}",
            )
            for each in regions
        ],
        "Map of the regions; the table has the figures",
    )


def _shares(part: Part) -> tuple[str, str]:
    return percent_in_words(part.online_percent), percent_in_words(part.newest_percent)


def _figures(fleet: Part, ended: Outcomes) -> list[Figure]:
    devices = reverse("admin:devices_device_changelist")
    deployments = reverse("admin:deployments_deployment_changelist")
    away = fleet.devices - fleet.online
    return [
        Figure(f"{fleet.devices:,}", "devices", "", "grey", devices),
        Figure(
            percent_in_words(fleet.online_percent),
            "online",
            f"{fleet.online:,}; {away:,} are not, {fleet.never_seen:,} of them never "
            "seen",
            "grey",
            f"{devices}?status=online",
        ),
        Figure(
            percent_in_words(fleet.newest_percent),
            "on the newest approved version",
            f"{fleet.newest:,} of {fleet.updatable:,} of models that have one",
            "grey",
            reverse("admin:firmware_firmware_changelist"),
        ),
        _rate(
            "updates proved, 24 hours",
            ended.updates_of_day,
            UPDATE_TARGET_PERCENT,
            deployments,
        ),
        _rate(
            "updates proved, 30 days",
            ended.updates_of_month,
            UPDATE_TARGET_PERCENT,
            deployments,
        ),
        _rate(
            "returns proved, 30 days",
            ended.rollbacks_of_month,
            ROLLBACK_TARGET_PERCENT,
            reverse("admin:deployments_rollback_changelist"),
        ),
    ]


def _rate(label: str, outcome: Outcome, target: float, url: str) -> Figure:
    percent = outcome.percent
    if percent is None:
        detail = f"none has ended; target {target:g} %"
        return Figure("–", label, detail, "grey", url)
    return Figure(
        percent_in_words(percent),
        label,
        f"{outcome.proved:,} of {outcome.ended:,} orders; target {target:g} %",
        "green" if percent >= target else "amber",
        url,
    )


def in_progress(deployments: list[Deployment]) -> list[dict[str, Any]]:
    """Return how far deployments are, when they will end and why they wait."""
    now = timezone.now()
    ids = [each.pk for each in deployments]
    counts = count_stages_of(ids)
    device_times = measured_device_times(ids)
    models = {
        each.firmware.model_id for each in deployments if each.pk not in device_times
    }
    usual_times = {model: usual_device_time(model)[0] for model in models}
    found = []
    for each in deployments:
        estimate = estimate_completion(
            each,
            list(each.stages.all()),
            counts[each.pk],
            now,
            device_times,
            usual_times,
        )
        found.append(_progress(each, counts[each.pk], estimate, now))
    return found


def _progress(
    deployment: Deployment,
    counts: dict[int, StageCounts],
    estimate: Estimate | None,
    now: datetime,
) -> dict[str, Any]:
    stages = list(deployment.stages.all())
    total = total_of(counts)
    updated = total.by_status[TargetStatus.SUCCESS]
    stage = current_stage(stages)
    waiting = deployment_waiting(deployment)
    is_paused = deployment.status == DeploymentStatus.PAUSED
    has_no_end = waits_for_the_unseen(
        (each.status, counts[each.number].by_status)
        for each in stages
        if each.number in counts
    )
    return {
        "object": deployment,
        "badge": deployment_badge(deployment, failed=failed_of(total.by_status)),
        "url": reverse("admin:deployments_deployment_change", args=[deployment.pk]),
        "segments": segments_of(total.by_status),
        "updated": updated,
        "total": total.total,
        "percent": percent_in_words(100 * updated / total.total) if total.total else "",
        "stage": f"stage {stage.number} of {len(stages)}: {stage.name}"
        if stage
        else "",
        "eta": estimated(estimate.at, now) if estimate and not has_no_end else "",
        "waiting_for": "" if is_paused or waiting is None else waiting.reason,
    }
