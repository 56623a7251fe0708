"""Which devices went back, alone or with their deployment.

Rules:
- Each way back of a device is one row: retried and sent back again, it has two. One
  that failed alone and could not be ordered back is a row, too.
- A rollback of the whole deployment or of a part accounts for every exposed device in
  it, also for those that could not be ordered back, with what became of it.
- Erased devices count nowhere.
"""

from datetime import datetime
from typing import Any

from django.db import connection
from django.db.models import Case, QuerySet, Value, When

from deployments.choices import UNFINISHED, DeploymentStatus, TargetStatus
from deployments.models import Deployment, Rollback, Target
from deployments.rules.codes import COPY, UNCONFIRMED, next_step
from deployments.scopes import IN_SCOPE, WHOLE, Scope
from deployments.services.rollbacks import (
    exposed_targets,
    in_scope,
    left_alone,
    lost_targets,
    stuck_targets,
)
from devices.models import Device

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
               max(message) FILTER (WHERE kind = 'install') AS said,
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
               COALESCE(NULLIF(r.said, ''), t.message) AS said,
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
    SELECT d.device_id, e.stage_number, e.cause, e.said, e.error_code, e.attempts,
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


def _moment(rollback: Rollback | None) -> dict[str, Any] | None:
    """Return the numbers that were kept, with the names of the devices that failed."""
    if rollback is None:
        return None
    kept = rollback.facts.get("failedDevices", [])
    names = dict(
        Device.objects.filter(
            pk__in=[row["key"] for row in kept], erased_at__isnull=True
        ).values_list("pk", "device_id")
    )
    named = {str(key): name for key, name in names.items()}
    return rollback.facts | {
        "failedDevices": {
            "total": rollback.facts["deployment"]["failed"],
            "devices": [
                {"deviceId": named[row["key"]], "errorCode": row["errorCode"]}
                for row in kept
                if row["key"] in named
            ],
        }
    }


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


