"""Deployments, their stages, the plan (targets) and the orders (updates).

Rules:
- A target is the plan: one device, its rank. An update is one order to one device.
- At most one order of a device is open; the database sees to it.
- Statuses move only along their tables; the database refuses anything else.
- Reports and events are written once and never changed; the erasure of a device
  deletes its reports and takes the words out of its events.
"""

import uuid
from datetime import timedelta
from functools import reduce
from operator import or_
from typing import ClassVar

import pgtrigger
from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.utils import timezone

from deployments.choices import (
    ACTIVE_DEPLOYMENTS,
    DEPLOYMENT_MOVES,
    TARGET_MOVES,
    AcknowledgedWarning,
    BusyDevices,
    DeliveryStatus,
    DeploymentStatus,
    Level,
    LiveFleet,
    OfflineDevices,
    OnLateBreach,
    OnWarning,
    OrderKind,
    PauseReason,
    ReportStatus,
    StageStatus,
    Strategy,
    TargetStatus,
    UpdateStatus,
)
from deployments.criteria import HealthCriteria, RollbackThresholds
from deployments.querysets import (
    DeliveryQuerySet,
    DeploymentQuerySet,
    QuarantineQuerySet,
)
from deployments.windows import MaintenanceWindow
from devices.models import Device
from firmware.models import Firmware, Manifest
from hotswap.common.changes import Tracked
from hotswap.common.keyring import seal, unseal
from hotswap.common.models import BaseModel
from hotswap.common.sealed_field import SealedField

GATEWAY_PURPOSE = "gateway-url"
WEBHOOK_PURPOSE = "webhook-secret"


def _is_no_move(moves: tuple[tuple[TargetStatus, TargetStatus], ...]) -> str:
    """Say in SQL that a status changes to one that the table does not lead to.

    As a trigger's condition it is asked without calling its function, which costs ten
    times as much: noticeable where 100,000 rows change at once.
    """
    ways: dict[TargetStatus, list[str]] = {}
    for old, new in moves:
        ways.setdefault(old, []).append(new)
    allowed = " ".join(
        f"WHEN '{old}' THEN '{{{','.join(news)}}}'::text[]"
        for old, news in ways.items()
    )
    return (
        "OLD.status <> NEW.status AND NEW.status <> ALL "
        f"(CASE OLD.status {allowed} ELSE '{{}}'::text[] END)"
    )


MAX_TAG_LENGTH = 32


