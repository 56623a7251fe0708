"""What is kept for how long: one table, and the periodic work that carries it out.

Rules:
- A kind of data without a time is kept for good.
- Each step is a short transaction that removes at most so many rows and notes how many
  they were; a run ends in time, and the next goes on.
- A policy that fails stops no other. Running twice at once removes nothing twice.
- The audit trail is append-only in the database: nothing here could remove from it.
"""

import logging
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from celery import shared_task
from django.conf import settings
from django.db import DatabaseError, connection, transaction
from django.utils import timezone

from deployments.notifications import outbox
from deployments.services import retention as deployments
from devices.services import alarms, imports
from firmware.services import cleanup
from health.services import history
from hotswap.common import services as common
from hotswap.common.retention import count_removal

logger = logging.getLogger(__name__)
# The name of its `JobRun`.
JOB: Final = "retention"
ROWS_A_STEP: Final = 5_000
# Of one policy in one run.
SECONDS_A_RUN: Final = 20.0


@dataclass(frozen=True, slots=True)
class Policy:
    """How long one kind of data is kept.

    Attributes:
        name: in the counts of what was removed.
        title: for people.
        setting: names the Django setting with the time, which is None for good; "" of
            what is always kept for good.
        variable: the environment variable of the setting; "" where there is none.
        since: from when the time is counted.
        remove: removes what is older than a time, in one step that its second argument
            bounds, and returns how many that were; called until it returns 0.
        unit: what is counted, in the plural.
    """

    name: str
    title: str
    setting: str = ""
    variable: str = ""
    since: str = ""
    remove: Callable[[datetime, int], int] | None = None
    unit: str = ""

    @property
    def kept(self) -> timedelta | None:
        """For how long; None for good."""
        if not self.setting:
            return None
        found: timedelta | None = getattr(settings, self.setting)
        return found


POLICIES: Final = (
    Policy(
        name="heartbeats",
        title="Heartbeats",
        setting="HEALTH_HISTORY",
        variable="HOTSWAP_HEALTH_HISTORY_DAYS",
        since="the day of the heartbeat",
        remove=history.drop_partitions,
        unit="days of heartbeats",
    ),
    Policy(
        name="device-logs",
        title="Logs of devices",
        setting="HEALTH_HISTORY",
        variable="HOTSWAP_HEALTH_HISTORY_DAYS",
        since="the day of the line",
        remove=history.forget_device_events,
        unit="lines",
    ),
    Policy(
        name="reports",
        title="Reports of devices on their updates",
        setting="REPORTS_KEPT",
        variable="HOTSWAP_REPORT_DAYS",
        since="their arrival, once the order is closed",
        remove=deployments.remove_reports,
        unit="reports",
    ),
    Policy(
        name="deployment-logs",
        title="Logs of deployments",
        setting="DEPLOYMENT_LOGS_KEPT",
        variable="HOTSWAP_DEPLOYMENT_LOG_DAYS",
        since="the end of the deployment",
        remove=deployments.remove_log_lines,
        unit="lines",
    ),
    Policy(
        name="deployments",
        title="Deployments",
        setting="DEPLOYMENTS_KEPT",
        variable="HOTSWAP_DEPLOYMENT_DAYS",
        since="their end, unless one holds the last order of a device",
        remove=deployments.remove_deployments,
        unit="deployments",
    ),
    Policy(
        name="images",
        title="Stored images that nothing needs",
        setting="UNUSED_IMAGES_KEPT",
        variable="HOTSWAP_UNUSED_IMAGE_DAYS",
        since="the last change of a rejected or deprecated firmware",
        remove=cleanup.remove_images,
        unit="images",
    ),
    Policy(
        name="notifications",
        title="Notifications and deliveries",
        setting="NOTIFICATIONS_KEPT",
        variable="HOTSWAP_NOTIFICATION_DAYS",
        since="the event, once no delivery is pending",
        remove=outbox.forget_notifications,
        unit="notifications",
    ),
    Policy(
        name="imports",
        title="Imports of devices and their results",
        setting="IMPORT_RESULTS_KEPT",
        variable="HOTSWAP_IMPORT_DAYS",
        since="the end of the import",
        remove=imports.forget_imports,
        unit="imports",
    ),
    Policy(
        name="device-keys",
        title="Retired keys of devices",
        setting="RETIRED_KEY_MEMORY",
        variable="HOTSWAP_RETIRED_KEY_DAYS",
        since="the end of the key",
        remove=alarms.forget_retired_keys,
        unit="keys",
    ),
    Policy(
        name="sessions",
        title="Sessions of the console",
        setting="ENDED_SESSIONS_KEPT",
        since="their end",
        remove=common.forget_sessions,
        unit="sessions",
    ),
    Policy(
        name="refresh-tokens",
        title="Refresh tokens",
        setting="ENDED_SESSIONS_KEPT",
        since="their end",
        remove=common.forget_refresh_tokens,
        unit="tokens",
    ),
    Policy(
        name="personal-tokens",
        title="Personal access tokens",
        setting="ENDED_TOKENS_KEPT",
        variable="HOTSWAP_ENDED_TOKEN_DAYS",
        since="their end",
        remove=common.forget_personal_tokens,
        unit="tokens",
    ),
    Policy(
        name="webhook-secrets",
        title="Former secrets of webhooks",
        setting="ENDED_SESSIONS_KEPT",
        since="the end of their overlap",
        remove=outbox.forget_former_secrets,
        unit="secrets",
    ),
    Policy(
        name="answers",
        title="Answers to repeated requests",
        setting="IDEMPOTENCY_KEY_LIFETIME",
        since="the first request",
        remove=common.forget_answers,
        unit="answers",
    ),
    Policy(
        name="login-counts",
        title="Counts of failed logins",
        setting="LOGIN_COUNTS_KEPT",
        since="the attempt",
        remove=common.forget_login_counts,
        unit="counts",
    ),
    Policy(
        name="removal-counts",
        title="Counts of what was removed",
        setting="REMOVAL_COUNTS_KEPT",
        since="the day of the removal",
        remove=common.forget_removal_counts,
        unit="days",
    ),
    Policy(name="audit", title="Audit trail, its chain and its anchors"),
)


@shared_task
def enforce() -> None:
    """Remove what has been kept long enough, by this host's clock and the database's.

    What is removed is gone: a clock that is ahead removes nothing before its time.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        (of_database,) = cursor.fetchone()
    enforce_policies(now=min(timezone.now(), of_database))


def enforce_policies(*, now: datetime, names: Collection[str] = ()) -> dict[str, int]:
    """Remove what the policies no longer keep.

    Args:
        names: of policies, no other is carried out; all of them if it is empty.

    Returns:
        How many each has removed, by its name; those that removed none are left out.
    """
    removed = {}
    for policy in POLICIES:
        if names and policy.name not in names:
            continue
        try:
            number = _enforce(policy, now)
        except DatabaseError:
            logger.exception("Retention was held up", extra={"policy": policy.name})
            continue
        if number:
            removed[policy.name] = number
            logger.info(
                "Old data removed", extra={"policy": policy.name, "number": number}
            )
    if not names:
        common.record_run(name=JOB, now=now)
    return removed


def _enforce(policy: Policy, now: datetime) -> int:
    kept = policy.kept
    if kept is None or policy.remove is None:
        return 0
    total = 0
    ends = time.monotonic() + SECONDS_A_RUN
    while time.monotonic() < ends:
        with transaction.atomic():
            number = policy.remove(now - kept, ROWS_A_STEP)
            if number:
                count_removal(policy=policy.name, number=number, now=now)
        if not number:
            break
        total += number
    return total
