"""Which devices went back, alone or with their deployment.

Rules:
- Each way back of a device is one row: retried and sent back again, it has two. One
  that failed alone and could not be ordered back is a row, too.
- A rollback of the whole deployment or of a part accounts for every exposed device in
  it, also for those that could not be ordered back, with what became of it.
- Erased devices count nowhere.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from django.db import connection
from django.db.models import Case, QuerySet, Value, When

from deployments.choices import UNFINISHED, DeploymentStatus, TargetStatus
from deployments.models import Deployment, Rollback, Target
from deployments.rules.codes import COPY, UNCONFIRMED, next_step
from deployments.scopes import IN_SCOPE, WHOLE, DescribedScope, Scope
from deployments.services.rollbacks import (
    exposed_targets,
    in_scope,
    left_alone,
    lost_targets,
    stuck_targets,
)
from devices.models import Device
from hotswap.common.wire import Wire

MAX_DEVICES = 1000
MAX_PARTS = 100

RESTORED = "restored"
UNDER_WAY = "under way"
FAILED = "failed"
NOTHING = "nothing to restore"
# Exposed devices that the rollback of the deployment had nothing to do with.
RESTORED_BEFORE = "restored before"
NEVER_LEFT = "never left"
NEVER_CHANGED = "never changed"
MOVED_ON = "updated since"


@dataclass(frozen=True, slots=True)
class CountsThen:
    """Devices of a deployment, or of a stage, when a rollback began."""

    total: int
    exposed: int
    settled: int
    succeeded: int
    failed: int
    best_reachable_rate: float | None
    by_status: dict[str, int]


@dataclass(frozen=True, slots=True)
class ReasonCount:
    """The number of devices that had failed with a code."""

    error_code: str
    devices: int


@dataclass(frozen=True, slots=True)
class FailedThen:
    """A device that had failed; its name is gone once it is erased."""

    device_id: str
    error_code: str


@dataclass(frozen=True, slots=True)
class AllFailedThen:
    """How many devices had failed, and up to a hundred of them by name."""

    total: int
    devices: tuple[FailedThen, ...]


@dataclass(frozen=True, slots=True)
class Moment:
    """The numbers that were kept when a rollback began; `stage` is whose gate decided.

    `threshold` is in percent.
    """

    trigger: str
    threshold: float
    minimum_sample: int
    deployment: CountsThen
    stage: CountsThen | None
    reasons: tuple[ReasonCount, ...]
    failed_devices: AllFailedThen


@dataclass(frozen=True, slots=True)
class DeviceOutcome:
    """The outcome of a device in a rollback."""

    device_id: str
    outcome: str
    stage: int
    to_version: str
    error_code: str
    message: str
    next_step: str
    restored_at: datetime | None
    time_to_restore_seconds: float | None


@dataclass(frozen=True, slots=True)
class DeviceOutcomes:
    """The number of devices, and the first 1000 by name, problems first."""

    total: int
    devices: tuple[DeviceOutcome, ...]


@dataclass(frozen=True, slots=True)
class RollbackAccount:
    """The rollback of a deployment or of a part, with what became of its devices.

    `devices` are those that ran or may have run the new image: restored, failed or
    in progress. With the next four numbers they are all that were exposed.
    """

    device_id: Annotated[str | None, Wire(help_text="null: it is about many devices")]
    scope: DescribedScope
    at_that_moment: Moment | None
    started_at: datetime
    devices: int
    restored: int
    failed: int
    under_way: int
    restored_before: int
    never_left: int
    never_changed: int
    updated_since: int
    outcome: str
    restored_at: datetime | None
    time_to_restore_seconds: float | None
    median_to_restore_seconds: float | None
    device_outcomes: DeviceOutcomes
    level: Annotated[str, Wire(help_text="deployment, stage, region or devices")]
    stage: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class DeviceReturn:
    """The rollback of a single device, or that it was not possible."""

    level: Annotated[str, Wire(help_text="device")]
    device_id: str
    stage: int
    reason: str
    started_at: datetime
    attempts: int
    devices: int
    restored: int
    failed: int
    outcome: str
    error_code: str
    next_step: str
    restored_at: datetime | None
    time_to_restore_seconds: float | None


@dataclass(frozen=True, slots=True)
class RollbackReport:
    """All rollbacks of a deployment: of itself, of parts, of devices; newest first."""

    id: UUID
    total: int
    results: tuple[RollbackAccount | DeviceReturn, ...]
    counted_at: datetime


# A return belongs to the last install before it; each of them begins a round.
ROUNDS = """
    WITH touched AS (
        SELECT t.id FROM deployments_target t
        JOIN devices_device d ON d.id = t.device_id AND d.erased_at IS NULL
        WHERE t.deployment_id = %(deployment)s
          AND (t.returning_since IS NOT NULL OR EXISTS (
              SELECT 1 FROM deployments_update back
              WHERE back.target_id = t.id AND back.kind = 'rollback'))
    ), orders AS (
        SELECT u.*, count(*) FILTER (WHERE u.kind = 'install') OVER (
                   PARTITION BY u.target_id ORDER BY u.offered_at, u.number) AS round
        FROM deployments_update u JOIN touched ON touched.id = u.target_id
    ), rounds AS (
        SELECT target_id, round = max(round) OVER (PARTITION BY target_id) AS is_latest,
               min(offered_at) FILTER (WHERE kind = 'install') AS installed_at,
               max(error_code) FILTER (WHERE kind = 'install') AS cause,
               max(message) FILTER (WHERE kind = 'install') AS message,
               count(*) FILTER (WHERE kind = 'rollback') AS attempts,
               min(offered_at) FILTER (WHERE kind = 'rollback') AS ordered_at,
               max(closed_at) FILTER (WHERE kind = 'rollback') AS closed_at,
               max(closed_at) FILTER (WHERE kind = 'rollback' AND status = 'success')
                   AS proved_at
        FROM orders GROUP BY target_id, round
    ), ends AS (
        SELECT t.id, t.device_id, t.deployment_id, t.stage_number, r.installed_at,
               r.is_latest AND t.is_withdrawn AS was_withdrawn,
               COALESCE(NULLIF(r.cause, ''), t.error_code) AS cause,
               COALESCE(NULLIF(r.message, ''), t.message) AS message,
               CASE WHEN r.is_latest THEN t.error_code ELSE '' END AS error_code,
               CASE WHEN r.is_latest THEN t.returning_since END AS returning_since,
               r.ordered_at, r.attempts,
               COALESCE(r.proved_at, CASE WHEN r.is_latest AND t.status = 'rolled_back'
                   THEN t.settled_at END) AS restored_at,
               CASE WHEN r.is_latest AND t.status = 'rolling_back' THEN NULL
                    WHEN r.is_latest AND t.status = 'skipped' THEN t.settled_at
                    ELSE COALESCE(r.closed_at, t.settled_at) END AS ended_at,
               r.is_latest AND t.status = 'skipped' AS has_moved_on
        FROM rounds r JOIN deployments_target t ON t.id = r.target_id
        WHERE r.attempts > 0 OR (r.is_latest AND t.returning_since IS NOT NULL)
    )
    SELECT d.device_id, e.stage_number, e.cause, e.message, e.error_code, e.attempts,
           COALESCE(e.returning_since, decided.at, e.ordered_at) AS started_at,
           e.restored_at, e.ended_at, e.has_moved_on, count(*) OVER () AS total
    FROM ends e
    JOIN devices_device d ON d.id = e.device_id
    LEFT JOIN LATERAL (
        -- When it was decided is kept on the target for its latest round only.
        SELECT max(v.at) AS at FROM deployments_event v
        WHERE e.returning_since IS NULL AND v.device_id = e.device_id
          AND v.deployment_id = e.deployment_id AND v.event = 'device.failed'
          AND v.at BETWEEN e.installed_at AND e.ordered_at
    ) decided ON true
    WHERE NOT e.was_withdrawn
      AND (%(started)s::timestamptz IS NULL OR e.ended_at < %(started)s)
    ORDER BY started_at DESC, d.device_id
    LIMIT %(most)s