class Deployment(Tracked, BaseModel):
    """A rollout of one firmware.

    `open_rank` is the only thing that opening a stage changes: every target of this
    rank or a lower one may be given its order.
    """

    audited_fields = frozenset(
        {
            "name",
            "tags",
            "archived_at",
            "firmware",
            "strategy",
            "parameters",
            "health_criteria",
            "rollback_thresholds",
            "health_threshold",
            "on_warning",
            "on_late_breach",
            "offline_devices",
            "busy_devices",
            "offline_deadline",
            "device_timeout",
            "max_attempts",
            "require_approval_per_stage",
            "maintenance_window",
            "max_devices_per_minute",
            "start_spread",
            "status",
            "pause_reasons",
            "live_fleet",
            "cancel_requested_at",
            "acknowledged",
            "scheduled_at",
        }
    )
    withheld_fields = frozenset({"selection"})

    name = models.CharField(max_length=128)
    tags = ArrayField(
        models.CharField(max_length=MAX_TAG_LENGTH),
        default=list,
        db_default=models.expressions.RawSQL("'{}'", ()),
    )
    archived_at = models.DateTimeField(
        null=True, help_text="since when lists leave it out"
    )
    firmware = models.ForeignKey(Firmware, on_delete=models.PROTECT)
    strategy = models.CharField(max_length=10, choices=Strategy.choices)
    parameters = models.JSONField(default=dict)
    selection = models.JSONField(default=dict)
    health_criteria = models.JSONField(default=dict)
    rollback_thresholds = models.JSONField(default=dict)
    health_threshold = models.FloatField(help_text="percent")
    on_warning = models.CharField(max_length=8, choices=OnWarning.choices)
    on_late_breach = models.CharField(
        max_length=10, choices=OnLateBreach.choices, default=OnLateBreach.DEPLOYMENT
    )
    offline_devices = models.CharField(max_length=8, choices=OfflineDevices.choices)
    busy_devices = models.CharField(max_length=8, choices=BusyDevices.choices)
    offline_deadline = models.DurationField()
    device_timeout = models.DurationField()
    max_attempts = models.PositiveSmallIntegerField(default=3)
    require_approval_per_stage = models.BooleanField(default=False)
    maintenance_window = models.JSONField(null=True)
    max_devices_per_minute = models.PositiveIntegerField(null=True)
    start_spread = models.DurationField(default=timedelta(0))

    status = models.CharField(max_length=12, choices=DeploymentStatus.choices)
    pause_reasons = ArrayField(
        models.CharField(max_length=10, choices=PauseReason.choices), default=list
    )
    pause_detail = models.TextField(blank=True)
    paused_at = models.DateTimeField(null=True)
    live_fleet = models.CharField(
        max_length=5, choices=LiveFleet.choices, blank=True, help_text="blue-green only"
    )
    cancel_requested_at = models.DateTimeField(null=True)
    rollback_reason = models.TextField(blank=True)
    failure_reason = models.TextField(blank=True)
    open_rank = models.PositiveIntegerField(default=0)
    target_count = models.PositiveIntegerField(default=0)
    matched_count = models.PositiveIntegerField(default=0)
    waiting_for = models.TextField(blank=True)
    next_check_at = models.DateTimeField(null=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True
    )
    copied_from = models.ForeignKey(
        "self", on_delete=models.SET_NULL, null=True, related_name="+", db_index=False
    )
    acknowledged = ArrayField(
        models.CharField(max_length=32, choices=AcknowledgedWarning.choices),
        default=list,
        help_text="warnings that whoever launched or edited it has acknowledged",
    )
    scheduled_at = models.DateTimeField(null=True)
    started_at = models.DateTimeField(null=True)
    turn = models.PositiveSmallIntegerField(
        null=True, help_text="blue-green only: the stage that orders are given in"
    )
    resumed_at = models.DateTimeField(
        null=True, help_text="from when waiting for offline devices is counted"
    )
    rollback_started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    watching_until = models.DateTimeField(
        null=True, help_text="its devices are judged after its end until then"
    )
    # Of the span of its creation, which all others of its trace are below.
    traceparent = models.CharField(max_length=55, blank=True)
    parent_span = models.CharField(
        max_length=16, blank=True, help_text="the request that created it"
    )
    creation_time = models.DurationField(null=True, help_text="what creating it took")
    traced_until = models.DateTimeField(
        null=True, help_text="its creation or end that was exported last"
    )

    objects = DeploymentQuerySet.as_manager()

    class Meta:
        indexes = [
            models.Index(
                fields=["created_at"],
                name="deployment_active",
                condition=models.Q(status__in=[str(s) for s in ACTIVE_DEPLOYMENTS]),
            ),
            models.Index(fields=["-created_at"], name="deployment_newest"),
            models.Index(
                fields=["created_at"],
                name="deployment_watched",
                condition=models.Q(watching_until__isnull=False),
            ),
            models.Index(
                fields=["updated_at"],
                name="deployment_untraced",
                condition=models.Q(traced_until__isnull=True)
                | models.Q(finished_at__gt=models.F("traced_until")),
            ),
        ]
        triggers: ClassVar[list[pgtrigger.Trigger]] = [
            pgtrigger.FSM(
                name="deployment_status_moves",
                field="status",
                transitions=[(str(a), str(b)) for a, b in DEPLOYMENT_MOVES],
            )
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def trace_id(self) -> str:
        """Of all that is done for it, 32 hexadecimal digits."""
        return self.traceparent[3:35] or self.pk.hex

    @property
    def root_span_id(self) -> str:
        """Of its creation, 16 hexadecimal digits."""
        return self.traceparent[36:52] or self.pk.hex[:16]

    @property
    def is_waiting(self) -> bool:
        """Whether its time has yet to come, paused or not: nobody is a target yet."""
        is_paused = (
            self.status == DeploymentStatus.PAUSED
            and self.started_at is None
            and self.cancel_requested_at is None
        )
        return self.status == DeploymentStatus.SCHEDULED or is_paused

    @property
    def may_be_archived(self) -> bool:
        """Whether it has ended, and watches its devices no longer."""
        return self.status not in ACTIVE_DEPLOYMENTS and self.watching_until is None

    @property
    def criteria(self) -> HealthCriteria:
        return HealthCriteria.from_json(self.health_criteria)

    @property
    def thresholds(self) -> RollbackThresholds:
        return RollbackThresholds.from_json(self.rollback_thresholds)

    @property
    def window(self) -> MaintenanceWindow | None:
        if self.maintenance_window is None:
            return None
        return MaintenanceWindow.from_json(self.maintenance_window)

    @property
    def heartbeat_interval(self) -> timedelta:
        """What a watched device is told: often enough not to be taken for silent."""
        at_most = self.thresholds.offline_after.total_seconds() / 2
        return timedelta(
            seconds=max(
                1, int(min(self.criteria.heartbeat_interval.total_seconds(), at_most))
            )
        )

    @property
    def proof_timeout(self) -> timedelta:
        """How long after its claim a device may take to prove itself."""
        criteria = self.criteria
        beats = self.heartbeat_interval * criteria.heartbeats_required
        return (
            max(criteria.confirmation_duration, beats) + self.thresholds.offline_after
        )

    @property
    def settling_timeout(self) -> timedelta:
        """How long a device that shows the image may take from its claim to health.

        Long enough for any limit that it exceeds from its first boot to run out.
        """
        return self.proof_timeout + self.thresholds.limits.longest_duration

    @property
    def late_heartbeat_interval(self) -> timedelta:
        """What a device is told that is watched after the end.

        Source: FR-FW-005, Post-deployment: every 60 seconds.
        """
        usual = max(self.heartbeat_interval, settings.HEARTBEAT_INTERVAL_AFTER)
        return min(usual, max(timedelta(seconds=1), self.criteria.watch_duration / 2))


class Stage(models.Model):
    """A slice of a deployment: the ranks up to `boundary` no earlier stage has."""

    deployment = models.ForeignKey(
        Deployment, on_delete=models.CASCADE, related_name="stages"
    )
    number = models.PositiveSmallIntegerField()
    name = models.CharField(max_length=64)
    boundary = models.PositiveIntegerField()
    size = models.PositiveIntegerField()
    wait_seconds = models.FloatField()
    status = models.CharField(
        max_length=7, choices=StageStatus.choices, default=StageStatus.PENDING
    )
    opened_at = models.DateTimeField(null=True)
    settled_at = models.DateTimeField(null=True)
    passed_at = models.DateTimeField(null=True)
    traced_at = models.DateTimeField(null=True, help_text="when it was exported")
    is_accepted = models.BooleanField(default=False)
    known_unreached = models.PositiveIntegerField(
        default=0,
        help_text="devices that the image had not reached when a person last resumed",
    )
    warning = models.TextField(blank=True)
    approved_at = models.DateTimeField(null=True)
    approved_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        related_name="+",
    )

    class Meta:
        ordering = ("number",)
        constraints = [
            models.UniqueConstraint(
                fields=["deployment", "number"], name="one_stage_a_number"
            )
        ]
        indexes = [
            models.Index(
                fields=["passed_at"],
                name="stage_untraced",
                condition=models.Q(traced_at__isnull=True, passed_at__isnull=False),
            )
        ]

    def __str__(self) -> str:
        return f"{self.number} {self.name}"


