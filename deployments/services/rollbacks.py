"""The rollbacks of whole deployments, with the numbers of the moment they began.

What is counted later is another number: devices settle, are retried, are erased. So
the numbers are kept, in the transaction that decides.
"""

from datetime import datetime
from typing import Any

from django.db.models import Count

from deployments.models import Deployment, Rollback, Target
from deployments.services.progress import (
    JUDGED_FAILED,
    StageCounts,
    count_stages,
    gate_of,
    total_of,
)
from hotswap.common.api.serializers import camelize

KEPT_REASONS = 10


def _numbers(counts: StageCounts) -> dict[str, Any]:
    exposed, failed = counts.exposed, counts.failed
    best = 100 * (exposed - failed) / exposed if exposed else None
    return {
        "total": counts.total,
        "exposed": exposed,
        "settled": counts.exposed_settled,
        "succeeded": counts.succeeded,
        "failed": failed,
        "bestReachableRate": None if best is None else round(best, 2),
        "byStatus": {
            camelize(status): count for status, count in counts.by_status.items()
        },
    }


def keep_rollback(
    deployment: Deployment, *, reason: str, now: datetime, stage_number: int | None
) -> None:
    """Write down what tripped and the numbers, before any device is sent back.

    Args:
        stage_number: of the stage whose gate decided; None when a person did.

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
    Rollback.objects.create(
        deployment=deployment,
        started_at=now,
        stage_number=stage_number,
        reason=reason,
        facts={
            "trigger": "operator" if stage_number is None else "gate",
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
        },
    )
