"""The health of a deployment, how long its updates take, and how many there are.

Rules:
- Everything is counted when it is asked for, and says when that was.
- Silent devices count as unknown; of them no value is shown as one of now.
- Erased devices count nowhere but in the totals of the plan.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated
from uuid import UUID

from django.db import connection
from django.db.models import Count

from deployments.metrics import reported_duration
from deployments.models import Deployment, Target
from health.baseline import RunningStatistics
from health.score import VerdictCounts, anomaly_sql, is_anomalous
from health.triggers import MEASURES, TRIGGERS
from hotswap.common.wire import FLAT, Wire

MAX_DEVICES = 1000
# Over which the throughput of late is counted.
RECENT = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Verdicts:
    """Exposed devices by verdict."""

    healthy: int
    degraded: int
    unhealthy: int
    unknown: int


@dataclass(frozen=True, slots=True)
class MeasureBaseline:
    """The mean of the devices' baselines, and their mean distance from it."""

    devices: int
    mean: float | None
    mean_change: float | None


@dataclass(frozen=True, slots=True)
class MeasureSummary:
    """Statistics of a measure over the devices that are online."""

    devices: int
    mean: float | None
    min: float | None
    p50: float | None
    p95: float | None
    max: float | None
    baseline: MeasureBaseline


@dataclass(frozen=True, slots=True)
class Measures:
    """Percent 0-100, error rate as a ratio 0-1."""

    by_name: Annotated[dict[str, MeasureSummary], Wire(is_flat=True, keys=MEASURES)]


@dataclass(frozen=True, slots=True)
class Distance:
    """The distance of a device's value from its own baseline."""

    measure: str
    value: float
    usual: float
    spread: float
    direction: Annotated[str, Wire(help_text="above or below")]
    confidence: str
    baseline_samples: int


@dataclass(frozen=True, slots=True)
class Anomaly:
    """A device whose latest heartbeat is anomalous against its own baseline."""

    device_id: str
    stage: int
    at: datetime
    measures: tuple[Distance, ...]


@dataclass(frozen=True, slots=True)
class Anomalies:
    """The number of anomalous devices, and the first 1000 by name."""

    total: int
    devices: tuple[Anomaly, ...]


@dataclass(frozen=True, slots=True)
class DeploymentHealth:
    """The health of the exposed devices: verdicts, measures, anomalies."""

    exposed: int
    verdicts: Verdicts
    health_score: float | None
    measures: Measures
    anomalies: Anomalies


@dataclass(frozen=True, slots=True)
class Duration:
    """Duration of a step over the proved installs, in seconds."""

    count: int
    mean_seconds: float | None
    p50_seconds: float | None
    p95_seconds: float | None


@dataclass(frozen=True, slots=True)
class UpdateDurations:
    """`deviceUpdate` is measured from offer to proof; the others are as reported."""

    device_update: Duration
    download: Duration
    install: Duration


@dataclass(frozen=True, slots=True)
class ThroughputSpan:
    """Numbers of devices ordered, proved and failed in a span of time."""

    start: Annotated[datetime, Wire(name="from")]
    end: Annotated[datetime, Wire(name="to")]
    ordered: int
    proved: int
    failed: int
    proved_per_minute: float | None


@dataclass(frozen=True, slots=True)
class Throughput:
    """Throughput over the last five minutes, and since the start of the deployment."""

    recent: ThroughputSpan
    overall: ThroughputSpan


@dataclass(frozen=True, slots=True)
class DeploymentMetrics:
    """Metrics of a deployment: health, durations and throughput."""

    id: UUID
    status: str
    health: Annotated[DeploymentHealth, FLAT]
    counted_at: datetime
    durations: UpdateDurations
    throughput: Throughput | None