class Target(models.Model):
    """One device within a deployment."""

    # Targets are written in the transaction of their deployment, out of the rows of the
    # devices, and never move to others; erasure leaves the row of a device. So the
    # database need not look each of 100,000 rows up again. The index of the counts
    # below begins with the deployment, the unique constraint with the device.
    deployment = models.ForeignKey(
        Deployment,
        on_delete=models.CASCADE,
        related_name="targets",
        db_index=False,
        db_constraint=False,
    )
    device = models.ForeignKey(
        Device, on_delete=models.CASCADE, db_index=False, db_constraint=False
    )
    rank = models.PositiveIntegerField()
    stage_number = models.PositiveSmallIntegerField()
    status = models.CharField(
        max_length=12, choices=TargetStatus.choices, default=TargetStatus.PENDING
    )
    attempt = models.PositiveSmallIntegerField(default=0)
    rollback_attempt = models.PositiveSmallIntegerField(default=0)
    from_version = models.CharField(max_length=64, blank=True)
    from_checksum = models.CharField(max_length=64, blank=True)
    from_firmware = models.ForeignKey(
        Firmware,
        on_delete=models.PROTECT,
        null=True,
        related_name="+",
        db_index=False,
    )
    progress_percent = models.FloatField(null=True)
    error_code = models.CharField(max_length=32, blank=True)
    message = models.CharField(max_length=500, blank=True)
    next_attempt_at = models.DateTimeField(null=True)
    exposed_at = models.DateTimeField(null=True)
    settled_at = models.DateTimeField(null=True)
    returning_since = models.DateTimeField(
        null=True, help_text="when it was decided that the device goes back"
    )
    is_withdrawn = models.BooleanField(
        default=False,
        db_default=False,
        help_text="taken out by an operator: no evidence, and not tried again",
    )
    updated_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["device", "deployment"], name="one_target_a_device"
            )
        ]
        indexes = [
            models.Index(
                fields=["deployment", "stage_number", "status"], name="target_counts"
            ),
            models.Index(
                fields=["device"],
                name="target_offerable",
                condition=models.Q(status__in=["pending", "rolling_back"]),
            ),
        ]
        triggers: ClassVar[list[pgtrigger.Trigger]] = [
            pgtrigger.FSM(
                name="target_status_moves",
                condition=pgtrigger.Condition(_is_no_move(TARGET_MOVES)),
                field="status",
                transitions=[(str(a), str(b)) for a, b in TARGET_MOVES],
            )
        ]

    def __str__(self) -> str:
        return f"{self.device_id} in {self.deployment_id}"