def deployment_rollback(deployment: Deployment) -> dict[str, Any] | None:
    """Return the rollback of the whole deployment, or None if there was none.

    `devices` are those that ran or may have run the new image: whether they could be
    ordered back or not. With the four numbers of the others they are all that were
    exposed. `timeToRestoreSeconds` is known when each has proved its former
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
    row = _accounted(deployment, kept, started, _scope_of(kept), is_over=is_over)
    # What is counted cannot be better than how the rollback ended.
    if deployment.failure_reason.startswith(UNCONFIRMED):
        row["outcome"] = FAILED
    elif deployment.status == DeploymentStatus.FAILED and row["outcome"] == RESTORED:
        row["outcome"] = RESTORED if row["restored"] else NOTHING
    return row | {
        "level": "deployment",
        "stage": kept.stage_number if kept else None,
        "reason": deployment.rollback_reason,
    }


def _scope_of(rollback: Rollback | None) -> Scope:
    return Scope.from_json(rollback.scope) if rollback else WHOLE


def partial_rollback(deployment: Deployment, rollback: Rollback) -> dict[str, Any]:
    """Return the rollback of a part, beside which the deployment went on.

    Its fields are those of the whole one.
    """
    scope = Scope.from_json(rollback.scope)
    is_over = rollback.finished_at is not None
    row = _accounted(deployment, rollback, rollback.started_at, scope, is_over=is_over)
    return row | {
        "level": scope.level,
        "stage": scope.stages[0] if len(scope.stages) == 1 else None,
        "reason": rollback.reason,
    }


def _accounted(
    deployment: Deployment,
    kept: Rollback | None,
    started: datetime,
    scope: Scope,
    *,
    is_over: bool,
) -> dict[str, Any]:
    """Return what a rollback has come to, device by device."""
    targets = _by_outcome(deployment, started, scope)
    counts = {outcome: found.count() for outcome, found in targets.items()}
    times = _times(deployment, started, scope)
    last = times[1] if times and is_over else None
    outcome = UNDER_WAY
    if is_over:
        outcome = FAILED if counts[FAILED] else RESTORED
    return {
        "deviceId": None,
        "scope": scope.described(),
        "atThatMoment": _moment(kept),
        "startedAt": started,
        "devices": counts[RESTORED] + counts[FAILED] + counts[UNDER_WAY],
        "restored": counts[RESTORED],
        "failed": counts[FAILED],
        "underWay": counts[UNDER_WAY],
        "restoredBefore": counts[RESTORED_BEFORE],
        "neverLeft": counts[NEVER_LEFT],
        "neverChanged": counts[NEVER_CHANGED],
        "updatedSince": counts[MOVED_ON],
        "outcome": outcome,
        "restoredAt": last,
        "timeToRestoreSeconds": _between(started, last),
        "medianToRestoreSeconds": _seconds(times[0]) if times else None,
        "deviceOutcomes": _outcomes(targets, counts, started),
    }


def _outcomes(
    targets: dict[str, QuerySet[Any]], counts: dict[str, int], started: datetime
) -> dict[str, Any]:
    """Return the devices with their outcome, what is wrong first."""
    devices: list[dict[str, Any]] = []
    for outcome, found in targets.items():
        room = MAX_DEVICES - len(devices)
        if not room or not counts[outcome]:
            continue
        devices += [
            {
                "deviceId": target.device.device_id,
                "outcome": outcome,
                "stage": target.stage_number,
                "toVersion": target.from_version,
                "errorCode": target.error_code,
                "message": target.message,
                "nextStep": next_step(target.error_code, COPY)
                if outcome == FAILED
                else "",
                "restoredAt": target.settled_at if outcome == RESTORED else None,
                "timeToRestoreSeconds": _between(started, target.settled_at)
                if outcome == RESTORED
                else None,
            }
            for target in found.select_related("device").order_by("rank")[:room]
        ]
    return {"total": sum(counts.values()), "devices": devices}


def deployment_rollbacks(deployment: Deployment, now: datetime) -> dict[str, Any]:
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
    alone.sort(key=lambda row: row["startedAt"], reverse=True)
    results = [whole] if whole else []
    results += [
        partial_rollback(deployment, rollback)
        for rollback in deployment.rollbacks.filter(ends_deployment=False)[:MAX_PARTS]
    ]
    return {
        "id": str(deployment.pk),
        "total": (rows[0][-1] if rows else 0) + stuck.count() + len(results),
        "results": results + alone[:MAX_DEVICES],
        "countedAt": now,
    }


def _alone(
    name: str,
    stage: int,
    cause: str,
    said: str,
    code: str,
    attempts: int,
    started: datetime,
    restored: datetime | None,
    ended: datetime | None,
    has_moved_on: bool,
) -> dict[str, Any]:
    outcome = FAILED
    if restored is not None:
        outcome = RESTORED
    elif has_moved_on:
        outcome = MOVED_ON
    elif ended is None:
        outcome = UNDER_WAY
    has_failed = outcome == FAILED
    code = code or "rollback_unconfirmed"
    return {
        "level": "device",
        "deviceId": name,
        "stage": stage,
        "reason": f"{cause}: {said}" if said else cause,
        "startedAt": started,
        "attempts": attempts,
        "devices": 1,
        "restored": int(outcome == RESTORED),
        "failed": int(has_failed),
        "outcome": outcome,
        "errorCode": code if has_failed else "",
        "nextStep": next_step(code) if has_failed else "",
        "restoredAt": restored,
        "timeToRestoreSeconds": _between(started, restored),
    }


def _latest(targets: QuerySet[Target]) -> QuerySet[Target]:
    return targets.select_related("device").order_by("-settled_at")[:MAX_DEVICES]


def _stuck(target: Target) -> dict[str, Any]:
    """Return the row of a device that failed alone and has no way back."""
    assert target.settled_at is not None
    has_former = target.from_firmware_id is not None
    return _alone(
        name=target.device.device_id,
        stage=target.stage_number,
        cause=target.error_code,
        said=target.message,
        code="rollback_forbidden" if has_former else "no_previous_image",
        attempts=0,
        started=target.settled_at,
        restored=None,
        ended=target.settled_at,
        has_moved_on=False,
    )
