"""What the live page of a deployment shows: numbers counted for each answer."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from itertools import accumulate
from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.db.models import Count
from django.urls import reverse
from django.utils import timezone

from deployments.choices import (
    IN_FLIGHT,
    AcknowledgedWarning,
    DeploymentStatus,
    LiveFleet,
    PauseReason,
    StageStatus,
    Strategy,
    TargetStatus,
)
from deployments.console.badges import (
    DEPLOYMENT_BADGES,
    GONE_WRONG,
    TARGET_BADGES,
    deployment_badge,
    failed_of,
    is_over,
    stage_badge,
    status_badge,
)
from deployments.console.drawings import Drawing, DrawnStage, draw_plan, parts_of
from deployments.console.health import poll_seconds
from deployments.models import Deployment, Hold, Target
from deployments.reads.health_report import failure_reasons
from deployments.reads.status import LiveStatus, StageProgress, deployment_status
from deployments.rules.codes import UNCONFIRMED
from deployments.services.fleets import current_hold
from deployments.strategies.holds import POINTS
from deployments.strategies.registry import STRATEGIES
from hotswap.common.console.badges import DONE, FAILED, MOVING, NOT_STARTED, WAITS
from hotswap.common.console.region_map import (
    Region,
    RegionMap,
    is_on_the_map,
    region_map,
)
from hotswap.common.console.text import age, estimated, span_in_words
from hotswap.common.pluralize import counted

HTMX_STOP_POLLING = 286
MOVING_SECONDS, WAITING_SECONDS, WATCHED_SECONDS = 2, 15, 10
D, T = DeploymentStatus, TargetStatus

# The colours of a bar from left to right; each with the statuses that it stands for.
SEGMENTS = (
    ("green", "done", (T.SUCCESS,)),
    ("red", "failed or sent back", GONE_WRONG),
    ("blue", "moving", IN_FLIGHT),
    ("striped", "excluded", (T.SKIPPED, T.CANCELLED)),
    ("grey", "not started", (T.PENDING,)),
)


def status_counts(deployment: Deployment) -> dict[str, int]:
    """Count the devices of a deployment by status."""
    return dict(
        Target.objects.filter(deployment=deployment)
        .values_list("status")
        .annotate(number=Count("pk"))
        .order_by()
    )


def live_context(deployment: Deployment) -> dict[str, Any]:
    """Return all that the live page shows."""
    now = timezone.now()
    status = deployment_status(deployment, now, may_share=True)
    progress = status.progress.by_status
    total = status.progress.total
    over = is_over(deployment)
    reasons = failure_reasons(deployment)
    settled = total - sum(
        progress[each] for each in (*IN_FLIGHT, T.PENDING, T.ROLLING_BACK)
    )
    return {
        "badge": deployment_badge(deployment, failed=failed_of(progress)),
        "live": status,
        "is_over": over,
        "watched_until": deployment.watching_until,
        "refresh_seconds": refresh_seconds(deployment, progress, now),
        "now": now,
        "counted_at": f"{status.counted_at:%H:%M:%S} UTC",
        "updated": status.progress.success,
        "settled": settled,
        "percent": int(100 * settled / total) if total else 0,
        "segments": segments_of(progress),
        "counts": [
            {"badge": status_badge(TARGET_BADGES, each), "number": progress[each]}
            for each in TARGET_BADGES
            if progress[each]
        ],
        "stages": [_stage(stage, status, now, is_over=over) for stage in status.stages],
        "reasons": reasons,
        "health_seconds": poll_seconds(deployment),
        "acknowledged": [
            AcknowledgedWarning(code).label for code in deployment.acknowledged
        ],
        # What a pause waits for is said by its banner.
        "waiting_for": None if deployment.status == D.PAUSED else status.waiting_for,
        "next_check": _until(deployment.next_check_at, now)
        if deployment.status == D.RUNNING
        else "",
        "next_check_at": deployment.next_check_at,
        "banner": _banner(deployment, progress, now, has_reasons=bool(reasons)),
        "eta": estimated(status.estimated_completion_at, now)
        if status.estimated_completion_at and not _has_no_end(status)
        else "",
        "is_forecast": status.estimate_basis == "forecast",
        "started": age(deployment.started_at, now),
        "finished": age(deployment.finished_at, now),
        "scheduled": age(deployment.scheduled_at, now)
        if deployment.scheduled_at and not deployment.started_at
        else "",
        "summary": _summary(deployment, status, settled),
        "drawing": _drawing(deployment, status),
        "map": _map(deployment, status),
        "trace_id": deployment.trace_id,
        "trace_url": settings.TRACE_URL.replace("{trace_id}", deployment.trace_id),
        "by_status": progress,
    }


def refresh_seconds(
    deployment: Deployment, progress: Mapping[str, int], now: datetime
) -> int:
    """Return how often the page asks again: rarely while nothing can happen.

    A watch after the end, too, is looked at more rarely.
    """
    if is_over(deployment):
        return WATCHED_SECONDS
    is_at_work = any(progress[each] for each in (*IN_FLIGHT, T.ROLLING_BACK))
    is_far = (
        deployment.next_check_at is not None
        and (deployment.next_check_at - now).total_seconds() > WAITING_SECONDS
    )
    is_still = deployment.status in (D.PAUSED, D.SCHEDULED) or is_far
    return WAITING_SECONDS if is_still and not is_at_work else MOVING_SECONDS


def _drawing(deployment: Deployment, status: LiveStatus) -> Drawing | None:
    boundaries = accumulate(stage.size for stage in status.stages)
    return draw_plan(
        deployment.strategy,
        [
            DrawnStage(
                stage.number,
                stage.name,
                stage.size,
                boundary,
                parts_of(segments_of(stage.counts.by_status)),
            )
            for stage, boundary in zip(status.stages, boundaries, strict=True)
        ],
        in_flight=STRATEGIES[deployment.strategy].in_flight(deployment.parameters),
        is_switched=deployment.live_fleet == LiveFleet.GREEN,
    )


def _map(deployment: Deployment, status: LiveStatus) -> RegionMap | None:
    """Draw the regions as they fill; None where one of them has no place."""
    if deployment.strategy != Strategy.REGIONAL or not all(
        is_on_the_map(stage.name) for stage in status.stages
    ):
        return None
    devices = reverse("admin:devices_device_changelist")
    return region_map(
        [
            Region(
                stage.name,
                stage.size,
                parts_of(segments_of(stage.counts.by_status)),
                f"{stage.counts.success:,} of {counted(stage.size, 'device')} updated",
                f"{devices}?{urlencode({'region': stage.name})}",
            )
            for stage in status.stages
        ],
        "Map of the regions; the list of stages has the figures",
    )


def segments_of(progress: dict[str, int]) -> list[dict[str, Any]]:
    """Cut a bar of devices by status into its colours, in percent of its width."""
    total = sum(progress.values())
    if not total:
        return []
    segments = []
    for tone, word, statuses in SEGMENTS:
        number = sum(progress[each] for each in statuses)
        if number:
            width = f"{100 * number / total:.4f}"
            segments.append(
                {"tone": tone, "word": word, "number": number, "width": width}
            )
    return segments


def _stage(
    stage: StageProgress, status: LiveStatus, now: datetime, *, is_over: bool
) -> dict[str, Any]:
    exposed, counts = stage.exposed, stage.counts
    actual = 100 * counts.success / exposed if exposed else None
    threshold = status.health_threshold
    if actual is None:
        tone = NOT_STARTED
    elif actual >= threshold:
        tone = DONE
    elif stage.status == StageStatus.FAILED:
        tone = FAILED
    elif is_over:
        tone = NOT_STARTED
    elif stage.status == "open" and counts.failed == counts.rolling_back == 0:
        tone = MOVING
    else:
        tone = WAITS
    return {
        "stage": stage,
        "sent_back": counts.rolling_back + counts.rolled_back,
        "badge": stage_badge(stage.status, is_over=is_over),
        "segments": segments_of(counts.by_status),
        "actual": None if actual is None else f"{actual:.1f}",
        "threshold": f"{threshold:g}",
        "gate_tone": tone,
        "opened": age(stage.opened_at, now) if stage.opened_at else "",
        "ends": estimated(stage.estimated_completion_at, now)
        if stage.estimated_completion_at and not _has_no_end(status)
        else "",
    }


def waits_for_the_unseen(stages: Iterable[tuple[str, Mapping[str, int]]]) -> bool:
    """Tell whether an open stage has only devices left that have not polled.

    Nobody knows when they will, so there is no end to be named.

    Args:
        stages: the status of each, and its devices by status.
    """
    return any(
        status == StageStatus.OPEN
        and counts[T.PENDING]
        and not any(counts[each] for each in IN_FLIGHT)
        for status, counts in stages
    )


def _has_no_end(status: LiveStatus) -> bool:
    return waits_for_the_unseen(
        (stage.status, stage.counts.by_status) for stage in status.stages
    )


def _until(at: datetime | None, now: datetime) -> str:
    if at is None or at <= now:
        return ""
    return span_in_words((at - now).total_seconds())


def _banner(
    deployment: Deployment,
    progress: dict[str, int],
    now: datetime,
    *,
    has_reasons: bool,
) -> dict[str, str] | None:
    """Say what went wrong or what waits for a person, and what to do next."""
    has_failed = failed_of(progress) > 0
    hold = current_hold(deployment)
    if hold is not None and deployment.status in (D.RUNNING, D.ROLLING_BACK):
        return _hold_banner(hold, now)
    match deployment.status:
        case D.PAUSED if PauseReason.WINDOW in deployment.pause_reasons:
            wait = _until(deployment.next_check_at, now)
            return {
                "tone": "grey",
                "icon": "bedtime",
                "title": "Paused: outside of its maintenance window",
                "text": deployment.pause_detail,
                "next": "Nothing needs to be done: it goes on by itself"
                f"{f' in {wait}' if wait else ''}. Devices at work finish.",
            }
        case D.PAUSED if PauseReason.APPROVAL in deployment.pause_reasons:
            return {
                "tone": "amber",
                "icon": "verified",
                "title": "Paused: a stage waits for its approval",
                "text": deployment.pause_detail,
                "next": "An Admin approves the stage, or rolls back to return the "
                "devices that have the new firmware.",
            }
        case D.PAUSED:
            look = "Look at the failed devices below. " if has_failed else ""
            return {
                "tone": "amber",
                "icon": "pause",
                "title": "Paused: it waits for a person",
                "text": deployment.pause_detail or deployment.waiting_for,
                "next": f"{look}Resume to go on, or roll back to return the devices "
                "that have the new firmware.",
            }
        case D.ROLLING_BACK:
            left = progress[T.ROLLING_BACK]
            look = "; look at the failed devices below for the cause"
            return {
                "tone": "red",
                "icon": "undo",
                "title": "Rolling back",
                "text": deployment.rollback_reason,
                "next": f"{counted(left, 'device is', 'devices are')}"
                " on the way back. Nothing needs to be done while they "
                f"report{look if has_reasons else ''}.",
            }
        case D.ROLLED_BACK:
            return {
                "tone": "red",
                "icon": "settings_backup_restore",
                "title": "Rolled back: every touched device is proved back",
                "text": deployment.rollback_reason,
                "next": "If devices failed, read why below, correct the firmware, and "
                "upload it under a new version. Deprecate this one, so that nobody "
                "deploys it again.",
            }
        case D.FAILED if _is_partly_back(deployment):
            return {
                "tone": "red",
                "icon": "error",
                "title": "Failed: a part is back, the rest stays on the new firmware",
                "text": deployment.failure_reason,
                "next": "Read why devices failed, correct the firmware, and deploy it "
                "under a new version. Those that stayed are proved.",
            }
        case D.FAILED:
            return {
                "tone": "red",
                "icon": "error",
                "title": "Failed",
                "text": deployment.failure_reason or deployment.rollback_reason,
                "next": "Look at the devices below: those that failed or are not "
                "proved back need a visit or a new deployment.",
            }
        case _:
            return None


def _is_partly_back(deployment: Deployment) -> bool:
    """Tell whether all that had to go back has, and something did not have to."""
    ended = deployment.rollbacks.filter(ends_deployment=True).first()
    is_confirmed = not deployment.failure_reason.startswith(UNCONFIRMED)
    return ended is not None and bool(ended.scope) and is_confirmed


def _hold_banner(hold: Hold, now: datetime) -> dict[str, str]:
    point = POINTS[hold.phase]
    wait = _until(hold.until, now)
    end = f"It goes on by itself{f' in {wait}' if wait else ''}, or when"
    return {
        "tone": "amber",
        "icon": "traffic",
        "title": f"The {hold.fleet} fleet is to drain before {point.follows}",
        "text": "",
        "next": f"{'It goes on when' if hold.until is None else end} somebody "
        "acknowledges that no traffic is left on it.",
    }


def _summary(deployment: Deployment, status: LiveStatus, settled: int) -> str:
    """Say it in one sentence for those who listen; changes only with the facts."""
    looks = DEPLOYMENT_BADGES[D(deployment.status)]
    stage, progress = status.stage, status.progress
    where = f", stage {stage.number} of {stage.of}" if stage else ""
    return (
        f"{looks[2]}{where}: {progress.success} of "
        f"{counted(progress.total, 'device is', 'devices are')} "
        f"updated, {settled} finished, {progress.failed} failed."
    )