class Update(models.Model):
    """One order to one device: install, or go back. Written when it is offered."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    number = models.PositiveIntegerField(
        unique=True,
        db_default=models.expressions.RawSQL(
            "nextval('deployments_update_number')", ()
        ),
        help_text="for device protocols that count in 32 bits",
    )
    target = models.ForeignKey(Target, on_delete=models.CASCADE, related_name="updates")
    # The index of the pace begins with the deployment, that of the newest order with
    # the device. None covers the status, so that reports change the row in place.
    deployment = models.ForeignKey(Deployment, on_delete=models.CASCADE, db_index=False)
    device = models.ForeignKey(
        Device, on_delete=models.CASCADE, related_name="updates", db_index=False
    )
    kind = models.CharField(max_length=8, choices=OrderKind.choices)
    firmware = models.ForeignKey(Firmware, on_delete=models.PROTECT)
    manifest = models.ForeignKey(Manifest, on_delete=models.PROTECT)
    attempt = models.PositiveSmallIntegerField()
    status = models.CharField(
        max_length=11, choices=UpdateStatus.choices, default=UpdateStatus.NOTIFIED
    )
    reboot_required = models.BooleanField()
    boot_id_before = models.CharField(max_length=64, blank=True)
    boot_count_before = models.PositiveIntegerField(
        null=True, help_text="boots of the device up to that one, if any was heard"
    )
    baseline = models.JSONField(default=dict)
    exempt = ArrayField(models.CharField(max_length=10), default=list)
    last_sequence = models.PositiveBigIntegerField(default=0)
    offered_at = models.DateTimeField()
    deadline = models.DateTimeField()
    installing_at = models.DateTimeField(null=True)
    rebooting_at = models.DateTimeField(null=True)
    gave_up_at = models.DateTimeField(
        null=True, help_text="when the device itself said that it failed"
    )
    claimed_at = models.DateTimeField(null=True)
    closed_at = models.DateTimeField(null=True)
    error_code = models.CharField(max_length=32, blank=True)
    message = models.CharField(max_length=500, blank=True)
    durations = models.JSONField(default=dict)
    # Of its own span; sampled or not.
    traceparent = models.CharField(max_length=64, blank=True)
    traced_at = models.DateTimeField(null=True, help_text="when it was exported")
    traced_sequence = models.BigIntegerField(
        db_default=0,
        help_text="the phases that were over by this report have been exported",
    )

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["device"],
                condition=models.Q(closed_at__isnull=True),
                name="one_open_update_a_device",
            )
        ]
        indexes = [
            models.Index(
                fields=["deployment"],
                name="update_open",
                condition=models.Q(closed_at__isnull=True),
            ),
            models.Index(fields=["device", "-offered_at"], name="update_newest"),
            models.Index(fields=["deployment", "-offered_at"], name="update_pace"),
            # Closing an order leaves the indexes of the open ones anyway, so this one
            # more costs little; how orders of a time have ended is read from it alone.
            models.Index(
                fields=["closed_at"],
                include=["kind", "status"],
                name="update_closed",
                condition=models.Q(closed_at__isnull=False),
            ),
            models.Index(
                fields=["closed_at"],
                name="update_untraced",
                condition=models.Q(traced_at__isnull=True, closed_at__isnull=False)
                & (
                    models.Q(traceparent__endswith="-01")
                    | ~models.Q(error_code="") & ~models.Q(traceparent="")
                ),
            ),
            models.Index(
                fields=["offered_at"],
                name="update_in_trace",
                condition=models.Q(closed_at__isnull=True, traceparent__endswith="-01"),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.id}"


class LaunchTemplate(Tracked, BaseModel):
    """Settings of a launch that operators keep under a name, for all of them.

    Attributes:
        body: of `POST /deployments`, without the firmware, the name and the start.
    """

    audited_fields = frozenset({"name", "body"})

    name = models.CharField(max_length=64, unique=True)
    body = models.JSONField()

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name


class Quarantine(models.Model):
    """How often one image failed on one device, and since when it is kept from it."""

    device = models.ForeignKey(
        Device, on_delete=models.CASCADE, related_name="quarantines"
    )
    firmware = models.ForeignKey(Firmware, on_delete=models.CASCADE)
    failures = models.PositiveIntegerField(default=0)
    last_code = models.CharField(max_length=32)
    updated_at = models.DateTimeField()
    quarantined_at = models.DateTimeField(null=True)

    objects = QuarantineQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["device", "firmware"], name="one_quarantine_an_image"
            )
        ]
        indexes = [
            models.Index(
                fields=["firmware", "device"],
                name="quarantine_active",
                condition=models.Q(quarantined_at__isnull=False),
            )
        ]

    def __str__(self) -> str:
        return f"{self.firmware} on {self.device}"


class Report(models.Model):
    """What a device said about an order, as it said it."""

    update = models.ForeignKey(Update, on_delete=models.CASCADE, related_name="reports")
    received_at = models.DateTimeField()
    sequence = models.PositiveBigIntegerField()
    status = models.CharField(max_length=11, choices=ReportStatus.choices)
    was_applied = models.BooleanField()
    body = models.JSONField()

    class Meta:
        indexes = [models.Index(fields=["update", "sequence"], name="report_sequence")]

    def __str__(self) -> str:
        return f"{self.sequence} {self.status}"


class Event(models.Model):
    """One line of a deployment's log."""

    deployment = models.ForeignKey(
        Deployment, on_delete=models.CASCADE, related_name="events"
    )
    at = models.DateTimeField()
    level = models.CharField(max_length=7, choices=Level.choices)
    event = models.CharField(max_length=40)
    device = models.ForeignKey(Device, on_delete=models.SET_NULL, null=True)
    stage_number = models.PositiveSmallIntegerField(null=True)
    message = models.TextField()

    class Meta:
        indexes = [models.Index(fields=["deployment", "-id"], name="event_newest")]
        triggers = [
            pgtrigger.ReadOnly(
                name="event_written_once",
                fields=["deployment", "at", "level", "event"],
            ),
            # Only the erasure of a device takes words away, and says so beforehand.
            pgtrigger.Trigger(
                name="event_words_stay",
                when=pgtrigger.Before,
                operation=pgtrigger.Update,
                condition=pgtrigger.Q(old__message__df=pgtrigger.F("new__message")),
                func="""
                    IF current_setting('hotswap.erasing', true) = 'on' THEN
                        RETURN NEW;
                    END IF;
                    RAISE EXCEPTION 'what an event says is written once';
                """,
            ),
        ]

    def __str__(self) -> str:
        return f"{self.at:%H:%M:%S} {self.event}"