"""


def _seconds(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _between(start: datetime, end: datetime | None) -> float | None:
    return None if end is None else _seconds((end - start).total_seconds())


def _moment(rollback: Rollback | None) -> Moment | None:
    """Return the numbers that were kept, with the names of the devices that failed."""
    if rollback is None:
        return None
    facts = rollback.facts
    kept = facts.get("failedDevices", [])
    names = dict(
        Device.objects.filter(
            pk__in=[row["key"] for row in kept], erased_at__isnull=True
        ).values_list("pk", "device_id")
    )
    named = {str(key): name for key, name in names.items()}
    return Moment(
        trigger=facts["trigger"],
        threshold=facts["threshold"],
        minimum_sample=facts["minimumSample"],
        deployment=_counts_then(facts["deployment"]),
        stage=_counts_then(facts["stage"]) if facts["stage"] else None,
        reasons=tuple(
            ReasonCount(row["errorCode"], row["devices"]) for row in facts["reasons"]
        ),
        failed_devices=AllFailedThen(
            total=facts["deployment"]["failed"],
            devices=tuple(
                FailedThen(named[row["key"]], row["errorCode"])
                for row in kept
                if row["key"] in named
            ),
        ),
    )


def _counts_then(kept: dict[str, Any]) -> CountsThen:
    return CountsThen(
        total=kept["total"],
        exposed=kept["exposed"],
        settled=kept["settled"],
        succeeded=kept["succeeded"],
        failed=kept["failed"],
        best_reachable_rate=kept["bestReachableRate"],
        by_status=kept["byStatus"],
    )


def _by_outcome(
    deployment: Deployment, started: datetime, scope: Scope = WHOLE
) -> dict[str, QuerySet[Any]]:
    """Part the exposed devices of a scope by what became of them in its rollback."""
    # The rollback ended by finding none; what became of them since is not its matter.
    lost = (
        Target.objects.none()
        if deployment.status == DeploymentStatus.ROLLED_BACK
        else in_scope(lost_targets(deployment), scope)
    )
    exposed = in_scope(exposed_targets(deployment), scope)
    back = exposed.filter(status=TargetStatus.ROLLED_BACK)
    others = in_scope(left_alone(deployment), scope)
    return {
        FAILED: lost,
        # Those that are proved are ordered back by the next tick.
        UNDER_WAY: exposed.filter(status__in=(*UNFINISHED, TargetStatus.SUCCESS)),
        RESTORED: back.filter(settled_at__gte=started),
        RESTORED_BEFORE: back.filter(settled_at__lt=started),
        NEVER_LEFT: exposed.filter(status=TargetStatus.FAILED)
        .exclude(pk__in=lost.values("pk"))
        .exclude(pk__in=others.values("pk")),
        NEVER_CHANGED: exposed.filter(
            status__in=(TargetStatus.SKIPPED, TargetStatus.CANCELLED)
        ).exclude(pk__in=others.values("pk")),
        MOVED_ON: others,
    }


def with_outcomes(
    deployment: Deployment, targets: QuerySet[Target]
) -> QuerySet[Target, Any]:
    """Add its `outcome` in the rollback of the deployment to each target.

    Empty without such a rollback, and for devices that it had nothing to account for.
    """
    started = deployment.rollback_started_at
    kept = deployment.rollbacks.filter(ends_deployment=True).first()
    parts = _by_outcome(deployment, started, _scope_of(kept)) if started else {}
    return targets.annotate(
        outcome=Case(
            *(
                When(pk__in=found.values("pk"), then=Value(outcome))
                for outcome, found in parts.items()
            ),
            default=Value(""),
        )
    )


def _times(
    deployment: Deployment, started: datetime, scope: Scope
) -> tuple[float, datetime] | None:
    """Return the median seconds to a proof, and the last of them."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            SELECT percentile_cont(0.5) WITHIN GROUP (
                       ORDER BY extract(epoch FROM t.settled_at - %(started)s)::float8),
                   max(t.settled_at)
            FROM deployments_target t
            JOIN devices_device d ON d.id = t.device_id AND d.erased_at IS NULL
            WHERE t.deployment_id = %(deployment)s AND t.status = 'rolled_back'
              AND t.settled_at >= %(started)s AND {IN_SCOPE}
            """,  # noqa: S608
            {"deployment": deployment.pk, "started": started, **scope.values},
        )
        median, last = cursor.fetchone()
    return None if last is None else (median, last)


def deployment_rollback(deployment: Deployment) -> RollbackAccount | None:
    """Return the rollback of the whole deployment, or None if there was none.

    `devices` are those that ran or may have run the new image: whether they could be
    ordered back or not. With the four numbers of the others they are all that were
    exposed. `time_to_restore_seconds` is known when each has proved its former
    image or was given up, and ends with the last proof.

    Source: FR-FW-006.
    """
    started = deployment.rollback_started_at
    if started is None:
        return None
    kept = Rollback.objects.filter(
        deployment=deployment, started_at=started, ends_deployment=True
    ).first()
    is_over = deployment.status != DeploymentStatus.ROLLING_BACK
    account = _accounted(
        deployment,
        kept,
        started,
        _scope_of(kept),
        is_over=is_over,
        level="deployment",
        stage=kept.stage_number if kept else None,
        reason=deployment.rollback_reason,
    )
    # What is counted cannot be better than how the rollback ended.
    if deployment.failure_reason.startswith(UNCONFIRMED):
        return replace(account, outcome=FAILED)
    if deployment.status == DeploymentStatus.FAILED and account.outcome == RESTORED:
        return replace(account, outcome=RESTORED if account.restored else NOTHING)
    return account


def _scope_of(rollback: Rollback | None) -> Scope:
    return Scope.from_json(rollback.scope) if rollback else WHOLE


def partial_rollback(deployment: Deployment, rollback: Rollback) -> RollbackAccount:
    """Return the rollback of a part, beside which the deployment went on.

    Its fields are those of the whole one.
    """
    scope = Scope.from_json(rollback.scope)
    is_over = rollback.finished_at is not None
    return _accounted(
        deployment,
        rollback,
        rollback.started_at,
        scope,
        is_over=is_over,
        level=scope.level,
        stage=scope.stages[0] if len(scope.stages) == 1 else None,
        reason=rollback.reason,
    )


def _accounted(
    deployment: Deployment,
    kept: Rollback | None,
    started: datetime,
    scope: Scope,
    *,
    is_over: bool,
    level: str,
    stage: int | None,
    reason: str,
) -> RollbackAccount:
    """Return what a rollback has come to, device by device."""
    targets = _by_outcome(deployment, started, scope)
    counts = {outcome: found.count() for outcome, found in targets.items()}
    times = _times(deployment, started, scope)
    last = times[1] if times and is_over else None
    outcome = UNDER_WAY
    if is_over:
        outcome = FAILED if counts[FAILED] else RESTORED
    return RollbackAccount(
        device_id=None,
        scope=scope.described(),
        at_that_moment=_moment(kept),
        started_at=started,
        devices=counts[RESTORED] + counts[FAILED] + counts[UNDER_WAY],
        restored=counts[RESTORED],
        failed=counts[FAILED],
        under_way=counts[UNDER_WAY],
        restored_before=counts[RESTORED_BEFORE],
        never_left=counts[NEVER_LEFT],
        never_changed=counts[NEVER_CHANGED],
        updated_since=counts[MOVED_ON],
        outcome=outcome,
        restored_at=last,
        time_to_restore_seconds=_between(started, last),
        median_to_restore_seconds=_seconds(times[0]) if times else None,
        device_outcomes=_outcomes(targets, counts, started),
        level=level,
        stage=stage,
        reason=reason,
    )


def _outcomes(
    targets: dict[str, QuerySet[Any]], counts: dict[str, int], started: datetime
) -> DeviceOutcomes:
    """Return the devices with their outcome, what is wrong first."""
    devices: list[DeviceOutcome] = []
    for outcome, found in targets.items():
        room = MAX_DEVICES - len(devices)
        if not room or not counts[outcome]:
            continue
        is_restored = outcome == RESTORED
        devices += [
            DeviceOutcome(
                device_id=target.device.device_id,
                outcome=outcome,
                stage=target.stage_number,
                to_version=target.from_version,
                error_code=target.error_code,
                message=target.message,
                next_step=next_step(target.error_code, COPY)
                if outcome == FAILED
                else "",
                restored_at=target.settled_at if is_restored else None,
                time_to_restore_seconds=_between(started, target.settled_at)
                if is_restored
                else None,
            )
            for target in found.select_related("device").order_by("rank")[:room]
        ]
    return DeviceOutcomes(sum(counts.values()), tuple(devices))


def deployment_rollbacks(deployment: Deployment, now: datetime) -> RollbackReport:
    """Return all rollbacks: of the deployment, of parts, of devices; newest first.

    A device that was on its way back when the whole deployment began to go back
    counts there only.
    """
    whole = deployment_rollback(deployment)
    with connection.cursor() as cursor:
        cursor.execute(
            ROUNDS,
            {
                "deployment": deployment.pk,
                "started": deployment.rollback_started_at,
                "most": MAX_DEVICES,
            },
        )
        rows = cursor.fetchall()
    alone = [_alone(*row[:-1]) for row in rows]
    stuck = stuck_targets(deployment)
    if deployment.rollback_started_at is not None:
        stuck = stuck.filter(settled_at__lt=deployment.rollback_started_at)
    alone += [_stuck(target) for target in _latest(stuck)]
    alone.sort(key=lambda row: row.started_at, reverse=True)
    results: list[RollbackAccount | DeviceReturn] = [whole] if whole else []
    results += [
        partial_rollback(deployment, rollback)
        for rollback in deployment.rollbacks.filter(ends_deployment=False)[:MAX_PARTS]
    ]
    return RollbackReport(
        id=deployment.pk,
        total=(rows[0][-1] if rows else 0) + stuck.count() + len(results),
        results=(*results, *alone[:MAX_DEVICES]),
        counted_at=now,
    )


def _alone(
    name: str,
    stage: int,
    cause: str,
    message: str,
    code: str,
    attempts: int,
    started: datetime,
    restored: datetime | None,
    ended: datetime | None,
    has_moved_on: bool,
) -> DeviceReturn:
    outcome = FAILED
    if restored is not None:
        outcome = RESTORED
    elif has_moved_on:
        outcome = MOVED_ON
    elif ended is None:
        outcome = UNDER_WAY
    has_failed = outcome == FAILED
    code = code or "rollback_unconfirmed"
    return DeviceReturn(
        level="device",
        device_id=name,
        stage=stage,
        reason=f"{cause}: {message}" if message else cause,
        started_at=started,
        attempts=attempts,
        devices=1,
        restored=int(outcome == RESTORED),
        failed=int(has_failed),
        outcome=outcome,
        error_code=code if has_failed else "",
        next_step=next_step(code) if has_failed else "",
        restored_at=restored,
        time_to_restore_seconds=_between(started, restored),
    )


def _latest(targets: QuerySet[Target]) -> QuerySet[Target]:
    return targets.select_related("device").order_by("-settled_at")[:MAX_DEVICES]


def _stuck(target: Target) -> DeviceReturn:
    """Return the row of a device that failed alone and has no way back."""
    assert target.settled_at is not None
    has_former = target.from_firmware_id is not None
    return _alone(
        name=target.device.device_id,
        stage=target.stage_number,
        cause=target.error_code,
        message=target.message,
        code="rollback_forbidden" if has_former else "no_previous_image",
        attempts=0,
        started=target.settled_at,
        restored=None,
        ended=target.settled_at,
        has_moved_on=False,
    )
