"""The traces of deployments, derived from rows and exported (FR-FW-007).

Rules:
- All spans of a deployment are below that of its creation, in the trace of the request
  that created it. The ids of the others are hashes, so that any process derives the
  same.
- What is over and not exported yet is found by an index and sent in pages, by a
  periodic task; a row is marked once the collector has taken it. Whoever dies in
  between leaves it to be sent again, under the same ids.
- A phase of a sampled order is sent once it is over, and again only if later reports
  say more of it: it came again, or the device gives a measurement. Those of a device
  that sends its own wait for the end of the order, which tells whether it has.
- Of the devices a sample is traced, drawn by a hash, and beside it all that fail.
- What lies back for longer than a day is not sent any more.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db.models import F, Prefetch, Q, QuerySet
from django.utils.dateparse import parse_datetime

from deployments.choices import DeploymentStatus, OrderKind, UpdateStatus
from deployments.models import (
    Deployment,
    Report,
    Rollback,
    Stage,
    TickTrace,
    Update,
)
from deployments.spans import (
    CHECK,
    DEPLOYMENT_ID,
    DEVICE_ID,
    FIRMWARE_VERSION,
    NOTIFY,
    Course,
    Phase,
    ReportMark,
    phases_of,
)
from hotswap.common.tracing import (
    Derived,
    current_context,
    export,
    nanoseconds,
    span_id_of,
    traceparent_of,
)

PAGE = 200
# Of one run of the task; what is left is for the next.
RUN_SECONDS = 20.0
FORGOTTEN_AFTER = timedelta(days=1)
MAX_LINKS = 200
SUCCESSFUL = frozenset({DeploymentStatus.COMPLETED})
# A device that says so is past some phase. Of a download there are many reports.
PAST_A_PHASE = (
    *(UpdateStatus.VERIFYING, UpdateStatus.INSTALLING, UpdateStatus.REBOOTING),
    UpdateStatus.CONFIRMING,
)


# --- Ids, when something begins -----------------------------------------------------


@dataclass(frozen=True, slots=True)
class Root:
    """The span of a deployment's creation: its context, and the request above it."""

    traceparent: str
    parent_span: str


def new_root(deployment_id: UUID) -> Root:
    """Return the root of a deployment that is created within the present request."""
    request = current_context()
    root = span_id_of(deployment_id, "deployment.create")
    return Root(
        traceparent_of(request.trace_id, root, is_sampled=True),
        # One that is not sampled is sent to nobody, who would miss it.
        f"{request.span_id:016x}" if request.trace_flags.sampled else "",
    )


def order_context(deployment: Deployment, order_id: UUID, device_id: UUID) -> str:
    """Return the W3C context that a device goes on with."""
    return traceparent_of(
        int(deployment.trace_id, 16),
        span_id_of(order_id, NOTIFY),
        is_sampled=is_sampled(deployment, device_id),
    )


def note_tick(
    deployment: Deployment, began_at: datetime, ended_at: datetime, events: list[str]
) -> None:
    """Note that a tick has changed a deployment, in its transaction."""
    if settings.TRACES_EXPORTED:
        TickTrace.objects.create(
            deployment=deployment, began_at=began_at, ended_at=ended_at, events=events
        )


def is_sampled(deployment: Deployment, device_id: UUID) -> bool:
    """Tell whether a device is in the sample that is traced, failed or not.

    About `HOTSWAP_TRACE_DEVICES` of each deployment are; all processes say the same.
    """
    drawn = span_id_of(deployment.pk, str(device_id))
    return drawn * max(1, deployment.target_count) < settings.TRACE_DEVICES << 64


# --- Export, when something is over -------------------------------------------------


def export_due(now: datetime) -> int:
    """Export what is over, in pages, until nothing is left or the time is up.

    Returns:
        How many rows were exported.
    """
    ends_at = time.monotonic() + RUN_SECONDS
    total = 0
    TickTrace.objects.filter(ended_at__lte=now - FORGOTTEN_AFTER).delete()
    for export_page in (
        *(_created, _ticks, _stages, _rollbacks, _phases, _orders, _ended),
    ):
        while time.monotonic() < ends_at:
            count = export_page(now)
            total += count
            if count < PAGE:
                break
    return total