class TickTrace(models.Model):
    """A tick that has changed a deployment, until its span is exported."""

    deployment = models.ForeignKey(
        Deployment, on_delete=models.CASCADE, related_name="+"
    )
    began_at = models.DateTimeField()
    ended_at = models.DateTimeField()
    events = ArrayField(models.CharField(max_length=40))

    def __str__(self) -> str:
        return f"{self.began_at:%H:%M:%S} {', '.join(self.events)}"


class LogPosition(models.Model):
    """How far the events of deployments have been written to the server's own log.

    One row. Numbers of events are given before they are committed, so that a lower one
    may appear after a higher one: up to `seen` they wait until no transaction is left
    that was under way when it was the highest.
    """

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    written = models.BigIntegerField(help_text="all events up to this one are written")
    seen = models.BigIntegerField(help_text="the highest number given by then")
    horizon = models.BigIntegerField(
        null=True, help_text="transactions below it may have written up to `seen`"
    )

    def __str__(self) -> str:
        return f"events up to {self.written}"


class Rollback(models.Model):
    """A rollback of a deployment or a part of it, with the numbers when it began.

    One that `ends_deployment` leaves nothing to do but to go back, along its `course`:
    lists of stages, one after the other, of which so many have `begun`. Any other was
    asked for by an operator, and the deployment goes on beside it.
    """

    deployment = models.ForeignKey(
        Deployment, on_delete=models.CASCADE, related_name="rollbacks"
    )
    started_at = models.DateTimeField()
    stage_number = models.PositiveSmallIntegerField(
        null=True, help_text="whose gate decided; none when a person did"
    )
    reason = models.TextField()
    facts = models.JSONField(default=dict)
    scope = models.JSONField(default=dict)
    ends_deployment = models.BooleanField(default=True)
    course = models.JSONField(default=list)
    begun = models.PositiveSmallIntegerField(default=0)
    finished_at = models.DateTimeField(null=True)
    traced_at = models.DateTimeField(null=True, help_text="when it was exported")

    class Meta:
        ordering = ("-started_at",)
        indexes = [
            models.Index(fields=["-started_at", "-id"], name="rollback_newest"),
            models.Index(
                fields=["deployment"],
                name="rollback_unfinished",
                condition=models.Q(finished_at__isnull=True),
            ),
            models.Index(
                fields=["finished_at"],
                name="rollback_untraced",
                condition=models.Q(traced_at__isnull=True, finished_at__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.started_at:%H:%M:%S} {self.reason}"


class Hold(models.Model):
    """A wait in which traffic is taken off a fleet of a blue-green deployment.

    Without `until` only an acknowledgement ends it.
    """

    deployment = models.ForeignKey(
        Deployment, on_delete=models.CASCADE, related_name="holds"
    )
    phase = models.CharField(max_length=16)
    fleet = models.CharField(max_length=5, choices=LiveFleet.choices)
    since = models.DateTimeField()
    until = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)
    acknowledged_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        related_name="+",
    )

    class Meta:
        ordering = ("pk",)
        constraints = [
            models.UniqueConstraint(
                fields=["deployment", "phase"], name="one_hold_a_phase"
            )
        ]

    def __str__(self) -> str:
        return f"{self.phase} of {self.deployment_id}"


