"""How the states of deployments look: one colour, one icon, one word each."""

from collections.abc import Mapping
from typing import Any

from django.utils.safestring import SafeString

from deployments.choices import (
    ACTIVE_DEPLOYMENTS,
    DeploymentStatus,
    StageStatus,
    TargetStatus,
)
from deployments.models import Deployment
from deployments.reads import rollback_report
from hotswap.common.console.badges import (
    DONE,
    FAILED,
    MOVING,
    NOT_STARTED,
    WAITS,
    badge,
)

D = DeploymentStatus
DEPLOYMENT_BADGES = {
    D.SCHEDULED: (NOT_STARTED, "schedule", "Scheduled"),
    D.PREPARING: (MOVING, "hourglass_top", "Preparing"),
    D.RUNNING: (MOVING, "play_arrow", "Running"),
    D.PAUSED: (WAITS, "pause", "Paused"),
    D.COMPLETED: (DONE, "check", "Completed"),
    D.ROLLING_BACK: (FAILED, "undo", "Rolling back"),
    D.ROLLED_BACK: (FAILED, "settings_backup_restore", "Rolled back"),
    D.FAILED: (FAILED, "error", "Failed"),
    D.CANCELLED: (NOT_STARTED, "block", "Cancelled"),
}
T = TargetStatus
TARGET_BADGES = {
    T.SUCCESS: (DONE, "check", "Success"),
    T.NOTIFIED: (MOVING, "notifications", "Notified"),
    T.DOWNLOADING: (MOVING, "download", "Downloading"),
    T.VERIFYING: (MOVING, "verified_user", "Verifying"),
    T.INSTALLING: (MOVING, "install_mobile", "Installing"),
    T.REBOOTING: (MOVING, "restart_alt", "Rebooting"),
    T.CONFIRMING: (MOVING, "hourglass_top", "Confirming"),
    T.ROLLING_BACK: (FAILED, "undo", "Rolling back"),
    T.ROLLED_BACK: (FAILED, "settings_backup_restore", "Rolled back"),
    T.FAILED: (FAILED, "error", "Failed"),
    T.PENDING: (NOT_STARTED, "schedule", "Not started"),
    T.SKIPPED: (NOT_STARTED, "skip_next", "Skipped"),
    T.CANCELLED: (NOT_STARTED, "block", "Cancelled"),
}
RETURNING = (T.ROLLING_BACK, T.ROLLED_BACK)
GONE_WRONG = (T.FAILED, *RETURNING)
STAGE_BADGES = {
    StageStatus.PENDING: (NOT_STARTED, "schedule", "Not started"),
    StageStatus.OPEN: (MOVING, "play_arrow", "Open"),
    StageStatus.PASSED: (DONE, "check", "Passed"),
    StageStatus.FAILED: (FAILED, "error", "Failed"),
}
OUTCOME_BADGES = {
    rollback_report.RESTORED: (DONE, "check", "Restored"),
    rollback_report.UNDER_WAY: (MOVING, "undo", "In progress"),
    rollback_report.FAILED: (FAILED, "error", "Not confirmed"),
    rollback_report.NOTHING: (NOT_STARTED, "home", "Nothing to restore"),
    rollback_report.RESTORED_BEFORE: (DONE, "check", "Restored before"),
    rollback_report.NEVER_LEFT: (NOT_STARTED, "home", "Never left"),
    rollback_report.NEVER_CHANGED: (NOT_STARTED, "block", "Never changed"),
    rollback_report.MOVED_ON: (NOT_STARTED, "skip_next", "Updated since"),
}
LEVEL_BADGES = {
    "INFO": (NOT_STARTED, "info", "Info"),
    "WARNING": (WAITS, "warning", "Warning"),
    "ERROR": (FAILED, "error", "Error"),
}


def words_of(looks: Mapping[Any, tuple[str, str, str]]) -> list[tuple[str, str]]:
    """Return what filters offer: each status, and its word on the badges."""
    return [(str(status), word) for status, (_, _, word) in looks.items()]


def status_badge(looks: dict[Any, tuple[str, str, str]], status: str) -> SafeString:
    """Return the badge of a status."""
    tone, icon, word = looks[status]
    return badge(word, tone, icon)


def stage_badge(status: str, *, is_over: bool) -> SafeString:
    """Return the badge of a stage; nothing is open of a deployment that is over."""
    if is_over and status == StageStatus.OPEN:
        return badge("Ended", NOT_STARTED, "block")
    return status_badge(STAGE_BADGES, status)


def failed_of(progress: Mapping[str, int]) -> int:
    """Count the devices that failed or were sent back, of those of each status."""
    return sum(progress.get(each, 0) for each in GONE_WRONG)


def is_over(deployment: Deployment) -> bool:
    """Tell whether it has ended; its devices may still be watched."""
    return deployment.status not in ACTIVE_DEPLOYMENTS


def deployment_badge(deployment: Deployment, *, failed: int = 0) -> SafeString:
    """Return the badge of a deployment; one being cancelled says so.

    Args:
        failed: devices that failed or were sent back. Who completed with some is not
            shown as who completed.
    """
    is_ending = (
        deployment.cancel_requested_at is not None and deployment.finished_at is None
    )
    if is_ending:
        return badge("Cancelling", NOT_STARTED, "block")
    tone, icon, word = DEPLOYMENT_BADGES[D(deployment.status)]
    if failed and deployment.status == D.COMPLETED:
        tone, icon, word = WAITS, "warning", f"{word}, {failed:,} failed"
    if deployment.watching_until is not None:
        word += f", watched until {deployment.watching_until:%H:%M} UTC"
    return badge(word, tone, icon)
