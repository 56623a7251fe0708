"""What the live page of a deployment shows: numbers counted for each answer."""

from datetime import datetime
from typing import Any

from django.db.models import Count
from django.urls import reverse
from django.utils import timezone

from deployments.choices import (
    IN_FLIGHT,
    AcknowledgedWarning,
    DeploymentStatus,
    PauseReason,
    StageStatus,
    TargetStatus,
)
from deployments.console.badges import (
    DEPLOYMENT_BADGES,
    GONE_WRONG,
    LEVEL_BADGES,
    RETURNING,
    TARGET_BADGES,
    deployment_badge,
    failed_of,
    is_over,
    stage_badge,
    status_badge,
)
from deployments.console.health import poll_seconds
from deployments.models import Deployment, Hold, Target
from deployments.reads.devices import target_rows
from deployments.reads.health_report import failure_reasons
from deployments.reads.status import LiveStatus, StageProgress, deployment_status
from deployments.rules.codes import UNCONFIRMED
from deployments.services.fleets import current_hold
from deployments.strategies.holds import POINTS
from hotswap.common.console.badges import DONE, FAILED, MOVING, NOT_STARTED, WAITS
from hotswap.common.console.text import age, span_in_words
from hotswap.common.pluralize import counted

HTMX_STOP_POLLING = 286
SHOWN_DEVICES = 50
SHOWN_EVENTS = 50
D, T = DeploymentStatus, TargetStatus

# Whoever looks wants to see first what went wrong, then what moves.
ORDER_OF_INTEREST = (
    (T.FAILED,),
    (T.ROLLING_BACK,),
    (T.ROLLED_BACK,),
    IN_FLIGHT,
    (T.PENDING,),
    (T.SKIPPED, T.CANCELLED),
    (T.SUCCESS,),
)
# The colours of a bar from left to right; each with the statuses that it stands for.
SEGMENTS = (
    ("green", "done", (T.SUCCESS,)),
    ("red", "failed or sent back", GONE_WRONG),
    ("blue", "moving", IN_FLIGHT),
    ("striped", "left out", (T.SKIPPED, T.CANCELLED)),
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
    status = deployment_status(deployment, now)
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
        # A watch after the end is looked at more rarely.
        "refresh_seconds": 10 if over else 2,
        "now": now,
        "counted_at": f"{now:%H:%M:%S} UTC",
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
        "banner": _banner(deployment, progress, now, has_reasons=bool(reasons)),
        "eta": age(status.estimated_completion_at, now)
        if status.estimated_completion_at and not _waits_for_the_unseen(status)
        else "",
        "is_forecast": status.estimate_basis == "forecast",
        "started": age(deployment.started_at, now),
        "finished": age(deployment.finished_at, now),
        "scheduled": age(deployment.scheduled_at, now)
        if deployment.scheduled_at and not deployment.started_at
        else "",
        "summary": _summary(deployment, status, settled),
        "events": [
            {
                "event": event,
                "look": LEVEL_BADGES[event.level],
                "age": span_in_words((now - event.at).total_seconds()),
            }
            for event in deployment.events.select_related("device").order_by("-id")[
                :SHOWN_EVENTS
            ]
        ],
        "rows": _first_rows(deployment, now),
        "shown_devices": SHOWN_DEVICES,
    }


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
    }


def _waits_for_the_unseen(status: LiveStatus) -> bool:
    """Tell whether an open stage has only devices left that have not polled.

    Nobody knows when they will, so there is no end to be named.
    """
    return any(
        stage.status == StageStatus.OPEN
        and stage.counts.pending
        and not any(stage.counts.by_status[each] for each in IN_FLIGHT)
        for stage in status.stages
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
                "title": "Rolled back: every touched device is proven back",
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
                "under a new version. Those that stayed are proven.",
            }
        case D.FAILED:
            return {
                "tone": "red",
                "icon": "error",
                "title": "Failed",
                "text": deployment.failure_reason or deployment.rollback_reason,
                "next": "Look at the devices below: those that failed or are not "
                "proven back need a visit or a new deployment.",
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
        f"updated, {settled} settled, {progress.failed} failed."
    )


def _first_rows(deployment: Deployment, now: datetime) -> list[dict[str, Any]]:
    """Return the devices of most interest, filling up from the next kind."""
    found: list[Target] = []
    for statuses in ORDER_OF_INTEREST:
        room = SHOWN_DEVICES - len(found)
        if room <= 0:
            break
        found += (
            Target.objects.select_related("device")
            .filter(deployment=deployment, status__in=statuses)
            .order_by("stage_number", "rank")[:room]
        )
    return [
        {
            "row": row,
            "badge": status_badge(TARGET_BADGES, row.status),
            "url": reverse("admin:devices_device_change", args=[target.device_id])
            if target.device.erased_at is None
            else "",
            "next_step": row.next_step if target.status in GONE_WRONG else "",
            "went_along": target.status in RETURNING and not row.error_code,
            "can_go_back": target.status in (*IN_FLIGHT, T.SUCCESS)
            and target.device.erased_at is None,
        }
        for target, row in zip(found, target_rows(deployment, found, now), strict=True)
    ]
