"""The events of deployments, devices and firmware: what is logged, who is notified.

Rules:
- An event is written once, here, and its name never changes: logs, webhooks and mails
  carry it. Statements that write the log name it as a literal; a test holds them
  against this table.
- The level is the usual one. Whoever logs an event that is worse, or less bad, than
  usual says so.
"""

from enum import Flag, StrEnum, auto
from typing import Final

from deployments.choices import Level


class Audience(Flag):
    """Whom an event reaches."""

    LOG = auto()
    """Readers of the log of its deployment."""
    NOTIFY = auto()
    """Webhooks, mail addresses and gateways that ask for it or for everything."""
    PERSON = auto()
    """Mail addresses and gateways that did not say what they ask for: somebody should
    look into it."""


LOG = Audience.LOG
NOTIFY = Audience.NOTIFY
BOTH = LOG | NOTIFY
PERSON = Audience.PERSON
INFO, WARNING, ERROR = Level.INFO, Level.WARNING, Level.ERROR


class EventName(StrEnum):
    """One event: its name, and what else is known of it.

    Attributes:
        label: for people who choose among events.
        level: of its line in the log, unless whoever logs it says otherwise.
        audience: whom it reaches.
        names_failures: it is notified together with the devices that have failed in
            the deployment so far, and why.
    """

    label: str
    level: Level
    audience: Audience
    names_failures: bool

    def __new__(
        cls,
        name: str,
        label: str = "",
        level: Level = Level.INFO,
        audience: Audience = Audience.LOG,
        names_failures: bool = False,
    ) -> "EventName":
        event = str.__new__(cls, name)
        event._value_ = name
        event.label = label
        event.level = level
        event.audience = audience
        event.names_failures = names_failures
        return event

    # Of firmware: notified, and in no log of a deployment.
    FIRMWARE_UPLOADED = (
        *("firmware.uploaded", "Firmware waits for approval", INFO),
        NOTIFY | PERSON,
    )
    FIRMWARE_APPROVED = "firmware.approved", "Firmware approved", INFO, NOTIFY
    FIRMWARE_REJECTED = "firmware.rejected", "Firmware rejected", INFO, NOTIFY
    FIRMWARE_DEPRECATED = "firmware.deprecated", "Firmware deprecated", INFO, NOTIFY
    FIRMWARE_DAMAGED = (
        *("firmware.damaged", "Stored image found damaged", ERROR),
        NOTIFY | PERSON,
    )
    SIGNING_KEY_EXPIRING = (
        *("signing_key.expiring", "Signing key about to end", WARNING),
        NOTIFY | PERSON,
    )

    # Of a whole deployment.
    CREATED = "deployment.created", "Deployment created", INFO, BOTH
    EDITED = "deployment.edited", "Deployment edited", INFO, BOTH
    STARTED = "deployment.started", "Deployment started", INFO, BOTH
    LAUNCH_WARNING = "deployment.warning", "Launch warning", WARNING, LOG
    STAGE_OPENED = "stage.opened", "Stage opened", INFO, BOTH
    STAGE_SETTLED = "stage.settled", "Stage finished", INFO, LOG
    STAGE_PASSED = "stage.passed", "Stage passed", INFO, LOG
    PAUSED = "deployment.paused", "Deployment paused", INFO, BOTH | PERSON, True
    RESUMED = "deployment.resumed", "Deployment resumed", INFO, LOG
    STAGE_WARNING = (
        *("stage.warning", "Stage warning", WARNING),
        *(BOTH | PERSON, True),
    )
    RETRIED = "deployment.retried", "Devices tried again", INFO, LOG
    CANCEL_REQUESTED = (
        *("deployment.cancel_requested", "Deployment being cancelled", INFO),
        LOG,
    )
    DRAINING = "fleet.draining", "A fleet is to drain", WARNING, BOTH
    DRAINED = "fleet.drained", "A fleet has drained", INFO, LOG
    SWITCHED = "deployment.switched", "Switched to green", INFO, BOTH
    SWITCHED_BACK = (
        *("deployment.switched_back", "Switched back to blue", INFO),
        BOTH | PERSON,
    )
    ROLLBACK_STARTED = (
        *("rollback.started", "Rollback started", ERROR),
        *(BOTH | PERSON, True),
    )
    ROLLBACK_ORDERED = "rollback.ordered", "Devices ordered back", WARNING, LOG
    ROLLBACK_EXTENDED = "rollback.extended", "Rollback extended", ERROR, LOG
    ROLLBACK_FINISHED = (
        *("rollback.finished", "Rollback of a part finished", INFO),
        BOTH,
    )
    ROLLED_BACK = "deployment.rolled_back", "Rolled back", INFO, BOTH, True
    COMPLETED = "deployment.completed", "Deployment completed", INFO, BOTH, True
    FAILED = "deployment.failed", "Deployment failed", ERROR, BOTH | PERSON, True
    CANCELLED = "deployment.cancelled", "Deployment cancelled", INFO, BOTH, True
    WATCH_ENDED = "watch.ended", "Watch after the end is over", INFO, LOG

    # Of a device in a deployment.
    ORDERED = "device.notified", "Device given its order", INFO, LOG
    INSTALLING = "device.installing", "Device installing", INFO, LOG
    REBOOTING = "device.rebooting", "Device rebooting", INFO, LOG
    CLAIMED = "device.claimed", "Device claims to be done", INFO, LOG
    UPDATED = "device.updated", "Device updated", INFO, LOG
    VERSION_LABEL_DIFFERS = (
        *("device.version_label_differs", "Device calls the image otherwise", WARNING),
        LOG,
    )
    RETRY = "device.retry", "Device tries again", WARNING, LOG
    DEVICE_FAILED = "device.failed", "Device failed", ERROR, LOG
    SKIPPED = "device.skipped", "Device skipped", INFO, LOG
    MOVED_ON = (
        *("device.moved_on", "Device updated by other means", WARNING),
        LOG,
    )
    ORDERED_BACK = "device.ordered_back", "Device ordered back", INFO, LOG
    RETURNED = "device.returned", "Device back on its former image", INFO, LOG
    RETURN_FAILED = "device.return_failed", "Return of a device failed", ERROR, LOG
    ERASED = "device.erased", "Device erased", INFO, LOG
    HEARTBEAT_REFUSED = (
        *("device.heartbeat_refused", "Heartbeats refused", WARNING),
        LOG,
    )
    QUARANTINED = "device.quarantined", "Device quarantined", ERROR, BOTH | PERSON
    FELL_BACK = "device.fell_back", "Device fell back", ERROR, BOTH | PERSON
    BREACHED = (
        *("device.breached", "Device went back after the end", ERROR),
        NOTIFY | PERSON,
    )
    DUPLICATE_IDENTITY = (
        *("device.duplicate_identity", "Two devices with one identity", ERROR),
        BOTH | PERSON,
    )

    KEY_ROTATED = "device.key_rotated", "A device was given a new key", INFO, NOTIFY
    KEY_EXPIRING = (
        *("device.key_expiring", "Device keys about to expire", WARNING),
        NOTIFY | PERSON,
    )
    CERTIFICATE_EXPIRING = (
        "device.certificate_expiring",
        *("Device certificates about to expire", WARNING, NOTIFY | PERSON),
    )
    RETIRED_KEY_USED = (
        *("device.retired_key_used", "A retired device key was used", ERROR),
        NOTIFY | PERSON,
    )
    ENROLMENT_WAITING = (
        *("enrolment.waiting", "Devices wait to be enrolled", INFO),
        NOTIFY | PERSON,
    )

    # Of the audit trail; `hotswap.common.trail.anchors`.
    AUDIT_ANCHORED = "audit.anchored", "Audit trail anchored", INFO, NOTIFY

    # Of a device by itself; `health.choices.HealthEvent`.
    OFFLINE = "device.offline", "Device offline", WARNING, BOTH
    ONLINE = "device.online", "Device online again", INFO, BOTH
    UNHEALTHY = "device.unhealthy", "Device unhealthy", WARNING, BOTH
    HEALTHY = "device.healthy", "Device healthy again", INFO, BOTH
    ANOMALY = "device.anomaly", "Anomaly on a device", WARNING, BOTH


NOTIFIED: Final = tuple(each for each in EventName if NOTIFY in each.audience)
NOTIFIED_CHOICES: Final = [(each.value, each.label) for each in NOTIFIED]
NEEDS_A_PERSON: Final = tuple(each for each in EventName if PERSON in each.audience)