def _created(now: datetime) -> int:
    found = list(
        _traced(Deployment.objects, now, "created_at")
        .filter(traced_until__isnull=True, creation_time__isnull=False)
        .select_related("firmware")
        .order_by("updated_at")[:PAGE]
    )
    if not found or not export([_creation_of(each) for each in found]):
        return 0
    Deployment.objects.filter(
        pk__in=[each.pk for each in found], traced_until__isnull=True
    ).update(traced_until=F("created_at"))
    return len(found)


def _creation_of(deployment: Deployment) -> Derived:
    took = deployment.creation_time or timedelta(0)
    return Derived(
        "deployment.create",
        int(deployment.trace_id, 16),
        int(deployment.root_span_id, 16),
        int(deployment.parent_span or "0", 16),
        deployment.created_at,
        deployment.created_at + took,
        _attributes(deployment)
        | {"hotswap.deployment.targets": deployment.target_count},
    )


def _ticks(now: datetime) -> int:
    found = list(
        TickTrace.objects.select_related("deployment__firmware").order_by("pk")[:PAGE]
    )
    if not found or not export([_tick_span(tick) for tick in found]):
        return 0
    TickTrace.objects.filter(pk__in=[tick.pk for tick in found]).delete()
    return len(found)


def _tick_span(tick: TickTrace) -> Derived:
    return _below(
        tick.deployment,
        "deployment.tick",
        span_id_of(tick.deployment.pk, f"deployment.tick {nanoseconds(tick.began_at)}"),
        tick.began_at,
        tick.ended_at,
        {"hotswap.events": tick.events},
    )


def _stages(now: datetime) -> int:
    found = list(
        _traced(Stage.objects, now, "passed_at")
        .filter(traced_at__isnull=True)
        .select_related("deployment__firmware")
        .order_by("passed_at")[:PAGE]
    )
    spans = [_stage_span(stage, stage.deployment, stage.passed_at) for stage in found]
    return _export_marked(Stage.objects, found, spans, now)


def _stage_span(stage: Stage, deployment: Deployment, end: datetime | None) -> Derived:
    start = stage.opened_at or deployment.created_at
    return _below(
        deployment,
        "deployment.stage",
        span_id_of(deployment.pk, f"deployment.stage {stage.number}"),
        start,
        end or start,
        {
            "hotswap.stage.number": stage.number,
            "hotswap.stage.name": stage.name,
            "hotswap.stage.devices": stage.size,
        },
        error="" if stage.passed_at else "not_passed",
    )


def _rollbacks(now: datetime) -> int:
    found = list(
        _traced(Rollback.objects, now, "finished_at")
        .filter(traced_at__isnull=True)
        .select_related("deployment__firmware")
        .order_by("finished_at")[:PAGE]
    )
    spans = [
        _below(
            rollback.deployment,
            "deployment.rollback",
            rollback_span_id(rollback.pk),
            rollback.started_at,
            rollback.finished_at or rollback.started_at,
            {"hotswap.rollback.is_whole": rollback.ends_deployment},
        )
        for rollback in found
    ]
    return _export_marked(Rollback.objects, found, spans, now)


def rollback_span_id(rollback_id: int) -> int:
    return span_id_of(f"rollback {rollback_id}", "deployment.rollback")


def _phases(now: datetime) -> int:
    """Export the phases that are over of orders that are not."""
    found = list(
        _with_reports(Update.objects)
        .filter(
            closed_at__isnull=True,
            traceparent__endswith="-01",
            status__in=PAST_A_PHASE,
            last_sequence__gt=F("traced_sequence"),
        )
        .order_by("offered_at")[:PAGE]
    )
    spans = [span for order in found for span in _phase_spans(order)]
    if spans and not export(spans):
        return 0
    for order in found:
        # One by one: who else locks several of them does so in another order.
        Update.objects.filter(pk=order.pk, closed_at__isnull=True).update(
            traced_sequence=order.last_sequence
        )
    return len(found)


