"""What waits for a person, or should be looked into: one line each, with a link.

Rules:
- A line names what is wrong, how much of it there is and since when, and leads to where
  something can be done about it. What is in order has no line.
- Red is what harms the fleet now, amber what waits for a decision.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import sqrt
from typing import Final
from urllib.parse import urlencode

from django.conf import settings
from django.db import connection
from django.urls import reverse

from deployments.choices import DeliveryStatus, DeploymentStatus, PauseReason
from deployments.models import Deployment, Hold
from devices.admission import IS_ADMITTED
from devices.choices import EnrolmentStatus
from firmware.choices import FirmwareStatus, KeyStatus
from health.choices import HealthEvent
from hotswap.common.console.badges import FAILED, WAITS
from hotswap.common.pluralize import counted
from hotswap.common.roles import Role
from hotswap.monitoring.status import ServerStatus, State

LATELY: Final = timedelta(hours=24)
SHOWN_DEPLOYMENTS: Final = 10
# Over which the usual number of devices that fall silent in an hour is taken.
USUAL_OVER: Final = timedelta(days=7)
HOUR: Final = timedelta(hours=1)
D = DeploymentStatus

COUNTS: Final = f"""
    SELECT 'drafts', count(*), min(created_at) FROM firmware_firmware
    WHERE status = %(draft)s
    UNION ALL
    SELECT 'damaged', count(*), min(damaged_at) FROM firmware_firmware
    WHERE damaged_at IS NOT NULL AND removed_at IS NULL
    UNION ALL
    SELECT 'unsigned', count(*), min(signature_revoked_at) FROM firmware_firmware
    WHERE signature_revoked_at IS NOT NULL AND status <> %(rejected)s
    UNION ALL
    SELECT 'copies', count(*), min(due_at) FROM firmware_imagecopy
    WHERE stored_at IS NULL AND failure <> ''
    UNION ALL
    SELECT 'quarantined', count(*), min(quarantined_at) FROM deployments_quarantine
    WHERE quarantined_at IS NOT NULL
    UNION ALL
    SELECT 'alarms', count(*), min(alarm_at) FROM devices_device
    WHERE alarm_at IS NOT NULL AND erased_at IS NULL
    UNION ALL
    SELECT 'keys', count(*), min(expires_at) FROM devices_devicekey
    WHERE superseded_at IS NULL AND expires_at <= %(key_warning)s
    UNION ALL
    SELECT 'certificates', count(*), min(c.not_after)
    FROM devices_devicecertificate c JOIN devices_device d ON d.id = c.device_id
    WHERE c.not_after <= %(key_warning)s
      AND {IS_ADMITTED}
      AND NOT EXISTS (
        SELECT FROM devices_devicecertificate later
        WHERE later.device_id = c.device_id
          AND (later.not_after, later.id) > (c.not_after, c.id)
      )
    UNION ALL
    SELECT 'signing keys', count(*), min(not_after) FROM firmware_signingkey
    WHERE status = %(retiring)s AND not_after <= %(key_warning)s
    UNION ALL
    SELECT 'enrolments', count(*), min(created_at) FROM devices_enrolmentrequest
    WHERE status = %(pending)s
    UNION ALL
    SELECT 'deliveries', count(*), min(last_attempt_at) FROM deployments_delivery
    WHERE status = %(undelivered)s AND last_attempt_at > %(lately)s
    UNION ALL
    SELECT 'silent', count(DISTINCT device_id), min(at) FROM health_deviceevent
    WHERE at > %(hour)s AND event = %(offline)s
    UNION ALL
    SELECT 'usually silent', count(*), min(at) FROM (
        -- Of each hour its devices, however often each of them fell silent in it.
        SELECT date_bin('1 hour', at, %(hour)s) AS hour, device_id, min(at) AS at
        FROM health_deviceevent
        WHERE at > %(usual)s AND at <= %(hour)s AND event = %(offline)s
        GROUP BY 1, 2
    ) fell
