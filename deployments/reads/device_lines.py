"""The devices and the orders of a deployment, line by line, as CSV."""

import csv
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from django.db.models import OuterRef, Subquery

from deployments.choices import ReportStatus, UpdateStatus
from deployments.models import Deployment, Report, Target, Update
from deployments.reads.devices import next_step_of
from deployments.reads.rollback_report import with_outcomes

CHUNK = 2000
COLUMNS = (
    *("deviceId", "stage", "status", "outcome", "attempts", "fromVersion"),
    *("errorCode", "message", "nextStep", "offeredAt", "settledAt", "updatedAt"),
)
# Of an order: what the device claimed, and when the server took it for proved.
ORDER_COLUMNS = (
    *("updateId", "deviceId", "kind", "attempt", "firmwareVersion", "sha256"),
    *("manifestSequence", "status", "offeredAt", "installingAt", "rebootingAt"),
    *("claimedAt", "claimedBootId", "claimedVersion", "claimedSha256"),
    *("bootIdBefore", "provedAt", "closedAt", "errorCode", "message"),
)


class _Line:
    """What `csv.writer` writes to: gives each line back."""

    def write(self, text: str) -> str:
        return text


def _cell(value: object) -> str:
    """Write a cell that no spreadsheet takes for a formula."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%dT%H:%M:%SZ}"
    text = str(value)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r", "\n") else text


def device_lines(deployment: Deployment) -> Iterator[str]:
    """Give every device with its outcome, by rank; the first line names the columns."""
    writer = csv.writer(_Line())
    yield writer.writerow(COLUMNS)
    targets = with_outcomes(
        deployment,
        Target.objects.filter(deployment=deployment).select_related("device"),
    )
    for target in targets.order_by("rank").iterator(CHUNK):
        cells = (
            target.device.device_id,
            target.stage_number,
            target.status,
            target.outcome,
            target.attempt,
            target.from_version,
            target.error_code,
            target.message,
            next_step_of(deployment, target),
            target.exposed_at,
            target.settled_at,
            target.updated_at,
        )
        yield writer.writerow([_cell(cell) for cell in cells])


def order_lines(deployment: Deployment) -> Iterator[str]:
    """Give every order, by the time of its offer, with its claim and its proof.

    `provedAt` is empty where the device has not shown the ordered bytes from a new boot
    and kept healthy.
    """
    writer = csv.writer(_Line())
    yield writer.writerow(ORDER_COLUMNS)
    claims = Report.objects.filter(
        update=OuterRef("pk"), status=ReportStatus.CONFIRMING, was_applied=True
    )
    orders = (
        Update.objects.filter(deployment=deployment)
        .select_related("device", "firmware")
        .annotate(claim=Subquery(claims.order_by("-sequence").values("body")[:1]))
        .order_by("offered_at", "pk")
    )
    for order in orders.iterator(CHUNK):
        claim: dict[str, Any] = order.claim if isinstance(order.claim, dict) else {}
        is_proved = order.status == UpdateStatus.SUCCESS
        cells = (
            order.pk,
            order.device.device_id,
            order.kind,
            order.attempt,
            order.firmware.version,
            order.firmware.sha256,
            order.manifest_id,
            order.status,
            order.offered_at,
            order.installing_at,
            order.rebooting_at,
            order.claimed_at,
            claim.get("bootId"),
            claim.get("firmwareVersion"),
            claim.get("firmwareChecksum"),
            order.boot_id_before,
            order.closed_at if is_proved else None,
            order.closed_at,
            order.error_code,
            order.message,
        )
        yield writer.writerow([_cell(cell) for cell in cells])