def _with_reports(orders: Any) -> QuerySet[Update]:
    found: QuerySet[Update] = orders.select_related(
        "deployment__firmware", "firmware", "device", "target"
    ).prefetch_related(
        Prefetch(
            "reports",
            Report.objects.filter(was_applied=True).order_by("sequence", "id"),
        )
    )
    return found


def _orders(now: datetime) -> int:
    found = list(
        _traced(_with_reports(Update.objects), now, "closed_at")
        .filter(_is_worth_it(), traced_at__isnull=True)
        .order_by("closed_at")[:PAGE]
    )
    parents = _parents_of(found)
    spans = [
        span for order in found for span in _spans_of(order, parents.get(order.pk))
    ]
    return _export_marked(Update.objects, found, spans, now)


def _is_worth_it() -> Q:
    failed = ~Q(error_code="") & ~Q(traceparent="")
    return Q(traceparent__endswith="-01") | failed


def _parents_of(orders: Iterable[Update]) -> dict[UUID, int]:
    """Return the rollback that each order to go back belongs to, if it does to any."""
    back = [order for order in orders if order.kind == OrderKind.ROLLBACK]
    rollbacks: dict[UUID, list[Rollback]] = {}
    for rollback in Rollback.objects.filter(
        deployment__in={order.deployment_id for order in back}
    ).order_by("started_at"):
        rollbacks.setdefault(rollback.deployment_id, []).append(rollback)
    found = {}
    for order in back:
        since = order.target.returning_since or order.offered_at
        for rollback in rollbacks.get(order.deployment_id, []):
            over = rollback.finished_at or order.offered_at
            if rollback.started_at <= since and order.offered_at <= over:
                found[order.pk] = rollback_span_id(rollback.pk)
    return found


def _spans_of(order: Update, rollback_span: int | None) -> list[Derived]:
    """Return the span of an order, with those of its phases that are not sent yet."""
    deployment = order.deployment
    notify = Derived(
        NOTIFY,
        int(deployment.trace_id, 16),
        span_id_of(order.pk, NOTIFY),
        rollback_span or int(deployment.root_span_id, 16),
        order.offered_at,
        order.closed_at or order.offered_at,
        _order_attributes(order)
        | {
            "hotswap.order.attempt": order.attempt,
            "hotswap.order.outcome": order.status,
            "hotswap.stage.number": order.target.stage_number,
        },
        _error_of(order),
    )
    return [notify, *_phase_spans(order)]


def _phase_spans(order: Update) -> list[Derived]:
    """Return the spans of the phases that are over, but for those that were sent."""
    reports = list(order.reports.all())
    phases = phases_of(_course_of(order, reports, order.closed_at, _error_of(order)))
    exported = [
        report.body["spansExported"]
        for report in reports
        if "spansExported" in report.body
    ]
    if True in exported:
        # What comes after the spans of the device is known here alone.
        phases = [phase for phase in phases if phase.name == CHECK]
    elif exported and order.closed_at is None:
        return []
    elif not exported:
        looked_at = [
            report for report in reports if report.sequence <= order.traced_sequence
        ]
        sent = phases_of(_course_of(order, looked_at, None, ""))
        phases = [phase for phase in phases if phase not in sent]
    return [
        Derived(
            phase.name,
            int(order.deployment.trace_id, 16),
            span_id_of(order.pk, phase.name),
            span_id_of(order.pk, NOTIFY),
            phase.start,
            phase.end,
            _order_attributes(order) | _clock_marks(phase),
            phase.error,
        )
        for phase in phases
    ]


def _course_of(
    order: Update, reports: Sequence[Report], closed_at: datetime | None, error: str
) -> Course:
    durations: dict[str, float] = {}
    for report in reports:
        durations |= report.body.get("durations", {})
    return Course(
        offered_at=order.offered_at,
        closed_at=closed_at,
        error=error,
        durations=durations,
        reports=[_report_mark(report) for report in reports],
    )


def _error_of(order: Update) -> str:
    has_failed = order.status == UpdateStatus.FAILED
    return (order.error_code or "failed") if has_failed else ""