class Receiver(Tracked, BaseModel):
    """Somebody who is told of events. No `events` means all of them."""

    audited_fields = frozenset({"description", "events", "enabled", "disabled_reason"})
    # Where it is says who it is, and may hold a secret.
    withheld_fields = frozenset({"url", "address", "sealed_url", "sealed_secret"})

    kind: ClassVar[str]
    # The field of a delivery that names it.
    delivery_field: ClassVar[str]

    description = models.CharField(max_length=200, blank=True)
    events = ArrayField(models.CharField(max_length=40), default=list)
    enabled = models.BooleanField(default=True)
    disabled_reason = models.CharField(max_length=200, blank=True)

    class Meta:
        abstract = True

    @property
    def shown_endpoint(self) -> str:
        """Where it is, without secrets."""
        raise NotImplementedError


class Webhook(Receiver):
    """An endpoint that is told by signed requests."""

    kind = "webhook"
    delivery_field = "webhook"

    url = models.CharField(max_length=2000)
    sealed_secret = SealedField(purpose=WEBHOOK_PURPOSE)
    # For an overlap requests are signed with the former secret too.
    previous_sealed_secret = SealedField(null=True, purpose=WEBHOOK_PURPOSE)
    previous_secret_until = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return self.url

    @property
    def shown_endpoint(self) -> str:
        return self.url


