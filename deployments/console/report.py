"""The health report of a deployment: a page to print, and its devices as CSV."""

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
from deployments.models import Deployment
from deployments.reads.device_lines import device_lines
from deployments.reads.health_report import health_report
from deployments.reads.metrics import running_versions
from deployments.reads.rollback_report import (
    FAILED,
    RollbackAccount,
)
from deployments.rules.codes import OPERATOR_CODES
from hotswap.common.console.text import age

SHOWN_FAILED = 200
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


def devices_file(deployment: Deployment) -> StreamingHttpResponse:
    """Give every device with its outcome, line by line, as a file to keep."""
    return StreamingHttpResponse(
        device_lines(deployment),
        content_type="text/csv; charset=utf-8",
        headers={
            "Cache-Control": "no-store",
            "Content-Disposition": "attachment; "
            f'filename="deployment-{deployment.pk}.csv"',
        },
    )