def _order_attributes(order: Update) -> dict[str, Any]:
    return _attributes(order.deployment, order.firmware.version) | {
        DEVICE_ID: order.device.device_id,
        "hotswap.order.id": str(order.pk),
        "hotswap.order.kind": order.kind,
    }


def _report_mark(report: Report) -> ReportMark:
    try:
        occurred_at = parse_datetime(str(report.body.get("occurredAt", "")))
    except ValueError:
        occurred_at = None
    if occurred_at is not None and occurred_at.tzinfo is None:
        occurred_at = None
    return ReportMark(
        word=report.status,
        received_at=report.received_at,
        occurred_at=occurred_at,
        boot_id=str(report.body.get("bootId", "")),
    )


def _clock_marks(phase: Phase) -> dict[str, Any]:
    if phase.clock_offset is None:
        return {}
    return {
        "hotswap.clock.corrected": True,
        "hotswap.clock.offset_seconds": round(phase.clock_offset.total_seconds(), 3),
    }


def _ended(now: datetime) -> int:
    found = list(
        _traced(Deployment.objects, now, "finished_at")
        .filter(finished_at__gt=F("traced_until"))
        .select_related("firmware")
        .order_by("updated_at")[: PAGE // 10]
    )
    for deployment in found:
        if not export(_end_of(deployment)):
            return 0
        Deployment.objects.filter(pk=deployment.pk).update(
            traced_until=deployment.finished_at
        )
    return len(found)


def _end_of(deployment: Deployment) -> list[Derived]:
    """Return the span of a deployment's end, and those of its stages left open."""
    end = deployment.finished_at or deployment.created_at
    opened = deployment.stages.filter(opened_at__isnull=False)
    unpassed = [
        _stage_span(stage, deployment, end)
        for stage in opened.filter(passed_at__isnull=True).order_by("number")[:PAGE]
    ]
    last = opened.filter(settled_at__lte=end).order_by("settled_at").last()
    linked = (
        Update.objects.filter(_is_worth_it(), deployment=deployment)
        .order_by("offered_at")
        .values_list("pk", flat=True)[:MAX_LINKS]
    )
    trace_id = int(deployment.trace_id, 16)
    return [
        *unpassed,
        _below(
            deployment,
            "deployment.complete",
            # One that goes on after its end has another one.
            span_id_of(deployment.pk, f"deployment.complete {nanoseconds(end)}"),
            (last.settled_at if last is not None else None) or end,
            end,
            {"hotswap.deployment.status": deployment.status},
            error="" if deployment.status in SUCCESSFUL else deployment.status,
            links=[(trace_id, span_id_of(order, NOTIFY)) for order in linked],
        ),
    ]


def _below(
    deployment: Deployment,
    name: str,
    span_id: int,
    start: datetime,
    end: datetime,
    attributes: dict[str, Any],
    *,
    error: str = "",
    links: Sequence[tuple[int, int]] = (),
) -> Derived:
    """Return a span right below the creation of a deployment."""
    return Derived(
        name,
        int(deployment.trace_id, 16),
        span_id,
        int(deployment.root_span_id, 16),
        start,
        end,
        _attributes(deployment) | attributes,
        error,
        links,
    )


def _attributes(deployment: Deployment, version: str = "") -> dict[str, Any]:
    return {
        DEPLOYMENT_ID: str(deployment.pk),
        FIRMWARE_VERSION: version or deployment.firmware.version,
        "hotswap.deployment.strategy": deployment.strategy,
    }


def _traced(rows: Any, now: datetime, moment: str) -> QuerySet[Any]:
    """Narrow rows to those of the last day; older ones are left alone."""
    found: QuerySet[Any] = rows.filter(**{f"{moment}__gt": now - FORGOTTEN_AFTER})
    return found


def _export_marked(
    rows: Any, found: Sequence[Any], spans: Sequence[Derived], now: datetime
) -> int:
    """Send spans, and mark their rows if the collector has taken them."""
    if not found or not export(spans):
        return 0
    rows.filter(pk__in=[row.pk for row in found]).update(traced_at=now)
    return len(found)
