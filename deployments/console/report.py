"""The health report of a deployment: a page to print, and its devices as CSV."""

import csv
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from django.http import StreamingHttpResponse
from django.utils import timezone
from django.utils.html import format_html

from deployments.console.badges import (
    LEVEL_BADGES,
    OUTCOME_BADGES,
    TARGET_BADGES,
    deployment_badge,
    failed_of,
    is_over,
    stage_badge,
    status_badge,
)
from deployments.console.health import health_context
from deployments.models import Deployment, Target
from deployments.reads.devices import next_step_of
from deployments.reads.health_report import health_report
from deployments.reads.metrics import running_versions
from deployments.reads.rollback_report import (
    FAILED,
    RollbackAccount,
    with_outcomes,
)
from deployments.rules.codes import OPERATOR_CODES
from hotswap.common.console.text import age

CHUNK = 2000
SHOWN_FAILED = 200
COLUMNS = (
    *("deviceId", "stage", "status", "outcome", "attempts", "fromVersion"),
    *("errorCode", "message", "nextStep", "offeredAt", "settledAt", "updatedAt"),
)
DURATION_WORDS = {
    "device_update": "Update, from the offer to the proof",
    "download": "Download, as devices say",
    "install": "Install, as devices say",
}


def report_context(deployment: Deployment) -> dict[str, Any]:
    """Return all that the printable report shows, counted for this answer."""
    now = timezone.now()
    report = health_report(deployment, now)
    progress = report.progress.by_status
    # Those that only went back with others are in the part of the rollback.
    own_failures = [
        row
        for row in report.failed_devices.devices
        if row.error_code and row.error_code not in OPERATOR_CODES
    ]
    return {
        "report": report,
        "as_of": f"{now:%Y-%m-%d %H:%M:%S} UTC",
        "badge": deployment_badge(deployment, failed=failed_of(progress)),
        "starts": _at(deployment.scheduled_at, now),
        "started": _at(deployment.started_at, now),
        "finished": _at(deployment.finished_at, now),
        "began": _at(deployment.rollback_started_at, now),
        "api_call": f"GET /api/v1/deployments/{deployment.pk}/health-report",
        "counts": [
            (status_badge(TARGET_BADGES, each), number)
            for each in TARGET_BADGES
            if (number := progress[each])
        ],
        "stages": [
            (stage, stage_badge(stage.status, is_over=is_over(deployment)))
            for stage in report.stages
        ],
        **health_context(report.health, running_versions(deployment)),
        **_rollback_context(report.rollback),
        "durations": [
            (words, getattr(report.durations, name))
            for name, words in DURATION_WORDS.items()
        ],
        "failed_devices": [
            (row, status_badge(TARGET_BADGES, row.status))
            for row in own_failures[:SHOWN_FAILED]
        ],
        "failed_total": sum(each.devices for each in report.failures),
        "timeline": [(row, LEVEL_BADGES[row.level]) for row in report.timeline],
    }


def _at(at: datetime | None, now: datetime) -> str:
    """Show a time as paper needs it, and on the screen how old it is."""
    if at is None:
        return ""
    return format_html(
        '{} UTC <span class="hs-hint hs-screen-only">{}</span>',
        f"{at:%Y-%m-%d %H:%M:%S}",
        age(at, now),
    )


def _rollback_context(rollback: RollbackAccount | None) -> dict[str, Any]:
    """Part the devices of the rollback: those to be seen to, and the others."""
    if rollback is None:
        return {}
    rows = [
        (row, status_badge(OUTCOME_BADGES, row.outcome))
        for row in rollback.device_outcomes.devices
    ]
    failed = [row for row, _ in rows if row.outcome == FAILED]
    others = [(row, badge) for row, badge in rows if row.outcome != FAILED]
    return {
        "unconfirmed": failed[:SHOWN_FAILED],
        "others": others[:SHOWN_FAILED],
        "others_total": rollback.device_outcomes.total - rollback.failed,
        "outcome_badge": status_badge(OUTCOME_BADGES, rollback.outcome),
    }


# --- The devices as CSV ---------------------------------------------------------------


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


def _lines(deployment: Deployment) -> Iterator[str]:
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


def devices_file(deployment: Deployment) -> StreamingHttpResponse:
    """Give every device with its outcome, line by line, as a file to keep."""
    return StreamingHttpResponse(
        _lines(deployment),
        content_type="text/csv; charset=utf-8",
        headers={
            "Cache-Control": "no-store",
            "Content-Disposition": "attachment; "
            f'filename="deployment-{deployment.pk}.csv"',
        },
    )