"""  # noqa: S608


@dataclass(frozen=True, slots=True)
class Concern:
    """One line of the list.

    Attributes:
        url: where something is done about it; "" where only others may go.
        since: when it began; None where that is not known.
        detail: why, in a sentence; "" where the text says it all.
    """

    text: str
    tone: str
    icon: str
    url: str
    since: datetime | None = None
    detail: str = ""
    role: Role = Role.VIEWER


@dataclass(frozen=True, slots=True)
class _Count:
    number: int
    oldest: datetime | None


def concerns(
    active: Sequence[Deployment], server: ServerStatus, now: datetime
) -> list[Concern]:
    """Return what needs attention, the most urgent first.

    Args:
        active: the deployments that are not over.
    """
    counts = _counts(now)
    return [
        *_of_server(server),
        *_of_active(active),
        *_of_ended(now),
        *_of_devices(counts, now),
        *_of_firmware(counts),
        *_of_signing_keys(counts),
        *_of_people(counts),
    ]


def _counts(now: datetime) -> dict[str, _Count]:
    with connection.cursor() as cursor:
        cursor.execute(
            COUNTS,
            {
                "draft": FirmwareStatus.DRAFT,
                "rejected": FirmwareStatus.REJECTED,
                "retiring": KeyStatus.RETIRING,
                "pending": EnrolmentStatus.PENDING,
                "undelivered": DeliveryStatus.FAILED,
                "offline": HealthEvent.OFFLINE,
                "key_warning": now + settings.DEVICE_KEY_WARNING,
                "lately": now - LATELY,
                "hour": now - HOUR,
                "usual": now - USUAL_OVER,
            },
        )
        return {name: _Count(number, at) for name, number, at in cursor.fetchall()}


def _list(name: str, **query: str) -> str:
    url = reverse(f"admin:{name}_changelist")
    return f"{url}?{urlencode(query)}" if query else url


def _page_of(deployment: Deployment) -> str:
    return reverse("admin:deployments_deployment_change", args=[deployment.pk])


def _of_server(server: ServerStatus) -> list[Concern]:
    url = reverse("system")
    return [
        Concern(
            f"The server: {each.name}",
            FAILED if each.state == State.DOWN else WAITS,
            "monitor_heart",
            url,
            detail=each.detail,
        )
        for each in server.parts
        if each.state != State.OK
    ]


def _of_active(active: Sequence[Deployment]) -> list[Concern]:
    found = []
    holds = {
        hold.deployment_id: hold
        for hold in Hold.objects.filter(
            deployment__in=active, ended_at__isnull=True, until__isnull=True
        )
    }
    for each in active[:SHOWN_DEPLOYMENTS]:
        url = _page_of(each)
        if each.status == D.ROLLING_BACK:
            since = each.rollback_started_at
            found.append(
                Concern(
                    f"{each} is rolling back",
                    FAILED,
                    "undo",
                    url,
                    since,
                    each.rollback_reason,
                )
            )
        elif PauseReason.APPROVAL in each.pause_reasons:
            found.append(
                Concern(
                    f"A stage of {each} waits for its approval",
                    *(WAITS, "verified", url, each.paused_at, each.pause_detail),
                )
            )
        elif each.status == D.PAUSED and PauseReason.WINDOW not in each.pause_reasons:
            found.append(
                Concern(
                    f"{each} is paused",
                    *(WAITS, "pause", url, each.paused_at, each.pause_detail),
                )
            )
        if each.pk in holds:
            hold = holds[each.pk]
            found.append(
                Concern(
                    f"{each} waits until the {hold.fleet} fleet has drained",
                    *(WAITS, "traffic", url, hold.since),
                )
            )
    return found


def _of_ended(now: datetime) -> list[Concern]:
    ended = Deployment.objects.filter(
        status__in=(D.FAILED, D.ROLLED_BACK), finished_at__gt=now - LATELY
    ).order_by("-finished_at")[:SHOWN_DEPLOYMENTS]
    words = {
        D.FAILED: ("has failed", "error"),
        D.ROLLED_BACK: ("was rolled back", "settings_backup_restore"),
    }
    found = []
    for each in ended:
        verb, icon = words[D(each.status)]
        reason = each.failure_reason or each.rollback_reason
        found.append(
            Concern(
                f"{each} {verb}",
                *(FAILED, icon, _page_of(each), each.finished_at, reason),
            )
        )
    return found


def _of_signing_keys(counts: dict[str, _Count]) -> list[Concern]:
    ending = counts["signing keys"]
    if not ending.number or ending.oldest is None:
        return []
    number = counted(ending.number, "signing key ends", "signing keys end")
    return [
        Concern(
            f"{number} soon",
            *(WAITS, "key", _list("firmware_signingkey")),
            detail=f"The first ends {ending.oldest:%Y-%m-%d %H:%M} UTC. A device that "
            "has pinned none of its successors takes no update afterwards.",
        )
    ]


def _of_devices(counts: dict[str, _Count], now: datetime) -> list[Concern]:
    found = []
    silent = counts["silent"]
    hours = (USUAL_OVER - HOUR) / HOUR
    usual = counts["usually silent"].number / hours
    if is_unusual(silent.number, usual):
        found.append(
            Concern(
                f"{counted(silent.number, 'device')} fell silent in the last hour",
                *(FAILED, "wifi_off", _list("devices_device", status="offline")),
                silent.oldest,
                f"Usually {usual:.1f} an hour.",
            )
        )
    alarms = counts["alarms"]
    if alarms.number:
        found.append(
            Concern(
                f"A retired key of {counted(alarms.number, 'device')} was used",
                *(FAILED, "gpp_maybe", _list("devices_device", key="alarm")),
                alarms.oldest,
            )
        )
    quarantined = counts["quarantined"]
    if quarantined.number:
        found.append(
            Concern(
                f"{counted(quarantined.number, 'device keeps', 'devices keep')}"
                " an image in quarantine",
                *(WAITS, "coronavirus", _list("deployments_quarantine")),
                quarantined.oldest,
            )
        )
    for name, one, icon in (
        ("key", "device key", "key"),
        ("certificate", "device certificate", "key"),
    ):
        ending = counts[f"{name}s"]
        if ending.number:
            number = counted(ending.number, f"{one} has", f"{one}s have")
            found.append(
                Concern(
                    f"{number} expired or will soon",
                    *(WAITS, icon, _list("devices_device", **{name: "expiring"})),
                    detail=f"The first ends {ending.oldest:%Y-%m-%d %H:%M} UTC.",
                )
            )
    return found


def is_unusual(number: int, usual: float) -> bool:
    """Tell whether so many in an hour are more than chance would bring.

    Args:
        usual: the mean of an hour; three standard deviations of a Poisson process
            above it, and at least three devices, are unusual.
    """
    return number >= 3 and number > usual + 3 * sqrt(usual)


def _of_firmware(counts: dict[str, _Count]) -> list[Concern]:
    def images(name: str) -> str:
        return counted(counts[name].number, "image")

    lines = (
        (
            "damaged",
            f"{images('damaged')} damaged in the store",
            *(FAILED, "broken_image"),
            _list("firmware_firmware", damaged="yes"),
        ),
        (
            "unsigned",
            f"{images('unsigned')} held back until signed again",
            *(FAILED, "block", _list("firmware_signingkey")),
        ),
        (
            "copies",
            f"{counted(counts['copies'].number, 'copy', 'copies')} of images failed",
            *(WAITS, "file_copy", reverse("system")),
        ),
        (
            "drafts",
            f"{images('drafts')} of firmware to be approved",
            *(WAITS, "approval", _list("firmware_approvalrequest")),
        ),
    )
    return [
        Concern(text, tone, icon, url, counts[name].oldest)
        for name, text, tone, icon, url in lines
        if counts[name].number
    ]


def _of_people(counts: dict[str, _Count]) -> list[Concern]:
    found = []
    enrolments = counts["enrolments"]
    if enrolments.number:
        found.append(
            Concern(
                f"{counted(enrolments.number, 'enrolment')} pending",
                *(WAITS, "how_to_reg"),
                _list("devices_enrolmentrequest", status=EnrolmentStatus.PENDING.value),
                enrolments.oldest,
            )
        )
    failed = counts["deliveries"]
    if failed.number:
        found.append(
            Concern(
                f"{counted(failed.number, 'notification')} could not be delivered"
                " in 24 h",
                *(WAITS, "outbox"),
                _list("deployments_delivery", status=DeliveryStatus.FAILED.value),
                failed.oldest,
                role=Role.ADMIN,
            )
        )
    return found
