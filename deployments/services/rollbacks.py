"""The rollbacks of deployments and their parts, with the numbers when they began.

What is counted later is another number: devices settle, are retried, are erased. So
the numbers are kept, in the transaction that decides.
"""

from datetime import datetime
from typing import Any

from django.db.models import Count, F, Q, QuerySet

from deployments.choices import RollbackTrigger, TargetStatus
from deployments.metrics import ROLLBACKS_TRIGGERED
from deployments.models import Deployment, Rollback, Target
from deployments.rules.codes import NO_RETURN_CODES
from deployments.rules.evidence import has_begun, has_moved_on, is_locked
from deployments.scopes import WHOLE, Scope
from deployments.services.progress import (
    JUDGED_FAILED,
    StageCounts,
    count_stages,
    gate_of,
    total_of,
)
from deployments.strategies.rollback_decision import Course
from hotswap.common import metrics
from hotswap.common.wire import camelize

KEPT_REASONS = 10
KEPT_FAILED = 100


def _numbers(counts: StageCounts) -> dict[str, Any]:
    exposed, against = counts.exposed, counts.evidence_against
    best = 100 * (exposed - against) / exposed if exposed else None
    return {
        "total": counts.total,
        "exposed": exposed,
        "settled": counts.exposed_settled,
        "succeeded": counts.succeeded,
        "failed": counts.failed,
        "bestReachableRate": None if best is None else round(best, 2),
        "byStatus": {
            camelize(status): count for status, count in counts.by_status.items()
        },
    }


def keep_rollback(
    deployment: Deployment,
    *,
    reason: str,
    now: datetime,
    stage_number: int | None,
    scope: Scope = WHOLE,
    course: Course = (),
) -> Rollback:
    """Write down what tripped and the numbers, before any device is sent back.

    Args:
        stage_number: of the stage whose gate decided; None when a person did.
        scope: what goes back.
        course: the steps in which the deployment goes back; without any it goes on
            beside the rollback.

    Source: FR-FW-006, steps 1 and 7.
    """
    counts = count_stages(deployment)
    gate = gate_of(deployment)
    failed = Target.objects.filter(deployment=deployment, status__in=JUDGED_FAILED)
    reasons = (
        failed.exclude(error_code="")
        .values("error_code")
        .annotate(devices=Count("pk"))
        .order_by("-devices", "error_code")
    )
    # Those of the latest stages first: one of them tripped it.
    latest = failed.order_by("-stage_number", "rank").values_list(
        "device_id", "error_code"
    )
    trigger = RollbackTrigger.OPERATOR if stage_number is None else RollbackTrigger.GATE
    metrics.write(
        [ROLLBACKS_TRIGGERED.entry(strategy=deployment.strategy, trigger=trigger.value)]
    )
    return Rollback.objects.create(
        deployment=deployment,
        scope=scope.to_json(),
        ends_deployment=bool(course),
        course=course,
        started_at=now,
        stage_number=stage_number,
        reason=reason,
        facts={
            "trigger": trigger.value,
            "threshold": gate.rollback_threshold_percent,
            "minimumSample": gate.minimum_sample,
            "deployment": _numbers(total_of(counts)),
            "stage": None
            if stage_number is None
            else _numbers(counts.get(stage_number, StageCounts())),
            "reasons": [
                {"errorCode": row["error_code"], "devices": row["devices"]}
                for row in reasons[:KEPT_REASONS]
            ],
            # By key, not by name: a device that is erased leaves no name here.
            "failedDevices": [
                {"key": str(device), "errorCode": code}
                for device, code in latest[:KEPT_FAILED]
            ],
        },
    )


def in_scope(targets: QuerySet[Target], scope: Scope) -> QuerySet[Target]:
    """Keep the targets that a rollback is about; the same condition as `IN_SCOPE`."""
    if scope.stages:
        targets = targets.filter(stage_number__in=scope.stages)
    if scope.region:
        targets = targets.filter(device__region=scope.region)
    if scope.devices:
        targets = targets.filter(device__in=scope.devices)
    return targets


def exposed_targets(deployment: Deployment) -> QuerySet[Target]:
    """Return the targets that were ordered; of the erased nobody can say more."""
    return Target.objects.filter(
        deployment=deployment, exposed_at__isnull=False, device__erased_at__isnull=True
    )


def left_alone(deployment: Deployment) -> QuerySet[Target]:
    """Return the targets whose device has been updated since."""
    return exposed_targets(deployment).filter(
        Q(status=TargetStatus.SKIPPED, error_code="moved_on")
        | Q(has_moved_on(deployment), status=TargetStatus.FAILED)
    )


def lost_targets(deployment: Deployment) -> QuerySet[Target]:
    """Return the failed targets that are not known to run their former image.

    A device that failed and never left its former image, as its last heartbeat shows,
    has nothing to prove; one that failed otherwise is not where it should be.
    """
    at_home = (
        Target.objects.filter(
            deployment=deployment,
            status=TargetStatus.FAILED,
            device__state__firmware_checksum=F("from_checksum"),
        )
        .exclude(from_checksum="")
        .exclude(error_code__in=NO_RETURN_CODES)
    )
    return (
        exposed_targets(deployment)
        .filter(status=TargetStatus.FAILED)
        .exclude(pk__in=at_home.values("pk"))
        .exclude(pk__in=left_alone(deployment).values("pk"))
    )


def stuck_targets(deployment: Deployment) -> QuerySet[Target]:
    """Return the targets that failed alone and that nothing could be ordered for.

    They may run the new image; their former one is not on the server, or the device
    would refuse it.
    """
    return (
        lost_targets(deployment)
        .filter(has_begun())
        .exclude(error_code__in=NO_RETURN_CODES)
        .filter(
            Q(from_firmware__isnull=True) | is_locked(),
            returning_since__isnull=True,
        )
    )


def why_nothing_went_back(deployment: Deployment) -> str:
    """Say in one sentence why a rollback that is over has brought no device back."""
    exposed = exposed_targets(deployment)
    total = exposed.count()
    if not total:
        return "no device had been given the order; nothing had to be rolled back"
    others = left_alone(deployment)
    failed = exposed.filter(status=TargetStatus.FAILED).exclude(
        pk__in=others.values("pk")
    )
    returned = failed.filter(has_begun()).count()
    unchanged = failed.count() - returned
    parts = [
        f"{number:,} of {total:,} exposed devices {one if number == 1 else many}"
        for number, one, many in (
            (
                unchanged,
                "failed before it changed anything",
                "failed before they changed anything",
            ),
            (
                returned,
                "failed and shows its former image by itself",
                "failed and show their former image by themselves",
            ),
            (
                others.count(),
                "was updated by a later deployment",
                "were updated by a later deployment",
            ),
        )
        if number
    ]
    return "; ".join([*parts, "nothing had to be rolled back"])