EXPOSED = """
    SELECT t.stage_number, d.device_id AS name, s.*,
           s.last_heartbeat_at IS NOT NULL AND s.online_until > %(now)s AS is_online
    FROM deployments_target t
    JOIN devices_device d ON d.id = t.device_id AND d.erased_at IS NULL
    LEFT JOIN health_devicestate s ON s.device_id = t.device_id
    WHERE t.deployment_id = %(deployment)s AND t.exposed_at IS NOT NULL
"""


def _round(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def _seconds(value: float | None) -> float | None:
    return _round(value, 3)


def deployment_metrics(deployment: Deployment, now: datetime) -> DeploymentMetrics:
    """Return the health of the exposed devices, how long updates took, and how many
    there are in a minute.

    Source: FR-FW-005; FR-FW-007.
    """
    return DeploymentMetrics(
        id=deployment.pk,
        status=deployment.status,
        health=deployment_health(deployment, now),
        counted_at=now,
        durations=update_durations(deployment),
        throughput=throughput(deployment, now),
    )


def deployment_health(deployment: Deployment, now: datetime) -> DeploymentHealth:
    """Return the health of the exposed devices, now and against their baselines."""
    online, by = "FILTER (WHERE is_online)", "WITHIN GROUP (ORDER BY"
    columns: list[str] = []
    for each in TRIGGERS:
        column = each.column
        known = (
            f"FILTER (WHERE is_online AND {each.baseline_samples} > 0"
            f" AND {column} IS NOT NULL)"
        )
        columns += [
            f"count({column}) {online}",
            f"avg({column}) {online}",
            f"percentile_cont(ARRAY[0, 0.5, 0.95, 1]) {by} {column}) {online}",
            f"count(*) {known}",
            f"avg({each.mean}) {known}",
            f"avg({column} - {each.mean}) {known}",
        ]
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            WITH exposed AS ({EXPOSED})
            SELECT count(*) FILTER (WHERE is_online AND verdict = 'healthy'),
                   count(*) FILTER (WHERE is_online AND verdict = 'degraded'),
                   count(*) FILTER (WHERE is_online AND verdict = 'unhealthy'),
                   count(*) FILTER (WHERE NOT is_online OR is_online IS NULL
                                    OR verdict = 'unknown'),
                   {", ".join(columns)}
            FROM exposed
            """,  # noqa: S608
            {"deployment": deployment.pk, "now": now},
        )
        healthy, degraded, unhealthy, unknown, *rest = cursor.fetchone()
    verdicts = VerdictCounts(healthy, degraded, unhealthy, unknown)
    measures = {}
    for number, each in enumerate(TRIGGERS):
        digits = each.digits
        count, mean, spread, learned, usual, change = rest[6 * number : 6 * number + 6]
        lowest, median, high, highest = spread or (None,) * 4
        measures[each.limit] = MeasureSummary(
            devices=count,
            mean=_round(mean, digits),
            min=_round(lowest, digits),
            p50=_round(median, digits),
            p95=_round(high, digits),
            max=_round(highest, digits),
            baseline=MeasureBaseline(
                devices=learned,
                mean=_round(usual, digits),
                mean_change=_round(change, digits),
            ),
        )
    return DeploymentHealth(
        exposed=verdicts.total,
        verdicts=Verdicts(healthy, degraded, unhealthy, unknown),
        health_score=_round(verdicts.score_percent, 2),
        measures=Measures(measures),
        anomalies=_anomalies(deployment, now),
    )


def running_versions(deployment: Deployment) -> list[tuple[str, int]]:
    """Return what the exposed devices run now, the most first; "" if it is not known.

    Returns:
        Each version with the number of devices.
    """
    exposed = Target.objects.filter(
        deployment=deployment,
        exposed_at__isnull=False,
        device__erased_at__isnull=True,
    )
    return list(
        exposed.order_by()
        .values_list("device__firmware_version")
        .annotate(devices=Count("pk"))
        .order_by("-devices", "device__firmware_version")
    )


def throughput(deployment: Deployment, now: datetime) -> Throughput | None:
    """Return how many devices were ordered, proved and failed, lately and in all.

    `proved_per_minute` is over the time from `start` to `end`, which is no longer than
    the deployment has run. None before its start.
    """
    if deployment.started_at is None:
        return None
    end = deployment.finished_at or now
    spans = {
        "recent": max(end - RECENT, deployment.started_at),
        "overall": deployment.started_at,
    }
    columns = ", ".join(
        "count(*) FILTER (WHERE offered_at >= %s), "
        "count(*) FILTER (WHERE status = 'success' AND closed_at >= %s), "
        "count(*) FILTER (WHERE status = 'failed' AND closed_at >= %s)"
        for _ in spans
    )
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {columns} FROM deployments_update "  # noqa: S608
            "WHERE deployment_id = %s AND kind = 'install'",
            [since for start in spans.values() for since in [start] * 3]
            + [deployment.pk],
        )
        row = cursor.fetchone()
    found = {}
    for number, (name, start) in enumerate(spans.items()):
        ordered, proved, failed = row[3 * number : 3 * number + 3]
        minutes = (end - start).total_seconds() / 60
        found[name] = ThroughputSpan(
            start=start,
            end=end,
            ordered=ordered,
            proved=proved,
            failed=failed,
            proved_per_minute=_round(proved / minutes, 2) if minutes > 0 else None,
        )
    return Throughput(**found)


def _anomalies(deployment: Deployment, now: datetime) -> Anomalies:
    """Find the exposed devices that are far from what is usual for them."""
    rules = [anomaly_sql(each) for each in TRIGGERS]
    shown = ", ".join(
        f"{each.column}, {each.baseline_samples}, {each.mean}, {each.variance}"
        for each in TRIGGERS
    )
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            WITH exposed AS ({EXPOSED})
            SELECT name, stage_number, last_heartbeat_at, {shown},
                   count(*) OVER () AS total
            FROM exposed
            WHERE is_online AND ({" OR ".join(rules)})
            ORDER BY name
            LIMIT {MAX_DEVICES}
            """,  # noqa: S608
            {"deployment": deployment.pk, "now": now},
        )
        rows = cursor.fetchall()
    devices = []
    for row in rows:
        found = []
        for number, each in enumerate(TRIGGERS):
            value, samples, mean, variance = row[3 + 4 * number : 7 + 4 * number]
            usual = RunningStatistics(samples, mean, variance, each.prior_spread)
            if value is None or not is_anomalous(each, value, usual):
                continue
            found.append(
                Distance(
                    measure=each.field,
                    value=round(value, each.digits),
                    usual=round(usual.mean, each.digits),
                    spread=round(usual.spread, each.digits),
                    direction="above" if value > usual.mean else "below",
                    confidence=usual.confidence,
                    baseline_samples=usual.samples,
                )
            )
        devices.append(Anomaly(row[0], row[1], row[2], tuple(found)))
    return Anomalies(rows[0][-1] if rows else 0, tuple(devices))


def update_durations(deployment: Deployment) -> UpdateDurations:
    """Return how long proved installs took, in seconds.

    `device_update` is measured here, from the offer to the proof; the others are what
    the devices say.
    """
    columns = {
        "device_update": "extract(epoch FROM closed_at - offered_at)",
        **{name: reported_duration(name) for name in ("download", "install")},
    }
    chosen = ", ".join(
        f"count({value}), avg({value})::float8, "
        f"percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY ({value})::float8)"
        for value in columns.values()
    )
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            SELECT {chosen} FROM deployments_update
            WHERE deployment_id = %s AND status = 'success' AND kind = 'install'
            """,  # noqa: S608
            [deployment.pk],
        )
        row = cursor.fetchone()
    found = {}
    for number, name in enumerate(columns):
        count, mean, spread = row[3 * number : 3 * number + 3]
        median, high = spread or (None, None)
        found[name] = Duration(count, _seconds(mean), _seconds(median), _seconds(high))
    return UpdateDurations(**found)