class MailRecipient(Receiver):
    """A mail address."""

    kind = "mail-recipient"
    delivery_field = "recipient"

    address = models.EmailField(unique=True)

    def __str__(self) -> str:
        return self.address

    @property
    def shown_endpoint(self) -> str:
        return self.address


class Gateway(Receiver):
    """A service that passes on short messages, by SMS or chat (an apprise URL)."""

    kind = "gateway"
    delivery_field = "gateway"

    # All that is ever shown of the URL: the rest of it is mostly secrets.
    scheme = models.CharField(max_length=40)
    sealed_url = SealedField(purpose=GATEWAY_PURPOSE)

    def __str__(self) -> str:
        named = f" ({self.description})" if self.description else ""
        return f"{self.shown_endpoint}{named}"

    @property
    def shown_endpoint(self) -> str:
        return f"{self.scheme}://…"

    @property
    def url(self) -> str:
        """The whole URL with its secrets, for sending alone."""
        return unseal(bytes(self.sealed_url), purpose=GATEWAY_PURPOSE).decode()

    @url.setter
    def url(self, url: str) -> None:
        self.scheme = scheme_of(url)
        self.sealed_url = seal(url.encode(), purpose=GATEWAY_PURPOSE)


def scheme_of(url: str) -> str:
    """Return what stands before `://`, in small letters."""
    return url.partition("://")[0].lower()


# Of each a delivery has a key: to exactly one of them it goes.
RECEIVERS: tuple[type[Receiver], ...] = (Webhook, MailRecipient, Gateway)
RECEIVER_FIELDS = tuple(each.delivery_field for each in RECEIVERS)


def _to_exactly_one() -> models.Q:
    """Return the condition that a delivery names one receiver."""
    return reduce(
        or_,
        (
            models.Q(**{f"{name}__isnull": name != named for name in RECEIVER_FIELDS})
            for named in RECEIVER_FIELDS
        ),
    )


class Notification(models.Model):
    """What is told of an event, as things stood at that moment."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    type = models.CharField(max_length=40)
    at = models.DateTimeField(db_index=True)
    payload = models.JSONField()

    def __str__(self) -> str:
        return f"{self.at:%H:%M:%S} {self.type}"


class Delivery(models.Model):
    """One notification on its way to one endpoint, mail address or gateway.

    `next_attempt_at` is also the lease: whoever sends puts it off first, and a sender
    that dies leaves a delivery that is due again.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    notification = models.ForeignKey(
        Notification, on_delete=models.CASCADE, related_name="deliveries"
    )
    webhook = models.ForeignKey(
        Webhook, on_delete=models.CASCADE, null=True, related_name="deliveries"
    )
    recipient = models.ForeignKey(
        MailRecipient, on_delete=models.CASCADE, null=True, related_name="deliveries"
    )
    gateway = models.ForeignKey(
        Gateway, on_delete=models.CASCADE, null=True, related_name="deliveries"
    )
    status = models.CharField(
        max_length=9, choices=DeliveryStatus.choices, default=DeliveryStatus.PENDING
    )
    attempts = models.PositiveIntegerField(default=0)
    attempts_before_resend = models.PositiveIntegerField(default=0)
    created_at = models.DateTimeField()
    next_attempt_at = models.DateTimeField(null=True)
    last_attempt_at = models.DateTimeField(null=True)
    delivered_at = models.DateTimeField(null=True)
    response_status = models.PositiveSmallIntegerField(null=True)
    error = models.CharField(max_length=300, blank=True)

    objects = DeliveryQuerySet.as_manager()

    class Meta:
        verbose_name_plural = "deliveries"
        constraints = [
            models.CheckConstraint(
                condition=_to_exactly_one(),
                name="delivery_to_one",
            )
        ]
        indexes = [
            models.Index(
                fields=["next_attempt_at"],
                name="delivery_due",
                condition=models.Q(status="pending"),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.notification} {self.status}"

    @property
    def receiver(self) -> Receiver:
        """Whom it is for."""
        receivers = (getattr(self, name) for name in RECEIVER_FIELDS)
        return next(each for each in receivers if each is not None)
